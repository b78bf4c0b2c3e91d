"""Measures of when: the breaker's verdict and how fast it was heard, and the latencies of commands. In ns or ms."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from aar_swarm.analysis.session import MAIN, Session
from cluster.kill_switch import Kill
from exchange.clock import MS
from exchange.state import Array
from exchange.types import EventKind, Phase, Trigger


def trip(session: Session, rows: Array, timings: Array) -> dict[str, Any]:
    """The first halt of the main instrument: `trip` says what tripped it, what was observed against which threshold,
    and when. trip_to_last_notified_ms: receipt of the triggering command → the last agent has read the notice; null if
    any agent that was alive has not. trades_after_trip: fills of the instrument until it was halted no longer.
    """
    events = session.events[session.events["instrument"] == MAIN]
    halts = np.flatnonzero(events["kind"] == EventKind.INSTRUMENT_HALTED)
    if not len(halts):
        return {"trip": None, "trades_after_trip": None, "agents_notified": None, "trip_to_last_notified_ms": None}
    halt, later = events[halts[0]], events[halts[0] + 1 :]
    ends = np.flatnonzero((later["kind"] == EventKind.PHASE_CHANGED) & (later["value"] != Phase.HALTED))
    halted = later[: ends[0]] if len(ends) else later
    sequence = int(halt["sequence"])
    timed = sequence <= len(timings)
    heard = rows["halt_heard_ns"][rows["halt_heard_ns"] > 0]
    deaf = int((rows["ready_ns"] > 0).sum()) - len(heard)
    last_ms = (int(heard.max()) - int(halt["time_ns"])) / MS if len(heard) and not deaf else None
    return {
        "trip": {
            "trigger": Trigger(int(halt["reason"])).name,
            "observed": int(halt["value"]),
            "threshold": int(halt["threshold"]),
            "window_ns": int(halt["window_ns"]),
            "sequence": sequence,
            "received_ns": int(halt["time_ns"]),
            "matched_ns": int(timings["matched_ns"][sequence - 1]) if timed else None,
            "since_signal_ms": None
            if session.signal_ns is None
            else round((int(halt["time_ns"]) - session.signal_ns) / MS, 3),
        },
        "trades_after_trip": int((halted["kind"] == EventKind.ORDER_FILLED).sum()),
        "agents_notified": len(heard),
        "trip_to_last_notified_ms": None if last_ms is None else round(last_ms, 3),
    }


def kill_times(session: Session, kills: Sequence[Kill]) -> dict[str, Any]:
    """killed_processes: confirmed dead by their hosts' kill switches. From the receipt of the first killing command:
    kill_to_last_signalled_ms → SIGKILL is pending for the last of them, which runs nothing more of its own;
    kill_to_last_dead_ms → the kernel said that the last had ended; null if one had not. Null where nothing was killed.
    """
    orders = session.events[session.events["kind"] == EventKind.PARTICIPANTS_KILLED]
    if not len(orders):
        return {"killed_processes": None, "kill_to_last_signalled_ms": None, "kill_to_last_dead_ms": None}
    sequence, start_ns = int(orders["sequence"][0]), int(orders["time_ns"][0])
    first = [kill for kill in kills if kill["sequence"] == sequence]
    dead = [at_ns for kill in first for _, at_ns in kill["deaths"]]
    signalled = [kill["signalled_ns"] for kill in first if kill["deaths"]]
    unconfirmed = any(kill["alive"] for kill in first)
    return {
        "killed_processes": sum(len(kill["deaths"]) for kill in kills),
        "kill_to_last_signalled_ms": round((max(signalled) - start_ns) / MS, 3) if signalled else None,
        "kill_to_last_dead_ms": round((max(dead) - start_ns) / MS, 3) if dead and not unconfirmed else None,
    }


def latencies(latency: pl.DataFrame, session: Session) -> dict[str, int | None]:
    """decision, transit and venue time, ns, over the whole session; transit once more before and after the signal."""
    parts = {name: latency[f"{name}_ns"] for name in ("decision", "transit", "venue")}
    if session.signal_ns is not None:
        calm = pl.col("received_ns") < session.signal_ns
        parts["transit_calm"] = latency.filter(calm)["transit_ns"]
        parts["transit_stampede"] = latency.filter(~calm)["transit_ns"]
    found: dict[str, int | None] = {}
    for name, values in parts.items():
        for label, quantile in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)):
            value = values.quantile(quantile, "nearest")
            found[f"{name}_ns_{label}"] = None if value is None else int(value)
    return found
