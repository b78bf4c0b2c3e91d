"""The study of the defences: every scenario without one, with each alone, with all; the ladder; calm runs.

Owns the order of its runs, going on with an unfinished one, and its files: study.json (what was asked for),
defences.json, defences.parquet and defences.html. What a figure means is in `analysis.defended`, how it looks in
`report`, what is run in `defence_plan`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from aar_swarm.analysis.compared import Setting
from aar_swarm.analysis.defended import (
    CALM_COUNTS,
    CELL,
    NONE,
    FalseAlarms,
    Part,
    Rung,
    against_none,
    calm_counts,
    calm_hours,
    false_alarms,
    part_dict,
    rungs_in_order,
)
from aar_swarm.analysis.statistics import CONFIDENCE
from aar_swarm.comparison import Comparison, Trial, attempt, run_table
from aar_swarm.defence_plan import CALM, MAX_RUNS, STUDY, Asked, Cell, Given, Plan, as_json, asked_for, plan_of
from aar_swarm.progress import Progress
from aar_swarm.report.defences_page import write_defences_page
from aar_swarm.results import Run
from aar_swarm.resuming import clear, finished, studied_by_one
from aar_swarm.runner import prepare
from aar_swarm.scenario import load_scenario
from exchange import clock
from exchange.errors import ConfigurationError

JSON, TABLE, PAGE = "defences.json", "defences.parquet", "defences.html"


@dataclass(frozen=True)
class Job:
    """One run of the study; its trial says whether it is done."""

    plan: Plan
    cell: Cell
    trial: Trial


@dataclass(frozen=True)
class Study:
    asked: Asked
    plans: tuple[Plan, ...]
    jobs: tuple[Job, ...]
    """In the order in which they are run; some may not have been yet."""
    directory: Path
    page: Path | None
    """None if no run finished."""

    @property
    def runs(self) -> list[Run]:
        return [job.trial.run for job in self.jobs if job.trial.run is not None]

    @property
    def failures(self) -> list[Job]:
        return [job for job in self.jobs if job.trial.reason is not None]

    @property
    def missing(self) -> int:
        """Runs that have been neither made nor tried."""
        return len(self.jobs) - len(self.runs) - len(self.failures)

    @property
    def parts(self) -> list[Part]:
        return [self._part(plan) for plan in self.plans]

    def trials(self, plan: Plan, calm: bool = False) -> list[Trial]:
        return [job.trial for job in self.jobs if job.plan is plan and (job.cell.name == CALM) == calm]

    def _part(self, plan: Plan) -> Part:
        tried = self.trials(plan)
        partners = {t.repeat: t.run.summary for t in tried if t.run is not None and t.values[CELL] == NONE}
        settings = {cell.name: _setting(cell, tried, partners) for cell in plan.cells}
        rungs = [Rung(label, reaction_ms, settings[cell.name]) for label, reaction_ms, cell in plan.ladder]
        calm_runs = [t.run.summary for t in self.trials(plan, calm=True) if t.run is not None]
        failures = [job for job in self.failures if job.plan is plan]
        return Part(
            scenario=plan.stem,
            title=plan.title,
            cells=tuple(settings[cell.name] for cell in plan.table),
            sets={cell.name: cell.told for cell in plan.cells},
            unavailable=plan.unavailable,
            rungs=tuple(rungs_in_order(rungs)),
            calm=_alarms(calm_runs, whole=False),
            calm_whole=_alarms(calm_runs, whole=True),
            calm_sets={} if plan.calm is None else plan.calm.told,
            notes=plan.notes,
            failures=tuple((job.cell.name, job.trial.seed, job.trial.reason or "") for job in failures),
        )

    def as_dict(self) -> dict[str, Any]:
        """What defences.json holds."""
        return {
            **asdict(self.asked),
            "confidence": CONFIDENCE,
            "runs": len(self.runs),
            "missing": self.missing,
            "failed": len(self.failures),
            "conditions": conditions(self),
            "results": {part.scenario: part_dict(part) for part in self.parts},
            "directory": str(self.directory),
            "page": None if self.page is None else str(self.page),
        }


def measure_defences(
    scenarios: Sequence[str] = (),
    repeats: int | None = None,
    *,
    ladder: bool = False,
    calm: int = 0,
    agents: int | None = None,
    size: str | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    alongside: bool = False,
) -> Study:
    """Run the study, or what is missing of it, and write its pages.

    Args: scenarios: names or paths (none: all there are; of ladder or calm alone: exit-door); repeats (5): repeat r has
    seed + r − 1; ladder, calm: only the ladder, only so many runs without news; out: a new directory, or that of a
    study to go on with (see defence_plan.asked_for).
    Raises: ConfigurationError: a bad value, found before anything runs, or what keeps the first run from starting.
    """
    directory = Path(out) if out is not None else Path("runs") / f"defences-{clock.utc_stamp()}"
    directory = directory.absolute()
    given = Given(tuple(scenarios), repeats, seed, size, agents, dict(settings or {}), ladder, calm, alongside)
    asked = asked_for(directory, given)
    plans = tuple(plan_of(scenario, asked) for scenario in asked.scenarios)
    if len({plan.stem for plan in plans}) < len(plans):
        raise ConfigurationError(f"--scenario: two of {', '.join(asked.scenarios)} have the same name")
    count = sum(asked.repeats * len(plan.cells) + asked.calm for plan in plans)
    if not 1 <= count <= MAX_RUNS:
        raise ConfigurationError(f"{count:,} runs were asked for; ask for 1 to {MAX_RUNS:,}")
    jobs = _jobs(asked, plans, directory)
    for plan in plans:
        for cell in [*plan.cells, *([plan.calm] if plan.calm else [])]:
            seeds = asked.calm if cell.name == CALM else asked.repeats
            prepare(plan.scenario, seed=asked.seed + seeds - 1, address=address, **_arguments(asked, cell))
    progress = progress or Progress()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {directory}: {error.strerror}; name one that can be written") from None
    with studied_by_one(directory):
        (directory / STUDY).write_text(as_json(asked))
        for plan in plans:
            for name, reason in plan.unavailable.items():
                progress.stage(f"{plan.stem}: {name} is not available: {reason}")
            for note in plan.notes:
                progress.stage(f"{plan.stem}: {note}")
        return _perform(Study(asked, plans, tuple(jobs), directory, None), address, alongside, progress)


def _jobs(asked: Asked, plans: Sequence[Plan], directory: Path) -> list[Job]:
    """Repeat r of every cell of every scenario before repeat r + 1 of any; then the calm runs, likewise."""
    found = []
    for count, calm in ((asked.repeats, False), (asked.calm, True)):
        for repeat in range(1, count + 1):
            for plan in plans:
                for cell in [plan.calm] if calm else plan.cells:
                    if cell is not None:
                        seed = asked.seed + repeat - 1
                        place = directory / plan.stem / f"{cell.name},seed={seed}"
                        found.append(Job(plan, cell, Trial({CELL: cell.name}, repeat, seed, place)))
    return found


def _arguments(asked: Asked, cell: Cell) -> dict[str, Any]:
    return {
        "agents": asked.agents,
        "breaker": cell.breaker,
        "size": asked.size,
        "settings": {**asked.settings, **cell.sets},
    }


def _perform(study: Study, address: str | None, alongside: bool, progress: Progress) -> Study:
    """Make every run that is missing; the pages are written whenever a repeat is complete."""
    asked = study.asked
    jobs = [replace(job, trial=replace(job.trial, run=_made(asked, job, address))) for job in study.jobs]
    there = sum(job.trial.run is not None for job in jobs)
    if there:
        progress.stage(f"{there} of {len(jobs)} runs are there already")
    left = _TimeLeft([job for job in jobs if job.trial.run is None], asked)
    made = 0
    for at, job in enumerate(jobs):
        if job.trial.run is not None:
            continue
        if made and job.trial.repeat != jobs[at - 1].trial.repeat:
            write(replace(study, jobs=tuple(jobs)))
        progress.stage(
            f"run {at + 1} of {len(jobs)}: {job.plan.stem}, {job.cell.name}, seed {job.trial.seed}; {left.told()}"
        )
        clear(job.trial.directory)
        begun_ns = clock.monotonic_ns()
        trial = attempt(
            job.plan.scenario, job.trial, progress, not (made or there), address=address, alongside=alongside,
            **_arguments(asked, job.cell),
        )  # fmt: skip
        left.took(job, (clock.monotonic_ns() - begun_ns) / clock.SECOND)
        jobs[at] = replace(job, trial=trial)
        made += 1
    return write(replace(study, jobs=tuple(jobs)))


def _made(asked: Asked, job: Job, address: str | None) -> Run | None:
    trial = job.trial
    return finished(trial.directory, job.plan.scenario, trial.seed, _arguments(asked, job.cell), address)


class _TimeLeft:
    """Sessions have their lengths; what a run takes beside, the runs so far say."""

    def __init__(self, jobs: Sequence[Job], asked: Asked) -> None:
        self._session_s: dict[tuple[str, str], float] = {}
        for job in jobs:
            if _key(job) not in self._session_s:
                self._session_s[_key(job)] = _session_s(asked, job)
        self._left = [self._session_s[_key(job)] for job in jobs]
        self._beside_s: list[float] = []

    def took(self, job: Job, seconds: float) -> None:
        self._left.remove(self._session_s[_key(job)])
        self._beside_s.append(seconds - self._session_s[_key(job)])

    def told(self) -> str:
        if not self._beside_s:
            return f"{len(self._left)} to go"
        beside_s = sum(self._beside_s) / len(self._beside_s)
        left_s = sum(self._left) + len(self._left) * beside_s
        return f"{len(self._left)} to go, about {_duration(left_s)}"


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _key(job: Job) -> tuple[str, str]:
    return job.plan.stem, job.cell.name


def _session_s(asked: Asked, job: Job) -> float:
    arguments = _arguments(asked, job.cell)
    return load_scenario(job.plan.scenario, arguments["breaker"], arguments["settings"], arguments["size"]).duration_s


def write(study: Study) -> Study:
    """Write defences.json, defences.parquet and, if a run finished, the page."""
    study = replace(study, page=study.directory / PAGE if study.runs else None)
    found = study.as_dict()
    (study.directory / JSON).write_text(json.dumps(found, indent=1))
    table_of(study).write_parquet(study.directory / TABLE)
    if study.page is not None:
        write_defences_page(study.page, study.parts, study.asked.repeats, found["conditions"])
    return study


def conditions(study: Study) -> dict[str, str]:
    """Under what circumstances the runs were measured."""
    asked, runs = study.asked, study.runs
    told = {
        "runs": f"{len(runs)} of {len(study.jobs)}, {len(study.failures)} failed, {study.missing} not made yet",
        "seeds": f"{asked.seed} to {asked.seed + max(asked.repeats, asked.calm) - 1}",
        "size": asked.size,
        "settings": ", ".join(f"{key} = {value}" for key, value in asked.settings.items()) or "the scenarios' own",
        "machine": "shared with other runs, at least at times (--alongside)"
        if asked.alongside
        else "one run at a time",
    }
    for plan in study.plans:
        found = [job.trial.run.manifest for job in study.jobs if job.plan is plan and job.trial.run is not None]
        each = [f"{m['agents']:,} agents, {m['scenario']['duration_s']:g} s" for m in found]
        if each:
            told[plan.stem] = "; ".join(dict.fromkeys(each))
    manifests = [run.manifest for run in runs]
    if manifests:
        started = sorted(manifest["started_utc"] for manifest in manifests)
        told |= {
            "cores": _each(manifest["cores"] for manifest in manifests),
            "hosts": _each(len(manifest["hosts"]) for manifest in manifests),
            "venue's scheduling": _each(manifest["scheduling"] for manifest in manifests),
            "versions": _each(
                ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
                for manifest in manifests
            ),
            "started (UTC)": f"{started[0]} to {started[-1]}",
        }
    return told


def _each(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(map(str, values)))


def table_of(study: Study) -> pl.DataFrame:
    """One row a run that was made or tried: scenario, defence, repeat, seed, failure, and its summary's figures."""
    frames = []
    for plan in study.plans:
        tried = [t for calm in (False, True) for t in study.trials(plan, calm) if t.run is not None or t.reason]
        if tried:
            cells = list(dict.fromkeys(trial.values[CELL] for trial in tried))
            found = run_table(Comparison(plan.stem, {CELL: cells}, 1, tried, study.directory, None))
            frames.append(found.with_columns(pl.lit(plan.stem).alias("scenario")))
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def _setting(cell: Cell, tried: Sequence[Trial], partners: Mapping[int, Mapping[str, Any]]) -> Setting:
    mine = [trial for trial in tried if trial.values[CELL] == cell.name]
    summaries = [
        against_none(t.run.summary, None if cell.name == NONE else partners.get(t.repeat))
        for t in mine
        if t.run is not None
    ]
    return Setting({CELL: cell.name}, tuple(summaries), tuple(t.reason for t in mine if t.reason is not None))


def _alarms(summaries: Sequence[Mapping[str, Any]], whole: bool) -> tuple[FalseAlarms, ...]:
    found = []
    for what in CALM_COUNTS:
        counted = [
            (count, calm_hours(summary, whole))
            for summary in summaries
            if (count := calm_counts(summary, what, whole)) is not None
        ]
        if counted:
            found.append(false_alarms(what, [count for count, _ in counted], sum(hours for _, hours in counted)))
    return tuple(found)
