"""The plots of a report: one function a kind, one figure a run.

Owns which glyph shows which column. Ranges come from outside, so that the runs of a row share them. Must not filter
away what happened: what is too much to draw goes through `decimate`, which keeps every extreme.
"""

from dataclasses import replace
from typing import Literal, cast

import numpy as np
import polars as pl
from bokeh.core.properties import value
from bokeh.models import BasicTicker, ColumnDataSource, FactorRange, Range1d
from bokeh.plotting import figure

from aar_swarm.report import formats, look
from aar_swarm.report.decimate import decimate, decimate_around, with_ends
from aar_swarm.report.picture import Picture
from aar_swarm.report.views import Range


def price_plot(
    picture: Picture, x_range: Range1d, y_range: Range1d, *, height: int, bins: int, event_ms: Range, zoom: bool
) -> figure:
    """Trades, best bid and best ask; over the session, or (`zoom`) over the event, in ms since the anchor."""
    origin = picture.anchor_ms if zoom else 0.0
    fig = look.blank_figure(height, x_range, y_range, _time_label(picture, zoom), "Price")
    decimals = "0,0." + "0" * formats.tick_decimals(picture.tick_size)
    look.thousands(fig, y=decimals)
    trades = _shown(fig, "trades", picture, picture.trades, ("price_ticks",), bins, event_ms, zoom)
    book = _shown(fig, "quote updates", picture, picture.book, ("bid_ticks", "ask_ticks"), bins, event_ms, zoom)
    points = ColumnDataSource({"t": _float(trades, "t"), "price": _float(trades, "price_ticks") * picture.tick_size,
                               "lots": _float(trades, "quantity_lots")})  # fmt: skip
    dots = fig.scatter("t", "price", source=points, size=5, color=look.TRADE, alpha=0.5, line_color=None,
                       legend_label="Trade")  # fmt: skip
    quotes = _two_sides(fig, book, ("bid_ticks", "ask_ticks"), picture.tick_size, ("Best bid", "Best ask"))
    look.hover_time(fig, quotes, "bid", [("quotes from", "@t{0,0.00} ms"), ("bid", f"@bid{{{decimals}}}"),
                                         ("ask", f"@ask{{{decimals}}}")])  # fmt: skip
    look.hover_point(fig, dots, [("trade at", "@t{0,0.00} ms"), ("price", f"@price{{{decimals}}}"),
                                 ("lots", "@lots{0,0}")])  # fmt: skip
    _mark_events(fig, picture, origin, x_range, full=True)
    trough = picture.trough()
    if trough is not None and (not zoom or event_ms[0] <= trough[0] - origin <= event_ms[1]):
        text = f"trough {formats.price(trough[1], picture.tick_size)}"
        look.mark_point(fig, trough[0] - origin, trough[1], text, _alignment(_place(trough[0] - origin, x_range)))
    if trades.is_empty() and book.is_empty():
        look.say_empty(fig, "No trades and no quotes")
    look.legend_above(fig)
    return fig


def depth_plot(
    picture: Picture, x_range: Range1d, y_range: Range1d, *, height: int, bins: int, event_ms: Range
) -> figure:
    """Lots within 1 % of the mid, a side each, over the session."""
    fig = look.blank_figure(height, x_range, y_range, _time_label(picture, False), "Lots within 1 % of mid")
    look.thousands(fig)
    columns = ("bid_depth_lots", "ask_depth_lots")
    book = _shown(fig, "quote updates", picture, picture.book, columns, bins, event_ms, zoom=False)
    source = _two_sides(fig, book, columns, 1.0, ("Bid depth", "Ask depth"))
    look.hover_time(fig, source, "bid", [("from", "@t{0,0.00} ms"), ("bid depth", "@bid{0,0} lots"),
                                         ("ask depth", "@ask{0,0} lots")])  # fmt: skip
    _mark_events(fig, picture, 0.0, x_range, full=False)
    if book.is_empty():
        look.say_empty(fig, "No quotes")
    look.legend_above(fig)
    return fig


