"""Measures of how much the venue was given to do, and how hard the machine worked. Per second of the session."""

from typing import Any

import numpy as np

from aar_swarm.analysis.session import Session
from exchange.clock import SECOND
from exchange.types import DECISION_COMMANDS

WINDOW_NS = 10_000_000
"""Of the peak: shorter than a stampede, and longer than one batch of the venue."""


def load(session: Session) -> dict[str, Any]:
    """Participants' orders, cancels, replaces and requests, by when the venue received them, while the session lasted.

    orders_per_s: on average. orders_per_s_peak: the most in any 10 ms, times 100.
    """
    commands = session.commands[np.isin(session.commands["kind"], DECISION_COMMANDS)]
    closed = commands["sequence"] >= session.close_sequence
    times_ns = np.sort(commands["received_ns"][~closed & (commands["received_ns"] >= (session.opened_ns or 0))])
    if session.opened_ns is None or not len(times_ns):
        return {"orders_per_s": None, "orders_per_s_peak": None}
    closing = session.commands["received_ns"][session.commands["sequence"] == session.close_sequence]
    end_ns = int(closing[0]) if len(closing) else int(times_ns[-1])
    in_window = np.searchsorted(times_ns, times_ns + WINDOW_NS) - np.arange(len(times_ns))
    return {
        "orders_per_s": round(len(times_ns) * SECOND / max(end_ns - session.opened_ns, 1), 1),
        "orders_per_s_peak": int(in_window.max()) * (SECOND // WINDOW_NS),
    }
