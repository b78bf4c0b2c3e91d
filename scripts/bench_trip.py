"""Repeat a run with the breaker on: does anything trade after the trip, and how soon does the last agent know of it?

    python scripts/bench_trip.py --runs 10 --agents 1000 [--json]

trip_to_last_notified_ms counts from the receipt of the triggering command to the moment at which the last agent process
has read the notice, by the clock that they share. It includes the scheduler: agents outnumber the cores.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import aar_swarm
from aar_swarm.versions import versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in asked.set)
    rows = []
    scheduling = ""
    with tempfile.TemporaryDirectory(prefix="aar-bench-") as place:
        for seed in range(1, asked.runs + 1):
            run = aar_swarm.run(
                "exit-door", agents=asked.agents, seed=seed, settings=settings, out=Path(place) / str(seed)
            )
            trip = run.summary["trip"]
            scheduling = run.summary["scheduling"]
            rows.append(
                {
                    "seed": seed,
                    "trigger": trip and trip["trigger"],
                    "since_signal_ms": trip and trip["since_signal_ms"],
                    "trades_after_trip": run.summary["trades_after_trip"],
                    "trip_to_last_notified_ms": run.summary["trip_to_last_notified_ms"],
                    "drawdown_bps": run.summary["drawdown_bps"],
                    "agents_start_s": run.summary["agents_start_s"],
                    "agent_processes_lost": run.summary["agent_processes_lost"],
                }
            )
            if not asked.json:
                print(rows[-1], flush=True)
    told = [row["trip_to_last_notified_ms"] for row in rows if row["trip_to_last_notified_ms"] is not None]
    result = {
        "conditions": {
            "agents": asked.agents,
            "cores": os.cpu_count(),
            "scheduling": scheduling,
            "settings": settings,
            "versions": versions(),
        },
        "runs": len(rows),
        "tripped": sum(row["trigger"] is not None for row in rows),
        "trades_after_trip": sum(row["trades_after_trip"] or 0 for row in rows),
        "trip_to_last_notified_ms_min": min(told, default=None),
        "trip_to_last_notified_ms_median": statistics.median(told) if told else None,
        "trip_to_last_notified_ms_max": max(told, default=None),
        "each": rows,
    }
    print(json.dumps(result if asked.json else {key: value for key, value in result.items() if key != "each"}))


if __name__ == "__main__":
    main()
