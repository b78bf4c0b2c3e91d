"""What a comparison's figures say: cells of its table, and the sentences that name the finding.

Owns wording made from estimates and trends; nothing here is HTML. Must not draw, nor say more than the repeats bear.
"""

from collections.abc import Mapping, Sequence

from aar_swarm.analysis.compared import (
    Estimate,
    Line,
    Measure,
    Setting,
    dial_of,
    estimate,
    lines_of,
    measures_of,
    trend_of,
)
from aar_swarm.analysis.statistics import Ranks, Trend, Violation
from aar_swarm.report import formats

_LEADING = (
    "drawdown_bps", "liquidations", "loan_liquidations", "bad_debt", "aar_ratio", "exhausted_ms", "loss_crowd",
    "coin_low_share_of_par",
)  # fmt: skip
"""What a finding is told by, most telling first."""
_SENTENCES = 5
_CHANCE = 0.05
_SHORT = {1: "rises", -1: "falls", 0: "ends where it began"}


def heading(measure: Measure) -> str:
    return f"{measure.name}, {measure.unit}" if measure.unit else measure.name


def cell(setting: Setting, measure: Measure) -> tuple[str, str]:
    """Mean, and behind it [low, high] and in how many of the runs it applies, where that is not all."""
    found = estimate(setting, measure)
    if found is None:
        return formats.DASH, ""
    parts = [interval_text(found, measure)] if found.interval is not None else []
    if found.n < len(setting.summaries):
        parts.append(f"in {found.n} of {len(setting.summaries)}")
    return figure(found.mean, measure), " ".join(parts)


def figure(value: float, measure: Measure) -> str:
    """With one decimal more than the measure's where a small mean would lose its meaning."""
    few = measure.decimals == 0 and abs(value) < 100 and value != round(value)
    return formats.decimal(value, 1 if few else measure.decimals)


def interval_text(found: Estimate, measure: Measure) -> str:
    if found.interval is None:
        return ""
    return f"[{figure(found.interval.low, measure)}, {figure(found.interval.high, measure)}]"


def told(setting: Setting, measure: Measure) -> str:
    """Mean with unit and interval: "2,188 bps [2,050, 2,326]"."""
    mean, rest = cell(setting, measure)
    unit = f" {measure.unit}" if measure.unit and mean != formats.DASH else ""
    return f"{mean}{unit}{' ' + rest if rest else ''}"


def telling(settings: Sequence[Setting]) -> list[Measure]:
    """The measures that a finding is told by: the leading ones, then the scenario's own, whose means differ."""
    applying = {measure.key: measure for measure in measures_of(settings)}
    order = [key for key in _LEADING if key in applying]
    order += [key for key in applying if key.startswith("scenario_measures.")]
    varying = [applying[key] for key in order if differs(settings, applying[key])]
    return (varying or [applying[key] for key in order])[:_SENTENCES]


def differs(settings: Sequence[Setting], measure: Measure) -> bool:
    """Whether the settings' means are not all the same."""
    return len({found and found.mean for setting in settings for found in [estimate(setting, measure)]}) > 1


def finding(vary: Mapping[str, Sequence[str]], settings: Sequence[Setting]) -> list[str]:
    """The comparison in a few sentences, the most telling first."""
    measures = telling(settings)
    if not measures:
        return ["No measure applies to any of these runs."]
    dial = dial_of(vary)
    if dial is not None:
        lines = lines_of(settings, dial)
        found = [text for measure in measures for line in lines if (text := dial_sentence(dial, line, measure))]
    else:
        found = [text for measure in measures if (text := _difference(settings, measure))]
    return found + _silent_breakers(settings)


def _silent_breakers(settings: Sequence[Setting]) -> list[str]:
    """Where a breaker stood and never tripped, that explains why it changed nothing."""
    found = []
    for setting in settings:
        armed = [summary for summary in setting.summaries if summary.get("breaker") not in (None, "off")]
        tripped = sum(summary.get("trip") is not None for summary in armed)
        if armed and not tripped:
            found.append(f"With {setting.label} the breaker tripped in none of {len(armed)} runs.")
    return found


