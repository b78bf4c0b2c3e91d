"""A host's links: for each, one proxy process on this host's loopback that stands between its agents and the venue.

Owns what a link is, the proxies' lives, and the check of what they do against what they should: pings of the real path
(DEPTH_REQUEST, which needs no session and changes nothing) through each proxy and beside it. How bytes are delayed is
link_proxy.py. Must not know who uses which link.

During the session one thread of the host pings on, so that there is a round trip of the crash and not of the calm only.
"""

import math
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from cluster import frames
from exchange import wire
from exchange.client import Endpoints, Participant
from exchange.clock import MS, SECOND, monotonic_ns
from exchange.keys import ClientKeys
from exchange.types import NOBODY

DIRECT = ""
"""The name of no link: straight to the venue."""
DIRECTLY = "direct"
"""What those without a link are called where something is told of them."""
PINGS_MOST, PINGS_LEAST = 100, 5
"""Of a check, as many as fit into CHECK_S."""
CHECK_S = 0.5
TOLERANCE_NS, TOLERANCE_SHARE = MS // 2, 0.1
"""How far the median may be off nominal: the larger of the two."""
MEDIAN_OF_TWO_JITTERS = 1.4876
"""Median of the sum of two half-normal variables of sigma 1, P(sum < t) = erf(t/2)²."""
_ANSWER_TIMEOUT_S = 30.0
_PING_TIMEOUT_S = 5.0
_INSTRUMENT = 0
WATCH_MS = 20
"""Between two pings of one link during the session."""
_WATCHED_MOST = 1 << 18  # pings kept of each link: more than an hour
_LAST_ANSWERS_NS = 2 * SECOND
_WATCH_LOST_NS = 30 * SECOND  # a ping is given up: its venue has started anew


class LinkFailed(RuntimeError):
    """A proxy did not start, has ended, or does not answer; nothing passes it."""


class Link(NamedTuple):
    """One-way delays to and from the venue, in ns."""

    up_ns: int
    down_ns: int
    jitter_ns: int = 0
    """Sigma of the half-normal extra of each direction."""
    rate_mbit: float = 0.0
    """Of all connections of one host and direction together; 0: unlimited."""

    @property
    def nominal_rtt_ns(self) -> int:
        """The median round trip of something small on an idle link."""
        return self.up_ns + self.down_ns + round(MEDIAN_OF_TWO_JITTERS * self.jitter_ns)


class LinkProxy:
    """The host's end of one proxy process. Start it from the main thread: it dies with its thread."""

    def __init__(self, name: str, link: Link, targets: Mapping[str, str], seed: Sequence[int]) -> None:
        """Args: targets: name → "tcp://address:port" to forward to; seed: of the jitter. Raises: LinkFailed."""
        root = str(Path(__file__).resolve().parent.parent)
        self._name = name
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_ANSWER_TIMEOUT_S)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cluster.link_proxy", str(theirs.fileno()), str(os.getpid())],
                env={
                    **os.environ,
                    "OPENBLAS_NUM_THREADS": "1",
                    "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
                },
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        parted = {target: endpoint.removeprefix("tcp://").rpartition(":") for target, endpoint in targets.items()}
        try:
            answer = self._ask(
                {
                    "name": name,
                    **link._asdict(),
                    "seed": list(seed),
                    "targets": {target: [address, int(port)] for target, (address, _, port) in parted.items()},
                }
            )
            if answer["error"]:
                raise LinkFailed(f"the proxy of link {name!r} did not start:\n{answer['error']}")
        except BaseException:
            self.close()
            raise
        self.scheduling: str = answer["scheduling"]
        """"SCHED_FIFO", or "normal" where that is not permitted: then busy agents delay it."""
        self.endpoints = {target: f"tcp://127.0.0.1:{port}" for target, port in answer["ports"].items()}

    def counters(self) -> dict[str, int | None]:
        """What it has carried and how late, so far; see `link_proxy`. Raises: LinkFailed."""
        return self._ask({})

    def close(self) -> None:
        """End the process. Idempotent."""
        self._control.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, what: Mapping[str, Any]) -> dict[str, Any]:
        try:
            frames.send(self._control, what)
            answer: dict[str, Any] = frames.receive(self._control)
        except (EOFError, OSError) as error:
            raise LinkFailed(f"the proxy of link {self._name!r} has ended or is silent: {error}") from None
        return answer


