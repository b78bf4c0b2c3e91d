"""The fall: where the price was highest, when it left its calm range for good, its trough, and the news behind it.

Of the main instrument, by its trades. The rules are in docs/postmortem.md; nothing here is set by hand but MIN_FALL_BPS
and the shares below.
"""

from typing import NamedTuple

import numpy as np

from aar_swarm.analysis.causes import Causes
from aar_swarm.analysis.session import BPS, Session
from exchange.state import Array

MIN_FALL_BPS = 100
"""Less is no fall: the depth that everyone watches is counted within so much of the mid."""
_CALM_TIMES = 2
"""A fall is at least so many times the largest one before the news."""
_CALM_SHARE = 0.1
"""Of the whole fall: what still belongs to the calm range, unless calm itself moved more."""


class Fall(NamedTuple):
    """Sequences are of the commands that made the trades; prices in ticks."""

    peak_sequence: int
    peak_ticks: int
    left_sequence: int
    """The first trade below the calm range after which, until the trough, none was in it again."""
    left_ticks: int
    half_sequence: int
    """The first trade at or below half of the fall, from then on."""
    trough_sequence: int
    trough_ticks: int
    calm_ticks: int
    """The lower end of the calm range."""
    calm_bps: float
    """The largest fall before the news (0: there was none, or no trade before it)."""

    @property
    def fall_bps(self) -> float:
        return (self.peak_ticks - self.trough_ticks) / self.peak_ticks * BPS


def deepest(prices: Array) -> tuple[int, int]:
    """Positions of the peak and of the trough of the largest fall, relative to its peak."""
    highest = np.maximum.accumulate(prices)
    trough = int(np.argmax((highest - prices) / highest))
    peak = int(np.flatnonzero(prices[: trough + 1] == highest[trough])[-1])
    return peak, trough


def find_fall(session: Session) -> Fall | None:
    """The largest fall of the session, or None: nothing fell by more than what is calm."""
    fills = session.fills[session.fills["sequence"] < session.close_sequence]
    if len(fills) < 2:
        return None
    prices = fills["price_ticks"].astype(np.int64)
    peak, trough = deepest(prices)
    calm_bps, calm = 0.0, 0
    before = prices if session.signal_sequence is None else prices[fills["sequence"] < session.signal_sequence]
    if session.signal_sequence is not None and len(before) > 1:
        high, low = deepest(before)
        calm = int(before[high] - before[low])
        calm_bps = calm / int(before[high]) * BPS
    depth = int(prices[peak] - prices[trough])
    fall_bps = depth / int(prices[peak]) * BPS
    if fall_bps < MIN_FALL_BPS or fall_bps < _CALM_TIMES * calm_bps:
        return None
    calm_ticks = int(prices[peak]) - max(int(_CALM_SHARE * depth), min(calm, depth // 2))
    inside = np.flatnonzero(prices[:trough] >= calm_ticks)
    left = int(inside[-1]) + 1
    half = left + int(np.argmax(prices[left : trough + 1] <= prices[peak] - depth / 2))
    return Fall(
        peak_sequence=int(fills["sequence"][peak]),
        peak_ticks=int(prices[peak]),
        left_sequence=int(fills["sequence"][left]),
        left_ticks=int(prices[left]),
        half_sequence=int(fills["sequence"][half]),
        trough_sequence=int(fills["sequence"][trough]),
        trough_ticks=int(prices[trough]),
        calm_ticks=calm_ticks,
        calm_bps=round(calm_bps, 2),
    )


def first_cause(fall: Fall, causes: Causes, labels: list[str], falls: Array) -> tuple[str, int, float]:
    """Which news the commands go back to that took the price from its calm range to half of the fall.

    Args: labels: of each command, its root in words; falls: float64[n], what each command did to the mid, ticks.
    Returns: (the news, the sequence of its first command, the share of these falls of the mid that go back to it).
    """
    moved = np.maximum(0.0, -falls[fall.left_sequence - 1 : fall.half_sequence])
    if not moved.any():
        moved = np.ones(len(moved))
    weights: dict[str, float] = {}
    for offset, ticks in enumerate(moved.tolist()):
        label = labels[fall.left_sequence - 1 + offset]
        weights[label] = weights.get(label, 0.0) + ticks
    found = max(weights, key=lambda label: weights[label])
    first = labels.index(found) + 1
    return found, int(causes.root[first - 1]), weights[found] / sum(weights.values())
