"""One process of a vendor: a ROUTER socket that answers whoever asks, around one Vendor. Forked as agents are.

Questions that wait together are answered together: one forward pass over all of them. It listens to the venue's public
notices only for its lease and to know when the session opens and closes, and cannot trade. Owns its scoreboard row.
"""

from typing import Any

import zmq

from aar_swarm.agents.base import CLOSED, OPENED
from aar_swarm.lease import Lease
from aar_swarm.vendors.client import pack_answer, unpack_question
from aar_swarm.vendors.config import Vendors
from aar_swarm.vendors.service import Vendor, VendorWorld
from cluster.scoreboard import AgentState
from exchange import clock, wire
from exchange.keys import ClientKeys

_BATCH = 1024
"""Most questions of one forward pass."""
_TOPICS = (wire.subscription(OPENED), wire.subscription(CLOSED), wire.subscription(wire.MessageKind.HEARTBEAT))


class VendorProcess:
    def __init__(self, spec: dict[str, Any], row: Any) -> None:
        """spec: vendors (settings), number, market, host to listen on, endpoints and keys of the venue, lease_ns."""
        self.row = row
        self.lease_ns = int(spec["lease_ns"])
        world = VendorWorld(Vendors.model_validate(spec["vendors"]))
        self.vendor = Vendor(world, spec["number"], spec["market"]["opening_ticks"])
        self.context: zmq.Context[Any] = zmq.Context()
        self.questions = self.context.socket(zmq.ROUTER)
        self.notices = self.context.socket(zmq.SUB)
        for socket in (self.questions, self.notices):
            socket.setsockopt(zmq.LINGER, 0)
        self.questions.setsockopt(zmq.BACKLOG, 4096)
        self.questions.setsockopt(zmq.MAXMSGSIZE, 64)
        port = self.questions.bind_to_random_port(f"tcp://{spec['host']}")
        if spec["keys"] is not None:
            ClientKeys(*spec["keys"]).apply(self.notices)
        for topic in _TOPICS:
            self.notices.setsockopt(zmq.SUBSCRIBE, topic)
        self.notices.connect(spec["endpoints"]["notices"])
        self.opened_ns = 0
        row["port"] = port
        row["state"] = AgentState.READY

    def run(self) -> int:
        """Serve until the session closes (0) or the venue has been silent for the lease (3)."""
        poller = zmq.Poller()
        poller.register(self.questions, zmq.POLLIN)
        poller.register(self.notices, zmq.POLLIN)
        lease = Lease(self.lease_ns, clock.monotonic_ns())
        closed = False
        while not closed:
            ready = dict(poller.poll(1000))
            now = clock.monotonic_ns()
            if self.notices in ready:
                lease.renew(now)
                closed = self._listen(now)
            if self.questions in ready:
                self._answer()
            if lease.has_run_out(now):
                self.row["lease_expired"] = 1
                return 3
        self.row["state"] = AgentState.FINISHED
        self.context.destroy(linger=0)
        return 0

    def _listen(self, now_ns: int) -> bool:
        """Whether the session is over."""
        while True:
            try:
                kind = wire.unpack(self.notices.recv(zmq.DONTWAIT))[0]
            except zmq.Again:
                return False
            if kind == OPENED and not self.opened_ns:
                self.opened_ns = now_ns
            elif kind == CLOSED:
                return True

    def _answer(self) -> None:
        waiting: list[tuple[bytes, int]] = []
        while len(waiting) < _BATCH:
            try:
                frames = self.questions.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            sent_ns = unpack_question(frames[-1]) if len(frames) == 2 else None
            if sent_ns is not None:
                waiting.append((frames[0], sent_ns))
        if not waiting:
            return
        begun_ns = clock.monotonic_ns()
        since_open_ns = begun_ns - self.opened_ns if self.opened_ns else -1
        answers = self.vendor.answers(since_open_ns, len(waiting))
        for (asker, sent_ns), answer in zip(waiting, answers, strict=True):
            self.questions.send_multipart([asker, pack_answer(sent_ns, *answer)])
        self.row["batches"] += 1
        self.row["valuations"] += len(waiting)
        self.row["valuation_ns"] += clock.monotonic_ns() - begun_ns


def main(spec: dict[str, Any], row: Any) -> int:
    return VendorProcess(spec, row).run()
