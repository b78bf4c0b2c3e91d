"""The plots of a comparison: curves of a dial, paths of all repeats, rates per millisecond, and who lost.

Owns which glyph shows which column, and the colours that tell settings apart. Must not estimate (that is `analysis`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from bokeh.models import BasicTicker, ColumnDataSource, DataRange1d, FactorRange, FixedTicker, Range1d
from bokeh.palettes import Viridis256
from bokeh.plotting import figure
from bokeh.transform import dodge

from aar_swarm.analysis.compared import Estimate, Measure
from aar_swarm.report import formats, look
from aar_swarm.report.decimate import decimate
from aar_swarm.report.picture import Picture
from aar_swarm.report.views import Range

Path = tuple[np.ndarray, np.ndarray]
"""Times in ms since the signal, and values from then on."""

_CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LOG_FROM = 8.0
"""A dial whose largest value is so many times its smallest is drawn on a logarithmic axis."""
_GRID = 600
_BARS = 500
_POINTS_A_PAGE = 60_000


def colours(count: int, ordered: bool) -> list[str]:
    """One a setting: along a scale where they are ordered or many, else Okabe and Ito's."""
    if not ordered and count <= len(_CATEGORIES):
        return list(_CATEGORIES[:count])
    return [Viridis256[round(20 + at * 190 / max(count - 1, 1))] for at in range(count)]


@dataclass(frozen=True)
class Curve:
    """One line of a panel: at each place on the axis the estimate and the repeats' own values."""

    label: str
    colour: str
    points: Sequence[tuple[float | str, Estimate, Sequence[float]]]


def panel(measure: Measure, curves: Sequence[Curve], x_label: str, places: Sequence[float] | Sequence[str]) -> figure:
    """One measure over the settings: means with their intervals, each repeat as a faint dot. `places` are the dial's
    values, or the settings' names."""
    dial = all(isinstance(place, float) for place in places)
    fig = _panel_axes(x_label, places, dial)
    if measure.unit:
        fig.yaxis.axis_label = measure.unit
    fig.yaxis.ticker = BasicTicker(desired_num_ticks=4)
    look.thousands(fig, x=False, y="0,0" if _scale(curves) >= 10 else "0,0.[000]")
    fig.toolbar.active_drag = None
    for curve in curves:
        xs = [x for x, _, _ in curve.points]
        means = [found.mean for _, found, _ in curve.points]
        each = [(x, value) for x, _, values in curve.points for value in values if len(values) > 1]
        bars = [(x, found.interval) for x, found, _ in curve.points if found.interval is not None]
        fig.scatter([x for x, _ in each], [v for _, v in each], size=5, color=curve.colour, alpha=0.3, line_color=None)
        if dial:
            fig.line(xs, means, color=curve.colour, line_width=2)
        fig.segment([x for x, _ in bars], [b.low for _, b in bars], [x for x, _ in bars], [b.high for _, b in bars],
                    color=curve.colour, line_width=2)  # fmt: skip
        for end in ("low", "high"):
            fig.scatter([x for x, _ in bars], [getattr(b, end) for _, b in bars], marker="dash", size=11,
                        color=curve.colour, line_width=2)  # fmt: skip
        source = ColumnDataSource({
            "x": xs, "mean": means, "name": [curve.label] * len(xs), "n": [found.n for _, found, _ in curve.points],
            "low": [found.interval.low if found.interval else math.nan for _, found, _ in curve.points],
            "high": [found.interval.high if found.interval else math.nan for _, found, _ in curve.points],
        })  # fmt: skip
        dots = fig.scatter("x", "mean", source=source, size=9, color=curve.colour, line_color="#ffffff")
        look.hover_point(fig, dots, [*([("", "@name")] if curve.label else []), (x_label or "setting", "@x"),
                                     ("mean", "@mean{0,0.[000]}"), ("interval", "@low{0,0.[00]} to @high{0,0.[00]}"),
                                     ("runs", "@n")])  # fmt: skip
    return fig


