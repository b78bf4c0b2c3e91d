"""What a supervisor would have seen in runs that are over: their journals, followed by a twin. For calibration.

    python scripts/supervise.py RUN … --set herd_accounts=100 --set window_ms=50

Indicators depend on the commands alone, so that this gives the alerts of the live supervisor, but for when they were
computed; times are of the commands, in ms since the signal (or the opening). One JSON object a run.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from aar_swarm.results import JOURNAL, MANIFEST, read_json
from aar_swarm.scenario_tables import Supervisor
from exchange import journal
from exchange.clock import MS
from exchange.engine import Engine, events_bound
from exchange.indicators import Indicator, follow, new_watch
from exchange.types import EVENT, CommandKind


def supervised(run: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """The alerts and the extremes of one run under its own settings with `changes`."""
    settings = read_json(run / MANIFEST)["scenario"].get("supervisor") or {}
    recorded = journal.read(run / JOURNAL)
    engine = Engine(recorded.config)
    watch = new_watch(Supervisor.model_validate({**settings, **changes}).config(), engine.state)
    events = np.zeros(events_bound(engine.state), EVENT)
    kinds, times = recorded.commands["kind"], recorded.commands["received_ns"]
    starts = np.flatnonzero(kinds == CommandKind.PUBLISH_SIGNAL)
    if not len(starts):
        starts = np.flatnonzero(kinds == CommandKind.OPEN_SESSION)
    zero_ns = int(times[starts[0]]) if len(starts) else int(times[0])
    told = []
    at = 0
    while at < len(recorded.commands):
        at, count = follow(engine.state, watch, recorded.commands, at, events)
        for alert in watch.alerts[:count]:
            told.append(
                {
                    "ms": round((int(alert["received_ns"]) - zero_ns) / MS, 3),
                    "indicator": Indicator(int(alert["indicator"])).name,
                    "observed": int(alert["observed"]),
                    "sequence": int(alert["sequence"]),
                }
            )
    seen = [each for each in Indicator if watch.rules[each]["seen"]]
    return {
        "run": str(run),
        "alerts": len(told),
        "first": told[:8],
        "least": {each.name: int(watch.rules[each]["least"]) for each in seen},
        "most": {each.name: int(watch.rules[each]["most"]) for each in seen},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of [supervisor]")
    given = parser.parse_args()
    changes = {key: json.loads(value) for key, _, value in (each.partition("=") for each in given.set)}
    for run in given.runs:
        print(json.dumps(supervised(run, changes)), flush=True)


if __name__ == "__main__":
    main()
