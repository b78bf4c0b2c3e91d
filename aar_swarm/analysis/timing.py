"""Measures of when: the breaker's verdict and how fast it was heard, and the latencies of commands. In ns or ms."""

from collections.abc import Mapping, Sequence
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


def signal_told_ns(session: Session, timings: Array) -> int | None:
    """When the venue had taken in the signal, after which its notice goes out; None without one."""
    if session.signal_sequence is None or session.signal_sequence > len(timings):
        return None
    return int(timings["matched_ns"][session.signal_sequence - 1])


def latencies(latency: pl.DataFrame, session: Session, rows: Array, timings: Array) -> dict[str, int | None]:
    """decision, transit and venue time, ns, over the whole session, and the first two before the signal (calm) and from
    it on (stampede); notice: the signal's, from the venue's having taken it in to each agent's having heard it."""
    parts: dict[str, pl.Series] = {}
    told_ns = signal_told_ns(session, timings)
    if told_ns is not None:
        parts["notice"] = pl.Series(rows["signal_heard_ns"][rows["signal_heard_ns"] > 0] - told_ns)
    for name in ("decision", "transit", "venue"):
        parts[name] = latency[f"{name}_ns"]
        if session.signal_ns is not None and name != "venue":
            calm = pl.col("received_ns") < session.signal_ns
            parts[f"{name}_calm"] = latency.filter(calm)[f"{name}_ns"]
            parts[f"{name}_stampede"] = latency.filter(~calm)[f"{name}_ns"]
    found: dict[str, int | None] = {}
    for name, values in parts.items():
        for label, quantile in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)):
            value = values.quantile(quantile, "nearest")
            found[f"{name}_ns_{label}"] = None if value is None else int(value)
    return found


def starvation(rows: Array, hosts: Sequence[Mapping[str, Any]], cores: int | None) -> dict[str, Any] | None:
    """starvation: how long agents waited for a core while they had something to do. rows: the scoreboard; hosts, cores:
    the manifest's.

    agents: those measured, who sent something after the signal. runqueue_wait_ns_…: of each, runnable without a core,
    from its last rest before the signal until its first order was sent. session_wait_ns_…: until it heard the close.
    on_core_ns_…: with a core, until the first order. preempted: how often a core was taken from them in that time, all
    together. cores, agents_per_core: of the fullest host. Null where the kernel does not count, or nobody was measured.
    """
    known = rows[rows["waits_known"] != 0] if "waits_known" in (rows.dtype.names or ()) else rows[:0]
    if not len(known):
        return None
    closed = known[known["session_waited_ns"] > 0]
    found: dict[str, Any] = {"agents": len(known)}
    for name, values in (
        ("runqueue_wait", known["stampede_waited_ns"]),
        ("on_core", known["stampede_on_core_ns"]),
        ("session_wait", closed["session_waited_ns"]),
    ):
        for label, quantile in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            value = np.quantile(values, quantile, method="nearest") if len(values) else None
            found[f"{name}_ns_{label}"] = None if value is None else int(value)
    crowding = [
        (agents / host_cores, host_cores)
        for host in hosts
        if (host_cores := host.get("cores", cores)) and (agents := np.diff(host.get("agents", (0, len(rows))))[0])
    ]
    per_core, fullest_cores = max(crowding, default=(None, cores))
    return found | {
        "preempted": int(known["stampede_preempted"].sum()),
        "cores": fullest_cores,
        "agents_per_core": None if per_core is None else round(float(per_core), 2),
    }
