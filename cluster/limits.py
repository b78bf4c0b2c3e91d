"""What this machine can bear, asked before anything starts.

Each agent is a process of three threads (its own and libzmq's two) with three connections to the venue.
"""

import os
import resource
from pathlib import Path

from exchange.errors import ConfigurationError

VENUE_DESCRIPTORS_PER_AGENT = 3
THREADS_PER_AGENT = 3
MEMORY_PER_AGENT_KB = 6_000
"""Measured: 3–4 MB (docs/measurements.md); half as much again is kept free."""
_SPARE_DESCRIPTORS = 200
_SPARE_THREADS = 1_000


def check_machine(agents: int) -> None:
    """Raises: ConfigurationError: too many agents for this machine's descriptors, threads or memory."""
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = agents * VENUE_DESCRIPTORS_PER_AGENT + _SPARE_DESCRIPTORS
    if descriptors != resource.RLIM_INFINITY and needed > descriptors:
        most = (descriptors - _SPARE_DESCRIPTORS) // VENUE_DESCRIPTORS_PER_AGENT
        raise ConfigurationError(
            f"--agents {agents}: the venue would need {needed} file descriptors and the hard limit is {descriptors} "
            f"(ulimit -Hn); raise it, or ask for at most {most}"
        )
    threads = _thread_limit()
    needed = agents * THREADS_PER_AGENT + _SPARE_THREADS
    if threads is not None and needed > threads:
        most = (threads - _SPARE_THREADS) // THREADS_PER_AGENT
        raise ConfigurationError(
            f"--agents {agents}: they would need {needed} threads and this machine allows {threads} "
            f"(kernel.pid_max, kernel.threads-max, ulimit -u or the cgroup's pids.max); ask for at most {most}"
        )
    available_kb = _available_memory_kb()
    if available_kb is not None and agents * MEMORY_PER_AGENT_KB > available_kb:
        raise ConfigurationError(
            f"--agents {agents}: they would need about {agents * MEMORY_PER_AGENT_KB // 1024} MB and "
            f"{available_kb // 1024} MB are available; ask for at most {available_kb // MEMORY_PER_AGENT_KB}"
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
