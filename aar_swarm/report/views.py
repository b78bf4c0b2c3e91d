"""What part of a run each row of plots opens on, the same for every run in it, so that they compare at a glance.

Owns the initial ranges. Must not draw, nor cut data away: a range is where the reader starts, not all there is.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from aar_swarm.report.picture import Picture

Range = tuple[float, float]

_SHORTEST_MS, _LONGEST_MS, _DEFAULT_MS = 50, 2_000, 300
_HEADROOM = 0.30
"""The part of a plot's height, above the data, that is left to the labels of the signal and the trip."""


@dataclass(frozen=True)
class Views:
    """Initial ranges; times in ms since the open, or since the anchor (the signal) for `wide` and `zoom`."""

    session_ms: Range
    wide_ms: Range
    zoom_ms: Range
    price: Range
    zoom_price: Range
    depth_lots: Range
    wide_load: Range
    zoom_load: Range
    loss: Range
    stampede_ms: int
    """How long after the signal the zoom lasts."""


def views_of(pictures: Sequence[Picture]) -> Views:
    """The ranges that hold what happened in every one of these runs."""
    stampede = stampede_ms(pictures)
    wide, zoom = (-0.5 * stampede, 2.5 * stampede), (-0.2 * stampede, float(stampede))
    flow = ("orders", "trades", "rejects")
    return Views(
        session_ms=_session(pictures),
        wide_ms=wide,
        zoom_ms=zoom,
        price=_with_headroom(_prices(pictures, None)),
        zoom_price=_with_headroom(_prices(pictures, zoom)),
        depth_lots=(0.0, _largest(pictures, "book", ("bid_depth_lots", "ask_depth_lots"))),
        wide_load=(0.0, _largest(pictures, "load", flow, wide)),
        zoom_load=(0.0, _largest(pictures, "load", flow, zoom)),
        loss=_losses(pictures),
        stampede_ms=stampede,
    )


def stampede_ms(pictures: Sequence[Picture]) -> int:
    """How long the event lasts: until, in each run, most of the fall has happened and the breaker tripped."""
    found = [fallen_within_ms(picture, 0.9) for picture in pictures]
    found += [p.trip_ms - p.anchor_ms for p in pictures if p.trip_ms is not None]
    lengths = [length for length in found if length is not None and length > 0]
    if not lengths:
        return _DEFAULT_MS
    return int(min(max(math.ceil(1.3 * max(lengths) / 50) * 50, _SHORTEST_MS), _LONGEST_MS))


def fallen_within_ms(picture: Picture, part: float) -> float | None:
    """ms after the signal until a trade was made this part of the way down, from the last trade before the signal to
    the lowest after it. None where there was no fall."""
    before, after = picture.before_anchor(picture.trades), picture.after_anchor(picture.trades)
    if before.is_empty() or after.is_empty():
        return None
    reference, lowest = float(before["price_ticks"][-1]), float(after["price_ticks"].min())  # type: ignore[arg-type]
    if lowest >= reference:
        return None
    down = after.filter(pl.col("price_ticks") <= reference - part * (reference - lowest))
    return float(down["time_ms"][0]) - picture.anchor_ms


def quotes_outside(picture: Picture, view: Range) -> int:
    """How many book updates have a bid or an ask that the initial view does not reach."""
    low, high = view[0] / picture.tick_size, view[1] / picture.tick_size
    outside = [(pl.col(side) < low) | (pl.col(side) > high) for side in ("bid_ticks", "ask_ticks")]
    return picture.book.filter(pl.any_horizontal(*(side.fill_null(False) for side in outside))).height


def _session(pictures: Sequence[Picture]) -> Range:
    ends = [float(frame["time_ms"][-1]) for p in pictures for frame in (p.trades, p.book, p.load) if frame.height]
    ends += [mark for p in pictures for mark in (p.signal_ms, p.trip_ms) if mark is not None]
    return 0.0, max(ends, default=1_000.0) or 1_000.0


def _prices(pictures: Sequence[Picture], since_anchor_ms: Range | None) -> Range:
    """Every trade, and the quotes but for the outermost 1 % a side: an order far from the market would flatten it."""
    found: list[float] = []
    for p in pictures:
        trades, book = p.trades, p.book
        if since_anchor_ms is not None:
            inside = pl.col("time_ms").is_between(p.anchor_ms + since_anchor_ms[0], p.anchor_ms + since_anchor_ms[1])
            trades, book = trades.filter(inside), book.filter(inside)
        found += _extremes(trades["price_ticks"], 0.0, p.tick_size)
        found += _extremes(book["bid_ticks"], 0.01, p.tick_size) + _extremes(book["ask_ticks"], 0.01, p.tick_size)
    if not found:
        return 0.0, 1.0
    low, high = min(found), max(found)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _extremes(ticks: pl.Series, cut: float, tick_size: float) -> list[float]:
    ends = (ticks.quantile(cut), ticks.quantile(1 - cut))
    return [float(end) * tick_size for end in ends if end is not None]


def _with_headroom(data: Range) -> Range:
    span = data[1] - data[0]
    return data[0] - 0.15 * span, data[1] + _HEADROOM / (1 - _HEADROOM) * span


def _largest(
    pictures: Sequence[Picture], frame: str, columns: Iterable[str], since_anchor_ms: Range | None = None
) -> float:
    """The largest value of any of the columns, in the whole session or in a window, with room above it."""
    found = [1.0]
    for p in pictures:
        rows: pl.DataFrame = getattr(p, frame)
        if since_anchor_ms is not None:
            inside = (p.anchor_ms + since_anchor_ms[0], p.anchor_ms + since_anchor_ms[1])
            rows = rows.filter(pl.col("time_ms").is_between(*inside))
        found += [float(most) for name in columns if (most := rows[name].max()) is not None]  # type: ignore[arg-type]
    return max(found) / (1 - _HEADROOM)


def _losses(pictures: Sequence[Picture]) -> Range:
    found = [float(loss) for p in pictures for loss in p.losses["loss"].drop_nulls()]
    low, high = min([0.0, *found]), max([0.0, *found])
    span = (high - low) or 1.0
    # Room for the figure that is written at the end of a bar, on the sides where there are bars.
    return low - (0.3 * span if low < 0 else 0.0), high + (0.3 * span if high > 0 or low == high else 0.0)
