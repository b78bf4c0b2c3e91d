"""A sweep from start to end: what is missing of an experiment is made, trial by trial, each on cores of its own.

Owns the order of trials, what becomes of each, going on after an end of any kind, and the time that is left. Where
trials run is in cluster.trials, what they leave in `records`. A trial is `aar run` as a process of its own, with a Ray
of its own: nothing of one is alive when the next begins.
"""

import contextlib
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from aar_swarm.machine_lock import machine_to_itself
from aar_swarm.progress import Progress
from aar_swarm.swarm import RunFailed
from aar_swarm.sweeps import records, table
from aar_swarm.sweeps.experiment import Experiment, Planned, plan, read_experiment
from cluster import placement, trials
from cluster.guard import TMP_DIR_PREFIX, Guard, new_run_id
from cluster.trial_keeper import OUT, Outcome, Task, TrialKeeper
from exchange import clock
from exchange.errors import ConfigurationError

_POLL_S = 0.25
_OURS = ["-m", "aar_swarm.cli"]
"""What Python is told to run for a trial."""


class Place(Protocol):
    """Where a trial can run: cluster.trials.Place, or a TrialKeeper of this process."""

    def start(self, task: Task) -> None: ...

    def poll(self) -> Outcome | None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True)
class Sweep:
    """A sweep's directory, as it is now."""

    directory: Path
    planned: list[Planned]
    records: dict[str, dict[str, Any]]
    """Of each trial that was made or tried, by name, the planned ones first."""
    rows: list[dict[str, Any]]
    """The table's, in the same order."""

    @property
    def done(self) -> int:
        return sum(self._status(trial) == records.DONE for trial in self.planned)

    @property
    def failures(self) -> list[dict[str, Any]]:
        return [self.records[t.name] for t in self.planned if self._status(t) == records.FAILED]

    @property
    def missing(self) -> int:
        return len(self.planned) - self.done - len(self.failures)

    @property
    def trials(self) -> pl.DataFrame:
        """One row a trial that was made or tried."""
        return table.frame(self.rows)

    def _status(self, trial: Planned) -> str | None:
        found = self.records.get(trial.name)
        return None if found is None else str(found["status"])

    def as_dict(self) -> dict[str, Any]:
        return {
            "directory": str(self.directory),
            "table": str(self.directory / table.TABLE),
            "trials": len(self.planned),
            "done": self.done,
            "failed": len(self.failures),
            "missing": self.missing,
            "failures": [
                {"trial": f["trial"], "reason": f["reason"], "seconds": f["seconds"], "host": f["host"]}
                for f in self.failures
            ],
        }


def sweep(
    experiment: str | Path | Experiment,
    out: str | Path | None = None,
    address: str | None = None,
    *,
    retry_failed: bool = False,
    alongside: bool = False,
    progress: Progress | None = None,
    program: Sequence[str] = _OURS,
) -> Sweep:
    """Make every trial of an experiment that is not there yet.

    Args: experiment: or its file; out: a new directory, or that of the same experiment (None: new, under runs/);
    address: of a Ray cluster whose nodes make the trials (None: this machine); retry_failed: also those that failed;
    alongside: do not wait until no run of this user has this machine; program: in place of `aar`, for tests.
    Raises: ConfigurationError: the experiment cannot be, or the directory is another's; RunFailed: nothing is left to
    run trials on. A trial that fails is no error: it is in the result.
    """
    where = "the experiment" if isinstance(experiment, Experiment) else str(experiment)
    asked = experiment if isinstance(experiment, Experiment) else read_experiment(experiment)
    stem = "sweep" if isinstance(experiment, Experiment) else Path(experiment).stem
    planned = plan(asked, where)
    _check(planned, address)
    directory = Path(out) if out is not None else Path("runs") / f"sweep-{stem}-{clock.utc_stamp()}"
    directory = directory.absolute()
    progress = progress or Progress()
    with records.claimed(directory, asked, planned, address):
        making = _Making(asked, planned, directory, retry_failed, progress)
        if making.pending:
            with contextlib.ExitStack() as stack:
                if not alongside:
                    stack.enter_context(machine_to_itself(progress))
                _make(making, asked, address, program)
        return making.write()


def _check(planned: Sequence[Planned], address: str | None) -> None:
    """Each combination of settings once, with the last seed. Raises: ConfigurationError."""
    if address is None and any(trial.arguments.get("hosts", 1) > 1 for trial in planned):
        raise ConfigurationError("hosts: more than one needs a cluster; give its --address")
    for trial in planned:
        scenario = trial.arguments["scenario"]
        # A run over the whole cluster is driven from here, and reads the file here.
        if address is not None and scenario.endswith(".toml") and trial.arguments.get("hosts", 1) == 1:
            raise ConfigurationError(
                f"scenario {scenario}: a file is not shipped to the nodes that make the trials; with --address name "
                "one of `aar scenarios` and change it by [settings]"
            )
    last = {json.dumps([trial.arguments, trial.settings]): trial for trial in planned}
    for trial in last.values():
        try:
            trial.prepared(address)
        except ConfigurationError as error:
            raise ConfigurationError(f"{trial.told}: {error}") from None