def dial_sentence(dial: str, line: Line, measure: Measure) -> str:
    """From the dial's one end to the other, and whether the way is monotone. Empty where the measure never applies."""
    there = [(x, setting) for x, setting in line.points if estimate(setting, measure) is not None]
    if not there:
        return ""
    prefix = f"With {line.label}: " if line.at else ""
    (first_x, first), (last_x, last) = there[0], there[-1]
    if len(there) == 1:
        return f"{prefix}{measure.name} applies at {dial} {first_x:g} only: {told(first, measure)}."
    found = trend_of(line, measure)
    assert found is not None
    ends = f"{told(first, measure)} at {dial} {first_x:g}, {told(last, measure)} at {last_x:g}"
    return f"{prefix}{measure.name}: {ends}; {shape(found, measure)}."


def shape(found: Trend, measure: Measure) -> str:
    """Whether the curve of means is monotone, and if not, where; with Spearman's ρ over the runs."""
    if found.count == 2:
        text = f"it {_SHORT[found.direction]}" if found.direction else "the same mean at both"
        if found.direction and (found.ranks is None or found.ranks.p_value > _CHANCE):
            text += ", which may be chance"
    elif found.monotone and found.direction == 0:
        text = "the same mean throughout"
    elif found.monotone:
        text = f"monotone: it {_SHORT[found.direction]} or stays at every step"
    else:
        steps = "; ".join(_violation(step, measure) for step in found.violations[:3])
        more = f" and {len(found.violations) - 3} steps more" if len(found.violations) > 3 else ""
        text = f"not monotone: it {_SHORT[found.direction]}, but {steps}{more}"
    return text + (f" ({_ranks(found.ranks)})" if found.ranks is not None else "")


def _violation(step: Violation, measure: Measure) -> str:
    way = "up" if step.step > 0 else "down"
    unit = f" {measure.unit}" if measure.unit else ""
    weight = {
        True: ", within the confidence intervals",
        False: ", beyond the confidence intervals",
        None: "",
    }[step.within_intervals]
    return f"{way} by {figure(abs(step.step), measure)}{unit} from {step.from_x:g} to {step.to_x:g}{weight}"


def _ranks(ranks: Ranks) -> str:
    p = "p < 0.0001" if ranks.p_value < 1e-4 else f"p = {ranks.p_value:.2g}"
    return f"Spearman ρ {formats.decimal(ranks.rho, 2)} over {ranks.n} runs, {p}"


def _difference(settings: Sequence[Setting], measure: Measure) -> str:
    """Two settings against each other; of more, all (up to four) or the extremes."""
    if len(settings) > 4:
        there = [(found.mean, s) for s in settings if (found := estimate(s, measure)) is not None]
        least, most = min(there, key=lambda pair: pair[0])[1], max(there, key=lambda pair: pair[0])[1]
        return (
            f"{measure.name}: least with {least.label}, {told(least, measure)}; most with {most.label}, "
            f"{told(most, measure)}."
        )
    each = ", ".join(f"{told(setting, measure)} with {setting.label}" for setting in settings)
    return f"{measure.name}: {each}{_verdict(settings, measure)}."


def _verdict(settings: Sequence[Setting], measure: Measure) -> str:
    if len(settings) != 2:
        return ""
    first, second = (estimate(setting, measure) for setting in settings)
    if first is None or second is None:
        return ""
    change = ""
    if first.mean > 0 and second.mean >= 0 and first.mean != second.mean:
        part = second.mean / first.mean - 1
        more = f"{second.mean / first.mean:.1f} times as much" if part >= 1 else f"{part:.0%} more"
        change = f": {-part:.0%} less" if part < 0 else f": {more}"
    if first.interval is None or second.interval is None:
        return f"{change} (one run each: chance is not ruled out)" if change else ""
    if first.interval.overlaps(second.interval):
        return f"{change}, but the intervals overlap"
    return f"{change}; the intervals do not overlap"
