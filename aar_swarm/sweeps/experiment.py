"""What a sweep runs: an experiment's file → its trials, each one a scenario with settings and a seed.

Owns the reading of EXPERIMENT.toml and the names of trials. Runs nothing. docs/sweep.md describes the file.
"""

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aar_swarm.runner import prepare
from aar_swarm.scenario import explain
from exchange.errors import ConfigurationError

MAX_TRIALS = 100_000
ARGUMENTS = ("scenario", "agents", "breaker", "size", "agents_per_process", "hosts")
"""What can be given, and varied, beside a scenario's settings."""
_NAME_CHARACTERS = 60


class Experiment(BaseModel):
    """An experiment's file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    scenario: str | None = None
    """Name or path; a path is as seen from the file's own directory, or else from where the command runs."""
    agents: int | None = Field(default=None, ge=1)
    breaker: str = "default"
    size: str = "default"
    agents_per_process: int = Field(default=1, ge=1)
    hosts: int = Field(default=1, ge=1)
    """1: each trial has one node's cores to itself. More: each is a run over the whole cluster, which has so many."""
    settings: dict[str, Any] = {}
    grid: dict[str, Any] = {}
    trial: list[dict[str, Any]] = []
    seeds: list[Annotated[int, Field(ge=0, lt=1 << 63)]] | None = None
    repeats: int | None = Field(default=None, ge=1)
    """Seeds 1, 2, …"""
    cores: int | None = Field(default=None, ge=1)
    """Of each trial; none: all that the smallest node has, one trial at a time on each node."""
    at_once: int | None = Field(default=None, ge=1)
    """At most so many trials at a time; none: as many as there are cores for."""
    timeout_s: float = Field(default=900.0, gt=0)
    keep: bool = False
    """Whether whole run directories stay, or only manifest.json and summary.json."""


@dataclass(frozen=True)
class Planned:
    """One trial that is to be made."""

    arguments: dict[str, Any]
    """Of ARGUMENTS, those that are not the default."""
    settings: dict[str, Any]
    varied: dict[str, Any]
    """What tells it from others, without the seed."""
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """All that it is, as JSON gives it back."""
        found = {"arguments": self.arguments, "settings": self.settings, "seed": self.seed}
        return json.loads(json.dumps(found))

    @property
    def name(self) -> str:
        """Of its directory: readable, and never the same for two that differ."""
        told = ",".join(f"{key}={value}" for key, value in self.varied.items())
        readable = re.sub(r"[^\w.,=+-]+", "_", told)[:_NAME_CHARACTERS]
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:10]
        return ",".join(filter(None, [readable, f"seed={self.seed}", digest]))

    @property
    def told(self) -> str:
        return ", ".join([*(f"{key} = {value}" for key, value in self.varied.items()), f"seed {self.seed}"])

    def prepared(self, address: str | None) -> tuple[dict[str, Any], int]:
        """The scenario as a manifest has it, and the number of agents. Raises: ConfigurationError."""
        names = ("agents", "breaker", "size", "agents_per_process")
        chosen = {name: self.arguments[name] for name in names if name in self.arguments}
        scenario, agents = prepare(
            self.arguments["scenario"], seed=self.seed, settings=self.settings, address=address, **chosen
        )
        return json.loads(json.dumps(scenario.model_dump())), agents

    def command(self, alongside: bool, address: str | None, out: str) -> list[str]:
        """The arguments of `aar` for it."""
        found = ["run", self.arguments["scenario"], "--seed", str(self.seed), "--out", out, "--json"]
        for name, value in self.arguments.items():
            if name not in ("scenario", "hosts"):
                found += [f"--{name.replace('_', '-')}", str(value)]
        for key, value in self.settings.items():
            found += ["--set", f"{key}={_as_text(value)}"]
        if alongside:
            found.append("--alongside")
        return found if address is None else [*found, "--address", address]


