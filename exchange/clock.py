"""The one clock: CLOCK_MONOTONIC, which all processes of a host share (also across its network namespaces)."""

import time

monotonic_ns = time.monotonic_ns
on_core_ns = time.process_time_ns
"""For how long all threads of this process together have had a core."""
sleep = time.sleep
MS = 1_000_000
SECOND = 1_000_000_000


def utc_stamp() -> str:
    """The wall clock, for names and manifests only: nothing is ordered or measured by it."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime())
