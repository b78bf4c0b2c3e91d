"""The look of every plot: palette, fonts, frame, and the lines that mark the signal, the trip and the trough.

Owns style. The colours are Okabe and Ito's, which people with any common colour blindness can tell apart; what a colour
says is said by a dash, a shape or a word as well. Must not know what is plotted.
"""

import textwrap
from typing import Any, Literal

from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    HoverTool,
    Node,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.models.annotations import BoxAnnotation, Label, Span
from bokeh.plotting import figure

INK, MUTED, RULE = "#1f2933", "#52606d", "#e4e7eb"
BID, ASK, TRADE = "#0072B2", "#C27A00", "#7b8794"
ORDERS, TRADES, REJECTS = "#2b8cc4", "#b8c2cc", "#D55E00"
SIGNAL, TRIP = "#007A5A", "#B0005E"
LOST, GAINED = "#D55E00", "#0072B2"
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_LINE_PX = 14


def blank_figure(height: int, x_range: Any, y_range: Any, x_label: str, y_label: str, **options: Any) -> figure:
    """An empty plot of the house style. Ranges may be shared between plots, which then move together."""
    fig = figure(
        height=height, sizing_mode="stretch_width", x_range=x_range, y_range=y_range, tools="",
        toolbar_location="above",
        x_axis_label=x_label, y_axis_label=y_label, min_border_left=86, min_border_right=12, **options,
    )  # fmt: skip
    # A drag enlarges a stretch of time. The wheel scrolls the page until the reader chooses otherwise.
    enlarge = BoxZoomTool(dimensions="width")
    fig.add_tools(enlarge, BoxZoomTool(), PanTool(), WheelZoomTool(), ResetTool(), SaveTool())
    fig.toolbar.active_drag = enlarge
    fig.toolbar.active_scroll = None
    fig.toolbar.logo = None
    fig.toolbar.autohide = True
    fig.outline_line_color = None
    fig.background_fill_color = "#ffffff"
    fig.border_fill_color = "#ffffff"
    fig.grid.grid_line_color = RULE
    fig.xgrid.grid_line_alpha = 0.5
    for axis in fig.axis:
        axis.axis_line_color = "#9aa5b1"
        axis.major_tick_line_color = "#9aa5b1"
        axis.minor_tick_line_color = None
        axis.major_label_text_color = MUTED
        axis.axis_label_text_color = MUTED
        axis.major_label_text_font = axis.axis_label_text_font = FONT
        axis.major_label_text_font_size = axis.axis_label_text_font_size = "12px"
        axis.axis_label_text_font_style = "normal"
    return fig


def thousands(fig: figure, x: bool = True, y: str | None = "0,0") -> None:
    """Tick labels with thousands separators."""
    if x:
        fig.xaxis.formatter = NumeralTickFormatter(format="0,0")
    if y is not None:
        fig.yaxis.formatter = NumeralTickFormatter(format=y)


def legend_above(fig: figure) -> None:
    """The legend outside the plot, where it hides nothing; a click on an entry hides or shows what it names."""
    if not fig.legend:
        return
    legend = fig.legend[0]
    fig.add_layout(legend, "above")
    legend.orientation = "horizontal"
    legend.location = "left"
    legend.click_policy = "hide"
    legend.border_line_color = None
    legend.background_fill_alpha = 0.0
    legend.label_text_font = FONT
    legend.label_text_font_size = "12px"
    legend.label_text_color = INK
    legend.padding = 2  # type: ignore[assignment]  # one number for all sides; the stubs know only the property
    legend.margin = 2
    legend.spacing = 14
    legend.glyph_width = 22


def hover_point(fig: figure, points: Any, tooltips: list[tuple[str, str]]) -> None:
    fig.add_tools(HoverTool(renderers=[points], tooltips=tooltips, limit=3))


def hover_time(fig: figure, source: ColumnDataSource, column: str, tooltips: list[tuple[str, str]]) -> None:
    """What was in force at the time under the pointer: the row at or before it. Steps cannot be hit, so an unseen line
    through the same rows is."""
    unseen = fig.line("t", column, source=source, line_alpha=0.0)
    fig.add_tools(HoverTool(renderers=[unseen], tooltips=tooltips, mode="vline", line_policy="prev", limit=1))


def mark_time(
    fig: figure, x: float, text: str, colour: str, dash: str, *, lines_down: int = 0, left: bool = False
) -> None:
    """A vertical line with its name at the top: to its right, or to its left, so many lines of text down."""
    fig.add_layout(Span(location=x, dimension="height", line_color=colour, line_width=1.6, line_dash=dash))
    fig.add_layout(
        Label(
            x=x, y=Node(target="frame", symbol="top", offset=4 + lines_down * _LINE_PX), x_offset=-5 if left else 5,
            text=text, text_align="right" if left else "left", text_baseline="top", text_color=colour,
            text_font=FONT, text_font_size="12px", text_font_style="bold", text_line_height=1.15,
        )
    )  # fmt: skip


def mark_point(
    fig: figure, x: float, y: float, text: str, align: Literal["left", "center", "right"] = "center"
) -> None:
    """A ringed point with its name below, where there is nothing to hide."""
    source = ColumnDataSource({"x": [x], "y": [y]})
    fig.scatter("x", "y", source=source, size=12, marker="inverted_triangle", fill_color="#ffffff", line_color=INK,
                line_width=2)  # fmt: skip
    fig.add_layout(
        Label(
            x=x, y=y, y_offset=-9, text=text, text_align=align, text_baseline="top", text_color=INK, text_font=FONT,
            text_font_size="12px", text_font_style="bold", background_fill_color="#ffffff", background_fill_alpha=0.8,
        )
    )  # fmt: skip


def shade_from(fig: figure, x: float) -> None:
    """A faint ground from x to the right end of the plot."""
    fig.add_layout(BoxAnnotation(left=x, fill_color=TRIP, fill_alpha=0.045, line_color=None, level="underlay"))


def mark_level(fig: figure, y: float, text: str) -> None:
    """A horizontal line with its name at the right end."""
    fig.add_layout(Span(location=y, dimension="width", line_color=MUTED, line_width=1.2, line_dash="dotted"))
    fig.add_layout(
        Label(x=Node(target="frame", symbol="right"), y=y, x_offset=-6, y_offset=3, text=text, text_align="right",
              text_color=MUTED, text_font=FONT, text_font_size="12px")
    )  # fmt: skip


def wrap(text: str, width: int = 36) -> str:
    return textwrap.fill(text, width)


def say_empty(fig: figure, text: str) -> None:
    """In place of data, in the middle of the plot."""
    fig.add_layout(
        Label(x=Node(target="frame", symbol="center"), y=Node(target="frame", symbol="center"), text=text,
              text_align="center", text_baseline="middle", text_color=MUTED, text_font=FONT, text_font_size="14px")
    )  # fmt: skip


def shared_range(ends: tuple[float, float]) -> Range1d:
    """One range for all plots of a row; its ends are also where Reset returns to."""
    return Range1d(start=ends[0], end=ends[1])


def mark_zero(fig: figure) -> None:
    fig.add_layout(Span(location=0, dimension="height", line_color=INK, line_width=1))
