"""The study of the defences in the terminal: one table a scenario, the ladder, the calm runs.

Owns the terminal's look of it. Cells and words are those of the page, so the two never disagree.
"""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from aar_swarm.analysis.defended import Part, applying
from aar_swarm.report import comparison_story
from aar_swarm.report import defences_story as story


def defences_tables(parts: Sequence[Part]) -> list[Table | str]:
    """What `aar run defences` prints, in order."""
    found: list[Table | str] = []
    for part in parts:
        if any(setting.summaries for setting in part.cells):
            found += [_scenario(part), *story.findings(part)]
        found += story.missing(part)
        if any(rung.setting.summaries for rung in part.rungs):
            found.append(_ladder(part))
        for title, alarms in story.alarm_tables(part):
            rows = [story.alarm_row(each) for each in alarms]
            found.append(_plain(f"{part.scenario}: {title}", story.alarm_heads(), rows, None))
        found += story.failures(part)
    return found


def _scenario(part: Part) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{part.scenario}: what each defence is worth", caption=story.CAPTION)
    table.add_column("Measure", justify="left", overflow="fold")
    for setting in part.cells:
        table.add_column(Text(f"{story.name_of(setting)}\n{story.runs(setting)}"), justify="right", overflow="fold")
    for number, (group, measures) in enumerate(applying(part.cells)):
        if number:
            table.add_section()
        table.add_row(Text(group, style="bold"))
        for measure in measures:
            cells = []
            for setting in part.cells:
                mean, mark, rest = story.cell(setting, part.none, measure)
                own = Text(f"{mean} {mark}".rstrip())
                cells.append(own.append(f"\n{rest}", style="dim") if rest else own)
            table.add_row(Text("  " + comparison_story.heading(measure)), *cells)
    return table


def _ladder(part: Part) -> Table:
    rows = [story.rung_row(rung) for rung in part.rungs]
    return _plain(f"{part.scenario}: damage against reaction time", story.rung_heads(), rows, story.LADDER_CAPTION)


def _plain(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, caption=caption)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
