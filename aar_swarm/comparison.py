"""Several runs of one scenario, some settings apart, one after the other: timings must not contaminate each other.

Owns which runs there are and in which order, and the files that hold what they gave together: comparison.json and
comparison.parquet. What a figure means is in `analysis`, how it looks in `report`.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from aar_swarm.analysis.compared import Setting, dial_of, estimate, lines_of, measures_of, number, trend_of
from aar_swarm.analysis.measures import NotConserved
from aar_swarm.analysis.statistics import CONFIDENCE
from aar_swarm.progress import Progress
from aar_swarm.report.pictures import write_comparison
from aar_swarm.results import REPORT, Run
from aar_swarm.runner import prepare, run
from aar_swarm.swarm import RunFailed
from aar_swarm.write_up import ReplayDiffers
from exchange import clock
from exchange.errors import ConfigurationError, JournalError, VenueError

JSON, TABLE = "comparison.json", "comparison.parquet"
_ARGUMENTS = ("breaker", "agents", "size")
"""What is varied beside settings."""
_MAX_RUNS = 1000
_FAILURES = (RunFailed, ReplayDiffers, NotConserved, JournalError, VenueError, ConfigurationError, OSError)


@dataclass(frozen=True)
class Trial:
    """One run that was asked for, and what became of it: a run, or the reason why there is none."""

    values: dict[str, str]
    repeat: int
    """From 1."""
    seed: int
    directory: Path
    run: Run | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Comparison:
    scenario: str
    vary: dict[str, list[str]]
    repeats: int
    trials: list[Trial]
    """In the order in which they ran."""
    directory: Path
    report: Path | None
    """None if no run finished."""

    @property
    def runs(self) -> list[Run]:
        return [trial.run for trial in self.trials if trial.run is not None]

    @property
    def failures(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.run is None]

    @property
    def settings(self) -> list[Setting]:
        """One for each combination, in the order of `vary`, with the figures of its repeats."""
        return [
            Setting(
                values,
                tuple(trial.run.summary for trial in self._of(values) if trial.run is not None),
                tuple(trial.reason for trial in self._of(values) if trial.reason is not None),
            )
            for values in combinations(self.vary)
        ]

    def runs_of(self, setting: Setting) -> list[Run]:
        return [trial.run for trial in self._of(setting.values) if trial.run is not None]

    def _of(self, values: Mapping[str, str]) -> list[Trial]:
        return [trial for trial in self.trials if trial.values == values]

    def as_dict(self) -> dict[str, Any]:
        """What comparison.json holds."""
        settings = self.settings
        return {
            "scenario": self.scenario,
            "vary": self.vary,
            "repeats": self.repeats,
            "confidence": CONFIDENCE,
            "settings": [_setting_dict(setting, settings) for setting in settings],
            "trends": _trends(settings, self.vary),
            "runs": [
                {**t.run.summary, "settings": t.values, "repeat": t.repeat, "directory": str(t.directory)}
                for t in self.trials
                if t.run is not None
            ],
            "failures": [
                {"settings": t.values, "repeat": t.repeat, "seed": t.seed, "reason": t.reason} for t in self.failures
            ],
            "directory": str(self.directory),
            "report": None if self.report is None else str(self.report),
        }


def combinations(vary: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination of the values; the first key changes slowest."""
    return [dict(zip(vary, chosen, strict=True)) for chosen in itertools.product(*vary.values())]


def parse_vary(given: Sequence[str]) -> dict[str, list[str]]:
    """`KEY=A,B,…`, once a key. Raises: ConfigurationError."""
    vary: dict[str, list[str]] = {}
    for text in given:
        key, equals, values = (part.strip() for part in text.partition("="))
        listed = [value.strip() for value in re.split(r",(?![^\[]*\])", values)]  # a value may be a list: [1,2]
        if not equals or not key or not all(listed):
            raise ConfigurationError(f"--vary {text!r}: write it as key=a,b,…")
        if key in vary:
            raise ConfigurationError(f"--vary {key}: is given twice; list all its values in one")
        if len(set(listed)) < len(listed):
            raise ConfigurationError(f"--vary {text}: names a value twice")
        vary[key] = listed
    return vary


def compare(
    scenario: str,
    vary: Mapping[str, Sequence[str]],
    repeats: int = 1,
    *,
    agents: int | None = None,
    breaker: str = "default",
    size: str | None = None,
    seed: int = 1,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    alongside: bool = False,
    **common: Any,
) -> Comparison:
    """Run the scenario `repeats` times for every combination of the varied values.

    Repeat r of every combination runs before repeat r + 1 of any, so that a machine that slowly changes changes for all
    alike; it has seed + r − 1. A run that fails is kept with its reason, and the others go on.

    Args: vary: key → values; a key is `breaker`, `agents`, `size` or one of `--set`.
    Raises: ConfigurationError: a bad value, found before anything runs, or what keeps the first run from starting.
    """
    if repeats < 1:
        raise ConfigurationError(f"--repeats {repeats}: there must be at least one")
    vary = parse_vary([f"{key}={','.join(map(str, values))}" for key, values in vary.items()])
    fixed = {"agents": agents, "breaker": breaker, **({} if size is None else {"size": size})}
    each = [(values, _arguments(values, fixed, settings or {})) for values in combinations(vary)]
    if len(each) * repeats > _MAX_RUNS:
        raise ConfigurationError(f"--vary: {len(each) * repeats:,} runs; ask for at most {_MAX_RUNS:,}")
    for _, arguments in each:
        prepare(scenario, seed=seed + repeats - 1, **arguments, **common)
    directory = Path(out) if out is not None else Path("runs") / f"compare-{Path(scenario).stem}-{clock.utc_stamp()}"
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(
            f"--out {directory}: is there already and nothing is overwritten; name a new directory"
        )
    common["alongside"] = alongside
    trials: list[Trial] = []
    for repeat in range(1, repeats + 1):
        for values, arguments in each:
            if progress is not None:
                progress.stage(_said(values, repeat, repeats))
            name = _directory_name(values, seed + repeat - 1 if repeats > 1 else None)
            trial = Trial(values, repeat, seed + repeat - 1, directory / name)
            trials.append(attempt(scenario, trial, progress, not trials, **arguments, **common))
    return write(Comparison(Path(scenario).stem, vary, repeats, trials, directory, directory / REPORT))


