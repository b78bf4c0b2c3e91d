"""Designs of a market compared, in the terminal and as a page: one picture a figure, one table, what each design sets.

Owns the order of both. Must not compute what a figure means (that is `analysis.designed`), nor load anything.
"""

import shutil
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bokeh import __version__ as bokeh_version
from bokeh.embed import components
from bokeh.plotting import figure
from bokeh.resources import Resources
from rich import box
from rich.table import Table
from rich.text import Text

from aar_swarm.analysis.compared import Measure, Setting, estimate
from aar_swarm.analysis.designed import DESIGN, PICTURED, measures_of
from aar_swarm.report import comparison_story, html, look
from aar_swarm.report.comparison_plots import Curve, panel

_TITLE = "Designs of a market, and what speed takes in each"
HOW = (
    "Each panel is one measure, each point the mean of one design with its 95 % confidence interval, faint dots the "
    "single runs. The runs of one repeat have the same seed: the same news and draws, but every race is run anew."
)
HOW_WINS = "The same for each group of participants, named by what it does and how far it is from the venue."
_HEADING_COLUMNS, _DESIGN_COLUMNS = 30, 17
CAPTION = "– does not apply   mean [95% confidence interval of the mean]"
CAUTIONS = (
    "Snipers' gains, makers' gains and spreads are by the public value at the moment of each fill: what all news so "
    "far had made of the opening price. What a sniper pays to get rid of what it took is not in its gains of value "
    "traded, but in its gains in currency.",
    "Races are those of Aquilina, Budish and O'Neill (QJE 137(1), 2022). Baseline: within min(first answer + 29 µs, "
    "500 µs). Within 3 ms: fixed, because on few cores a scheduler spreads reactions over milliseconds. In batches "
    "nobody is first, so there are none. Each is valued 0.1 s after its start.",
    "Makers learn their spreads during the run, from the same start in every design; a short run ends before they are "
    "done.",
    "In a batch, investors who meet each other pay no maker: fewer lots are traded, and the spread that they pay is "
    "smaller for that, too.",
    "Intervals that overlap do not prove that there is no difference, and of many figures a few are apart by chance.",
)


def designs_table(settings: Sequence[Setting]) -> list[Table | str]:
    """What `aar designs` prints: one column a design, as many tables as the terminal's width needs."""
    across = max(1, (shutil.get_terminal_size().columns - _HEADING_COLUMNS) // _DESIGN_COLUMNS)
    parts = [settings[first : first + across] for first in range(0, len(settings), across)]
    made = any(setting.summaries for setting in settings)
    failed = [f"Failed: {setting.values[DESIGN]}: {reason}" for setting in settings for reason in setting.failures]
    return [*(_table(part, measures_of(settings)) for part in parts if made), *failed]


def _table(settings: Sequence[Setting], groups: Sequence[tuple[str, list[Measure]]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Designs of the market", caption=CAPTION)
    table.add_column("Measure", justify="left", overflow="fold")
    for setting in settings:
        table.add_column(Text(f"{setting.values[DESIGN]}\n{_runs(setting)}"), justify="right", overflow="fold")
    for number, (group, measures) in enumerate(groups):
        if number:
            table.add_section()
        table.add_row(Text(group, style="bold"))
        for measure in measures:
            cells = []
            for setting in settings:
                mean, rest = comparison_story.cell(setting, measure)
                cells.append(Text(mean).append(f"\n{rest}", style="dim") if rest else Text(mean))
            table.add_row(Text("  " + comparison_story.heading(measure)), *cells)
    return table


def write_designs_page(
    path: Path,
    settings: Sequence[Setting],
    sets: Mapping[str, Mapping[str, Any]],
    repeats: int,
    conditions: Mapping[str, str],
) -> None:
    """Write the page, replacing the file if there is one."""
    groups = measures_of(settings)
    there = [measure for _, measures in groups for measure in measures]
    pictured = [measure for measure in PICTURED if measure in there]
    by_group = [measure for name, measures in groups if name.startswith("Who ") for measure in measures]
    drawn: dict[str, figure] = {measure.key: _panel(settings, measure) for measure in (*pictured, *by_group)}
    script, divs = components({**drawn}) if drawn else ("", {})
    cells = [_cell(measure, divs) for measure in pictured]
    sections = [html.Section("designs", "Designs", "Tax and spread", HOW, html.columns(cells, most=3))]
    if by_group:
        cells = [_cell(measure, divs) for measure in by_group]
        sections.append(
            html.Section("wins", "Who wins", "Who wins, and who earns", HOW_WINS, html.columns(cells, most=3))
        )
    sections.append(html.Section("figures", "Figures", "All figures", "", _figures(settings, groups)))
    told = {name: ", ".join(f"{key} = {value}" for key, value in table.items()) for name, table in sets.items()}
    sections.append(html.Section("sets", "What each sets", "What each design sets", "", html.definitions(told)))
    failed = [f"{s.values[DESIGN]}: {reason}" for s in settings for reason in s.failures]
    if failed:
        sections.append(html.Section("failed", "Failed runs", "Failed runs, left out", "", html.bullets(failed)))
    body = html.bullets(CAUTIONS) + html.definitions(conditions)
    sections.append(html.Section("conditions", "Conditions", "Read with care; conditions", "", body))
    labels = f"{len(settings)} designs · {repeats} repeat{'' if repeats == 1 else 's'}"
    head = Resources(mode="inline", components=["bokeh"]).render()
    path.write_text(html.page(_TITLE, labels, head, sections, html.footer(bokeh_version), script), encoding="utf-8")


def _panel(settings: Sequence[Setting], measure: Measure) -> figure:
    names = [setting.values[DESIGN] for setting in settings]
    points = [
        (setting.values[DESIGN], found, setting.figures(measure.key))
        for setting in settings
        if (found := estimate(setting, measure)) is not None
    ]
    return panel(measure, [Curve("", look.BID, points)], "", names)


def _cell(measure: Measure, divs: Mapping[str, str]) -> str:
    return html.plot_cell(comparison_story.heading(measure), "Means", [divs[measure.key]], "")


def _figures(settings: Sequence[Setting], groups: Sequence[tuple[str, Sequence[Measure]]]) -> str:
    head = "".join(
        f'<th scope="col">{escape(s.values[DESIGN])}<br><span class="note">{escape(_runs(s))}</span></th>'
        for s in settings
    )
    bodies = []
    for group, measures in groups:
        rows = []
        for measure in measures:
            cells = "".join(_figure(setting, measure) for setting in settings)
            rows.append(f'<tr><th scope="row">{escape(comparison_story.heading(measure))}</th>{cells}</tr>')
        span = len(settings) + 1
        bodies.append(
            f'<tbody><tr><th class="group" scope="rowgroup" colspan="{span}">{escape(group)}</th></tr>'
            f"{''.join(rows)}</tbody>"
        )
    return (
        f'<div class="scroll"><table class="figures compared"><thead><tr><th scope="col">Figure</th>{head}</tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )


def _figure(setting: Setting, measure: Measure) -> str:
    mean, rest = comparison_story.cell(setting, measure)
    small = f' <span class="note">{escape(rest)}</span>' if rest else ""
    return f"<td>{escape(mean)}{small}</td>"


def _runs(setting: Setting) -> str:
    count = len(setting.summaries)
    failed = f", {len(setting.failures)} failed" if setting.failures else ""
    return f"{count} run{'' if count == 1 else 's'}{failed}"
