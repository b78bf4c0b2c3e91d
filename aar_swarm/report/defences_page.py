"""The page of the study of the defences: the ladder, then a picture and a table a scenario, calm runs, conditions.

Owns the order of the page and the file. Cells and sentences are in `defences_story`, plots in `defences_plots`. Must
not compute what a figure means, nor load anything.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from bokeh import __version__ as bokeh_version
from bokeh.embed import components
from bokeh.plotting import figure
from bokeh.resources import Resources

from aar_swarm.analysis.compared import Measure, Setting
from aar_swarm.analysis.defended import CALM, DAMAGE, STOPPED, Part, applying
from aar_swarm.report import comparison_story, defences_plots, html, words
from aar_swarm.report import defences_story as story

_TITLE = "The four defences, and what each is worth"
HOW_LADDER = (
    "Damage against how long it takes from the alert to the halt. In-line: the breaker, in the same step as the match. "
    "The others are one supervisor with one pair of eyes and a slower and slower hand, without a breaker beside it. "
    "Points are means, bars their 95 % confidence intervals, faint dots the single runs. The axis is logarithmic from "
    "1 ms on; in-line, 0 ms and never stand beside it, not to scale."
)
HOW_SCENARIO = (
    "Each panel is one measure, each point the mean of one choice of defences with its 95 % confidence interval, faint "
    "dots the single runs. In the table, " + story.MARKS + "."
)
HOW_CALM_RUNS = (
    "All defences on, and nothing happens: the scenario's own calm day. What is counted here is an alarm without a "
    "cause. Where there was none, at most three in so many runs (or hours) are compatible with that at 95 % (the "
    "rule of three); else the bound is exact (Clopper and Pearson for the share of runs, Poisson for the rate)."
)
TERMS = (
    ("prevented", "Prevented",
     "The fills (lots) of the main instrument from the end of the calm to the close in the run of the same seed "
     "without any defence, less those in this one. Below 0 there was more trading than without. Lots of the exit: the "
     "same of the lots sold by those who had planned to leave."),
    ("refused", "Refused",
     "Orders, cancels and requests rejected because of a halt, a kill, a vendor's cap or a missing explanation, and "
     "orders that a trip cut short; logons refused for a vendor's cap or an unknown model."),
    ("calm", "Calm",
     "From the opening to the signal, or to a vendor's fault where that is sooner, of the same runs. Spread and depth "
     "are means over time; depth is bid and ask lots within 1 % of the mid."),
)  # fmt: skip
CAUTIONS = (
    words.COMPARED,
    "A halt that stops a fall also stops the exit: read losses together with the lots that were sold. What was not "
    "sold is still held, and valued at the last middle price before the close.",
    "A supervisor without a breaker beside it halts to the close; a breaker whose halt ends reopens.",
    "Intervals that overlap do not prove that there is no difference, and of many figures a few are apart by chance.",
)


def write_defences_page(path: Path, parts: Sequence[Part], repeats: int, conditions: Mapping[str, str]) -> None:
    """Write the page, replacing the file if there is one."""
    drawn: dict[str, figure] = {}
    for part in parts:
        if any(rung.setting.summaries for rung in part.rungs):
            for measure in defences_plots.LADDER:
                drawn[f"ladder-{part.scenario}-{measure.key}"] = defences_plots.ladder(part.rungs, measure)
        for measure in _pictured(part):
            drawn[f"{part.scenario}-{measure.key}"] = defences_plots.panel(part.cells, measure)
    script, divs = components({**drawn}) if drawn else ("", {})
    sections = [section for part in parts for section in _ladder(part, divs)]
    sections += [section for part in parts for section in _scenario(part, divs)]
    sections += [section for part in parts for section in _calm(part)]
    failed = [text for part in parts for text in story.failures(part)]
    if failed:
        sections.append(html.Section("failed", "Failed runs", "Failed runs, left out", "", html.bullets(failed)))
    said = html.bullets(CAUTIONS) + html.definitions(conditions)
    sections.append(html.Section("conditions", "Conditions", "Conditions", "", said))
    sections.append(html.Section("glossary", "Glossary", "Glossary", "", _terms() + html.glossary()))
    labels = f"{', '.join(part.scenario for part in parts)} · {repeats} repeat{'' if repeats == 1 else 's'}"
    head = Resources(mode="inline", components=["bokeh"]).render()
    path.write_text(html.page(_TITLE, labels, head, sections, html.footer(bokeh_version), script), encoding="utf-8")


def _pictured(part: Part) -> list[Measure]:
    """What is drawn of a scenario: the damage, the trades, and what calm costs; each where it applies."""
    there = {measure.key for _, measures in applying(part.cells) for measure in measures}
    chosen = (*DAMAGE, *STOPPED[:1], *CALM[:4])
    flat = {m.key for m in DAMAGE if not any(any(setting.figures(m.key)) for setting in part.cells)}  # nothing but 0
    return [measure for measure in chosen if measure.key in there and measure.key not in flat]


def _ladder(part: Part, divs: Mapping[str, str]) -> list[html.Section]:
    if not any(rung.setting.summaries for rung in part.rungs):
        return []
    cells = [
        html.plot_cell(comparison_story.heading(m), "Ladder", [divs[f"ladder-{part.scenario}-{m.key}"]], "")
        for m in defences_plots.LADDER
    ]
    body = html.columns(cells) + _table(story.rung_heads(), [story.rung_row(rung) for rung in part.rungs])
    heading = f"The ladder: damage against reaction time, {part.scenario}"
    return [html.Section(f"ladder-{part.scenario}", f"Ladder: {part.scenario}", heading, HOW_LADDER, body)]


def _scenario(part: Part, divs: Mapping[str, str]) -> list[html.Section]:
    if not part.cells:
        missing = story.missing(part)
        return [html.Section(part.scenario, part.scenario, part.scenario, "", html.bullets(missing))] if missing else []
    said = story.findings(part)
    text = f'<p class="finding">{escape(said[0])}</p>' if said else ""
    text += html.bullets(said[1:]) if said[1:] else ""
    if missing := story.missing(part):
        text += html.bullets(missing)
    cells = [
        html.plot_cell(comparison_story.heading(measure), "Means", [divs[f"{part.scenario}-{measure.key}"]], "")
        for measure in _pictured(part)
    ]
    body = text + html.columns(cells, most=4) + _figures(part)
    body += '<p class="note">What each column sets:</p>' + html.definitions(story.settings_told(part))
    return [html.Section(part.scenario, part.scenario, f"{part.scenario}: {part.title}", HOW_SCENARIO, body)]


def _figures(part: Part) -> str:
    head = "".join(
        f'<th scope="col">{escape(story.name_of(setting))}<br>'
        f'<span class="note">{escape(story.runs(setting))}</span></th>'
        for setting in part.cells
    )
    bodies = []
    for group, measures in applying(part.cells):
        rows = []
        for measure in measures:
            name = escape(comparison_story.heading(measure))
            name = f'<a href="#g-{measure.term}">{name}</a>' if measure.term else name
            rows.append(f'<tr><th scope="row">{name}</th>{"".join(_cell(part, s, measure) for s in part.cells)}</tr>')
        span = len(part.cells) + 1
        bodies.append(
            f'<tbody><tr><th class="group" scope="rowgroup" colspan="{span}">{escape(group)}</th></tr>'
            f"{''.join(rows)}</tbody>"
        )
    return (
        f'<div class="scroll"><table class="figures compared"><thead><tr><th scope="col">Figure</th>{head}</tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )


def _cell(part: Part, setting: Setting, measure: Measure) -> str:
    mean, mark, rest = story.cell(setting, part.none, measure)
    strong = f"<strong>{escape(f'{mean} {mark}')}</strong>" if mark else escape(mean)
    small = f' <span class="note">{escape(rest)}</span>' if rest else ""
    return f"<td>{strong}{small}</td>"


def _calm(part: Part) -> list[html.Section]:
    tables = story.alarm_tables(part)
    if not tables:
        return []
    sets = ", ".join(f"{key} = {value}" for key, value in part.calm_sets.items())
    body = "".join(
        f"<h3>{escape(title)}</h3>{_table(story.alarm_heads(), [story.alarm_row(each) for each in alarms])}"
        for title, alarms in tables
    )
    body += html.definitions({"settings": sets})
    name = f"calm-{part.scenario}"
    return [html.Section(name, f"Calm: {part.scenario}", f"False alarms: {part.scenario}", HOW_CALM_RUNS, body)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(text)}</td>" for text in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="figures"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _terms() -> str:
    entries = "".join(
        f'<div id="g-{name}"><dt>{escape(term)}</dt><dd>{escape(meaning)}</dd></div>' for name, term, meaning in TERMS
    )
    return f'<dl class="glossary">{entries}</dl>'
