"""Measures of the supervisor: what it saw, how soon, whether it kept up, and what its orders did. Times in ms or ns."""

import json
from typing import Any

import numpy as np

from aar_swarm.analysis.session import Session
from exchange.clock import MS
from exchange.state import Array
from exchange.types import EventKind, Trigger

_FIGURES = ("lag_ns_p50", "lag_ns_p99", "lag_ns_max", "lag_end_ns", "commands", "gaps", "caught_up", "least", "most")


def supervision(session: Session, said: dict[str, Any], state_hash: str) -> dict[str, Any] | None:
    """What a summary says of the supervisor; None if the run had none.

    Args: said: its figures, or `error` if it did not live to give them, and `told`, its alerts; state_hash: the
    venue's at the end. An alert's time is when it was computed. lag: received by the venue → indicators computed.
    lead_ms: first alert from the signal on → first halt by the in-line breaker; liquidation_lead_ms: first such alert
    of the liquidation pressure → first liquidation. Null: there was no such thing.
    """
    if not said:
        return None
    alerts = [json.loads(line) for line in said["told"].splitlines()]
    zero_ns = session.signal_ns or session.opened_ns or 0
    since = [alert for alert in alerts if alert["received_ns"] >= zero_ns]
    first = since[0] if since else None
    pressing = next((alert for alert in since if alert["indicator"] == "PRESSURE"), None)
    watched = session.scenario.supervisor.instrument if session.scenario.supervisor else 0
    events = session.events
    halts = events[(events["kind"] == EventKind.INSTRUMENT_HALTED) & (events["instrument"] == watched)]
    by_supervisor = halts["reason"] == Trigger.SUPERVISOR
    own = _first_ns(halts[by_supervisor])
    tripped = _first_ns(halts[~by_supervisor & (halts["reason"] != Trigger.MARKET)])
    started = _first_ns(events[events["kind"] == EventKind.LIQUIDATION_STARTED])
    first_ns = first and first["computed_ns"]
    return {
        "error": said.get("error"),
        "alerts": len(alerts),
        "alerts_before_signal": len(alerts) - len(since),
        "first_alert_ms": _between_ms(zero_ns, first_ns),
        "first_alert_indicator": first and first["indicator"],
        "halt_ms": _between_ms(zero_ns, own),
        "halts": said.get("halts", []),
        **{name: said.get(name) for name in _FIGURES},
        "state_hash_equal": said["state_hash"] == state_hash if "state_hash" in said else None,
        "lead_ms": _between_ms(first_ns, tripped),
        "liquidation_lead_ms": _between_ms(pressing and pressing["computed_ns"], started),
    }


def _first_ns(events: Array) -> int | None:
    return int(np.min(events["time_ns"])) if len(events) else None


def _between_ms(earlier_ns: int | None, later_ns: int | None) -> float | None:
    return None if earlier_ns is None or later_ns is None else round((later_ns - earlier_ns) / MS, 3)
