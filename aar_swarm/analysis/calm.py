"""The market before anything happened: what a defence costs in calm, and what it stops there without a cause.

Calm lasts from the opening to the first signal, or to the first fault of a vendor where that is sooner, or to the close
if there is neither. What was refused is counted over the whole session too. The main instrument's book and fills; halts
and refusals of all instruments.
"""

import json
from typing import Any

import numpy as np

from aar_swarm.analysis.session import BPS, Session
from exchange.clock import SECOND
from exchange.state import Array
from exchange.types import EventKind, Reason

_REFUSALS = (EventKind.ORDER_REJECTED, EventKind.CANCEL_REJECTED, EventKind.REQUEST_REJECTED)
ADMISSION_REASONS = (
    Reason.VENDOR_AGENTS_CAP,
    Reason.VENDOR_CAPITAL_CAP,
    Reason.UNDECLARED,
    Reason.NOT_VALIDATED,
    Reason.DECLARED_OTHERWISE,
)
"""Why a defence refuses a logon."""
ORDER_REASONS = (
    Reason.HALTED,
    Reason.IS_KILLED,
    Reason.NOT_RISK_REDUCING,
    Reason.BREAKER,
    Reason.VENDOR_FLOW_CAP,
    Reason.UNEXPLAINED,
)
"""Why a defence refuses, or ends, an order."""


def calm_end(session: Session) -> tuple[int, int]:
    """(time_ns, sequence of the first command that is not calm any more)."""
    sequence = session.signal_sequence or session.close_sequence
    times = session.commands["received_ns"]
    end_ns = int(times[min(sequence, len(times)) - 1])
    vendors = session.scenario.vendors
    if vendors is not None and session.opened_ns is not None and (vendors.fault_bps or vendors.fault_factor):
        fault_ns = session.opened_ns + round(vendors.fault_at_s * SECOND)
        if fault_ns < end_ns:
            return fault_ns, int(np.searchsorted(times, fault_ns)) + 1
    return end_ns, sequence


def calm(session: Session, supervisor_said: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The figures of summary.calm; null if the session never opened, or not before the calm ended.

    Args: supervisor_said: what supervision.supervision() takes.
    seconds: how long the calm lasted. trades, lots: fills of the main instrument; trades_per_s, lots_per_s. spread_bps:
    (ask − bid) / mid while both sides are there, mean over time; two_sided_share: that while's share of the calm, null
    spread if it is 0. depth_lots: bid and ask lots within 1 % of the mid together, mean over time. rejects: of orders,
    cancels and requests, for whatever reason. halts: instruments halted. alerts: of the supervisor, null without one.
    refused_orders, refused_logons: as in refusals().
    """
    if session.opened_ns is None or session.open_sequence is None:
        return None
    end_ns, end = calm_end(session)
    seconds = (end_ns - session.opened_ns) / SECOND
    if seconds <= 0:
        return None
    fills = session.fills[session.fills["sequence"] < end]
    events = session.events[session.events["sequence"] < end]
    lots = int(fills["quantity_lots"].sum())
    return {
        "seconds": round(seconds, 3),
        "trades": len(fills),
        "lots": lots,
        "trades_per_s": round(len(fills) / seconds, 3),
        "lots_per_s": round(lots / seconds, 3),
        **_book(session, session.open_sequence, end, end_ns),
        "rejects": int(np.isin(events["kind"], _REFUSALS).sum()),
        "halts": int((events["kind"] == EventKind.INSTRUMENT_HALTED).sum()),
        "alerts": _alerts_before(supervisor_said, end_ns),
        "refused_orders": _count(events, ORDER_REASONS),
        "refused_logons": _count(events, ADMISSION_REASONS),
    }


def refusals(session: Session) -> dict[str, Any]:
    """Over the whole session. halts: instruments halted, each time. refused_orders: orders, cancels and requests that
    were rejected for a defence's reason (ORDER_REASONS), and orders that the breaker's trip cut short (BREAKER).
    refused_logons: logons rejected for ADMISSION_REASONS. refused_by_reason: both, {reason: how many}, none left out.
    trades_since_calm, lots_since_calm: fills of the main instrument, from the end of the calm to the close.
    """
    events = session.events[session.events["sequence"] < session.close_sequence]
    _, end = calm_end(session)
    since = session.fills[(session.fills["sequence"] >= end) & (session.fills["sequence"] < session.close_sequence)]
    counted = {reason: _count(events, (reason,)) for reason in (*ORDER_REASONS, *ADMISSION_REASONS)}
    return {
        "halts": int((events["kind"] == EventKind.INSTRUMENT_HALTED).sum()),
        "refused_orders": sum(counted[reason] for reason in ORDER_REASONS),
        "refused_logons": sum(counted[reason] for reason in ADMISSION_REASONS),
        "refused_by_reason": {reason.name: count for reason, count in counted.items() if count},
        "trades_since_calm": len(since),
        "lots_since_calm": int(since["quantity_lots"].sum()),
    }


def _count(events: Array, reasons: tuple[Reason, ...]) -> int:
    """Rejections, and endings by the breaker, for one of these reasons."""
    # A halt's own field `reason` is a trigger.
    answers = ~np.isin(events["kind"], (EventKind.INSTRUMENT_HALTED, EventKind.PARTICIPANTS_KILLED))
    return int((answers & np.isin(events["reason"], reasons)).sum())


def _book(session: Session, opened: int, end: int, end_ns: int) -> dict[str, float | None]:
    """Means over time of the book after each command from the opening's to the last calm one's."""
    tops = session.tops[opened - 1 : end - 1]
    nothing: dict[str, float | None] = {"spread_bps": None, "two_sided_share": None, "depth_lots": None}
    lasts = np.diff(tops["time_ns"], append=end_ns)
    if not len(tops) or lasts.sum() <= 0:
        return nothing
    two_sided = (tops["bid_lots"] > 0) & (tops["ask_lots"] > 0)
    spread = (tops["ask_ticks"] - tops["bid_ticks"]) * 2.0 / np.maximum(tops["ask_ticks"] + tops["bid_ticks"], 1) * BPS
    while_ns = int(lasts[two_sided].sum())
    depth = (tops["bid_depth_lots"] + tops["ask_depth_lots"]) * lasts
    return {
        "spread_bps": round(float((spread * lasts)[two_sided].sum()) / while_ns, 3) if while_ns else None,
        "two_sided_share": round(while_ns / int(lasts.sum()), 4),
        "depth_lots": round(float(depth.sum()) / int(lasts.sum()), 1),
    }


def _alerts_before(said: dict[str, Any] | None, end_ns: int) -> int | None:
    """Of the supervisor, at commands before the calm ended; null without one, or if it did not live to the end."""
    if not said or said.get("error"):
        return None
    return sum(json.loads(line)["received_ns"] < end_ns for line in said["told"].splitlines())
