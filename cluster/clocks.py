"""How far each host's CLOCK_MONOTONIC is from the venue's: four stamps a ping, the smallest round trips kept.

Owns the measurement and what follows from it for one host. Must not correct anybody's times; that is the analysis's.

A ping's offset is ((t2 − t1) + (t3 − t4)) / 2 with t1, t4 of the host and t2, t3 of the venue's node, as in NTP (RFC
5905, section 8). It is wrong by at most half of the round trip (t4 − t1) − (t3 − t2), and by just that if one way takes
the whole of it: asymmetry cannot be seen. So of many pings those with the smallest round trips count. Plain TCP, so
that no thread of a messaging library adds to the way. The responder tells nothing but its clock, to who knows its
token, on the address on which the venue serves, and only while it is asked.
"""

import secrets
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from exchange import clock

PINGS = 256
"""At least 128; a ping takes tens of microseconds on one network."""
TIMEOUT_S = 5.0
_TOKEN_BYTES = 16
_STAMPS = struct.Struct("<qq")

Clock = Callable[[], int]


class Reading(NamedTuple):
    """One measurement. offset_ns: the venue's clock less the host's."""

    offset_ns: int
    smallest_rtt_ns: int
    pings: int


class HostClock(TypedDict):
    """What is known of a host's clock after a session; None where it could not be measured."""

    offset_ns: int
    """To add to the host's times to have the venue's: 0 on one kernel, else the mean of before and after."""
    bound_ns: int | None
    """offset_ns is wrong by no more, if the clocks drifted evenly: half of the smallest round trip, and the drift."""
    smallest_rtt_ns: int | None
    pings: int
    drift_ns: int | None
    """What the offset changed by from before the session to after it."""
    measured_offset_ns: int | None
    """As measured; on one kernel a check of the method, whose error it is."""


class Responder:
    """Answers pings with this process's clock, until it is closed; in a thread of its own."""

    def __init__(self, host: str, read_clock: Clock = clock.monotonic_ns) -> None:
        """host: the address to serve on, any free port. Raises: OSError."""
        self.token = secrets.token_bytes(_TOKEN_BYTES)
        self._clock = read_clock
        self._listener = socket.create_server((host, 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._thread = threading.Thread(target=self._serve, name="clock-responder", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return  # closed
            with peer:
                peer.settimeout(TIMEOUT_S)
                try:
                    self._answer(peer)
                except OSError:
                    pass  # gone or silent: the next

    def _answer(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not secrets.compare_digest(_exactly(peer, _TOKEN_BYTES), self.token):
            return
        peer.sendall(b"\0")
        while peer.recv(1):
            received_ns = self._clock()
            peer.sendall(_STAMPS.pack(received_ns, self._clock()))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which close alone would not
        self._listener.close()
        self._thread.join(2 * TIMEOUT_S)


def measure(
    address: tuple[str, int], token: bytes, pings: int = PINGS, read_clock: Clock = clock.monotonic_ns
) -> Reading:
    """Ask a Responder; run it on the host whose clock it is about. Raises: OSError: it does not answer."""
    stamps = np.empty((pings, 4), np.int64)
    with socket.create_connection(address, timeout=TIMEOUT_S) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(token)
        if not peer.recv(1):
            raise ConnectionError("the venue's clock did not take the token")
        for number in range(pings):
            sent_ns = read_clock()
            peer.sendall(b"\0")
            answer = _exactly(peer, _STAMPS.size)
            heard_ns = read_clock()
            stamps[number] = (sent_ns, *_STAMPS.unpack(answer), heard_ns)
    return reading(stamps)


def reading(stamps: np.ndarray) -> Reading:
    """From int64[n, 4]: t1 … t4 of each ping. n ≥ 1."""
    sent, received, answered, heard = stamps.T
    round_trips = (heard - sent) - (answered - received)
    doubled = (received - sent) + (answered - heard)
    best = int(np.argmin(round_trips))  # its own offset: half of its round trip bounds no other ping's
    return Reading(round(float(doubled[best]) / 2), int(round_trips[best]), len(stamps))


def boot_id() -> str:
    """Equal on two nodes: one kernel. (A time namespace would still part their clocks.)"""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def host_clock(before: Reading | None, after: Reading | None, same_kernel: bool) -> HostClock:
    """What two measurements say of a host, before the session and after it; None: it did not answer.

    On one kernel the clock is one. An offset beyond half of the round trip is then impossible, unless a time namespace
    shifts the host's clock: the measurement is believed.
    """
    taken = [each for each in (before, after) if each is not None]
    if not taken:
        bound = 0 if same_kernel else None
        return HostClock(
            offset_ns=0, bound_ns=bound, smallest_rtt_ns=None, pings=0, drift_ns=None, measured_offset_ns=None
        )
    smallest = min(each.smallest_rtt_ns for each in taken)
    widest = max(each.smallest_rtt_ns for each in taken)  # the mean of two offsets is no better than the worse
    offset_ns = round(sum(each.offset_ns for each in taken) / len(taken))
    drift_ns = after.offset_ns - before.offset_ns if before is not None and after is not None else None
    is_one = same_kernel and all(abs(each.offset_ns) <= each.smallest_rtt_ns / 2 + 1 for each in taken)
    bound_ns = 0 if is_one else None if drift_ns is None else -(-widest // 2) + abs(drift_ns)
    return HostClock(
        offset_ns=0 if is_one else offset_ns,
        bound_ns=bound_ns,
        smallest_rtt_ns=smallest,
        pings=sum(each.pings for each in taken),
        drift_ns=drift_ns,
        measured_offset_ns=offset_ns,
    )


def largest_bound_ns(clocks: list[HostClock]) -> int | None:
    """Of all hosts; None if one is unknown."""
    bounds = [each["bound_ns"] for each in clocks]
    return None if None in bounds else max((bound for bound in bounds if bound is not None), default=0)


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = peer.recv(count - len(data))
        if not part:
            raise ConnectionError("the other end closed the connection")
        data += part
    return data
