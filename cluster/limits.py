"""What this machine can bear, asked before anything starts.

Each process of agents has three threads (its own and libzmq's two) and three connections: to the venue, or to its
host's relay, which has three to the venue.
"""

import os
import resource
from pathlib import Path
from typing import NamedTuple

from exchange.errors import ConfigurationError

VENUE_DESCRIPTORS_PER_AGENT = 3
THREADS_PER_AGENT = 3
MEMORY_PER_AGENT_KB = 6_000
"""Of a process. Measured: 3–4 MB (docs/measurements.md); half as much again is kept free."""
MEMORY_PER_PACKED_AGENT_KB = 40
"""Of an agent that shares its process (docs/packed.md), at the venue too."""
_SPARE_DESCRIPTORS = 200
_SPARE_THREADS = 1_000


class Bearable(NamedTuple):
    """How many agents (in a process each) something allows, and what it is."""

    agents: int
    why: str


def bearable_as_venue() -> list[Bearable]:
    """What bounds the agents of a venue on this machine, wherever they run."""
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return []
    most = (descriptors - _SPARE_DESCRIPTORS) // VENUE_DESCRIPTORS_PER_AGENT
    return [Bearable(most, f"the venue may open {descriptors} file descriptors (ulimit -Hn), three an agent")]


def bearable_as_host(packed: int = 0) -> list[Bearable]:
    """What bounds the agents' processes on this machine, as it is now. packed: agents beside the first of a process."""
    found = []
    threads = _thread_limit()
    if threads is not None:
        most = (threads - _SPARE_THREADS) // THREADS_PER_AGENT
        why = "kernel.pid_max, kernel.threads-max, ulimit -u or the cgroup's pids.max"
        found.append(Bearable(most, f"this machine allows {threads} threads ({why}), three a process"))
    available_kb = _available_memory_kb()
    if available_kb is not None:
        most = max(available_kb - packed * MEMORY_PER_PACKED_AGENT_KB, 0) // MEMORY_PER_AGENT_KB
        of_them = f" ({packed * MEMORY_PER_PACKED_AGENT_KB // 1024} of them for agents that share processes)"
        free = f"{available_kb // 1024} MB of memory are free{of_them if packed else ''}"
        found.append(Bearable(most, f"{free}, {MEMORY_PER_AGENT_KB // 1000} a process"))
    return found


def in_processes_of(packed: int, processes: int) -> int:
    """How many agents, so many to a process, fit where so many processes of one agent would."""
    fewer = processes * MEMORY_PER_AGENT_KB // (MEMORY_PER_AGENT_KB + (packed - 1) * MEMORY_PER_PACKED_AGENT_KB)
    return fewer * packed


def check_machine(agents: int, processes: int | None = None) -> None:
    """processes: that the agents share, behind a relay; None: one each, and no relay.

    Raises: ConfigurationError: too many agents for this machine's descriptors, threads or memory (the scarcest).
    """
    own = agents if processes is None else processes
    limits = [*(bearable_as_venue() if processes is None else []), *bearable_as_host(agents - own)]
    most, why = min(limits, default=Bearable(own, ""))
    if own > most:
        more = "" if processes is None else " processes, or for more --agents-per-process"
        raise ConfigurationError(f"--agents {agents}: {why}; ask for at most {max(most, 0)}{more}")


def _thread_limit() -> int | None:
    limits = [
        _number("/proc/sys/kernel/pid_max"),
        _number("/proc/sys/kernel/threads-max"),
        _number("/sys/fs/cgroup/pids.max"),
    ]
    if os.geteuid() != 0:  # root is not bound by ulimit -u
        limits.append(_finite(resource.getrlimit(resource.RLIMIT_NPROC)[1]))
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _available_memory_kb() -> int | None:
    kilobytes = []
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            kilobytes.append(int(line.split()[1]))
    limit, used = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    if limit is not None and used is not None:
        kilobytes.append((limit - used) // 1024)
    return min(kilobytes) if kilobytes else None


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None


def _finite(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit


def busy_core_s() -> float | None:
    """How long the cores that this process may use have been busy, whatever with, summed, since the machine started.

    Of /proc/stat: user, nice, system, irq and softirq. None where the kernel does not say.
    """
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    try:
        rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    except OSError:
        return None
    ticks = [int(row[at]) for row in rows if row and row[0] in cores for at in (1, 2, 3, 6, 7)]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None
