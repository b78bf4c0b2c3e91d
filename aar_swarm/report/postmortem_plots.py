"""The plots of a post-mortem's page: the chain, price and loss to come on one time axis, depth of causation, defences.

Owns which glyph shows what. Takes postmortem.json's object and tables; measures nothing.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
from bokeh.core.properties import value
from bokeh.models import ColumnDataSource, FactorRange, FixedTicker, Range1d
from bokeh.models.annotations import Arrow, Label, NormalHead
from bokeh.plotting import figure

from aar_swarm.report import formats, look
from aar_swarm.report import postmortem_words as words
from aar_swarm.report.decimate import decimate

Found = Mapping[str, Any]
Ends = tuple[float, float]
_LANES = ("Decisions", "Price", "Forced", "Loss")
_LANE_COLOURS = {"Decisions": "#e3f0fa", "Price": "#f1f3f5", "Forced": "#fdebd8", "Loss": "#fbe3ee"}
_PALETTE = ("#0072B2", "#D55E00", "#007A5A", "#C27A00", "#B0005E", "#52606d", "#56B4E9", "#332288")
_MOST_DRAWN = 4000
_BOX_PX = 12


def time_ends(found: Found) -> Ends:
    """Of the time axis, ms: from a little before the first cause to a little after the trough."""
    span = max(found["fall"]["trough_ms"], 1.0)
    return -0.12 * span, 1.3 * span


def chain_plot(found: Found) -> figure:
    """A column a step, a lane each for what was decided, what the price did, what was forced and what it cost."""
    steps = found["chain"]
    fig = look.blank_figure(
        440, Range1d(start=0.45, end=len(steps) + 0.55), Range1d(start=-0.55, end=len(_LANES) - 0.4), "Step", ""
    )
    fig.toolbar_location = None
    fig.xaxis.ticker = FixedTicker(ticks=list(range(1, len(steps) + 1)))
    fig.yaxis.ticker = FixedTicker(ticks=list(range(len(_LANES))))
    fig.yaxis.major_label_overrides = {len(_LANES) - 1 - at: name for at, name in enumerate(_LANES)}
    fig.xaxis.major_label_overrides = {
        step["step"]: f"{step['step']}. {look.wrap(step['name'], 24)}\n+{step['from_ms']:,.1f} ms" for step in steps
    }
    fig.grid.grid_line_color = None
    boxes: dict[tuple[int, str], str] = {}
    for step in steps:
        for lane, text in _boxes(step, found["subject"]).items():
            boxes[step["step"], lane] = text
    for (number, lane), text in boxes.items():
        y = _y(lane)
        fig.rect(number, y, 0.8, 0.62, fill_color=_LANE_COLOURS[lane], line_color="#9aa5b1", line_width=1)
        fig.add_layout(
            Label(x=number, y=y, text=text, text_align="center", text_baseline="middle", text_color=look.INK,
                  text_font=look.FONT, text_font_size=f"{_BOX_PX}px", text_line_height=1.2)
        )  # fmt: skip
    for number, lane in boxes:
        for after, to in _follows(number, lane):
            if (after, to) in boxes:
                _arrow(fig, number, lane, after, to)
    return fig


def _y(lane: str) -> int:
    return len(_LANES) - 1 - _LANES.index(lane)


def _boxes(step: Found, subject: str) -> dict[str, str]:
    decided, moved = step["decisions"], step["to_ticks"] - step["from_ticks"]
    found = {"Price": f"{step['from_ticks']:,.0f} → {step['to_ticks']:,.0f}\n({words.signed(moved)} ticks)"}
    if decided["commands"]:
        rules = list(decided["by_rule"].items())
        first = next(((rule, count) for rule, count in rules if rule not in ("QUOTE", "WITHDRAW")), rules[0])
        found["Decisions"] = f"{decided['commands']:,} commands\n{first[0].replace('_', ' ').lower()} {first[1]:,}"
    forced = [
        f"{step[key]:,} {name}"
        for key, name in (
            ("margin_calls", "calls"),
            ("liquidations", "liquidated"),
            ("loan_liquidations", "loans"),
            ("taken_over_or_deleveraged", "taken over"),
        )
        if step[key]
    ]
    if step["bad_debt"]:
        forced.append(f"bad debt {formats.money(step['bad_debt'])}")
    if forced:
        found["Forced"] = "\n".join([", ".join(forced[:2]), *[", ".join(forced[2:])][: len(forced) > 2]])
    lost = step["loss_subject"]
    found["Loss"] = f"{subject}\n{'lost' if lost >= 0 else 'gained'} {formats.money(abs(lost))}"
    return found


def _follows(number: int, lane: str) -> list[tuple[int, str]]:
    """Orders move the price, prices force sales and make others decide, forced sales move the price again."""
    return {
        "Decisions": [(number, "Price")],
        "Price": [(number, "Forced"), (number + 1, "Decisions")],
        "Forced": [(number, "Loss"), (number + 1, "Price")],
        "Loss": [],
    }[lane]


def _arrow(fig: figure, number: int, lane: str, after: int, to: str) -> None:
    y, y_to = _y(lane), _y(to)
    if after == number:
        start, end = (float(number), y - 0.31), (float(after), y_to + 0.31)
    else:
        start, end = (number + 0.4, float(y)), (after - 0.4, float(y_to))
    fig.add_layout(
        Arrow(  # type: ignore[call-arg]  # the stubs know line_… by another name
            end=NormalHead(size=7, fill_color=look.MUTED, line_color=look.MUTED),
            x_start=start[0], y_start=start[1], x_end=end[0], y_end=end[1],
            line_color=look.MUTED, line_width=1.3,
        )
    )  # fmt: skip


def price_plot(found: Found, trades: pl.DataFrame, x_range: Range1d, ends: Ends, tick_size: float) -> figure:
    """Trades (time_ms, price_ticks), with the beginning of each step."""
    fall = found["fall"]
    shown = trades.filter(pl.col("time_ms").is_between(2 * ends[0], 2 * ends[1]))
    inside = shown.filter(pl.col("time_ms").is_between(*ends))["price_ticks"].to_numpy()
    low = int(inside.min(initial=fall["trough_ticks"]))
    high = int(inside.max(initial=fall["peak_ticks"]))
    room = 0.08 * (high - low)
    y_range = Range1d(start=(low - 2 * room) * tick_size, end=(high + 3 * room) * tick_size)
    fig = look.blank_figure(360, x_range, y_range, "Time since the first cause (ms)", "Price")
    decimals = "0,0." + "0" * formats.tick_decimals(tick_size)
    look.thousands(fig, y=decimals)
    kept = decimate(shown, ("price_ticks",), 1500)
    source = ColumnDataSource(
        {"t": kept["time_ms"].to_numpy(), "price": kept["price_ticks"].cast(pl.Float64).to_numpy() * tick_size}
    )
    dots = fig.scatter("t", "price", source=source, size=4, color=look.BID, alpha=0.5, line_color=None)
    look.hover_point(fig, dots, [("trade at", "@t{0,0.00} ms"), ("price", f"@price{{{decimals}}}")])
    look.mark_level(fig, fall["calm_ticks"] * tick_size, "lower end of the calm range")
    _mark_steps(fig, found, ends)
    low_price = fall["trough_ticks"] * tick_size
    look.mark_point(fig, fall["trough_ms"], low_price, f"trough {formats.price(low_price, tick_size)}")
    return fig


def _mark_steps(fig: figure, found: Found, ends: Ends) -> None:
    """The number of each step at its beginning; those that are close together, one below the other."""
    span = ends[1] - ends[0]
    at, down = float("-inf"), 0
    for step in found["chain"]:
        down = down + 1 if step["from_ms"] - at < 0.02 * span else 0
        at = step["from_ms"]
        colour = look.SIGNAL if step["step"] == 1 else look.TRIP
        look.mark_time(fig, at, str(step["step"]), colour, "dashed" if step["step"] == 1 else "dotted", lines_down=down)


def stops_plot(found: Found, x_range: Range1d, ends: Ends) -> figure:
    """The subject's loss that was still to come, over time."""
    losses = [stop["loss_subject"] for stop in found["stops"]]
    low, high = min(0.0, *losses), max(0.0, *losses)
    room = 0.08 * ((high - low) or 1.0)
    y_range = Range1d(start=low - room, end=high + 3 * room)
    fig = look.blank_figure(
        280, x_range, y_range, "Time since the first cause (ms)", f"Loss of the {found['subject']} to come"
    )
    look.thousands(fig)
    source = ColumnDataSource(
        {
            "t": [stop["ms"] for stop in found["stops"]],
            "loss": losses,
            "fall": [stop["drawdown_bps"] for stop in found["stops"]],
        }
    )
    fig.line("t", "loss", source=source, color=look.LOST, line_width=2)
    dots = fig.scatter("t", "loss", source=source, size=5, color=look.LOST)
    look.hover_point(
        fig, dots, [("stopped at", "@t{0,0.00} ms"), ("loss to come", "@loss{0,0}"), ("fall to come", "@fall{0,0} bps")]
    )
    _mark_steps(fig, found, ends)
    return fig