class Links:
    """All links of one host, and a connection through each (and one past them) to ping the venue by."""

    def __init__(
        self,
        links: Mapping[str, Link],
        endpoints: Mapping[str, str],
        seed: Sequence[int],
        keys: ClientKeys | None = None,
    ) -> None:
        """Args: endpoints: of the venue, as Endpoints has them; keys: of whoever may listen. Raises: LinkFailed."""
        self.links = dict(links)
        self._proxies: dict[str, LinkProxy] = {}
        self._context: zmq.Context[Any] = zmq.Context()
        self._pingers: dict[str, Participant] = {}
        self._watcher: _Watcher | None = None
        try:
            for number, (name, link) in enumerate(self.links.items()):
                self._proxies[name] = LinkProxy(name, link, endpoints, [*seed, number])
            for name in (DIRECT, *self.links):
                through = Endpoints(**(self._proxies[name].endpoints if name else endpoints))
                self._pingers[name] = Participant(self._context, through, NOBODY, [], keys)
        except BaseException:
            self.close()
            raise

    @property
    def endpoints(self) -> dict[str, dict[str, str]]:
        """Of each link: where an agent of this host connects to."""
        return {name: proxy.endpoints for name, proxy in self._proxies.items()}

    def counters(self) -> dict[str, dict[str, Any] | None]:
        """Of each link: its scheduling class and `LinkProxy.counters`; None: the proxy has ended."""
        found: dict[str, dict[str, Any] | None] = {}
        for name, proxy in self._proxies.items():
            try:
                found[name] = {"scheduling": proxy.scheduling, **proxy.counters()}
            except LinkFailed:
                found[name] = None
        return found

    def ping(self) -> dict[str, list[int]]:
        """Round trips to the venue in ns, one after the other, by link and DIRECT; fewer where an answer did not
        come in time: whose answer the next one is would not be known."""
        found: dict[str, list[int]] = {}
        for name, pinger in self._pingers.items():
            nominal_ns = self.links[name].nominal_rtt_ns if name else 0
            many = min(PINGS_MOST, max(PINGS_LEAST, math.floor(CHECK_S * SECOND / max(nominal_ns, 1))))
            timeout_ns = int(_PING_TIMEOUT_S * SECOND) + 8 * nominal_ns  # the first one shakes hands
            _round_trip_ns(pinger, timeout_ns)
            trips = found[name] = []
            while len(trips) < many and (trip := _round_trip_ns(pinger, timeout_ns)) is not None:
                trips.append(trip)
        return found

    def watch(self) -> None:
        """Ping on every WATCH_MS until `watched`, in a thread that does nothing else. No other ping meanwhile."""
        if self._watcher is None:
            self._watcher = _Watcher(self.links, self._pingers)
            self._watcher.start()

    def watched(self) -> dict[str, list[tuple[int, int]]]:
        """Stop; of each link and DIRECT, of each answer: the venue's clock when it was given, and the round trip."""
        if self._watcher is None:
            return {}
        watcher, self._watcher = self._watcher, None
        watcher.stop()
        return {name: list(seen) for name, seen in watcher.seen.items()}

    def close(self) -> None:
        """End the proxies. Idempotent."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        for pinger in self._pingers.values():
            pinger.close()
        self._pingers.clear()
        self._context.destroy(linger=0)
        for proxy in self._proxies.values():
            proxy.close()


class _Watcher(threading.Thread):
    """One ping of each link is under way at a time."""

    def __init__(self, links: Mapping[str, Link], pingers: Mapping[str, Participant]) -> None:
        super().__init__(name="link-watcher", daemon=True)
        self.seen: dict[str, deque[tuple[int, int]]] = {name: deque(maxlen=_WATCHED_MOST) for name in pingers}
        self._pingers = pingers
        self._lost_ns = {name: _WATCH_LOST_NS + (links[name].nominal_rtt_ns if name else 0) for name in pingers}
        self._sent_ns: dict[str, int] = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        poller = zmq.Poller()
        names = {pinger.orders: name for name, pinger in self._pingers.items()}
        for socket_of in names:
            poller.register(socket_of, zmq.POLLIN)
        next_ns = monotonic_ns()
        end_ns = None
        while True:
            now_ns = monotonic_ns()
            if self._stopped.is_set():
                end_ns = end_ns or now_ns + _LAST_ANSWERS_NS + max(self._lost_ns.values()) - _WATCH_LOST_NS
                if not self._sent_ns or now_ns > end_ns:  # with every answer heard, the next one is the next ping's
                    return
            elif now_ns >= next_ns:
                next_ns = now_ns + WATCH_MS * MS
                for name, pinger in self._pingers.items():
                    if name not in self._sent_ns or now_ns - self._sent_ns[name] > self._lost_ns[name]:
                        self._sent_ns[name] = monotonic_ns()
                        pinger.request_depth(_INSTRUMENT)
            ready = poller.poll(max(1, min(WATCH_MS, (next_ns - monotonic_ns()) // MS)))
            heard_ns = monotonic_ns()
            for socket_of, _ in ready:
                name = names[socket_of]
                for answer in self._pingers[name].messages():
                    if isinstance(answer, wire.Depth) and name in self._sent_ns:
                        self.seen[name].append((answer.time_ns, heard_ns - self._sent_ns.pop(name)))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _round_trip_ns(pinger: Participant, timeout_ns: int) -> int | None:
    """None: no answer in time."""
    for _ in pinger.messages():
        pass  # of an earlier ping, too late
    sent_ns = monotonic_ns()
    pinger.request_depth(_INSTRUMENT)
    while (left_ns := sent_ns + timeout_ns - monotonic_ns()) > 0:
        if pinger.wait(max(1, left_ns // MS)):
            heard_ns = monotonic_ns()
            if any(True for _ in pinger.messages()):
                return heard_ns - sent_ns
    return None
