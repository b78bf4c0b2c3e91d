"""How long a process had a core, and how long it waited for one, as the kernel counts it for each thread.

/proc/self/task/TID/schedstat: ns on a core, ns runnable and waiting on a run queue, number of turns (Linux,
Documentation/scheduler/sched-stats.rst). A held descriptor is read again in 1.5 µs (measured; opening it each time
takes 14), so a process may ask in the middle of what it measures. Its first figure lags behind by up to a tick of the
kernel's while a thread runs, so time on a core is the process's clock. Must not interpret.
"""

import os
import resource
from typing import NamedTuple

from exchange import clock

_BYTES = 96


class Waited(NamedTuple):
    """Since a process began, of all its threads."""

    on_core_ns: int
    waited_ns: int
    others_waited_ns: int
    """The part of waited_ns that is not the main thread's: in an agent, of libzmq's, which carry its messages."""
    preempted: int
    """Involuntary switches: a core was taken from one of its threads."""


class CoreWait:
    """Of this process, for as long as it lives. Make it when its threads exist; after a fork one must make it anew."""

    def __init__(self) -> None:
        main = os.getpid()
        others = (int(task) for task in os.listdir("/proc/self/task") if int(task) != main)
        opened = [_open(thread) for thread in (main, *others)]
        self._threads = [descriptor for descriptor in opened if descriptor is not None]
        self.is_known = opened[0] is not None
        """Whether this kernel counts it."""

    def read(self) -> Waited | None:
        """Now; None where the kernel does not count it."""
        if not self.is_known:
            return None
        waits = [int(os.pread(thread, _BYTES, 0).split()[1]) for thread in self._threads]
        preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        return Waited(clock.on_core_ns(), sum(waits), sum(waits[1:]), preempted)


def _open(thread: int) -> int | None:
    try:
        return os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # the kernel does not count, or the thread has ended
        return None