def read_experiment(path: str | Path) -> Experiment:
    """Raises: ConfigurationError: no such file, no TOML, an unknown key, a value that cannot be."""
    path = Path(path)
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    trials = found.get("trial")
    for place in (found, found.get("grid"), *(trials if isinstance(trials, list) else ())):
        if isinstance(place, dict) and "scenario" in place:
            place["scenario"] = _from(path.parent, place["scenario"])
    try:
        return Experiment(**found)
    except ValidationError as error:
        raise ConfigurationError(explain(error, f"{path}: ")) from None


def _from(directory: Path, scenario: Any) -> Any:
    """A scenario's name, or path, or a list of such, as an experiment in that directory means it."""
    if isinstance(scenario, list):
        return [_from(directory, each) for each in scenario]
    if isinstance(scenario, str) and scenario.endswith(".toml") and (directory / scenario).is_file():
        return str((directory / scenario).resolve())
    return scenario


def plan(experiment: Experiment, where: str = "the experiment") -> list[Planned]:
    """Its trials: every combination with the first seed, then every one with the second: a machine that slowly changes
    changes for all alike.

    Raises: ConfigurationError.
    """
    if experiment.grid and experiment.trial:
        raise ConfigurationError(f"{where}: has both [grid] and [[trial]]; write one of them")
    if experiment.seeds is not None and experiment.repeats is not None:
        raise ConfigurationError(f"{where}: has both seeds and repeats; write one of them")
    seeds = experiment.seeds if experiment.seeds is not None else list(range(1, (experiment.repeats or 1) + 1))
    if not seeds:
        raise ConfigurationError(f"{where}: seeds is empty; name at least one")
    fixed = flat(experiment.settings)
    for name in set(fixed) & set(ARGUMENTS):
        raise ConfigurationError(f"{where}: settings.{name}: write {name} above the tables, not as a setting")
    for table in (experiment.settings, experiment.grid, *experiment.trial):
        _check_values(flat(table), where)
    varied = [flat(each) for each in experiment.trial] or list(_grid(flat(experiment.grid), where))
    if len(varied) * len(seeds) > MAX_TRIALS:
        raise ConfigurationError(
            f"{where}: asks for {len(varied) * len(seeds):,} trials; ask for {MAX_TRIALS:,} at most"
        )
    found = [_planned(experiment, fixed, values, seed, where) for seed in seeds for values in varied]
    keys = [json.dumps(trial.key, sort_keys=True) for trial in found]
    if len(set(keys)) < len(keys):
        twice = next(trial for at, trial in enumerate(found) if keys[at] in keys[:at])
        raise ConfigurationError(f"{where}: names the same trial twice: {twice.told}")
    return found


def _grid(grid: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigurationError(f"{where}: grid.{key}: write a list of values (given: {values!r})")
    for chosen in itertools.product(*grid.values()):
        yield dict(zip(grid, chosen, strict=True))


def _check_values(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        try:
            json.dumps(value)
        except TypeError:
            raise ConfigurationError(
                f"{where}: {key}: {value} is a {type(value).__name__}; write a number, a text, true or false, or a list"
            ) from None


def _planned(
    experiment: Experiment, fixed: Mapping[str, Any], values: Mapping[str, Any], seed: int, where: str
) -> Planned:
    arguments = {name: getattr(experiment, name) for name in ARGUMENTS}
    arguments |= {name: value for name, value in values.items() if name in ARGUMENTS}
    if arguments["scenario"] is None:
        raise ConfigurationError(f"{where}: scenario is missing; name one of `aar scenarios`")
    try:  # the values that vary, by the same rules
        Experiment(**arguments)
    except ValidationError as error:
        raise ConfigurationError(explain(error, f"{where}: ")) from None
    defaults = {name: Experiment.model_fields[name].default for name in ARGUMENTS}
    return Planned(
        arguments={name: value for name, value in arguments.items() if value != defaults[name]},
        settings={**fixed, **{key: value for key, value in values.items() if key not in ARGUMENTS}},
        varied=dict(values),
        seed=seed,
    )


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys of inner tables dotted, as `--set` has them."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _as_text(value: Any) -> str:
    """A TOML value as `--set` reads it."""
    return value if isinstance(value, str) else json.dumps(value)