def load_plot(
    picture: Picture, x_range: Range1d, y_range: Range1d, *, height: int, bins: int, window_ms: Range
) -> figure:
    """Orders, trades and rejects in each millisecond, over a window of ms since the anchor."""
    fig = look.blank_figure(height, x_range, y_range, _time_label(picture, True), "Per millisecond")
    look.thousands(fig)
    load = _every_millisecond(fig, picture, window_ms, bins)
    source = ColumnDataSource({"t": _float(load, "time_ms"), "zero": np.zeros(load.height)}
                              | {name: _float(load, name) for name in ("orders", "trades", "rejects")})  # fmt: skip
    # Filled, and outlined: a millisecond narrower than a pixel would fade, and with it the peaks.
    for column, colour, name in (("trades", look.TRADES, "Trades"), ("orders", look.ORDERS, "Orders received")):
        fig.varea_step("t", "zero", column, source=source, step_mode="after", color=colour, legend_label=name)
        fig.step("t", column, source=source, mode="after", color=colour, line_width=1, legend_label=name)
    fig.step("t", "rejects", source=source, mode="after", color=look.REJECTS, line_width=1.2, legend_label="Rejects")
    look.hover_time(fig, source, "orders", [("millisecond from", "@t{0,0.0} ms"), ("orders", "@orders{0,0}"),
                                            ("trades", "@trades{0,0}"), ("rejects", "@rejects{0,0}")])  # fmt: skip
    _mark_events(fig, picture, picture.anchor_ms, x_range, full=False)
    if picture.load.is_empty():
        look.say_empty(fig, "No orders")
    look.legend_above(fig)
    return fig


def loss_plot(picture: Picture, x_range: Range1d, y_range: FactorRange) -> figure:
    """One bar a class of participants: to the right what it lost, to the left what it gained."""
    fig = look.blank_figure(70 + 36 * len(y_range.factors), x_range, y_range, "Lost → (gained ←), currency", "")
    fig.xaxis.ticker = BasicTicker(desired_num_ticks=4)
    look.thousands(fig, y=None)
    fig.ygrid.grid_line_color = None
    fig.toolbar.active_drag = None
    losses = picture.losses.filter(pl.col("loss").is_not_null())
    lost = losses["loss"].to_list()
    source = ColumnDataSource({
        "who": losses["participants"].to_list(), "loss": lost, "agents": losses["agents"].to_list(),
        "each": [formats.money(amount) for amount in losses["loss_per_agent"]],
        "worst": [formats.money(amount) for amount in losses["worst_loss"]],
        "text": [formats.money(amount) for amount in lost],
        "colour": [look.LOST if amount > 0 else look.GAINED for amount in lost],
        "pattern": [" " if amount > 0 else "/" for amount in lost],
        "align": ["left" if amount >= 0 else "right" for amount in lost],
        "offset": [6 if amount >= 0 else -6 for amount in lost],
    })  # fmt: skip
    bars = fig.hbar(y="who", right="loss", left=0, height=0.62, source=source, fill_color="colour", line_color=None,
                    hatch_pattern="pattern", hatch_color="#ffffff", hatch_alpha=0.5, hatch_scale=8)  # fmt: skip
    fig.text("loss", "who", "text", source=source, text_align="align", x_offset="offset", text_baseline="middle",
             text_font_size="12px", text_color=look.INK, text_font=value(look.FONT))  # fmt: skip
    look.hover_point(fig, bars, [("participants", "@who"), ("agents", "@agents{0,0}"), ("lost", "@text"),
                                 ("lost per agent", "@each"), ("worst agent lost", "@worst")])  # fmt: skip
    look.mark_zero(fig)
    if losses.is_empty():
        look.say_empty(fig, "No losses recorded")
    return fig