def depth_plot(found: Found, commands: pl.DataFrame, x_range: Range1d, ends: Ends) -> figure:
    """Every decision (ms, depth, participants, rule) by how many links it is away from its root, and the path to the
    trough."""
    inside = commands.filter(pl.col("ms").is_between(*ends))
    step = max(1, -(-inside.height // _MOST_DRAWN))
    shown = inside.gather_every(step)
    most = float(inside["depth"].to_numpy().max(initial=1))
    fig = look.blank_figure(
        320,
        x_range,
        Range1d(start=-0.04 * most, end=1.08 * most),
        "Time since the first cause (ms)",
        "Links to the root",
    )
    look.thousands(fig)
    names = shown["participants"].value_counts(sort=True)["participants"].to_list()
    for number, name in enumerate(names):
        part = shown.filter(pl.col("participants") == name)
        source = ColumnDataSource(
            {"t": part["ms"].to_numpy(), "depth": part["depth"].to_numpy(), "rule": part["rule"].to_list(),
             "sequence": part["sequence"].to_numpy()}
        )  # fmt: skip
        colour = _PALETTE[number % len(_PALETTE)]
        marker = ("circle", "square", "triangle", "diamond")[number // len(_PALETTE) % 4]
        dots = fig.scatter(
            "t",
            "depth",
            source=source,
            size=4,
            color=colour,
            alpha=0.5,
            line_color=None,
            marker=marker,
            legend_label=name,
        )
        look.hover_point(
            fig, dots, [("command", "@sequence{0,0}"), ("at", "@t{0,0.00} ms"), ("rule", "@rule"), ("links", "@depth")]
        )
    links = found["paths"]["trough"]
    fig.line([link["ms"] for link in links], [link["depth"] for link in links], color=look.INK, line_width=1.4,
             legend_label="path to the trough")  # fmt: skip
    look.legend_above(fig)
    if step > 1:
        fig.tags = [*fig.tags, f"every {step}th of {inside.height:,} decisions"]
    return fig


def saved_plot(found: Found) -> figure:
    """One bar a defence: how much less the subject lost with it, the same messages kept."""
    rows = found["defences"]
    saved = [row["saved"]["loss_subject"] for row in rows]
    low, high = min([0.0, *saved]), max([0.0, *saved])
    span = (high - low) or 1.0
    ends = Range1d(start=low - (0.45 * span if low < 0 else 0.02 * span), end=high + 0.45 * span)
    names = FactorRange(factors=[row["defence"] for row in rows][::-1])
    label = f"Less lost by the {found['subject']} than as it was, currency (below 0: more)"
    fig = look.blank_figure(80 + 34 * max(len(rows), 1), ends, names, label, "")
    look.thousands(fig, y=None)
    fig.ygrid.grid_line_color = None
    fig.toolbar.active_drag = None
    source = ColumnDataSource(
        {
            "name": [row["defence"] for row in rows],
            "saved": saved,
            "text": [_saved_text(row) for row in rows],
            "colour": [look.GAINED if amount >= 0 else look.LOST for amount in saved],
            "at": [max(amount, 0.0) for amount in saved],
        }
    )
    fig.hbar(y="name", right="saved", left=0, height=0.62, source=source, color="colour", alpha=0.85)
    fig.text("at", "name", text="text", source=source, x_offset=6, text_baseline="middle", text_color=look.INK,
             text_font=value(look.FONT), text_font_size="12px")  # fmt: skip
    look.mark_zero(fig)
    if not rows:
        look.say_empty(fig, "No defence to replay with")
    return fig


def _saved_text(row: Found) -> str:
    stopped = (
        "never stopped" if row["stopped_ms"] is None else f"stopped after {formats.milliseconds(row['stopped_ms'])}"
    )
    fallen = formats.DASH if row["drawdown_bps"] is None else f"{row['drawdown_bps']:,.0f} bps"
    return f"{formats.money(row['saved']['loss_subject'])} · {stopped} · fell {fallen}"