def _make(making: "_Making", asked: Experiment, address: str | None, program: Sequence[str]) -> None:
    """Start Ray, or connect to it, and make what is pending."""
    temporary = tempfile.mkdtemp(prefix=TMP_DIR_PREFIX)
    guard = None
    try:
        guard = Guard.start(new_run_id(), temporary)
        making.progress.stage("starting Ray" if address is None else f"connecting to {address}")
        with placement.ray_session(address, temporary, reserve=False) as found:
            nodes = with_cores(found)
            alone = [trial for trial in making.pending if trial.arguments.get("hosts", 1) == 1]
            over_all = [trial for trial in making.pending if trial.arguments.get("hosts", 1) > 1]
            for trial in over_all:
                if trial.arguments["hosts"] != len(nodes):
                    raise ConfigurationError(
                        f"hosts {trial.arguments['hosts']}: the cluster at {address} has {len(nodes)} with cores, and "
                        "a run uses all of them; start a cluster of that size"
                    )
            if alone:
                cores = asked.cores or min(int(node.cores) for node in nodes)
                records.note_cores(making.directory, 1, cores)
                at_most = min(len(alone), asked.at_once or len(alone))
                with trials.places(nodes, cores, at_most) as places:
                    told = f"{len(places)} trial{'' if len(places) == 1 else 's'} at a time, {cores} cores each"
                    making.progress.stage(told)
                    making.perform(alone, list(places), lambda trial: making.task(trial, program, None))
            if over_all:
                records.note_cores(making.directory, len(nodes), sum(int(node.cores) for node in nodes))
                keeper = TrialKeeper(len(os.sched_getaffinity(0)), 0)
                making.perform(over_all, [keeper], lambda trial: making.task(trial, program, address))
    except placement.RayDidNotStart as error:
        raise RunFailed(f"{error}; is the machine busy with something else?") from None
    finally:
        if guard is not None:
            guard.close()
        shutil.rmtree(temporary, ignore_errors=True)


def with_cores(nodes: Sequence[placement.Node]) -> list[placement.Node]:
    """Those that can make a trial: a head or a venue's node may have been given none. Raises: ConfigurationError."""
    found = [node for node in nodes if node.cores >= 1]
    if not found:
        raise ConfigurationError(f"none of the {len(nodes)} nodes has a core for trials; start one with --num-cpus")
    return found