def _panel_axes(x_label: str, places: Sequence[float] | Sequence[str], dial: bool) -> figure:
    if not dial:
        fig = look.blank_figure(
            250, FactorRange(factors=[str(place) for place in places]), DataRange1d(range_padding=0.12), x_label, ""
        )
        if max(len(str(place)) for place in places) * len(places) > 44:
            fig.xaxis.major_label_orientation = 0.5
        return fig
    xs = [float(place) for place in places]
    low, high = min(xs), max(xs)
    log = low > 0 and high / low >= _LOG_FROM
    margin = (high / low) ** 0.06 if log else 0.06 * (high - low)
    ends = (low / margin, high * margin) if log else (low - margin, high + margin)
    fig = look.blank_figure(
        250,
        look.shared_range(ends),
        DataRange1d(range_padding=0.12),
        x_label,
        "",
        x_axis_type="log" if log else "linear",
    )
    fig.xaxis.ticker = FixedTicker(ticks=xs)
    fig.xaxis.major_label_overrides = {x: f"{x:g}" for x in xs}
    return fig


def _scale(curves: Sequence[Curve]) -> float:
    return max((abs(found.mean) for curve in curves for _, found, _ in curve.points), default=0.0)


def price_path(picture: Picture) -> Path:
    trades = picture.trades
    return _since(picture, trades, "price_ticks", picture.tick_size)


def depth_path(picture: Picture) -> Path:
    return _since(picture, picture.book, "bid_depth_lots", 1.0)


def coin_path(picture: Picture) -> Path:
    """The stablecoin's trades, as a share of par."""
    return _since(picture, picture.coin, "price_ticks", 1.0 / (picture.coin_par_ticks or 1))


def _since(picture: Picture, frame: pl.DataFrame, column: str, unit: float) -> Path:
    times = frame["time_ms"].cast(pl.Float64).to_numpy() - picture.anchor_ms
    return times, frame[column].cast(pl.Float64).to_numpy() * unit


