"""What the study of the defences says in words and cells, the same in the terminal and on the page.

Owns wording made from estimates and verdicts; nothing here is HTML. Must not draw, nor say more than the repeats bear.
"""

from collections.abc import Sequence

from aar_swarm.analysis.compared import Measure, Setting, estimate
from aar_swarm.analysis.defended import ALL, CELL, DAMAGE, FalseAlarms, Part, Rung, verdict
from aar_swarm.report import comparison_story, formats

MARKS = "▼ below, ▲ above none, the 95 % confidence intervals apart; without a mark it may be chance"
CAPTION = f"– does not apply   mean [95 % confidence interval of the mean]   {MARKS}"
LADDER_CAPTION = "mean [95 % confidence interval of the mean]   – does not apply"
_LATE_NS = 100_000_000
_MARK = {1: "▲", -1: "▼", 0: ""}
ALARM_NAMES = {
    "halts": "Halts",
    "alerts": "Supervisor's alerts",
    "refused_orders": "Orders refused by a defence",
    "refused_logons": "Logons refused by a defence",
}
RUNG_MEASURES = (
    *DAMAGE[:2],
    Measure("trip.since_signal_ms", "Halted, after the signal", "ms", 0, "trip"),
    Measure("sold_lots", "Lots of the exit that were sold", "", 0),
)


def name_of(setting: Setting) -> str:
    return setting.values[CELL]


def cell(setting: Setting, none: Setting | None, measure: Measure) -> tuple[str, str, str]:
    """Mean, mark, and interval with the number of runs where it is not all."""
    mean, rest = comparison_story.cell(setting, measure)
    said = None if none is None else verdict(setting, none, measure)
    return mean, _MARK[said.direction] if said is not None and said.apart else "", rest


def runs(setting: Setting) -> str:
    count, failed = len(setting.summaries), len(setting.failures)
    return f"{count} run{'' if count == 1 else 's'}{f', {failed} failed' if failed else ''}"


def missing(part: Part) -> list[str]:
    """One line for each defence that this scenario has not got, and the plan's notes."""
    said = [f"{name}: not available in {part.scenario}: {reason}." for name, reason in part.unavailable.items()]
    return said + list(part.notes) + _late(part)


def _late(part: Part) -> list[str]:
    """A supervisor that did not keep up is no measure of its reaction time."""
    found = []
    for setting in part.shown:
        watched = [summary["supervisor"] for summary in setting.summaries if summary.get("supervisor")]
        dead = sum(bool(each.get("error")) for each in watched)
        late = sum((each.get("lag_ns_p99") or 0) > _LATE_NS for each in watched)
        if dead or late:
            found.append(
                f"{name_of(setting)}: of {len(watched)} supervisors {dead} died and {late} did not keep up (a lag of "
                f"more than {_LATE_NS // 1_000_000} ms at p99): read these figures with care."
            )
    return found


def failures(part: Part) -> list[str]:
    return [f"Failed: {part.scenario}, {name}, seed {seed}: {reason}" for name, seed, reason in part.failures]


def findings(part: Part) -> list[str]:
    """For each measure of damage: what the defences that differ from none beyond chance did, and which do not."""
    if part.none is None:
        return []
    said = []
    for measure in DAMAGE:
        base = estimate(part.none, measure)
        if base is None:
            continue
        if all(value == base.mean for setting in part.cells for value in setting.figures(measure.key)):
            continue  # the same in every run
        less: list[str] = []
        more: list[str] = []
        open_: list[str] = []
        single: list[str] = []
        for setting in part.cells[1:]:
            mine, found = estimate(setting, measure), verdict(setting, part.none, measure)
            if mine is None or found is None:
                continue
            told = f"{name_of(setting)} {comparison_story.figure(mine.mean, measure)}"
            if found.apart is None:
                single.append(told)
            elif found.apart and found.direction:
                (less if found.direction < 0 else more).append(told)
            else:
                open_.append(told)
        unit = f" {measure.unit}" if measure.unit else ""
        text = f"{measure.name}: {comparison_story.figure(base.mean, measure)}{unit} without any"
        text += f"; less with {', '.join(less)}" if less else ""
        text += f"; more with {', '.join(more)}" if more else ""
        text += f"; no difference that is beyond chance with {', '.join(open_)}" if open_ else ""
        text += f"; {', '.join(single)} (one run: chance is not ruled out)" if single else ""
        if less or more or open_ or single:
            said.append(text + ".")
    return said


def rung_row(rung: Rung) -> list[str]:
    """Reaction time, runs, and the ladder's measures."""
    cells = [" ".join(part for part in comparison_story.cell(rung.setting, m) if part) for m in RUNG_MEASURES]
    return [rung.label, str(len(rung.setting.summaries)), *cells]


def rung_heads() -> list[str]:
    return ["Reaction", "Runs", *(comparison_story.heading(measure) for measure in RUNG_MEASURES)]


def alarm_heads() -> list[str]:
    return ["Alarm", "Count", "Runs with one", "At most, of runs (95 %)", "An hour", "At most, an hour (95 %)"]


def alarm_row(found: FalseAlarms) -> list[str]:
    rate = formats.DASH if found.per_hour is None else formats.decimal(found.per_hour, 1)
    bound = formats.DASH if found.per_hour_upper is None else formats.decimal(found.per_hour_upper, 1)
    return [
        ALARM_NAMES[found.what],
        formats.count(found.count),
        f"{found.runs_with:,} of {found.runs:,}",
        formats.share(found.share_upper),
        rate,
        bound,
    ]


def alarm_tables(part: Part) -> list[tuple[str, Sequence[FalseAlarms]]]:
    found: list[tuple[str, Sequence[FalseAlarms]]] = []
    for name, alarms in (("before the public moment", part.calm), ("over the whole sessions", part.calm_whole)):
        if alarms:
            hours = max(each.hours for each in alarms)
            runs_text = f"{alarms[0].runs:,} run{'' if alarms[0].runs == 1 else 's'}"
            found.append((f"{runs_text} without news, {hours * 60:,.1f} minutes {name}", alarms))
    return found


def settings_told(part: Part) -> dict[str, str]:
    """Cell → what it sets."""
    return {
        name: ", ".join(f"{key} = {_value(value)}" for key, value in sets.items())
        for name, sets in part.sets.items()
        if name == ALL or name in {name_of(setting) for setting in part.cells}
    }


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
