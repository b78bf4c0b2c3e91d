"""Who gets a core first where thousands want one."""

import contextlib
import os
from collections.abc import Iterator

_FIRST = -20


def go_before_agents() -> None:
    """Let every thread of this process be scheduled before ordinary ones (nice -20), where that is permitted.

    For those who keep the session's time and its processes, and compute next to nothing: behind a thousand agents
    that try again without a pause each of their messages would wait for seconds, and the session close late.
    """
    _renice(_FIRST)


@contextlib.contextmanager
def before_agents() -> Iterator[None]:
    """`go_before_agents` for a while: for a process that is somebody's own, a notebook's for example."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    _renice(_FIRST)
    try:
        yield
    finally:
        _renice(before)


def _renice(nice: int) -> None:
    """All threads that there are; later ones have it of the thread that starts them."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)
