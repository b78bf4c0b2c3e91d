"""How a run's cost grows with its size: the figures that are compared, and the exponent of each.

Owns statistics over finished runs' figures, as `trials.parquet` has them. Must not run anything.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scipy import stats

from aar_swarm.analysis.statistics import CONFIDENCE


class Figure(NamedTuple):
    """One of a run's figures."""

    key: str
    name: str
    unit: str
    factor: float = 1.0
    """From the summary's unit to this one."""


FIGURES = (
    Figure("agents_start_s", "Start of all agents", "s"),
    Figure("orders_per_s_peak", "Orders at the peak, in 10 ms", "1/s"),
    Figure("orders_per_s", "Orders overall", "1/s"),
    Figure("stampede_spread_ms", "Stampede, first to last arrival", "ms"),
    Figure("stampede_p5_p95_ms", "Stampede, p5 to p95", "ms"),
    Figure("transit_ns_p50", "Transit p50", "ms", 1e-6),
    Figure("transit_ns_p99", "Transit p99", "ms", 1e-6),
    Figure("venue_ns_p99", "Venue time p99", "ms", 1e-6),
    Figure("agent_memory_kb", "Memory an agent", "MB", 1e-3),
    Figure("cores_busy", "Cores busy in the session", "cores"),
    Figure("agent_processes_lost", "Processes lost", ""),
)
_DIFFERENCES = {
    "stampede_spread_ms": ("stampede_first_ms", "stampede_last_ms"),
    "stampede_p5_p95_ms": ("stampede_p5_ms", "stampede_p95_ms"),
}
_FEWEST = 3


class Size(NamedTuple):
    """Of a run."""

    agents: int
    hosts: int
    agents_per_process: int


@dataclass(frozen=True)
class Exponent:
    """Of figure ≈ c · agentsᵇ: b and its confidence interval, by least squares over the logarithms of n runs."""

    value: float
    low: float
    high: float
    n: int


def value(row: Mapping[str, Any], figure: Figure) -> float | None:
    """A run's figure, in the figure's unit; None if it does not apply."""
    if figure.key in _DIFFERENCES:
        first, last = (row.get(key) for key in _DIFFERENCES[figure.key])
        return None if first is None or last is None else (last - first) * figure.factor
    found = row.get(figure.key)
    return None if found is None else float(found) * figure.factor


def exponent(points: Sequence[tuple[float, float]], confidence: float = CONFIDENCE) -> Exponent | None:
    """Args: points: (agents, figure), repeats each for itself. Returns: None for fewer than 3 points above 0, or of one
    size only.

    The interval takes the runs' deviations from the line as independent and alike. It says nothing of sizes beyond
    those measured: where something breaks, the line ends.
    """
    logs = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len(logs) < _FEWEST or len({x for x, _ in logs}) < 2:
        return None
    fitted = stats.linregress([x for x, _ in logs], [y for _, y in logs])
    half = float(stats.t.ppf((1 + confidence) / 2, len(logs) - 2)) * float(fitted.stderr)
    slope = float(fitted.slope)
    return Exponent(slope, slope - half, slope + half, len(logs))


@dataclass(frozen=True)
class Scaling:
    """The study's runs, by size."""

    runs: dict[Size, list[dict[str, Any]]]

    @property
    def lines(self) -> list[tuple[int, int]]:
        """(hosts, agents a process): sizes that differ by their agents only are one line."""
        return list(dict.fromkeys((size.hosts, size.agents_per_process) for size in self.runs))

    def points(self, figure: Figure, line: tuple[int, int]) -> list[tuple[int, float]]:
        return [
            (size.agents, found)
            for size, rows in self.runs.items()
            if (size.hosts, size.agents_per_process) == line
            for row in rows
            if (found := value(row, figure)) is not None
        ]

    def exponents(self) -> dict[str, dict[tuple[int, int], Exponent | None]]:
        return {figure.key: {line: exponent(self.points(figure, line)) for line in self.lines} for figure in FIGURES}


def by_size(rows: Sequence[Mapping[str, Any]]) -> Scaling:
    """Rows of a sweep's table, those that were made; sizes in order."""
    found: dict[Size, list[dict[str, Any]]] = {}
    for row in rows:
        if row["status"] == "done":
            size = Size(int(row["agents"]), int(row.get("hosts") or 1), int(row.get("agents_per_process") or 1))
            found.setdefault(size, []).append(dict(row))
    return Scaling({size: found[size] for size in sorted(found, key=lambda s: (s.hosts, s.agents_per_process, s))})
