"""Who gets a core first where thousands want one."""

import contextlib
import os
from collections.abc import Iterator

LOWEST = os.sched_param(1)
"""Of the real-time priorities: before all that is ordinary, after the venue, the supervisor and the kill switch."""


def go_before_agents() -> None:
    """Give every thread of this process the lowest real-time priority, where that is permitted.

    For those who keep the session's time and its processes, and compute next to nothing: behind a thousand agents that
    try again without a pause each of their messages would wait for seconds, and the session close late. A nice value
    would not do: it counts within a session of processes only (autogroups), and the venue takes whole cores. All
    threads, as one that is left behind may hold the interpreter's lock.
    """
    _schedule(os.SCHED_FIFO, LOWEST)


@contextlib.contextmanager
def before_agents() -> Iterator[None]:
    """`go_before_agents` for a while: for a process that is somebody's own, a notebook's for example."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    go_before_agents()
    try:
        yield
    finally:
        _schedule(*before)


def _schedule(policy: int, parameter: os.sched_param) -> None:
    """All threads that there are; later ones have it of the thread that starts them."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.sched_setscheduler(int(thread), policy, parameter)