class _Making:
    """The state of a sweep while it lasts."""

    def __init__(
        self,
        asked: Experiment,
        planned: Sequence[Planned],
        directory: Path,
        retry_failed: bool,
        progress: Progress,
    ) -> None:
        self.asked, self.directory, self.progress = asked, directory, progress
        self.planned = list(planned)
        found = records.read(directory)
        known = {trial.name: trial for trial in planned}
        others = [name for name in found if name not in known]
        if found and len(others) == len(found):
            raise ConfigurationError(
                f"--out {directory}: none of the {len(found)} trials there is in the experiment now; "
                "name a new directory"
            )
        if others:
            progress.stage(f"{len(others)} trials in {directory} are not in the experiment now; they stay in its table")
        self._records = {name: record for name, (record, _) in found.items()}
        self._rows = {name: table.row(record, summary) for name, (record, summary) in found.items()}
        left_out = {records.DONE} if retry_failed else {records.DONE, records.FAILED}
        self.pending = [
            trial for trial in planned if trial.name not in found or self._records[trial.name]["status"] not in left_out
        ]
        there = len(planned) - len(self.pending)
        if there:
            failed = sum(t.name in found and self._records[t.name]["status"] == records.FAILED for t in planned)
            told = f" ({failed} failed; --retry-failed tries these again)" if failed and not retry_failed else ""
            progress.stage(f"{there} of {len(planned)} trials are there already{told}")
        self._left = _TimeLeft()
        for trial in planned:
            if trial.name in found and self._records[trial.name]["status"] == records.DONE:
                self._left.took(trial, self._records[trial.name]["seconds"])

    def write(self) -> Sweep:
        order = [t.name for t in self.planned if t.name in self._rows]
        order += [name for name in self._rows if name not in set(order)]
        rows = [self._rows[name] for name in order]
        table.write(self.directory, rows)
        return Sweep(self.directory, self.planned, {name: self._records[name] for name in order}, rows)

    def task(self, trial: Planned, program: Sequence[str], address: str | None) -> Task:
        part = self.directory / records.TRIALS / (trial.name + records.PART)
        return Task(
            arguments=[*program, *trial.command(alongside=True, address=address, out=OUT)],
            out=str(part) if self.asked.keep else None,
            files=records.FILES,
            timeout_s=self.asked.timeout_s,
            keep_ray_environment=address is not None,
        )

    def perform(self, waiting: Sequence[Planned], places: Sequence[Place], task: Callable[[Planned], Task]) -> None:
        """Make these, one at a time on each place. Raises: RunFailed: all places are lost."""
        queue, idle = list(waiting), list(places)
        running: list[tuple[Place, Planned, str]] = []
        total = len(self.planned)
        try:
            while queue or running:
                while queue and idle:
                    place, trial = idle.pop(0), queue.pop(0)
                    number = total - len(queue)
                    left = self._left.told([*queue, trial, *(each for _, each, _ in running)], len(places))
                    self.progress.stage(f"trial {number} of {total}: {trial.told}; {left}")
                    begun = clock.utc_stamp()
                    try:
                        place.start(task(trial))
                    except placement.ActorDied as error:
                        self._lost(trial, error, begun)
                    except (OSError, RuntimeError) as error:  # the place is sound
                        idle.append(place)
                        self._lost(trial, error, begun)
                    else:
                        running.append((place, trial, begun))
                for each in list(running):
                    place, trial, begun = each
                    try:
                        outcome = place.poll()
                    except (placement.ActorDied, OSError) as error:
                        running.remove(each)
                        if isinstance(
                            error, OSError
                        ):  # what it left cannot be read; the place is sound once it is empty
                            with contextlib.suppress(placement.ActorDied, OSError):
                                place.stop()
                                idle.append(place)
                        self._lost(trial, error, begun)
                        continue
                    if outcome is not None:
                        running.remove(each)
                        idle.append(place)
                        self._came_out(trial, outcome, begun)
                if queue and not idle and not running:
                    raise RunFailed(
                        f"no place for trials is left; {len(queue)} are to go: the same command goes on with them"
                    )
                clock.sleep(_POLL_S)
        finally:
            with _undisturbed():
                for place, _, _ in running:
                    with contextlib.suppress(placement.ActorDied, OSError):
                        place.stop()

    def _came_out(self, trial: Planned, outcome: Outcome, begun: str) -> None:
        reason = _what_was_wrong(outcome, self.asked.timeout_s)
        if reason is None:
            self._left.took(trial, outcome.seconds)
        self._keep(trial, reason, begun, outcome)

    def _lost(self, trial: Planned, error: Exception, begun: str) -> None:
        self._keep(trial, " ".join(str(error).split()), begun, None)

    def _keep(self, trial: Planned, reason: str | None, begun: str, outcome: Outcome | None) -> None:
        status = records.DONE if reason is None else records.FAILED
        record = {
            "trial": trial.name,
            "status": status,
            "reason": reason,
            **trial.key,
            "started_utc": begun,
            "seconds": None if outcome is None else round(outcome.seconds, 3),
            "host": None if outcome is None else outcome.host,
            "cores": None if outcome is None else outcome.cores,
            "said": None if outcome is None or reason is None else outcome.said,
        }
        files = {} if outcome is None or reason is not None else outcome.files
        self._records[trial.name] = records.keep(self.directory, trial.name, record, files)
        summary = json.loads(files["summary.json"]) if files else None
        self._rows[trial.name] = table.row(self._records[trial.name], summary)
        if reason is not None:
            self.progress.stage(f"failed: {trial.told}: {reason}")
        self.write()
        made = sum(each.name in self._records for each in self.planned)
        self.progress.trials(made, len(self.planned))


def _what_was_wrong(outcome: Outcome, timeout_s: float) -> str | None:
    """Why a trial is none; None: it is one."""
    if outcome.exit_status is None:
        return f"took longer than timeout_s {timeout_s:g}"
    lines = [line for line in outcome.said.splitlines() if line.strip()]
    if outcome.exit_status != 0:
        return lines[-1].removeprefix("aar: ") if lines else f"ended with status {outcome.exit_status} without a word"
    for name in records.FILES:
        try:
            found = json.loads(outcome.files[name])
        except (KeyError, ValueError):
            return f"ended well, but left no {name}"
        if "seed" not in found:
            return f"ended well, but {name} is not a run's"
    return None


class _TimeLeft:
    """From the trials so far: of one with the same settings if there is one, else of all."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def took(self, trial: Planned, seconds: float) -> None:
        self._seconds.setdefault(_settings(trial), []).append(seconds)

    def told(self, left: Sequence[Planned], places: int) -> str:
        if not self._seconds:
            return f"{len(left)} to go"
        every = [seconds for found in self._seconds.values() for seconds in found]
        each = [_mean(self._seconds.get(_settings(trial), every)) for trial in left]
        minutes = max(1, round(sum(each) / places / 60))
        told = f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
        return f"{len(left)} to go, about {told}"


def _settings(trial: Planned) -> str:
    return json.dumps([trial.arguments, trial.settings], sort_keys=True)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not interrupt the tidying up after the first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
