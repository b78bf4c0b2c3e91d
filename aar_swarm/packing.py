"""Which agents share a process: those of one group that are numbered in a row, on one host, at most so many.

Groups are not mixed: a market maker does not wait in one loop with a thousand holders.
"""

from collections.abc import Sequence

MAX_AGENTS_PER_PROCESS = 2000
"""Their specs travel to the zygote in one frame, and one loop hands each public message to all of them."""


def packs(groups: Sequence[str], agents: range, most: int) -> list[range]:
    """The agents of each process, in order. groups: of every agent of the run; agents: those of one host."""
    found: list[range] = []
    first = agents.start
    for agent in agents:
        if agent - first == most or groups[agent] != groups[first]:
            found.append(range(first, agent))
            first = agent
    if first < agents.stop:
        found.append(range(first, agents.stop))
    return found