def liquidations_plot(picture: Picture, x_range: Range1d, y_range: Range1d) -> figure:
    """Margin accounts and loans liquidated in each millisecond, over the session."""
    fig = look.blank_figure(250, x_range, y_range, _time_label(picture, False), "Per millisecond")
    look.thousands(fig)
    found = picture.liquidations
    for column, colour, name in (("margin", look.LOST, "Margin accounts"), ("loans", look.GAINED, "Loans")):
        some = found.filter(pl.col(column) > 0)
        if some.is_empty():
            continue
        source = ColumnDataSource({"t": _float(some, "time_ms"), "count": _float(some, column)})
        # Lines and not bars: a bar of a millisecond is narrower than a pixel.
        fig.segment("t", 0, "t", "count", source=source, color=colour, line_width=1.5, legend_label=name)
        dots = fig.scatter("t", "count", source=source, size=5, color=colour, legend_label=name)
        look.hover_point(fig, dots, [("millisecond from", "@t{0,0} ms"), (name, "@count{0,0}")])
    _mark_events(fig, picture, 0.0, x_range, full=False)
    if found.is_empty():
        look.say_empty(fig, "No liquidations")
    look.legend_above(fig)
    return fig


def coin_plot(picture: Picture, x_range: Range1d, y_range: Range1d) -> figure:
    """Trades of the stablecoin, and its par."""
    fig = look.blank_figure(270, x_range, y_range, _time_label(picture, False), "Price of the stablecoin")
    coin = decimate(picture.coin, ("price_ticks",), 1_500)
    _say_drawn(fig, coin, picture.coin, "trades")
    source = ColumnDataSource({"t": _float(coin, "time_ms"), "price": _float(coin, "price_ticks") * picture.tick_size})
    fig.step("t", "price", source=source, mode="after", color=look.BID, line_width=1.2)
    dots = fig.scatter("t", "price", source=source, size=4, color=look.TRADE, alpha=0.6, line_color=None)
    look.hover_point(fig, dots, [("trade at", "@t{0,0.00} ms"), ("price", "@price{0,0.[0000]}")])
    if picture.coin_par_ticks is not None:
        look.mark_level(fig, picture.coin_par_ticks * picture.tick_size, "par")
    _mark_events(fig, picture, 0.0, x_range, full=False)
    if coin.is_empty():
        look.say_empty(fig, "No trades of the stablecoin")
    return fig


def losers_plot(picture: Picture, table: pl.DataFrame, buckets: list[str], dimension: str) -> figure:
    """Loss per agent, one bar a bucket of leverage or speed."""
    frame = table.select(
        pl.col("bucket").alias("participants"), "agents", pl.col("loss_per_agent").alias("loss"), "loss_per_agent",
        pl.lit(None, pl.Float64).alias("worst_loss"),
    )  # fmt: skip
    found = [0.0, *(float(loss) for loss in frame["loss"].drop_nulls())]
    span = (max(found) - min(found)) or 1.0
    ends = Range1d(start=min(found) - (0.3 * span if min(found) < 0 else 0), end=max(found) + 0.3 * span)
    fig = loss_plot(replace(picture, losses=frame), ends, FactorRange(factors=buckets[::-1]))
    fig.xaxis.axis_label = f"By {dimension}: lost → (gained ←) per agent, currency"
    return fig


def _time_label(picture: Picture, since_anchor: bool) -> str:
    return f"Time since {picture.anchor_name} (ms)" if since_anchor else "Time since the session opened (ms)"


def _two_sides(
    fig: figure, book: pl.DataFrame, columns: tuple[str, str], unit: float, names: tuple[str, str]
) -> ColumnDataSource:
    """A line of steps for the bid side (solid) and one for the ask side (dashed)."""
    book = with_ends(book, columns, "t")
    source = ColumnDataSource({"t": _float(book, "t")} | {
        side: _float(book, column) * unit for side, column in zip(("bid", "ask"), columns, strict=True)})  # fmt: skip
    fig.step("t", "bid", source=source, mode="after", color=look.BID, line_width=1.6, legend_label=names[0])
    fig.step("t", "ask", source=source, mode="after", color=look.ASK, line_width=1.6, line_dash=[6, 2],
             legend_label=names[1])  # fmt: skip
    return source