def attempt(
    scenario: str, trial: Trial, progress: Progress | None = None, first: bool = False, **arguments: Any
) -> Trial:
    """Run what a trial asks for; if it fails, the reason is kept, and told.

    Args: first: of its comparison. Raises: ConfigurationError: of the first only, as it would keep all from starting.
    """
    try:
        made = run(scenario, seed=trial.seed, out=trial.directory, progress=progress, **arguments)
    except _FAILURES as error:
        if first and isinstance(error, ConfigurationError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if progress is not None:
            progress.stage(f"failed: {reason}")
        return replace(trial, reason=reason)
    return replace(trial, run=made)


def write(found: Comparison) -> Comparison:
    """Write comparison.json, comparison.parquet and, if a run finished, the report."""
    if not found.runs:
        found = Comparison(found.scenario, found.vary, found.repeats, found.trials, found.directory, None)
    found.directory.mkdir(parents=True, exist_ok=True)
    (found.directory / JSON).write_text(json.dumps(found.as_dict(), indent=1))
    run_table(found).write_parquet(found.directory / TABLE)
    if found.report is not None:
        settings = found.settings
        write_comparison(found.report, found.vary, [(setting, found.runs_of(setting)) for setting in settings])
    return found


def run_table(found: Comparison) -> pl.DataFrame:
    """One row a run that was asked for, in their order: settings, repeat, seed, failure (its reason, else null) and
    every number, truth value and short text of its summary, keys of inner tables dotted."""
    numeric = {key for key, values in found.vary.items() if all(number(value) is not None for value in values)}
    rows = []
    for trial in found.trials:
        settings = {key: number(value) if key in numeric else value for key, value in trial.values.items()}
        own = {"repeat": trial.repeat, "seed": trial.seed, "failure": trial.reason}
        scalars = {} if trial.run is None else dict(_scalars(trial.run.summary))
        rows.append({**settings, **own, **{key: v for key, v in scalars.items() if key not in settings | own}})
    columns = dict.fromkeys(key for row in rows for key in row)
    frame = pl.DataFrame({key: pl.Series([row.get(key) for row in rows], strict=False) for key in columns})
    return frame.cast({key: pl.Float64 for key, kind in frame.schema.items() if kind == pl.Null and key != "failure"})


def _scalars(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _scalars(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, bool | int | float | str):
            found.append((prefix + key, value))
    return found


def _arguments(values: Mapping[str, str], fixed: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `run` for one combination."""
    chosen: dict[str, Any] = {**fixed, "settings": dict(settings)}
    for key, value in values.items():
        if key == "agents":
            if not value.isdecimal():
                raise ConfigurationError(f"--vary agents={value}: must be a whole number")
            chosen[key] = int(value)
        elif key in _ARGUMENTS:
            chosen[key] = value
        else:
            chosen["settings"][key] = value
    return chosen


def _said(values: Mapping[str, str], repeat: int, repeats: int) -> str:
    text = ", ".join(f"{key} = {value}" for key, value in values.items())
    return text if repeats == 1 else f"{text} (repeat {repeat} of {repeats})"


def _directory_name(values: Mapping[str, str], seed: int | None) -> str:
    parts = [f"{key}={value}" for key, value in values.items()] + ([] if seed is None else [f"seed={seed}"])
    return ",".join(parts).replace("/", "_")


def _setting_dict(setting: Setting, settings: Sequence[Setting]) -> dict[str, Any]:
    measures: dict[str, Any] = {}
    for measure in measures_of(settings):
        found = estimate(setting, measure)
        if found is None:
            measures[measure.key] = None
            continue
        low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
        measures[measure.key] = {"mean": found.mean, "low": low, "high": high, "n": found.n}
    return {
        "values": dict(setting.values),
        "label": setting.label,
        "runs": len(setting.summaries),
        "failed": len(setting.failures),
        "measures": measures,
    }


def _trends(settings: Sequence[Setting], vary: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    dial = dial_of(vary)
    if dial is None:
        return []
    return [
        {"dial": dial, "at": dict(line.at), "measure": measure.key, **asdict(found)}
        for line in lines_of(settings, dial)
        for measure in measures_of(settings)
        if (found := trend_of(line, measure)) is not None
    ]
