"""The page of a study of scale: what each size took, how each figure grows, the conditions.

Owns the order of the page, its plots and its file. Must not compute what a figure means, nor load anything.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bokeh import __version__ as bokeh_version
from bokeh.embed import components
from bokeh.models import DataRange1d, FixedTicker
from bokeh.models.annotations import Legend, LegendItem
from bokeh.plotting import figure
from bokeh.resources import Resources

from aar_swarm.analysis.scaling import FIGURES, Exponent, Figure, Scaling, Size, value
from aar_swarm.report import formats, html, look

HOW_TABLE = "Each cell is the mean of the runs of one size, and below it the least and the most of them if they differ."
HOW_PLOTS = (
    "Each point is one run, each line the means. Both axes are logarithmic: a straight line is a power of the number "
    "of agents, and its slope is the exponent."
)
HOW_GROWTH = (
    "The exponent b of figure ≈ c · agents^b with its 95 % confidence interval, by least squares over the logarithms "
    "of all runs: 1 is proportional to the agents, 0 independent of them. It holds between the sizes that were "
    "measured; docs/scaling.md says what ends it beyond."
)
_COLOURS = (look.BID, look.ASK, look.SIGNAL, look.TRIP, look.INK)
_DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot")


def write_scaling_page(
    path: Path, title: str, found: Scaling, failures: Sequence[str], conditions: Mapping[str, str]
) -> None:
    """Write the page, replacing the file if there is one."""
    plots = {figure.key: _plot(found, figure) for figure in FIGURES[:-1] if _drawn(found, figure)}
    script, divs = components({**plots}) if plots else ("", {})
    cells = [
        html.plot_cell(f"{each.name}, {each.unit}", "Over agents", [divs[each.key]], "")
        for each in FIGURES
        if each.key in divs
    ]
    sections = [
        html.Section("table", "Sizes", "What each size took", HOW_TABLE, sizes_table(found)),
        html.Section("growth", "Growth", "How it grows with the number of agents", HOW_GROWTH, growth_table(found)),
        html.Section("plots", "Plots", "Every run", HOW_PLOTS, html.columns(cells)),
    ]
    if failures:
        sections.append(html.Section("failed", "Failed runs", "Failed runs, left out", "", html.bullets(failures)))
    sections.append(html.Section("conditions", "Conditions", "Conditions", "", html.definitions(conditions)))
    labels = f"{sum(map(len, found.runs.values()))} runs of {len(found.runs)} sizes"
    head = Resources(mode="inline", components=["bokeh"]).render()
    path.write_text(html.page(title, labels, head, sections, html.footer(bokeh_version), script), encoding="utf-8")


def line_name(line: tuple[int, int]) -> str:
    hosts, packed = line
    told = f"{hosts} host{'' if hosts == 1 else 's'}"
    return told if packed == 1 else f"{told}, {packed} agents a process"


def size_name(size: Size) -> str:
    return f"{size.agents:,} agents, {line_name((size.hosts, size.agents_per_process))}"


def cell(rows: Sequence[Mapping[str, object]], measure: Figure) -> tuple[str, str]:
    """The mean, and the range if there is one."""
    found = [each for row in rows if (each := value(row, measure)) is not None]
    if not found:
        return formats.DASH, ""
    low, high = min(found), max(found)
    rest = "" if low == high else f"{formats.any_figure(low)}–{formats.any_figure(high)}"
    return formats.any_figure(sum(found) / len(found)), rest


def told(exponent: Exponent | None) -> str:
    if exponent is None:
        return formats.DASH
    return f"{exponent.value:.2f} ({exponent.low:.2f} to {exponent.high:.2f})"


def sizes_table(found: Scaling) -> str:
    head = "".join(f'<th scope="col">{escape(each.name)}<br><span class="note">{escape(each.unit)}</span></th>'
                   for each in FIGURES)  # fmt: skip
    lines = []
    for size, rows in found.runs.items():
        cells = "".join(
            f'<td>{escape(mean)}<br><span class="note">{escape(rest)}</span></td>'
            for mean, rest in (cell(rows, each) for each in FIGURES)
        )
        name = f'{escape(size_name(size))} <span class="note">×&nbsp;{len(rows)}</span>'
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return _table(f'<th scope="col">Size</th>{head}', lines)


def growth_table(found: Scaling) -> str:
    head = "".join(f'<th scope="col">{escape(line_name(line))}</th>' for line in found.lines)
    lines = []
    exponents = found.exponents()
    for each in FIGURES[:-1]:
        cells = "".join(f"<td>{escape(told(exponents[each.key][line]))}</td>" for line in found.lines)
        lines.append(f'<tr><th scope="row">{escape(each.name)}</th>{cells}</tr>')
    return _table(f'<th scope="col">Figure</th>{head}', lines)


def _table(head: str, lines: Sequence[str]) -> str:
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table class="figures compared">{body}</table></div>'


def _drawn(found: Scaling, measure: Figure) -> bool:
    return any(y > 0 for line in found.lines for _, y in found.points(measure, line))


def _plot(found: Scaling, measure: Figure) -> figure:
    agents = sorted({size.agents for size in found.runs})
    fig = look.blank_figure(
        300, DataRange1d(range_padding=0.15), DataRange1d(range_padding=0.15), "Agents", measure.unit,
        x_axis_type="log", y_axis_type="log",
    )  # fmt: skip
    fig.toolbar.active_drag = None
    look.thousands(fig, y="0,0.[000]")
    fig.xaxis.ticker = FixedTicker(ticks=agents)
    drawn: dict[str, Any] = {}
    for at, line in enumerate(found.lines):
        points = [(x, y) for x, y in found.points(measure, line) if y > 0]
        colour = _COLOURS[at % len(_COLOURS)]
        fig.scatter([x for x, _ in points], [y for _, y in points], size=6, color=colour, alpha=0.5, line_color=None)
        sizes = sorted({x for x, _ in points})
        means = [sum(ys) / len(ys) for x in sizes if (ys := [y for size, y in points if size == x])]
        drawn[line_name(line)] = fig.line(
            sizes, means, color=colour, line_width=2, line_dash=_DASHES[at % len(_DASHES)]
        )
    if len(drawn) > 1:
        fig.add_layout(Legend(items=[LegendItem(label=name, renderers=[glyph]) for name, glyph in drawn.items()]))
        look.legend_above(fig)
    return fig
