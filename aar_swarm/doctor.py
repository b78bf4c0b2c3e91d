"""`aar doctor`: what this machine can bear, and what would spoil a measurement."""

import os
import resource
from collections.abc import Iterator

from aar_swarm.versions import versions
from cluster.limits import check_machine
from exchange.errors import ConfigurationError
from exchange.server import ask_for_realtime


def examine() -> Iterator[str]:
    yield ", ".join(f"{name} {version}" for name, version in versions().items())
    yield f"cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.2f} (a busy machine spoils timings)"
    yield f"file descriptors: {resource.getrlimit(resource.RLIMIT_NOFILE)[1]} (hard limit; 3 an agent at the venue)"
    for agents in (1_000, 2_000, 5_000, 10_000, 20_000):
        try:
            check_machine(agents)
        except ConfigurationError as error:
            yield f"{agents} agents: no: {error}"
            break
        yield f"{agents} agents: yes"
    pid = os.fork()  # the class is asked for in a child, so that this process keeps its own
    if pid == 0:
        os._exit(0 if ask_for_realtime(True).startswith("SCHED_FIFO") else 1)
    permitted = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    yield f"real-time priority for the venue: {'permitted' if permitted else 'not permitted; see ARCHITECTURE.md'}"
