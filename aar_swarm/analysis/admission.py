"""What admission did: who was let in with whose model, and what was refused, before the signal and after it."""

from typing import Any

import numpy as np

from aar_swarm.analysis.session import Session
from exchange.state import Array
from exchange.types import CommandKind, EventKind, Reason

_LOGONS = (Reason.UNDECLARED, Reason.NOT_VALIDATED, Reason.VENDOR_AGENTS_CAP, Reason.VENDOR_CAPITAL_CAP)
_ORDERS = (Reason.VENDOR_FLOW_CAP, Reason.UNEXPLAINED)


def admission(session: Session, rows: Array) -> dict[str, Any]:
    """agents_not_admitted: accounts that got a session with no model; null if the venue has no [admission].
    largest_vendor_share: of the accounts, that logged on with the models of the vendor who has most; null if nobody
    declared one. logons_refused, orders_refused: by reason, only of admission and of explanations.
    orders_refused_before_signal: false alarms. orders_explained_share: of PLACE and REPLACE commands, that an EXPLAIN
    of the same order_id and account precedes.
    """
    events = session.events[session.events["kind"] == EventKind.ORDER_REJECTED]
    before = events["sequence"] < (session.signal_sequence or 0)
    vendors = rows["vendor"][rows["vendor"] > 0]
    has_admission = session.config.admission is not None
    return {
        "agents_not_admitted": int((rows["refused"] > 0).sum()) if has_admission else None,
        "largest_vendor_share": float(np.bincount(vendors).max() / len(rows)) if len(vendors) else None,
        "logons_refused": _counts(events, _LOGONS),
        "orders_refused": _counts(events, _ORDERS),
        "orders_refused_before_signal": int(np.isin(events["reason"][before], _ORDERS).sum()),
        "orders_explained_share": _explained(session.commands),
    }


def _counts(events: Array, reasons: tuple[Reason, ...]) -> dict[str, int]:
    found = {reason.name: int((events["reason"] == reason).sum()) for reason in reasons}
    return {name: count for name, count in found.items() if count}


def _explained(commands: Array) -> float | None:
    orders = np.flatnonzero(np.isin(commands["kind"], (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER)))
    if not len(orders):
        return None
    before = commands[np.maximum(orders - 1, 0)]
    placed = commands[orders]
    same = (before["kind"] == CommandKind.EXPLAIN) & (before["account"] == placed["account"])
    return float((same & (before["order_id"] == placed["order_id"])).mean())
