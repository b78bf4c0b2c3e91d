"""A host's links: for each, one proxy process on this host's loopback that stands between its agents and the venue.

Owns what a link is, the proxies' lives, and the check of what they do against what they should: pings of the real path
(DEPTH_REQUEST, which needs no session and changes nothing) through each proxy and beside it. How bytes are delayed is
link_proxy.py. Must not know who uses which link.
"""

import math
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from cluster import frames
from exchange.client import Endpoints, Participant
from exchange.clock import MS, SECOND, monotonic_ns
from exchange.keys import ClientKeys
from exchange.types import NOBODY

DIRECT = ""
"""The name of no link: straight to the venue."""
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
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": root},
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
        """Round trips to the venue in ns, one after the other, by link and DIRECT; fewer where answers did not come."""
        found = {}
        for name, pinger in self._pingers.items():
            nominal_ns = self.links[name].nominal_rtt_ns if name else 0
            many = min(PINGS_MOST, max(PINGS_LEAST, math.floor(CHECK_S * SECOND / max(nominal_ns, 1))))
            timeout_ns = int(_PING_TIMEOUT_S * SECOND) + 8 * nominal_ns  # the first one shakes hands
            _round_trip_ns(pinger, timeout_ns)
            trips = [_round_trip_ns(pinger, timeout_ns) for _ in range(many)]
            found[name] = [trip for trip in trips if trip is not None]
        return found

    def close(self) -> None:
        """End the proxies. Idempotent."""
        for pinger in self._pingers.values():
            pinger.close()
        self._pingers.clear()
        self._context.destroy(linger=0)
        for proxy in self._proxies.values():
            proxy.close()


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
