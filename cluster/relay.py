"""A host's relay: all sessions of the host's agents over one connection to the venue, each public message once a host.

Owns the sockets between the agents of one host and the venue, and which process speaks for which account. It neither
reads nor changes a message, and keeps no state of a session: the venue does.

    agents  DEALER ══ ROUTER   relay   DEALER ══ ROUTER  venue      [account][message], both ways
            SUB    ══ XPUB ×2  relay   XSUB ×2 ══ PUB    venue      notices; market data

Towards the agents it listens on sockets of a directory that only this user can open. An account belongs to the process
that spoke for it first, until that process ends: then the relay logs its accounts off, as the venue would do if their
connection were lost. So it is with a process that has stopped reading: when more than `waiting` of its messages wait
for it, it loses its sessions (and is told so once, with a *refused* 103, as the venue does), and no other process
waits for it. Towards the venue nothing is dropped: while the venue does not read, the agents are not read either.

A process of its own, before every agent in priority where that is permitted, and gone with its host: by the kernel's
PR_SET_PDEATHSIG and at the end of file of its standard input. When it dies its agents' sessions end, and the agents by
their leases. `python -m cluster.relay PID_OF_HOST`: one JSON line in, one out when it listens; then for each line in
one out with what it has done.
"""

import contextlib
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypedDict

import zmq

from cluster.priority import go_before_agents
from cluster.zygote import die_with_parent
from exchange import clock, wire
from exchange.keys import ClientKeys
from exchange.types import Reason

WAITING_MESSAGES = 1 << 16
"""That one process may leave unread before it loses its sessions; about 16 MB."""
WAITING_MARKET_DATA = 1 << 12
"""Messages of market data that wait for one process; more are dropped, as each is soon followed by a newer one."""
_AT_ONCE = 256
"""Messages of one socket before the next one has its turn."""
_ANSWER_TIMEOUT_S = 30.0
_NAME = b"pid"
_AGAIN_MS = 20
_LOST = wire.pack(wire.MessageKind.REFUSED, 0, 0, Reason.NOT_LOGGED_ON, 0)
_LOG_OFF = wire.pack(wire.MessageKind.LOG_OFF)


class RelayGone(RuntimeError):
    """It has ended, or does not answer: its host's agents reach the venue no more."""


class RelayStatus(TypedDict):
    """What a relay has done so far. Times in ns."""

    scheduling: str
    """"SCHED_FIFO", or "normal" where that is not permitted: then it waits for a core as agents do."""
    to_venue: int
    """Messages of agents."""
    from_venue: int
    """Messages to single accounts."""
    public: int
    """Messages to all who listen, each counted once however many processes got it."""
    processes: int
    """That have spoken."""
    accounts_logged_off: int
    """Of processes that ended, after the close too, or stopped reading."""
    stopped_reading: int
    """Processes that lost their sessions for that."""
    most_waiting: int
    """Messages that were found at once, at most; of each socket some hundreds are taken before the next one's turn."""
    longest_pass_ns: int
    """From waking up until all that was found was sent: how late it made a message, at most, once it had a core."""


def name_of_process(pid: int) -> bytes:
    """Under which the process's DEALER is known to the relay, so that the relay can watch the process."""
    return _NAME + pid.to_bytes(4, "little")


