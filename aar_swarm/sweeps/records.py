"""What a sweep's directory holds of its trials, and that nothing of it is ever half there.

Owns experiment.json and trials/NAME/: trial.json, and of a trial that succeeded manifest.json and summary.json. A
trial's directory gets its name when it is complete; until then it is NAME.part, and means nothing.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aar_swarm.results import MANIFEST, SUMMARY, read_json
from aar_swarm.scenario import path_of
from aar_swarm.sweeps.experiment import Experiment, Planned
from aar_swarm.versions import versions
from cluster import code
from exchange.errors import ConfigurationError

EXPERIMENT, TRIALS, TRIAL = "experiment.json", "trials", "trial.json"
DONE, FAILED = "done", "failed"
FILES = [MANIFEST, SUMMARY]
PART = ".part"
_OLD = ".old" + PART
"""Of a trial that is being replaced."""
_FIXED = ("scenario", "agents", "breaker", "size", "agents_per_process", "hosts", "cores", "settings")


@contextmanager
def claimed(directory: Path, experiment: Experiment, planned: Sequence[Planned], address: str | None) -> Iterator[None]:
    """Have the directory, which is this experiment's or becomes it, for oneself.

    Raises: ConfigurationError: it holds something else, trials of other conditions, or another sweep is at work there.
    """
    content = _fitting(directory, experiment, planned, address)
    try:
        (directory / TRIALS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {directory}: {error.strerror}; name one that can be written") from None
    with _held(directory):
        _write(directory / EXPERIMENT, content)
        yield


def _fitting(
    directory: Path, experiment: Experiment, planned: Sequence[Planned], address: str | None
) -> dict[str, Any]:
    """What experiment.json is to hold. Raises: ConfigurationError: the directory holds what does not fit."""
    asked = json.loads(json.dumps(experiment.model_dump(exclude_none=True)))
    scenarios = {str(trial.arguments["scenario"]): trial for trial in planned}
    resolved = {name: _plain(trial).prepared(address)[0] for name, trial in scenarios.items()}
    # Of the whole file: what a run takes of it depends on its breaker and size.
    files = {name: hashlib.sha256(path_of(name).read_bytes()).hexdigest() for name in scenarios}
    found = {"experiment": asked, "versions": versions(), "code": code.digest(), "cluster": address is not None}
    cores: dict[str, int] = {}
    path = directory / EXPERIMENT
    if not path.is_file():
        if directory.exists() and not _is_new(directory):
            raise ConfigurationError(
                f"--out {directory}: is there already and holds no sweep; nothing is overwritten, name a new directory"
            )
    else:
        before = read_json(path)
        known = before.get("experiment", {})
        for name in _FIXED:
            if known.get(name) != asked.get(name):
                raise ConfigurationError(
                    f"{name}: the sweep in {directory} has {known.get(name)}, the file now {asked.get(name)}; "
                    "change it back, or name a new --out"
                )
        if before.get("versions") != versions():
            raise ConfigurationError(
                f"--out {directory}: its trials were made with other versions of the programs "
                f"({before.get('versions')}); name a new directory"
            )
        if before.get("code") != found["code"]:
            raise ConfigurationError(
                f"--out {directory}: aar-swarm's own code has changed since its trials were made; name a new directory"
            )
        if before.get("cluster") != found["cluster"]:
            made, now = ("a cluster", "none") if before.get("cluster") else ("this machine alone", "a cluster")
            raise ConfigurationError(
                f"--address: the trials in {directory} were made on {made}, and now {now} is named; "
                "go on as it was begun, or name a new --out"
            )
        for name, digest in files.items():
            if before["files"].get(name, digest) != digest:
                raise ConfigurationError(
                    f"scenario {name}: has changed since trials of it were made in {directory}; name a new --out"
                )
        resolved, files = {**before["scenarios"], **resolved}, {**before["files"], **files}
        cores = before["cores"]
    return {**found, "cores": cores, "files": files, "scenarios": resolved}


def note_cores(directory: Path, hosts: int, cores: int) -> None:
    """Write down how many cores each trial over so many hosts has.

    Raises: ConfigurationError: those before had another number.
    """
    content = read_json(directory / EXPERIMENT)
    before = content["cores"].setdefault(str(hosts), cores)
    if before != cores:
        raise ConfigurationError(
            f"cores: trials in {directory} had {before}, and would have {cores} now; go on where there "
            "are as many, or name a new --out"
        )
    _write(directory / EXPERIMENT, content)


def _is_new(directory: Path) -> bool:
    """Whether it holds nothing, or what a sweep leaves that was killed before it began."""
    if not directory.is_dir():
        return False
    begun = {TRIALS, EXPERIMENT + PART}
    return {path.name for path in directory.iterdir()} <= begun and not any((directory / TRIALS).glob("*"))


def _plain(trial: Planned) -> Planned:
    """Its scenario as it is in its file."""
    return Planned({"scenario": trial.arguments["scenario"]}, {}, {}, 1)


def read(directory: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any] | None]]:
    """Name → record and, if it succeeded, summary, of every trial that is there, whole. Removes what is half there."""
    for old in (directory / TRIALS).glob("*" + _OLD):
        place = old.with_name(old.name.removesuffix(_OLD))
        part = place.with_name(place.name + PART)
        if not place.exists():  # killed between the two renames: the new one is whole
            os.rename(part if part.is_dir() else old, place)
    found = {}
    for place in sorted((directory / TRIALS).iterdir()):
        if place.name.endswith(PART):
            shutil.rmtree(place)
            continue
        try:
            record = read_json(place / TRIAL)
            summary = None
            if record["status"] == DONE:
                summary, manifest = read_json(place / SUMMARY), read_json(place / MANIFEST)
                if manifest["seed"] != record["seed"] or summary["seed"] != record["seed"]:
                    continue
        except (ConfigurationError, KeyError):  # damaged: to be made again
            continue
        record["directory"] = str(place)
        found[place.name] = (record, summary)
    return found


def keep(directory: Path, name: str, record: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """Write a trial down; it is there whole or not at all. Returns the record as it is there."""
    place = directory / TRIALS / name
    part = place.with_name(name + PART)
    if record["status"] != DONE:
        shutil.rmtree(part, ignore_errors=True)  # of a run directory that was to be kept, half of it
    part.mkdir(exist_ok=True)
    for file, content in files.items():
        with (part / file).open("wb") as out:
            out.write(content)
            os.fsync(out.fileno())
    _write(part / TRIAL, record)
    old = place.with_name(name + _OLD)
    if place.exists():  # a failure that was tried again, or a damaged one
        os.rename(place, old)
    os.rename(part, place)
    shutil.rmtree(old, ignore_errors=True)
    return {**record, "directory": str(place)}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    part = path.with_name(path.name + PART)
    with part.open("w") as out:
        json.dump(content, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, path)


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Two that go on with one sweep would take each other's unfinished trials for remains.

    Raises: ConfigurationError: another has it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"--out {directory}: this sweep is under way; wait for it") from None
        yield
    finally:
        os.close(descriptor)
