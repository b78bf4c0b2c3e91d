"""What repeats bear: confidence intervals of means, and whether a dial moves a measure one way.

Owns statistics of finished runs' figures. Must not read a run. Repeats are taken as independent: each has a seed and a
race of its own, and they run one after the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95
_FEWEST_FOR_RANKS = 4
"""Of three points without ties even a perfect order has p = 1/3, two-sided: no evidence."""


@dataclass(frozen=True)
class Interval:
    """A mean and the confidence interval around it, of n values."""

    mean: float
    low: float
    high: float
    n: int

    def overlaps(self, other: "Interval") -> bool:
        return self.low <= other.high and other.low <= self.high


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Student's t interval of the mean: mean ± t(1 − (1 − confidence)/2; n − 1) · s/√n. None for fewer than 2 values.

    It assumes that the mean of n repeats is about normal; with few repeats of a skewed measure it is too short.
    """
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half, n)


@dataclass(frozen=True)
class Ranks:
    """Spearman's rank correlation of n pairs, with the two-sided p-value of no association."""

    rho: float
    p_value: float
    n: int


def spearman(xs: Sequence[float], ys: Sequence[float]) -> Ranks | None:
    """Spearman's ρ over all pairs (ties share their mean rank). None for fewer than 4 pairs or a constant side.

    Raises: ValueError: not as many xs as ys.
    """
    if len(xs) != len(ys):
        raise ValueError(f"{len(xs)} xs for {len(ys)} ys: give pairs")
    if len(xs) < _FEWEST_FOR_RANKS or len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    found = stats.spearmanr(xs, ys)
    return Ranks(float(found.statistic), float(found.pvalue), len(xs))


@dataclass(frozen=True)
class Violation:
    """A step of the means against the curve's direction."""

    from_x: float
    to_x: float
    step: float
    """Mean at to_x less mean at from_x."""
    within_intervals: bool | None
    """Whether the two means' intervals overlap, so that the step may be chance. None: an interval is missing."""


@dataclass(frozen=True)
class Trend:
    """Whether the means over an ordered dial go one way."""

    count: int
    """Of the dial's settings; two are always monotone."""
    direction: int
    """+1 rising, −1 falling, 0 all means are equal or the last is the first again: that of the last mean less the
    first, against which the steps sum up to less than with it."""
    monotone: bool
    violations: tuple[Violation, ...]
    ranks: Ranks | None
    """Over every repeat, not the means."""


def trend(points: Sequence[tuple[float, Sequence[float]]], confidence: float = CONFIDENCE) -> Trend | None:
    """The curve of means over a dial, and every step of it that goes the other way.

    Args: points: (setting of the dial, the values of its repeats); points without a value are left out.
    Returns: None for fewer than 2 points.
    """
    shown = sorted((x, list(values)) for x, values in points if len(values))
    if len(shown) < 2:
        return None
    means = [math.fsum(values) / len(values) for _, values in shown]
    intervals = [interval(values, confidence) for _, values in shown]
    direction = (means[-1] > means[0]) - (means[-1] < means[0])
    violations = []
    for at in range(1, len(shown)):
        step = means[at] - means[at - 1]
        if step * direction < 0 or (direction == 0 and step != 0):
            before, after = intervals[at - 1], intervals[at]
            within = None if before is None or after is None else before.overlaps(after)
            violations.append(Violation(shown[at - 1][0], shown[at][0], step, within))
    pairs = [(x, value) for x, values in shown for value in values]
    ranks = spearman([x for x, _ in pairs], [value for _, value in pairs])
    return Trend(len(shown), direction, not violations, tuple(violations), ranks)