class Relay:
    """The host's end: starts the process, and asks what it did."""

    def __init__(
        self, endpoints: Mapping[str, str], keys: ClientKeys | None = None, waiting: int = WAITING_MESSAGES
    ) -> None:
        """Start it against a venue's endpoints (orders, market_data, notices); returns when it listens.

        Args: keys: the host's pair, to which all accounts of the host belong at the venue. Raises: RelayGone.
        """
        # Not by the relay: a directory must go even when the relay is killed.
        self._directory = tempfile.mkdtemp(prefix="aar-relay-", dir=os.environ.get("AAR_TMP_DIR"))
        self.endpoints = {name: f"ipc://{self._directory}/{name}" for name in ("orders", "market_data", "notices")}
        """Where the agents of this host connect."""
        root = str(Path(__file__).resolve().parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.relay", str(os.getpid())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._final: RelayStatus | None = None
        try:
            self._ask({"venue": dict(endpoints), "agents": self.endpoints, "keys": keys, "waiting": waiting})
        except BaseException:
            self.close()
            raise

    def status(self) -> RelayStatus:
        """What it has done; after `close`, until then. Raises: RelayGone."""
        return self._ask({}) if self._final is None else self._final

    def close(self) -> None:
        """End the process. Idempotent."""
        if self._final is None and self._process.poll() is None:
            with contextlib.suppress(RelayGone):
                self._final = self._ask({})
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _ask(self, what: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise RelayGone("the relay of this host has ended; see the run's log") from None
        poll = select.poll()
        poll.register(self._process.stdout.fileno(), select.POLLIN)
        line = b""
        while not line.endswith(b"\n"):
            part = b""
            if poll.poll(_ANSWER_TIMEOUT_S * 1000):
                part = os.read(self._process.stdout.fileno(), 1 << 12)
            if not part:
                raise RelayGone("the relay of this host has ended or is silent; see the run's log")
            line += part
        return json.loads(line)


class _Relaying:
    def __init__(self, setup: dict[str, Any]) -> None:
        context: zmq.Context[Any] = zmq.Context()
        keys = ClientKeys(*setup["keys"]) if setup["keys"] else None
        self._agents = context.socket(zmq.ROUTER)
        self._agents.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a process that is gone or does not read is told of
        self._agents.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a process that connects anew
        self._agents.setsockopt(zmq.SNDHWM, setup["waiting"])
        self._agents.setsockopt(zmq.RCVHWM, _AT_ONCE)  # beyond it waits with the agent
        self._venue = context.socket(zmq.DEALER)
        self._venue.setsockopt(zmq.SNDHWM, WAITING_MESSAGES)
        self._venue.setsockopt(zmq.RCVHWM, 0)  # read at once, or the venue would end all sessions
        pairs = [("market_data", WAITING_MARKET_DATA), ("notices", 0)]
        self._public = [(context.socket(zmq.XSUB), context.socket(zmq.XPUB)) for _ in pairs]
        for (name, most), (above, below) in zip(pairs, self._public, strict=True):
            above.setsockopt(zmq.RCVHWM, 0)
            below.setsockopt(zmq.SNDHWM, most)  # 0: no notice is ever dropped
            below.setsockopt(zmq.BACKLOG, 4096)
            below.bind(setup["agents"][name])
            if keys is not None:
                keys.apply(above)
            above.connect(setup["venue"][name])
        for socket in (self._agents, self._venue, *(each for pair in self._public for each in pair)):
            socket.setsockopt(zmq.LINGER, 0)
        self._agents.setsockopt(zmq.BACKLOG, 4096)
        self._agents.bind(setup["agents"]["orders"])
        if keys is not None:
            keys.apply(self._venue)
        self._venue.connect(setup["venue"]["orders"])
        self._ends = select.epoll()
        self._process_of: dict[int, bytes] = {}  # pidfd → process
        self._accounts_of: dict[bytes, set[bytes]] = {}  # process → its accounts; a process that is known
        self._owner: dict[bytes, bytes] = {}  # account → process
        self._told_off: list[bytes] = []  # processes that lost their sessions and do not know it yet
        self._said = RelayStatus(
            scheduling="SCHED_FIFO" if os.sched_getscheduler(0) == os.SCHED_FIFO else "normal",
            to_venue=0,
            from_venue=0,
            public=0,
            processes=0,
            accounts_logged_off=0,
            stopped_reading=0,
            most_waiting=0,
            longest_pass_ns=0,
        )

    def serve(self) -> NoReturn:
        """Relay until the host closes its end."""
        control, ends = sys.stdin.fileno(), self._ends.fileno()
        poller = zmq.Poller()
        for watched in (self._agents, self._venue, *(each for pair in self._public for each in pair), ends, control):
            poller.register(watched, zmq.POLLIN)
        asked = b""
        venue_reads = True
        while True:
            ready = dict(poller.poll(_AGAIN_MS if self._told_off else None))
            begun_ns = clock.monotonic_ns()
            found = 0
            for above, below in self._public:
                if above in ready:
                    passed = self._pass_on(above, below)
                    self._said["public"] += passed
                    found += passed
                if below in ready:
                    self._pass_on(below, above)  # subscriptions
            if self._venue in ready:
                found += self._from_venue()
            if self._agents in ready:
                found += self._from_agents()
            if venue_reads != self._venue_reads():  # while it does not, what agents say waits with them
                venue_reads = not venue_reads
                poller.register(self._venue, zmq.POLLIN if venue_reads else zmq.POLLIN | zmq.POLLOUT)
                if venue_reads:
                    poller.register(self._agents, zmq.POLLIN)
                else:
                    poller.unregister(self._agents)
            if self._told_off:
                self._tell_off()
            if ends in ready:
                for descriptor, _ in self._ends.poll(0):
                    self._end(self._process_of[descriptor], descriptor)
            if found:
                self._said["most_waiting"] = max(self._said["most_waiting"], found)
                self._said["longest_pass_ns"] = max(self._said["longest_pass_ns"], clock.monotonic_ns() - begun_ns)
            if control in ready:
                part = os.read(control, 1 << 16)
                if not part:
                    os._exit(0)
                *lines, asked = (asked + part).split(b"\n")
                for _ in lines:
                    _say(self._said)

    def _pass_on(self, one: "zmq.Socket[Any]", other: "zmq.Socket[Any]") -> int:
        for count in range(_AT_ONCE):
            try:
                other.send(one.recv(zmq.DONTWAIT))
            except zmq.Again:
                return count
        return _AT_ONCE

    def _from_agents(self) -> int:
        owner, send = self._owner, self._venue.send_multipart
        for count in range(_AT_ONCE):
            if not self._venue_reads():
                return count
            try:
                frames = self._agents.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return count
            if len(frames) != 3 or len(frames[1]) != wire.ACCOUNT_BYTES:
                continue
            process, account, message = frames
            if owner.get(account) != process and not self._may_own(process, account):
                continue
            send((account, message), zmq.DONTWAIT)
            self._said["to_venue"] += 1
        return _AT_ONCE

    def _venue_reads(self) -> bool:
        return bool(self._venue.getsockopt(zmq.EVENTS) & zmq.POLLOUT)

    def _from_venue(self) -> int:
        for count in range(_AT_ONCE):
            try:
                frames = self._venue.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return count
            self._said["from_venue"] += 1
            # Without an account's frame it is to all: their sessions have ended.
            to = [self._owner.get(frames[0])] if len(frames) == 2 else list(self._accounts_of)
            for process in to:
                if process is not None:
                    self._send(process, frames)
        return _AT_ONCE

    def _send(self, process: bytes, frames: list[bytes]) -> None:
        try:
            self._agents.send_multipart([process, *frames], zmq.DONTWAIT)
        except zmq.Again:
            self._said["stopped_reading"] += 1
            self._log_off(process)
            self._told_off.append(process)
        except zmq.ZMQError:  # it is not connected any more
            self._log_off(process)

    def _tell_off(self) -> None:
        """Tell those who stopped reading, once they read again, that their sessions have ended."""
        told_off, self._told_off = self._told_off, []
        for process in told_off:
            try:
                self._agents.send_multipart([process, _LOST], zmq.DONTWAIT)
            except zmq.Again:
                self._told_off.append(process)
            except zmq.ZMQError:  # it is gone
                pass

    def _may_own(self, process: bytes, account: bytes) -> bool:
        """Whether this process may speak for an account from now on: nobody else does."""
        if account in self._owner:
            return False
        if process not in self._accounts_of and not self._watch(process):
            return False
        self._owner[account] = process
        self._accounts_of[process].add(account)
        return True

    def _watch(self, process: bytes) -> bool:
        """Begin to watch for the end of a process; False if it has ended, or says no name of a process."""
        if not process.startswith(_NAME) or len(process) != len(_NAME) + 4:
            return False
        try:
            descriptor = os.pidfd_open(int.from_bytes(process[len(_NAME) :], "little"))
        except OSError:
            return False
        self._ends.register(descriptor, select.EPOLLIN)
        self._process_of[descriptor] = process
        self._accounts_of[process] = set()
        self._said["processes"] += 1
        return True

    def _end(self, process: bytes, descriptor: int) -> None:
        """A process has ended."""
        self._ends.unregister(descriptor)
        os.close(descriptor)
        del self._process_of[descriptor]
        self._log_off(process)
        del self._accounts_of[process]

    def _log_off(self, process: bytes) -> None:
        """End the sessions of its accounts, which belong to nobody then."""
        accounts = self._accounts_of[process]
        for account in accounts:
            del self._owner[account]
            with contextlib.suppress(zmq.Again):  # it does not read: these sessions end with this connection
                self._venue.send_multipart((account, _LOG_OFF), zmq.DONTWAIT)
        self._said["accounts_logged_off"] += len(accounts)
        accounts.clear()


def _say(what: Mapping[str, Any]) -> None:
    os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")


def main() -> NoReturn:
    """Argument: pid of the host."""
    die_with_parent(int(sys.argv[1]))
    go_before_agents()  # before ZeroMQ's threads are made, which have it of this one
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as plain:  # reads nothing beyond the line
        setup = json.loads(plain.readline())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    relaying = _Relaying(setup)
    _say({})
    relaying.serve()


if __name__ == "__main__":
    main()
