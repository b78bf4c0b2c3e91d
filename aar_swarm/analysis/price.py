"""Measures of the price and of the door: how far it fell, how fast, how much came back, and how much could be sold.

All of the main instrument. Prices in ticks.
"""

from typing import Any

import numpy as np
import polars as pl

from aar_swarm.analysis.session import BPS, Session, most_within
from exchange.clock import MS
from exchange.types import Side

_EXHAUSTED_SHARE = 0.1
_SELL_WINDOW_NS, _PRICE_WINDOW_NS = 100 * MS, 1000 * MS
_LIQUIDITY_POINTS = 200


def mids(book: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Times (ns) of all rows of a book, and the mid after each in ticks: NaN where a side is empty or they cross."""
    bid, ask = book["bid_ticks"].to_numpy(), book["ask_ticks"].to_numpy()
    quoted = (book["bid_lots"].to_numpy() > 0) & (book["ask_lots"].to_numpy() > 0) & (bid < ask)
    return book["time_ns"].to_numpy(), np.where(quoted, (bid + ask) / 2, np.nan)


def two_sided_mids(book: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """`mids`, without the rows that have none."""
    times_ns, found = mids(book)
    known = ~np.isnan(found)
    return times_ns[known], found[known]


def price_fall(session: Session) -> dict[str, Any]:
    """drawdown_bps: from the mid just before the signal (reference_ticks) to the lowest trade after it, in bps of that
    mid. trough_ms: signal → that trade. recovered_bps: from that trade back up to the mid before the close, in bps of
    the reference; more than drawdown_bps if the price ended above it. Null without a signal or a trade after it.
    """
    nothing = {"reference_ticks": None, "drawdown_bps": None, "trough_ms": None, "recovered_bps": None}
    if session.signal_sequence is None or session.signal_ns is None:
        return nothing
    reference = session.mid_before(session.signal_sequence)
    after = session.after_signal(session.fills)
    if reference is None or not len(after):
        return {**nothing, "reference_ticks": reference}
    at = int(np.argmin(after["price_ticks"]))
    lowest = float(after["price_ticks"][at])
    last = session.mid_before(session.close_sequence)
    return {
        "reference_ticks": reference,
        "drawdown_bps": round(max(0.0, reference - lowest) / reference * BPS, 2),
        "trough_ms": round((int(after["time_ns"][at]) - session.signal_ns) / MS, 3),
        "recovered_bps": None if last is None else round((last - lowest) / reference * BPS, 2),
    }


def depth_fall(session: Session) -> dict[str, Any]:
    """The lots bid within 1 % of the mid, from the signal to the close, against those just before the signal.

    exhausted_ms: signal → they are first below a tenth; null if they never are. depth_low_share: the least of them over
    those before the signal. Null without a signal or if nothing was bid at it.
    """
    nothing = {"exhausted_ms": None, "depth_low_share": None}
    if session.signal_sequence is None or session.signal_sequence < 2:
        return nothing
    depth = session.tops["bid_depth_lots"]
    at_signal = int(depth[session.signal_sequence - 2])
    later = slice(session.signal_sequence, session.close_sequence - 1)
    if not at_signal or not len(depth[later]):
        return nothing
    empty = np.flatnonzero(depth[later] < _EXHAUSTED_SHARE * at_signal)
    times_ms = session.since_signal_ms(session.tops["time_ns"][later])
    return {
        "exhausted_ms": round(float(times_ms[empty[0]]), 3) if len(empty) else None,
        "depth_low_share": round(int(depth[later].min()) / at_signal, 4),
    }


def window_extremes(session: Session) -> dict[str, int | None]:
    """What a breaker would have seen: most_sold_lots_100ms, the most lots sold aggressively within 100 ms, and
    largest_fall_bps_1s, the largest fall of the trades' price within 1 s, in bps of the window's high.

    A breaker is set from these of a run that it must not stop (`--breaker off`).
    """
    fills = session.fills
    if not len(fills):
        return {"most_sold_lots_100ms": None, "largest_fall_bps_1s": None}
    times, prices = fills["time_ns"], fills["price_ticks"]
    sold = np.where(fills["side"] == Side.SELL, fills["quantity_lots"], 0)
    first = np.searchsorted(times, times - _PRICE_WINDOW_NS, side="left")
    largest = 0.0
    high: list[int] = []  # positions of falling prices: the front is the window's high
    head = 0
    for at, price in enumerate(prices.tolist()):
        while len(high) > head and prices[high[-1]] <= price:
            high.pop()
        high.append(at)
        while high[head] < first[at]:
            head += 1
        largest = max(largest, 1 - price / int(prices[high[head]]))
    return {
        "most_sold_lots_100ms": most_within(times, sold, _SELL_WINDOW_NS),
        "largest_fall_bps_1s": round(largest * BPS),
    }


def liquidity_table(session: Session) -> pl.DataFrame:
    """The book at 200 moments, evenly from the opening to the last command before the close: liquidity.parquet.

    time_ms since the signal (below 0: before it; without one, since the opening), bid_depth_lots and ask_depth_lots
    within 1 % of the mid, mid_ticks (null while a side is empty). Each row is the book as it was then: as the last
    command up to that moment left it. Empty if the session was never opened.
    """
    tops = session.tops[: session.close_sequence - 1]
    schema = {"time_ms": pl.Float64, "bid_depth_lots": pl.Int64, "ask_depth_lots": pl.Int64, "mid_ticks": pl.Float64}
    if session.opened_ns is None or not len(tops):
        return pl.DataFrame(schema=schema)
    times = np.linspace(session.opened_ns, int(tops["time_ns"][-1]), _LIQUIDITY_POINTS).astype(np.int64)
    found = tops[np.searchsorted(tops["time_ns"], times, side="right") - 1]
    two_sided = pl.Series((found["bid_lots"] > 0) & (found["ask_lots"] > 0))
    mid = pl.Series((found["bid_ticks"] + found["ask_ticks"]) / 2)
    return pl.DataFrame(
        {
            "time_ms": session.since_signal_ms(times),
            "bid_depth_lots": np.ascontiguousarray(found["bid_depth_lots"]),
            "ask_depth_lots": np.ascontiguousarray(found["ask_depth_lots"]),
            "mid_ticks": pl.select(pl.when(two_sided).then(mid)).to_series(),
        },
        schema=schema,
    )
