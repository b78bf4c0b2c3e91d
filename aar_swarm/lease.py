"""How long a process goes on without a word of the venue: its node may be cut off, and nobody else would end it."""

from collections.abc import Callable

_LOOKS = 3
"""In vain, that it needs as well as the time: a process that had no core for as long as the lease has heard nothing
either, and must first be able to read what came meanwhile."""
_READS = 16
"""In a lease's time, at most, of the wait for a core: it costs some microseconds."""


class Lease:
    """Ask `has_run_out` once each time that was looked for messages; tell `renew` of each that came."""

    def __init__(self, lease_ns: int, now_ns: int, waited_ns: Callable[[], int] = lambda: 0) -> None:
        """waited_ns: how long the process has waited for a core so far, which is no silence of the venue's."""
        self._lease_ns = lease_ns
        self._looks = 0
        self._waited_ns = waited_ns
        self._waited_before_ns = waited_ns()
        self._read_ns = now_ns
        self.renew(now_ns)

    def renew(self, now_ns: int) -> None:
        self._heard_ns = now_ns
        self._looks = 0

    def has_run_out(self, now_ns: int) -> bool:
        self._looks += 1
        if self._looks == 1 and now_ns - self._read_ns > self._lease_ns // _READS:
            self._read_ns = now_ns
            self._waited_before_ns = self._waited_ns()
        if now_ns - self._heard_ns <= self._lease_ns or self._looks <= _LOOKS:
            return False
        return now_ns - self._heard_ns - (self._waited_ns() - self._waited_before_ns) > self._lease_ns