def _shown(
    fig: figure, what: str, picture: Picture, frame: pl.DataFrame, columns: tuple[str, ...], bins: int, event_ms: Range,
    zoom: bool,
) -> pl.DataFrame:  # fmt: skip
    """The rows to draw, with "t" in ms since the open; or, zoomed, since the anchor, one event's length to each side,
    so that one can pan."""
    start, end = event_ms[0] + picture.anchor_ms, event_ms[1] + picture.anchor_ms
    if zoom:
        length = end - start
        frame = frame.filter(pl.col("time_ms").is_between(start - length, end + length))
    kept = decimate_around(frame, columns, bins, (start, end))
    _say_drawn(fig, kept, frame, what)
    return kept.with_columns(t=pl.col("time_ms").cast(pl.Float64) - (picture.anchor_ms if zoom else 0.0))


def _every_millisecond(fig: figure, picture: Picture, window_ms: Range, bins: int) -> pl.DataFrame:
    """The load with its empty bins, in ms since the anchor; one window's width to each side, so that one can pan."""
    span = window_ms[1] - window_ms[0]
    first = int(picture.anchor_ms + window_ms[0] - span)
    last = int(picture.anchor_ms + window_ms[1] + span)
    every = pl.DataFrame({"time_ms": np.arange(max(first, 0), last + 1, dtype=np.int64)})
    load = every.join(picture.load.cast({"time_ms": pl.Int64}), on="time_ms", how="left").fill_null(0)
    load = load.sort("time_ms")
    kept = decimate(load, ("orders", "trades", "rejects"), bins)
    _say_drawn(fig, kept, load, "milliseconds")
    return kept.with_columns(time_ms=pl.col("time_ms").cast(pl.Float64) - picture.anchor_ms)


def _say_drawn(fig: figure, kept: pl.DataFrame, frame: pl.DataFrame, what: str) -> None:
    """Where not all rows are drawn, the figure's tags say so, for the caption."""
    if kept.height < frame.height:
        fig.tags = [*fig.tags, f"{kept.height:,} of {frame.height:,} {what}"]


def _float(frame: pl.DataFrame, column: str) -> np.ndarray:
    """A column for the browser; null becomes NaN, which breaks a line and is not drawn."""
    return frame[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _place(x: float, x_range: Range1d) -> float:
    """Where along the initial range: 0 at its start, 1 at its end."""
    start, end = cast(float, x_range.start), cast(float, x_range.end)
    return (x - start) / (end - start)


def _alignment(place: float) -> Literal["left", "center", "right"]:
    """Of a text centred there, unless it would leave the plot."""
    return "left" if place < 0.1 else "right" if place > 0.9 else "center"


def _mark_events(fig: figure, picture: Picture, origin: float, x_range: Range1d, *, full: bool) -> None:
    """The signal's and the trip's lines; `full` says why the breaker tripped. The two are often a few pixels apart, so
    the signal's name is to the left and the trip's to the right, unless there is no room there. The ground after a trip
    is shaded when nothing traded any more."""
    signal_left = False
    if picture.signal_ms is not None:
        x = picture.signal_ms - origin
        signal_left = _place(x, x_range) > 0.12
        text = "signal" if origin else f"signal\n{formats.milliseconds(picture.signal_ms)}"
        look.mark_time(fig, x, text, look.SIGNAL, "dashed", left=signal_left)
    if picture.trip_ms is not None:
        x = picture.trip_ms - origin
        if picture.trades.filter(pl.col("time_ms") > picture.trip_ms).is_empty():
            look.shade_from(fig, x)
        left = _place(x, x_range) > 0.6
        text = f"trip {'+' if origin and x > 0 else ''}{formats.milliseconds(x)}"
        text += f"\n{look.wrap(picture.trip_text)}" if full and picture.trip_text else ""
        down = 2 if left == signal_left and picture.signal_ms is not None else 0
        look.mark_time(fig, x, text, look.TRIP, "solid", left=left, lines_down=down)
