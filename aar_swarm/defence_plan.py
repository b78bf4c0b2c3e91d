"""What the study of the defences runs: of each scenario the cells, each with the settings that make it.

Owns the reading of [defences.NAME] tables and what an unfinished study's directory says that it is. Runs nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from aar_swarm.analysis.defended import ALL, NONE
from aar_swarm.results import read_json
from aar_swarm.scenario import UnknownSetting, calm_settings, choices, defence_settings, load_scenario, scenario_names
from exchange.errors import ConfigurationError

DEFENCES = ("breaker", "diversity", "supervisor", "explained")
CALM = "calm"
STUDY = "study.json"
LADDER_SCENARIO = "exit-door"
RUNGS_MS = (1, 10, 100, 1000, 5000)
"""Reaction times beside the supervisor's own (0: as fast as the traders) and never."""
_REACTION = "supervisor.reaction_ms"
AS_SUPERVISOR = "as-supervisor"
"""A breaker of a scenario that is the supervisor's own trigger, in-line: then a ladder is of reaction times alone."""
DEFAULT_REPEATS = 5
MAX_RUNS = 5000


@dataclass(frozen=True)
class Asked:
    """A study as it was asked for; what its directory holds of it."""

    scenarios: tuple[str, ...]
    repeats: int
    seed: int
    size: str
    agents: int | None
    settings: dict[str, Any]
    tables: bool
    ladder: bool
    calm: int
    """Runs without news, of each scenario."""
    alongside: bool = False
    """Whether any of it shared the machine with other runs."""


@dataclass(frozen=True)
class Given:
    """What somebody asks for; None, False or 0 is left out."""

    scenarios: tuple[str, ...] = ()
    repeats: int | None = None
    seed: int | None = None
    size: str | None = None
    agents: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    ladder: bool = False
    calm: int = 0
    alongside: bool = False


@dataclass(frozen=True)
class Cell:
    """A scenario with some of its defences."""

    name: str
    breaker: str
    sets: dict[str, Any]
    """The defences' settings, without the breaker's name."""
    reaction_ms: float | None = None
    """Of a rung of the ladder that is no cell of the table."""

    @property
    def told(self) -> dict[str, Any]:
        return {"breaker": self.breaker, **self.sets}


@dataclass(frozen=True)
class Plan:
    """What is run of one scenario."""

    scenario: str
    """As it was asked for: a name or a path."""
    title: str
    table: tuple[Cell, ...]
    ladder: tuple[tuple[str, float | None, Cell], ...]
    """(label, reaction time in ms: −1 in-line, −0.5 in-line by the supervisor's trigger, None never; the cell)."""
    calm: Cell | None
    unavailable: dict[str, str]
    notes: tuple[str, ...]

    @property
    def stem(self) -> str:
        return Path(self.scenario).stem

    @property
    def cells(self) -> list[Cell]:
        """Those that are run `repeats` times, each once."""
        return list({cell.name: cell for cell in (*self.table, *(rung[2] for rung in self.ladder))}.values())


def asked_for(directory: Path, given: Given) -> Asked:
    """What the study in this directory is, with what is added to it now.

    A new directory: tables and ladder, unless --ladder or --calm ask for these alone. In the directory of a study its
    own options hold where none are given; scenarios, ladder and calm runs are added, repeats may change, and the rest
    is another study.
    Raises: ConfigurationError.
    """
    if given.repeats is not None and given.repeats < 1:
        raise ConfigurationError(f"--repeats {given.repeats}: there must be at least one")
    if given.calm < 0:
        raise ConfigurationError(f"--calm {given.calm}: must not be below 0")
    if not (directory / STUDY).is_file():
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise ConfigurationError(
                f"--out {directory}: is there already and holds no study; nothing is overwritten, name a new directory"
            )
        tables = not (given.ladder or given.calm)
        default = (
            (LADDER_SCENARIO,) if not tables else tuple(name for name in scenario_names() if defence_settings(name))
        )
        return Asked(
            scenarios=given.scenarios or default,
            repeats=given.repeats or DEFAULT_REPEATS,
            seed=1 if given.seed is None else given.seed,
            size=given.size or "default",
            agents=given.agents,
            settings=dict(given.settings),
            tables=tables,
            ladder=tables or given.ladder,
            calm=given.calm,
            alongside=given.alongside,
        )
    kept = read_json(directory / STUDY)
    try:
        before = Asked(**{**kept, "scenarios": tuple(kept["scenarios"])})
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"{directory / STUDY}: {error}; name a new directory") from None
    for name in ("seed", "size", "agents"):
        asked = getattr(given, name)
        if asked is not None and asked != getattr(before, name):
            raise ConfigurationError(
                f"--{name} {asked}: the study in {directory} has {getattr(before, name)}; leave it out, or name a new "
                "directory"
            )
    if given.settings and dict(given.settings) != before.settings:
        raise ConfigurationError(f"--set: the study in {directory} has other settings; name a new directory")
    return replace(
        before,
        scenarios=tuple(dict.fromkeys([*before.scenarios, *given.scenarios])),
        tables=before.tables or (bool(given.scenarios) and not (given.ladder or given.calm)),
        repeats=given.repeats or before.repeats,
        ladder=before.ladder or given.ladder,
        calm=given.calm or before.calm,
        alongside=before.alongside or given.alongside,
    )


