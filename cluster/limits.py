"""What this machine can bear, asked before anything starts.

Each process of agents has three threads (its own and libzmq's two) and three connections: to the venue, or to its
host's relay, which has three to the venue.
"""

import os
import resource
from pathlib import Path

from exchange.errors import ConfigurationError

VENUE_DESCRIPTORS_PER_AGENT = 3
THREADS_PER_AGENT = 3
MEMORY_PER_AGENT_KB = 6_000
"""Of a process. Measured: 3–4 MB (docs/measurements.md); half as much again is kept free."""
MEMORY_PER_PACKED_AGENT_KB = 40
"""Of an agent that shares its process (docs/packed.md), at the venue too."""
_SPARE_DESCRIPTORS = 200
_SPARE_THREADS = 1_000


def check_machine(agents: int, processes: int | None = None, relayed: bool = False) -> None:
    """Args: processes: that the agents share, None: one each; relayed: the venue has the relay's connections only.

    Raises: ConfigurationError: too many agents for this machine's descriptors, threads or memory (the scarcest).
    """
    if processes is None:
        processes = agents
    limits = []
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors != resource.RLIM_INFINITY:
        most = (descriptors - _SPARE_DESCRIPTORS) // VENUE_DESCRIPTORS_PER_AGENT
        who = "relay" if relayed else "venue"
        limits.append((most, f"the {who} may open {descriptors} file descriptors (ulimit -Hn), three a process"))
    threads = _thread_limit()
    if threads is not None:
        most = (threads - _SPARE_THREADS) // THREADS_PER_AGENT
        why = "kernel.pid_max, kernel.threads-max, ulimit -u or the cgroup's pids.max"
        limits.append((most, f"this machine allows {threads} threads ({why}), three a process"))
    available_kb = _available_memory_kb()
    if available_kb is not None:
        packed_kb = (agents - processes) * MEMORY_PER_PACKED_AGENT_KB
        most = (available_kb - packed_kb) // MEMORY_PER_AGENT_KB
        free = f"{available_kb // 1024} MB of memory are free"
        packed = f", {packed_kb // 1024} of them for agents that share processes" if packed_kb else ""
        limits.append((most, f"{free}{packed}, {MEMORY_PER_AGENT_KB // 1000} a process"))
    most, why = min(limits, default=(processes, ""))
    if processes > most:
        raise ConfigurationError(
            f"--agents {agents}: {why}; ask for at most {max(most, 0)} processes, or for more --agents-per-process"
        )


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
