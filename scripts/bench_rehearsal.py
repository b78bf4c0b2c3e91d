"""What the first decision of a forked agent costs, and the second: why the crowd rehearses.

    python scripts/bench_rehearsal.py [--agents 50] [--json]

Each of so many forked processes makes a holder and lets it decide twice, from scratch; times are medians.
"""

import argparse
import gc
import json
import os
import statistics
import time

from aar_swarm.agents.base import SIGNAL, Endowment, Market
from aar_swarm.agents.holder import Holder, HolderParams
from aar_swarm.names import agent_stream
from exchange.wire import MessageKind, Notice, TopOfBook

TOP = TopOfBook(int(MessageKind.SLOW_TOP_OF_BOOK), 0, 1, 4, 0, 1, 9996, 100, 10004, 100, 10000, 0, 3000, 3000)
NEWS = Notice(SIGNAL, 5, 0, 0, 0, -50, 0, 0, 0, 0, 0, 0)


def decide(agent: int) -> float:
    """Microseconds from the news to the orders."""
    holder = Holder(Market(0, 10_000, 16_384), Endowment(1, 60), HolderParams(), agent_stream(1, agent))
    holder.handle(TOP, 0)
    begun = time.perf_counter_ns()
    holder.handle(NEWS, 0)
    return (time.perf_counter_ns() - begun) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    gc.collect()
    gc.freeze()
    gc.disable()
    times = []
    for agent in range(asked.agents):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, json.dumps([decide(agent), decide(agent)]).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        times.append(json.loads(os.read(read, 1000)))
        os.close(read)
        os.close(write)
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    result = {
        "agents": asked.agents,
        "first_us": round(first),
        "second_us": round(second),
        "ratio": round(first / second, 1),
    }
    print(json.dumps(result) if asked.json else result)


if __name__ == "__main__":
    main()
