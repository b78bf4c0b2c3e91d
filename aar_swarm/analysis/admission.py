"""What admission came to: who was let in with whose model, and how many orders said why."""

from typing import Any

import numpy as np

from aar_swarm.analysis.session import Session
from exchange.state import Array
from exchange.types import CommandKind


def admission(session: Session, rows: Array) -> dict[str, Any]:
    """agents_not_admitted: accounts that got a session with no model; null if the venue has no [admission].
    largest_vendor_share: of the accounts, that logged on with the models of the vendor who has most; null if nobody
    declared one. orders_explained_share: of PLACE and REPLACE commands, that an EXPLAIN of the same order_id and
    account precedes. What was refused: calm.refusals.
    """
    vendors = rows["vendor"][rows["vendor"] > 0]
    has_admission = session.config.admission is not None
    return {
        "agents_not_admitted": int((rows["refused"] > 0).sum()) if has_admission else None,
        "largest_vendor_share": float(np.bincount(vendors).max() / len(rows)) if len(vendors) else None,
        "orders_explained_share": _explained(session.commands),
    }


def _explained(commands: Array) -> float | None:
    orders = np.flatnonzero(np.isin(commands["kind"], (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER)))
    if not len(orders):
        return None
    before = commands[np.maximum(orders - 1, 0)]
    placed = commands[orders]
    same = (before["kind"] == CommandKind.EXPLAIN) & (before["account"] == placed["account"])
    return float((same & (before["order_id"] == placed["order_id"])).mean())
