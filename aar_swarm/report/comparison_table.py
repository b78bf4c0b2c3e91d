"""A comparison in the terminal: one table, the finding and the runs that failed.

Owns the terminal's look of it. Rows and words are those of the comparison's page, so the two never disagree.
"""

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from aar_swarm.analysis.compared import Measure, Setting, measures_of
from aar_swarm.analysis.statistics import CONFIDENCE
from aar_swarm.report import comparison_story as story
from aar_swarm.report.table import summary_table

MOST_COLUMNS = 4
"""Settings beside each other; more of them go below each other."""
_MEASURES_A_TABLE = 4


def comparison_tables(vary: Mapping[str, Sequence[str]], settings: Sequence[Setting]) -> list[Table | str]:
    """What `aar compare` prints, in order."""
    single = all(len(setting.summaries) + len(setting.failures) == 1 for setting in settings)
    finished = [setting for setting in settings if setting.summaries]
    parts: list[Table | str] = []
    if single and len(settings) <= MOST_COLUMNS:
        parts.append(summary_table([s.label for s in finished], [s.summaries[0] for s in finished]))
    elif len(settings) <= MOST_COLUMNS:
        parts.append(_settings_across(settings))
    else:
        measures = measures_of(settings)
        chunks = [measures[at : at + _MEASURES_A_TABLE] for at in range(0, len(measures), _MEASURES_A_TABLE)]
        parts += [_settings_down(settings, chunk, last=chunk is chunks[-1], single=single) for chunk in chunks]
    if finished and len(settings) > 1:
        parts += story.finding(vary, settings)
    parts += [f"Failed: {setting.label}: {reason}" for setting in settings for reason in setting.failures]
    return parts


def _caption(single: bool) -> str:
    return "– does not apply" + ("" if single else f"   mean [{CONFIDENCE:.0%} confidence interval of the mean]")


def _settings_across(settings: Sequence[Setting]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, caption=_caption(single=False))
    table.add_column("Measure", justify="left", no_wrap=True)
    for setting in settings:
        table.add_column(Text(f"{setting.label}\n{_runs(setting)}"), justify="right", overflow="fold")
    for measure in measures_of(settings):
        table.add_row(story.heading(measure), *(_cell(setting, measure) for setting in settings))
    return table


def _settings_down(settings: Sequence[Setting], measures: Sequence[Measure], *, last: bool, single: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, caption=_caption(single) if last else None)
    table.add_column("Setting", justify="left", overflow="fold")
    table.add_column("Runs", justify="right")
    for measure in measures:
        table.add_column(story.heading(measure), justify="right", overflow="fold")
    for setting in settings:
        cells = (_cell(setting, measure) for measure in measures)
        table.add_row(Text(setting.label), str(len(setting.summaries)), *cells)
    return table


def _runs(setting: Setting) -> str:
    count = len(setting.summaries)
    failed = f", {len(setting.failures)} failed" if setting.failures else ""
    return f"{count} run{'' if count == 1 else 's'}{failed}"


def _cell(setting: Setting, measure: Measure) -> Text:
    """On a narrow terminal it breaks between the mean and its interval only."""
    mean, rest = story.cell(setting, measure)
    return Text(" ".join([mean, *([rest.replace(" ", "\u00a0")] if rest else [])]))