def paths_plot(
    paths: Sequence[Path], x_range: Range1d, y_range: Range1d, y_label: str, *, height: int, runs: int, y_format: str
) -> figure:
    """One faint line a repeat, and their median at each moment; a single repeat is drawn in full. `runs`: of the page,
    over which the points that may be drawn are divided."""
    fig = look.blank_figure(height, x_range, y_range, "Time since the signal (ms)", y_label)
    look.thousands(fig, y=y_format)
    shown = [path for path in paths if len(path[0])]
    window = (float(x_range.start), float(x_range.end))  # type: ignore[arg-type]
    bins = max(60, min(1_500, _POINTS_A_PAGE // (4 * max(runs, 1))))
    for times, values in shown:
        frame = pl.DataFrame({"time_ms": times, "value": values}).filter(pl.col("time_ms").is_between(*window))
        frame = decimate(frame, ("value",), bins)
        many = len(shown) > 1
        fig.step(frame["time_ms"].to_numpy().astype(np.float32), frame["value"].to_numpy(), mode="after",
                 color=look.BID, alpha=0.28 if many else 1.0, line_width=1.0 if many else 1.4)  # fmt: skip
    if len(shown) > 1:
        grid, median = median_path(shown, window)
        fig.step(grid, median, mode="after", color=look.INK, line_width=2.2)
    if not shown:
        look.say_empty(fig, "Nothing to show")
    return fig


def median_path(paths: Sequence[Path], window: Range) -> Path:
    """The median over the repeats of the value in force at each moment; NaN until all have one, and after
    the last value of any."""
    grid = np.linspace(window[0], window[1], _GRID)
    rows = []
    for times, values in paths:
        at = np.searchsorted(times, grid, side="right") - 1
        rows.append(np.where(at >= 0, values[np.maximum(at, 0)], np.nan))
    last = max(float(times[-1]) for times, _ in paths)
    return grid, np.where(grid <= last, np.median(np.array(rows), axis=0), np.nan)


def rate_plot(
    pictures: Sequence[Picture], frame: str, columns: Sequence[tuple[str, str, str]], x_range: Range1d, y_range: Range1d
) -> figure:
    """Counts per millisecond, the mean over the repeats; where a bar is more than one ms wide, of each repeat the
    fullest ms in it counts. columns: (name in the frame, colour, legend)."""
    window = (float(x_range.start), float(x_range.end))  # type: ignore[arg-type]
    width, starts = rate_bins(window)
    label = "Per millisecond" if width == 1 else f"Fullest ms of each {width} ms"
    fig = look.blank_figure(230, x_range, y_range, "Time since the signal (ms)", label)
    look.thousands(fig)
    for name, colour, legend in columns:
        heights = rates(pictures, frame, name, window)
        if heights is None or not heights.any():
            continue
        source = ColumnDataSource({"t": starts, "zero": np.zeros(len(starts)), "height": heights})
        fig.varea_step("t", "zero", "height", source=source, step_mode="after", color=colour, alpha=0.8,
                       legend_label=legend)  # fmt: skip
        fig.step("t", "height", source=source, mode="after", color=colour, line_width=1, legend_label=legend)
    if not fig.renderers:
        look.say_empty(fig, "None")
    look.legend_above(fig)
    return fig


def rate_bins(window: Range) -> tuple[int, np.ndarray]:
    """Width in ms and the starts of a rate's bars."""
    width = max(1, math.ceil((window[1] - window[0]) / _BARS))
    return width, np.arange(math.floor(window[0]), math.ceil(window[1]), width, dtype=np.float64)


def rates(pictures: Sequence[Picture], frame: str, column: str, window: Range) -> np.ndarray | None:
    """Mean over the repeats of the fullest ms in each bar; None without a repeat."""
    width, starts = rate_bins(window)
    rows = []
    for picture in pictures:
        found: pl.DataFrame = getattr(picture, frame)
        at = np.floor((found["time_ms"].to_numpy() - math.floor(picture.anchor_ms) - starts[0]) / width).astype(int)
        row = np.zeros(len(starts))
        inside = (at >= 0) & (at < len(starts))
        np.maximum.at(row, at[inside], found[column].to_numpy()[inside])
        rows.append(row)
    return np.mean(rows, axis=0) if rows else None


@dataclass(frozen=True)
class Bars:
    """One setting's bars: bucket → the estimate over its repeats."""

    label: str
    colour: str
    estimates: dict[str, Estimate]


def losers_plot(buckets: Sequence[str], each: Sequence[Bars], x_label: str) -> figure:
    """Per bucket one bar a setting: to the right lost, to the left gained, with the interval of the mean."""
    factors = FactorRange(factors=list(reversed(buckets)), range_padding=0.02)
    ends = [0.0]
    for bars in each:
        for found in bars.estimates.values():
            ends += [found.mean, *((found.interval.low, found.interval.high) if found.interval else ())]
    span = (max(ends) - min(ends)) or 1.0
    x_range = Range1d(start=min(ends) - 0.05 * span, end=max(ends) + 0.05 * span)
    height = 80 + max(26, 13 * len(each) + 8) * len(buckets)
    fig = look.blank_figure(height, x_range, factors, x_label, "")
    fig.xaxis.ticker = BasicTicker(desired_num_ticks=4)
    look.thousands(fig, y=None)
    fig.ygrid.grid_line_color = None
    fig.toolbar.active_drag = None
    thick = 0.82 / max(len(each), 1)
    for at, bars in enumerate(each):
        offset = 0.41 - thick * (at + 0.5)
        there = [bucket for bucket in buckets if bucket in bars.estimates]
        shown = [bars.estimates[bucket] for bucket in there]
        source = ColumnDataSource({
            "who": there, "mean": [f.mean for f in shown], "setting": [bars.label] * len(there),
            "text": [formats.money(f.mean) for f in shown], "n": [f.n for f in shown],
            "low": [f.interval.low if f.interval else f.mean for f in shown],
            "high": [f.interval.high if f.interval else f.mean for f in shown],
        })  # fmt: skip
        y = dodge("who", offset, range=factors)
        drawn = fig.hbar(y=y, right="mean", left=0, height=thick * 0.9, source=source, fill_color=bars.colour,
                         line_color=None)  # fmt: skip
        fig.segment("low", y, "high", y, source=source, color=look.INK, line_width=1.4)
        look.hover_point(fig, drawn, [("who", "@who"), ("setting", "@setting"), ("lost", "@text"),
                                      ("interval", "@low{0,0} to @high{0,0}"), ("runs", "@n")])  # fmt: skip
    look.mark_zero(fig)
    return fig
