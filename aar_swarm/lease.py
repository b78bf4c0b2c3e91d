"""How long a process goes on without a word of the venue: its node may be cut off, and nobody else would end it."""

_LOOKS = 3
"""In vain, that it needs as well as the time: a process that had no core for as long as the lease has heard nothing
either, and must first be able to read what came meanwhile."""


class Lease:
    """Ask `has_run_out` once each time that was looked for messages; tell `renew` of each that came."""

    def __init__(self, lease_ns: int, now_ns: int) -> None:
        self._lease_ns = lease_ns
        self._looks = 0
        self.renew(now_ns)

    def renew(self, now_ns: int) -> None:
        self._heard_ns = now_ns
        self._looks = 0

    def has_run_out(self, now_ns: int) -> bool:
        self._looks += 1
        return now_ns - self._heard_ns > self._lease_ns and self._looks > _LOOKS