def as_json(asked: Asked) -> str:
    return json.dumps(asdict(asked), indent=1)


def plan_of(scenario: str, asked: Asked) -> Plan:
    """The cells of one scenario: none, each of its defences alone, all of them; the ladder's; the calm one.

    Raises: ConfigurationError: what was asked for cannot be; what this scenario has not got is in `unavailable`.
    """
    tables = defence_settings(scenario)
    for name in tables:
        if name not in DEFENCES:
            raise ConfigurationError(f"defences.{name}: in {scenario}; choose one of {', '.join(DEFENCES)}")
    _refuse_what_the_study_sets(scenario, asked.settings, tables)
    none = Cell(NONE, "off", {})
    base = load_scenario(scenario, none.breaker, asked.settings, asked.size)
    found, unavailable = {}, {}
    for name in DEFENCES:
        if name not in tables:
            unavailable[name] = f"its file has no [defences.{name}] table"
            continue
        cell = _cell(name, [tables[name]])
        try:
            load_scenario(scenario, cell.breaker, {**asked.settings, **cell.sets}, asked.size)
        except UnknownSetting as error:
            unavailable[name] = str(error).partition(";")[0]  # the rest says what else there is
        else:
            found[name] = cell
    together = _cell(ALL, [tables[name] for name in found])
    notes = []
    if len(found) > 1:
        table = [none, *found.values(), together]
        if unavailable:
            notes.append(f"all is {' and '.join(found)}: the others are not available here.")
    else:
        table = [none, *found.values()]
    rungs: list[tuple[str, float | None, Cell]] = []
    is_ladder = Path(scenario).stem == LADDER_SCENARIO or not asked.tables
    if asked.ladder and is_ladder:
        missing = [f"{name}: {unavailable[name]}" for name in ("breaker", "supervisor") if name in unavailable]
        if missing:
            notes.append(f"No ladder: {'; '.join(missing)}.")
        else:
            left_ms = (base.duration_s - base.signal.at_s) * 1000
            rungs, late = _rungs(none, found["breaker"], found["supervisor"], left_ms)
            if AS_SUPERVISOR in choices(scenario)["breakers"]:
                rungs.insert(1, ("in-line, same trigger", -0.5, Cell(AS_SUPERVISOR, AS_SUPERVISOR, {})))
            if late:
                notes.append(f"Left out of the ladder: {late}, longer than the {left_ms:g} ms after the signal.")
    calm = None
    if asked.calm:
        calm = Cell(CALM, together.breaker, {**calm_settings(scenario), **together.sets})
    return Plan(
        scenario, base.title, tuple(table) if asked.tables else (), tuple(rungs), calm, unavailable, tuple(notes)
    )


def _cell(name: str, tables: list[dict[str, Any]]) -> Cell:
    """Raises: ConfigurationError: two defences set the same thing to different values."""
    sets: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            if sets.setdefault(key, value) != value:
                raise ConfigurationError(f"{key}: two [defences] tables set it, to {sets[key]} and to {value}")
    return Cell(name, str(sets.pop("breaker", "off")), sets)


def _rungs(
    none: Cell, breaker: Cell, supervisor: Cell, left_ms: float
) -> tuple[list[tuple[str, float | None, Cell]], str]:
    """Both ends and the supervisor's own reaction time are cells of the table. Second: those that come too late."""
    own_ms = float(supervisor.sets.get(_REACTION, 0))
    rungs: list[tuple[str, float | None, Cell]] = [("in-line", -1.0, breaker), (_ms(own_ms), own_ms, supervisor)]
    late = []
    for reaction_ms in RUNGS_MS:
        if reaction_ms == own_ms:
            continue
        if reaction_ms >= left_ms:
            late.append(_ms(reaction_ms))
            continue
        sets = {**supervisor.sets, _REACTION: float(reaction_ms)}
        rungs.append((_ms(reaction_ms), float(reaction_ms), Cell(f"reaction-{reaction_ms}-ms", supervisor.breaker, sets,
                                                                  float(reaction_ms))))  # fmt: skip
    return [*rungs, ("never", None, none)], ", ".join(late)


def _ms(reaction_ms: float) -> str:
    return f"{reaction_ms / 1000:g} s" if reaction_ms >= 1000 else f"{reaction_ms:g} ms"


def _refuse_what_the_study_sets(
    scenario: str, settings: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raises: ConfigurationError."""
    for key in settings:
        by = next((name for name, table in tables.items() if key in table), None)
        if by is not None:
            raise ConfigurationError(f"--set {key}: is what the study switches; see [defences.{by}] of {scenario}")
        if key.partition(".")[0] == "breaker":
            raise ConfigurationError(f"--set {key}: the study also runs without a breaker; write it into {scenario}")
