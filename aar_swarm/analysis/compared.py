"""Settings of one scenario beside each other: which figures are compared, and what their repeats say together.

Owns the list of compared figures and their estimates. Must not run anything, draw or format.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aar_swarm.analysis.statistics import Interval, Trend, interval, trend

SCENARIO_MEASURES = "scenario_measures"


@dataclass(frozen=True)
class Measure:
    """A figure of summary.json that is compared; a dotted key looks inside."""

    key: str
    name: str
    unit: str = ""
    decimals: int = 0
    term: str | None = None
    """The report's glossary entry that defines it."""


MEASURES = (
    Measure("drawdown_bps", "Drawdown", "bps", 0, "drawdown"),
    Measure("trough_ms", "Trough, after the signal", "ms", 1, "trough"),
    Measure("recovered_bps", "Recovered from the trough", "bps", 0, "recovered"),
    Measure("exhausted_ms", "Bids exhausted, after the signal", "ms", 1, "exhausted"),
    Measure("depth_low_share", "Least bid depth, share of before", "", 3, "depth"),
    Measure("aar_ratio", "AAR ratio", "×", 2, "aar-ratio"),
    Measure("illusion_ratio", "Illusion ratio", "×", 2, "illusion-ratio"),
    Measure("loss_crowd", "Loss of the crowd", "", 0, "loss"),
    Measure("early_price_bps", "Price of being early", "bps", 1, "early"),
    Measure("sold_lots", "Lots of the exit that were sold", "", 0, None),
    Measure("margin_calls", "Margin calls", "", 0, "liquidation"),
    Measure("liquidations", "Liquidations of margin accounts", "", 0, "liquidation"),
    Measure("loan_liquidations", "Loans liquidated", "", 0, "liquidation"),
    Measure("liquidations_per_ms_peak", "Liquidations in the fullest ms", "", 0, "liquidation"),
    Measure("bad_debt", "Bad debt", "", 0, "bad-debt"),
    Measure("coin_low_share_of_par", "Stablecoin's low, share of par", "", 3, "coin"),
    Measure("redemptions", "Redemptions", "", 0, None),
    Measure("redemptions_refused", "Redemptions refused", "", 0, None),
    Measure("trip.since_signal_ms", "Halt, after the signal", "ms", 1, "trip"),
)


@dataclass(frozen=True)
class Setting:
    """One combination of the varied settings, with what its repeats gave."""

    values: Mapping[str, str]
    """Key as in `--set`, breaker, agents or size → value as it was asked for."""
    summaries: tuple[Mapping[str, Any], ...]
    failures: tuple[str, ...] = ()
    """The reasons of the repeats that failed."""

    @property
    def label(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in self.values.items())

    def figures(self, key: str) -> list[float]:
        """The figure of every repeat in which it applies."""
        found = (_number_at(summary, key) for summary in self.summaries)
        return [figure for figure in found if figure is not None]


@dataclass(frozen=True)
class Estimate:
    """What the repeats of one setting say about one measure."""

    mean: float
    interval: Interval | None
    """None with a single value."""
    n: int


def estimate(setting: Setting, measure: Measure) -> Estimate | None:
    """None where the measure applies to no repeat."""
    figures = setting.figures(measure.key)
    if not figures:
        return None
    return Estimate(math.fsum(figures) / len(figures), interval(figures), len(figures))


def measures_of(settings: Sequence[Setting]) -> list[Measure]:
    """The measures that apply to any run, in their order; the scenario's own behind them."""
    own = dict.fromkeys(
        f"{SCENARIO_MEASURES}.{name}"
        for setting in settings
        for summary in setting.summaries
        for name in summary.get(SCENARIO_MEASURES) or ()
    )
    known = [*MEASURES, *(_own_measure(key) for key in own)]
    return [measure for measure in known if any(setting.figures(measure.key) for setting in settings)]


def _own_measure(key: str) -> Measure:
    """A scenario's measure: its unit is the end of its name."""
    name = key.removeprefix(f"{SCENARIO_MEASURES}.")
    for ending, unit, decimals in (("_bps", "bps", 1), ("_ms", "ms", 1), ("_lots", "lots", 0), ("_ticks", "ticks", 1)):
        if name.endswith(ending):
            return Measure(key, _words(name.removesuffix(ending)), unit, decimals)
    return Measure(key, _words(name), "", 3)


def _words(name: str) -> str:
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def _number_at(summary: Mapping[str, Any], key: str) -> float | None:
    value: Any = summary
    for part in key.split(".", 1):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def number(text: str) -> float | None:
    """A dial's setting as a number; None if it is none."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def dial_of(vary: Mapping[str, Sequence[str]]) -> str | None:
    """The varied key with the most values, if they are numbers: the one that is drawn as a curve."""
    dials = [key for key, values in vary.items() if len(values) > 1 and all(number(v) is not None for v in values)]
    return max(dials, key=lambda key: len(vary[key]), default=None)


@dataclass(frozen=True)
class Line:
    """The settings that differ in the dial only, in its order."""

    at: Mapping[str, str]
    """The other varied settings."""
    points: tuple[tuple[float, Setting], ...]

    @property
    def label(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in self.at.items())


def lines_of(settings: Sequence[Setting], dial: str) -> list[Line]:
    found: dict[tuple[tuple[str, str], ...], list[tuple[float, Setting]]] = {}
    for setting in settings:
        x = number(setting.values[dial])
        assert x is not None
        others = tuple((key, value) for key, value in setting.values.items() if key != dial)
        found.setdefault(others, []).append((x, setting))
    return [Line(dict(others), tuple(sorted(points, key=lambda p: p[0]))) for others, points in found.items()]


def trend_of(line: Line, measure: Measure) -> Trend | None:
    return trend([(x, setting.figures(measure.key)) for x, setting in line.points])
