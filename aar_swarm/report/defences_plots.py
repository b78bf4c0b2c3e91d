"""The plots of the study of the defences: a panel a measure, and the ladder over the reaction time.

Owns which glyph shows which figure. Must not estimate (that is `analysis`).
"""

from collections.abc import Sequence

from bokeh.models import DataRange1d, FixedTicker
from bokeh.plotting import figure

from aar_swarm.analysis.compared import Measure, Setting, estimate
from aar_swarm.analysis.defended import CELL, DAMAGE, Rung
from aar_swarm.report import look
from aar_swarm.report.comparison_plots import Curve
from aar_swarm.report.comparison_plots import panel as compared_panel

LADDER = DAMAGE[:2]
_IN_LINE_X, _SAME_X, _AT_ONCE_X = 0.008, 0.05, 0.25
_FIRST_MS, _NEVER_X = 1.0, 40_000.0
_BREAK_X = (0.5, 16_000.0)
"""Where the scale begins and ends."""


def panel(cells: Sequence[Setting], measure: Measure) -> figure:
    """One measure over the choices of defences."""
    points = [(cell.values[CELL], found, cell.figures(measure.key)) for cell in cells
              if (found := estimate(cell, measure)) is not None]  # fmt: skip
    fig = compared_panel(measure, [Curve("", look.BID, points)], "", [cell.values[CELL] for cell in cells])
    fig.xaxis.major_label_orientation = 0.5
    _from_zero(fig, [value for cell in cells for value in cell.figures(measure.key)])
    return fig


def place(rung: Rung) -> float:
    """Where a rung stands on the logarithmic axis: in-line at the left end, never at the right."""
    if rung.reaction_ms is None:
        return _NEVER_X
    if rung.reaction_ms < 0:
        return _IN_LINE_X if rung.reaction_ms == -1 else _SAME_X
    return _AT_ONCE_X if rung.reaction_ms < _FIRST_MS else rung.reaction_ms


def ladder(rungs: Sequence[Rung], measure: Measure) -> figure:
    """Damage over the reaction time: means with their intervals, the single runs faint; what applies to no run is not
    drawn."""
    ends = look.shared_range((_IN_LINE_X / 2, _NEVER_X * 2))
    fig = look.blank_figure(340, ends, DataRange1d(range_padding=0.1), "From the alert to the halt", measure.unit,
                            x_axis_type="log")  # fmt: skip
    look.thousands(fig, x=False, y="0,0")
    fig.toolbar.active_drag = None
    fig.xaxis.ticker = FixedTicker(ticks=[place(rung) for rung in rungs])
    fig.xaxis.major_label_overrides = {
        place(rung): rung.label.replace(" ", "\n") if _is_in_line(rung) else rung.label for rung in rungs
    }
    found = [(place(rung), each, rung) for rung in rungs if (each := estimate(rung.setting, measure)) is not None]
    dots = [(x, value) for x, _, rung in found for value in rung.setting.figures(measure.key)]
    fig.scatter([x for x, _ in dots], [v for _, v in dots], size=5, color=look.BID, alpha=0.3, line_color=None)
    scaled = [
        (x, each.mean) for x, each, rung in found if (rung.reaction_ms or 0) >= 0 and rung.reaction_ms is not None
    ]
    fig.line([x for x, _ in scaled], [y for _, y in scaled], color=look.BID, line_width=2)
    if scaled and found[-1][2].reaction_ms is None:
        fig.line([scaled[-1][0], found[-1][0]], [scaled[-1][1], found[-1][1].mean], color=look.BID, line_width=1.5,
                 line_dash="dotted")  # fmt: skip
    bars = [(x, each.interval, _colour(rung)) for x, each, rung in found if each.interval is not None]
    fig.segment([x for x, _, _ in bars], [b.low for _, b, _ in bars], [x for x, _, _ in bars],
                [b.high for _, b, _ in bars], color=[c for _, _, c in bars], line_width=2)  # fmt: skip
    for end in ("low", "high"):
        fig.scatter([x for x, _, _ in bars], [getattr(b, end) for _, b, _ in bars], marker="dash", size=11,
                    color=[c for _, _, c in bars], line_width=2)  # fmt: skip
    fig.scatter([x for x, _, _ in found], [each.mean for _, each, _ in found], size=10,
                color=[_colour(rung) for _, _, rung in found], line_color="#ffffff",
                marker=["square" if _is_in_line(rung) else "circle" for _, _, rung in found])  # fmt: skip
    for x, text, left in ((_BREAK_X[0], "to scale", False), (_BREAK_X[1], "", True)):
        look.mark_time(fig, x, text, look.MUTED, "dotted", left=left)
    _from_zero(fig, [value for _, value in dots])
    return fig


def _is_in_line(rung: Rung) -> bool:
    return rung.reaction_ms is not None and rung.reaction_ms < 0


def _colour(rung: Rung) -> str:
    return look.TRIP if _is_in_line(rung) else look.BID


def _from_zero(fig: figure, values: Sequence[float]) -> None:
    """An axis that begins at 0, so that heights compare; not where something is below it."""
    if values and min(values) >= 0 and isinstance(fig.y_range, DataRange1d):
        fig.y_range.start = 0
        if not max(values):
            fig.y_range.end = 1
