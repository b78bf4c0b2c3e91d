"""The measures of a crisis: what summary.json says. Each definition stands at the function that computes it.

The measures' modules: price, exit, losses, money, timing; docs/measures.md lists every key. Money in currency (minor
units × tick_size). A quantity that does not apply is None, never 0.
"""

import json
import sys
from typing import Any

import numpy as np
import polars as pl

from aar_swarm.analysis.admission import admission
from aar_swarm.analysis.exit import early_price, exit_costs, stampede
from aar_swarm.analysis.ledger import NotConserved, check_conservation
from aar_swarm.analysis.load import load
from aar_swarm.analysis.losses import loss_table, loss_totals
from aar_swarm.analysis.money import bad_debt, liquidations, stablecoin
from aar_swarm.analysis.price import depth_fall, price_fall, window_extremes
from aar_swarm.analysis.session import CROWD, RECORDING, Session
from aar_swarm.analysis.timing import latencies, trip
from aar_swarm.names import function_named
from exchange.state import Array
from exchange.types import EventKind

__all__ = ["CROWD", "RECORDING", "NotConserved", "Session", "check_conservation", "measure", "own_measures"]


def measure(
    session: Session, rows: Array, latency: pl.DataFrame, timings: Array
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The measures of one session, and who lost what. rows: the agents' scoreboard, one row an account.

    commands, events: of the journal and of its replay. trades: fills, of all instruments. rejects: orders, cancels and
    requests. halted: whether a breaker tripped.
    """
    kinds = session.events["kind"]
    refused = (EventKind.ORDER_REJECTED, EventKind.CANCEL_REJECTED, EventKind.REQUEST_REJECTED)
    losses = loss_table(session)
    summary: dict[str, Any] = {
        "commands": len(session.commands),
        "events": len(kinds),
        "trades": int((kinds == EventKind.ORDER_FILLED).sum()),
        "rejects": int(np.isin(kinds, refused).sum()),
        "halted": bool((kinds == EventKind.INSTRUMENT_HALTED).any()),
        **price_fall(session),
        **depth_fall(session),
        **load(session),
        **stampede(session),
        **window_extremes(session),
        **trip(session, rows, timings),
        **latencies(latency, session, rows, timings),
        **liquidations(session),
        **bad_debt(session),
        **stablecoin(session),
        **loss_totals(losses),
        **exit_costs(session, rows),
        **early_price(session, rows),
        **admission(session, rows),
    }
    return summary, losses


def own_measures(session: Session, rows: Array) -> dict[str, Any]:
    """scenario_measures: what the scenario's own function (`measures = "module:function"`) finds, {name: value}; null
    without one. It is called with the session and the scoreboard, and its values must fit into JSON.

    An error of it loses nothing else of the run: scenario_measures is null then, scenario_measures_error says why, and
    so does standard error.
    """
    name = session.scenario.measures
    if name is None:
        return {"scenario_measures": None}
    try:
        found = function_named(name)(session, rows)
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise TypeError(f"it returned {type(found).__name__}, not a dict of names and values")
        plain = json.loads(json.dumps(found, allow_nan=False, default=_plain))
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
        told = f"{name}: {type(error).__name__}: {error}"
        print(f"aar: measures {told}; the rest of the run is whole", file=sys.stderr)
        return {"scenario_measures": None, "scenario_measures_error": told}
    return {"scenario_measures": plain}


def _plain(value: object) -> Any:
    """numpy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not fit into JSON")
