"""Designs of a market compared: every [designs.NAME] of a scenario, repeated, interleaved, in one table and one page.

Owns which runs there are, going on with an unfinished comparison, and its files: study.json (what was asked for),
designs.json, designs.parquet and designs.html. What a figure means is in `analysis.designed`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from aar_swarm.analysis.compared import Setting, estimate
from aar_swarm.analysis.designed import DESIGN, figures, measures_of
from aar_swarm.analysis.statistics import CONFIDENCE
from aar_swarm.comparison import Comparison, Trial, attempt, run_table
from aar_swarm.progress import Progress
from aar_swarm.report.designs_page import write_designs_page
from aar_swarm.results import Run, read_json
from aar_swarm.resuming import clear, finished, studied_by_one
from aar_swarm.runner import prepare
from aar_swarm.scenario import design_settings
from exchange import clock
from exchange.errors import ConfigurationError

STUDY, JSON, TABLE, PAGE = "study.json", "designs.json", "designs.parquet", "designs.html"
SCENARIO = "latency-race"
DEFAULT_REPEATS, MAX_RUNS = 5, 1000
AFTER_S = 0.1
"""At which T a race is valued: by then makers quote anew, and in most races no other news has come (in two of three
at four a second)."""


@dataclass(frozen=True)
class Asked:
    """A comparison as it was asked for; what its directory holds of it."""

    scenario: str
    designs: tuple[str, ...]
    repeats: int
    seed: int
    size: str
    agents: int | None
    breaker: str
    settings: dict[str, Any]
    alongside: bool = False
    """Whether any of it shared the machine with other runs."""


@dataclass(frozen=True)
class DesignStudy:
    asked: Asked
    sets: Mapping[str, Mapping[str, Any]]
    """Design → what it sets, path → value."""
    trials: tuple[Trial, ...]
    """In the order in which they are run; some may not have been yet."""
    directory: Path
    page: Path | None
    """None if no run finished."""

    @property
    def runs(self) -> list[Run]:
        return [trial.run for trial in self.trials if trial.run is not None]

    @property
    def failures(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.reason is not None]

    @cached_property
    def settings(self) -> list[Setting]:
        """One a design, with the figures of its repeats."""
        found = []
        for design in self.asked.designs:
            mine = [trial for trial in self.trials if trial.values[DESIGN] == design]
            summaries = tuple(figures(trial.run, AFTER_S) for trial in mine if trial.run is not None)
            reasons = tuple(trial.reason for trial in mine if trial.reason is not None)
            found.append(Setting({DESIGN: design}, summaries, reasons))
        return found

    def as_dict(self) -> dict[str, Any]:
        """What designs.json holds."""
        groups = measures_of(self.settings)
        return {
            **asdict(self.asked),
            "confidence": CONFIDENCE,
            "after_s": AFTER_S,
            "runs": len(self.runs),
            "missing": len(self.trials) - len(self.runs) - len(self.failures),
            "failures": [
                {DESIGN: trial.values[DESIGN], "repeat": trial.repeat, "seed": trial.seed, "reason": trial.reason}
                for trial in self.failures
            ],
            "results": [
                {
                    DESIGN: setting.values[DESIGN],
                    "sets": dict(self.sets[setting.values[DESIGN]]),
                    "runs": len(setting.summaries),
                    "measures": {
                        measure.key: _estimated(setting, measure) for _, measures in groups for measure in measures
                    },
                }
                for setting in self.settings
            ],
            "conditions": self.conditions,
            "directory": str(self.directory),
            "page": None if self.page is None else str(self.page),
        }

    @property
    def conditions(self) -> dict[str, str]:
        """Under what circumstances the runs were measured."""
        asked = self.asked
        told = {
            "runs": f"{len(self.runs)} of {len(self.trials)}, {len(self.failures)} failed",
            "seeds": f"{asked.seed} to {asked.seed + asked.repeats - 1}",
            "settings": ", ".join(f"{key} = {value}" for key, value in asked.settings.items()) or "the scenario's own",
            "size, breaker": f"{asked.size}, {asked.breaker}",
            "machine": "shared with other runs, at least at times" if asked.alongside else "one run at a time",
        }
        manifests = [run.manifest for run in self.runs]
        each = {
            "agents, length": [f"{m['agents']:,}, {m['scenario']['duration_s']:g} s" for m in manifests],
            "cores": [str(m["cores"]) for m in manifests],
            "hosts": [str(len(m["hosts"])) for m in manifests],
            "venue's scheduling": [str(m["scheduling"]) for m in manifests],
        }
        return told | {name: "; ".join(dict.fromkeys(values)) for name, values in each.items() if values}


def _estimated(setting: Setting, measure: Any) -> dict[str, float | int | None] | None:
    found = estimate(setting, measure)
    if found is None:
        return None
    low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
    return {"mean": found.mean, "low": low, "high": high, "n": found.n}


def compare_designs(
    scenario: str | None = None,
    repeats: int | None = None,
    designs: Sequence[str] = (),
    *,
    agents: int | None = None,
    breaker: str | None = None,
    size: str | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    alongside: bool = False,
) -> DesignStudy:
    """Run every design `repeats` times, or what is missing of that, and write the table and the page.

    Repeat r of every design runs before repeat r + 1 of any, and has seed + r − 1: the same news in all of them.

    Args: None, or nothing: what a comparison in `out` was asked for, else latency-race, 5 repeats, all designs, and as
    `run` has it. Raises: ConfigurationError: a bad value, found before anything runs, or what keeps the first run from
    starting.
    """
    directory = Path(out) if out is not None else Path("runs") / f"designs-{clock.utc_stamp()}"
    directory = directory.absolute()
    given = {
        "scenario": scenario, "designs": tuple(designs) or None, "repeats": repeats, "seed": seed, "size": size,
        "agents": agents, "breaker": breaker, "settings": dict(settings) if settings else None,
    }  # fmt: skip
    asked = asked_for(directory, {name: value for name, value in given.items() if value is not None}, alongside)
    sets = _sets(asked)
    if not 1 <= asked.repeats <= MAX_RUNS // len(sets):
        raise ConfigurationError(
            f"--repeats {asked.repeats}: with {len(sets)} designs from 1 to {MAX_RUNS // len(sets)}"
        )
    for design in sets:
        prepare(asked.scenario, seed=asked.seed + asked.repeats - 1, address=address, **_arguments(asked, sets[design]))
    progress = progress or Progress()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {directory}: {error.strerror}; name one that can be written") from None
    trials = tuple(
        Trial({DESIGN: design}, repeat, asked.seed + repeat - 1, directory / f"{design},seed={asked.seed + repeat - 1}")
        for repeat in range(1, asked.repeats + 1)
        for design in asked.designs
    )
    with studied_by_one(directory):
        written = directory / f"{STUDY}.part"  # a kill at this moment must not cost what was made before
        written.write_text(json.dumps(asdict(asked), indent=1))
        written.replace(directory / STUDY)
        return _perform(DesignStudy(asked, sets, trials, directory, None), address, alongside, progress)


def asked_for(directory: Path, given: Mapping[str, Any], alongside: bool) -> Asked:
    """What the comparison in this directory is, with what is asked of it now: repeats and designs may change.

    Raises: ConfigurationError: the directory holds something else, or another comparison.
    """
    if (directory / STUDY).is_file():
        kept = read_json(directory / STUDY)
        try:
            before = Asked(**{**kept, "designs": tuple(kept["designs"])})
        except (KeyError, TypeError) as error:
            raise ConfigurationError(f"{directory / STUDY}: {error}; name a new directory") from None
        for name, value in given.items():
            if name not in ("repeats", "designs") and value != getattr(before, name):
                raise ConfigurationError(
                    f"--{'set' if name == 'settings' else name}: the comparison in {directory} has "
                    f"{getattr(before, name)}; leave it out, or name a new directory"
                )
        changed = {name: given[name] for name in ("repeats", "designs") if name in given}
        return replace(before, **changed, alongside=before.alongside or alongside)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(
            f"--out {directory}: is there already and holds no comparison of designs; nothing is overwritten, name a "
            "new directory"
        )
    asked = Asked(
        scenario=SCENARIO, designs=(), repeats=DEFAULT_REPEATS, seed=1, size="default", agents=None, breaker="default",
        settings={}, alongside=alongside,
    )  # fmt: skip
    asked = replace(asked, **given)
    return asked if asked.designs else replace(asked, designs=tuple(design_settings(asked.scenario)))


def _sets(asked: Asked) -> dict[str, dict[str, Any]]:
    """Of each design that is asked for, what it sets. Raises: ConfigurationError."""
    tables = design_settings(asked.scenario)
    if not tables:
        raise ConfigurationError(f"scenario {asked.scenario} has no [designs.NAME] tables; write one into its file")
    for design in asked.designs:
        if design not in tables:
            raise ConfigurationError(f"--designs {design}: {asked.scenario} has {', '.join(tables)}")
        for key in asked.settings:
            if key in tables[design]:
                raise ConfigurationError(
                    f"--set {key}: is what [designs.{design}] of {asked.scenario} sets; leave it out"
                )
    if len(set(asked.designs)) < len(asked.designs):
        raise ConfigurationError(f"--designs {','.join(asked.designs)}: names one twice")
    return {design: tables[design] for design in asked.designs}


def _arguments(asked: Asked, sets: Mapping[str, Any]) -> dict[str, Any]:
    settings = {**asked.settings, **sets}
    return {"agents": asked.agents, "breaker": asked.breaker, "size": asked.size, "settings": settings}


def _perform(study: DesignStudy, address: str | None, alongside: bool, progress: Progress) -> DesignStudy:
    """Make every run that is missing; the page is written whenever a repeat is complete."""
    asked = study.asked
    arguments = [_arguments(asked, study.sets[trial.values[DESIGN]]) for trial in study.trials]
    trials = [
        replace(trial, run=finished(trial.directory, asked.scenario, trial.seed, each, address))
        for trial, each in zip(study.trials, arguments, strict=True)
    ]
    there = sum(trial.run is not None for trial in trials)
    if there:
        progress.stage(f"{there} of {len(trials)} runs are there already")
    made = 0
    for at, trial in enumerate(trials):
        if trial.run is not None:
            continue
        if made and trial.repeat != trials[at - 1].repeat:
            write(replace(study, trials=tuple(trials)))
        progress.stage(f"run {at + 1} of {len(trials)}: {trial.values[DESIGN]}, seed {trial.seed}")
        clear(trial.directory)
        trials[at] = attempt(
            asked.scenario, trial, progress, not (made or there), address=address, alongside=alongside, **arguments[at]
        )
        made += 1
    return write(replace(study, trials=tuple(trials)))


def write(study: DesignStudy) -> DesignStudy:
    """Write designs.json, designs.parquet and, if a run finished, the page."""
    study = replace(study, page=study.directory / PAGE if study.runs else None)
    (study.directory / JSON).write_text(json.dumps(study.as_dict(), indent=1))
    tried = [trial for trial in study.trials if trial.run is not None or trial.reason is not None]
    table = Comparison(study.asked.scenario, {DESIGN: list(study.asked.designs)}, 1, tried, study.directory, None)
    run_table(table).write_parquet(study.directory / TABLE)
    if study.page is not None:
        write_designs_page(study.page, study.settings, study.sets, study.asked.repeats, study.conditions)
    return study
