"""The same commands, another venue: what a journal gives with a breaker, a supervisor or a policy that it had not.

Owns how a journal is put to an engine of another configuration: timers that only then fall due are added, and so is a
supervisor's halt. It keeps every message that was sent. Agents would have answered a halt or a refusal with other
messages, so that what it finds is a bound of nothing, from above or from below; `aar run defences` measures the real
thing.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from aar_swarm.analysis.tables import trace_tops
from aar_swarm.scenario import Scenario, choices, defence_settings, explain, load_scenario
from aar_swarm.scenario_tables import MAIN, Admission, Breaker, Supervisor
from exchange.clock import MS
from exchange.config import EngineConfig
from exchange.engine import Engine, apply_commands, events_bound
from exchange.errors import ConfigurationError
from exchange.indicators import Indicator, follow, new_watch
from exchange.jit import helper, kernel
from exchange.journal import Journal
from exchange.replay import replay
from exchange.state import Array
from exchange.types import COMMAND, EVENT, NEVER, NOBODY, CommandKind

SAME_COMMANDS = (
    "A replay keeps the messages that were sent. Agents would have sent others after a halt or a refusal, so these "
    "figures are neither an upper nor a lower bound; `aar run defences` measures the real thing."
)
REACTIONS_MS = (0, 1, 10, 100, 1000, 5000)
"""Between a supervisor's alert and its halt."""
_TIMER, _REVALUE = int(CommandKind.TIMER), int(CommandKind.REVALUE)


class Defence(NamedTuple):
    """One to replay with."""

    name: str
    kind: str
    """breaker, supervisor or policy"""
    words: str
    config: EngineConfig
    halt_ns: int | None = None
    """When a supervisor halts the main instrument (its received_ns); None: none does."""
    evidence: int = 0
    """Sequence of the command that made it alarm."""


class Replayed(NamedTuple):
    journal: Journal
    events: Array  # EVENT[m]
    tops: Array  # TOP of the main instrument
    coin_tops: Array | None
    positions: Array  # int64[n]: the sequence in it of each command of the run
    timers: int  # how many TIMER and REVALUE were added


def with_breaker(config: EngineConfig, breaker: Breaker) -> EngineConfig:
    """The configuration with this breaker on the main instrument. Raises: ConfigurationError: it could never trip."""
    main = config.instruments[MAIN].model_copy(update={"breaker": breaker.in_ns()})
    instruments = [each.model_dump() for each in (main, *config.instruments[1:])]
    return with_fields(config, {"instruments": instruments, "market_breaker": breaker.market_in_ns()}, "breaker.")


def with_fields(config: EngineConfig, fields: Mapping[str, Any], where: str = "") -> EngineConfig:
    """The configuration with other values of some of its fields, checked as a new one. Raises: ConfigurationError."""
    try:
        return EngineConfig.model_validate(config.model_dump() | dict(fields))
    except ValidationError as error:
        raise ConfigurationError(explain(error, where)) from None


# ── which defences ───────────────────────────────────────────────────────────────────────────────────────────────────


def defences(scenario: Scenario, recorded: Journal, since_sequence: int) -> tuple[list[Defence], dict[str, Any]]:
    """Those that were not in force, and what a supervisor would have seen.

    Args: since_sequence: of the first cause; the supervisor acts on its first alert from there on.
    """
    found = [*_breakers(scenario, recorded.config)]
    alerts = alerts_of(recorded, supervisor_of(scenario, recorded.config.accounts))
    seen = alerts[alerts["sequence"] >= since_sequence]
    told: dict[str, Any] = {"alerts_before": len(alerts) - len(seen), "first_alert": None}
    if len(seen):
        first = seen[0]
        told["first_alert"] = {
            "indicator": Indicator(int(first["indicator"])).name,
            "sequence": int(first["sequence"]),
            "observed": int(first["observed"]),
            "threshold": int(first["threshold"]),
        }
        for reaction_ms in REACTIONS_MS:
            halt_ns = int(first["received_ns"]) + reaction_ms * MS
            name, words = f"supervisor-{reaction_ms}ms", f"halts {reaction_ms:,} ms after its first alert"
            evidence = int(first["sequence"])
            found.append(Defence(name, "supervisor", words, recorded.config, halt_ns, evidence))
    for name, words, fields in _policies(scenario, bool((recorded.commands["kind"] == CommandKind.EXPLAIN).any())):
        if all(_is_unset(recorded.config, field) for field in fields):
            found.append(Defence(name, "policy", words, with_fields(recorded.config, fields)))
    return found, told


def _policies(scenario: Scenario, carries: bool) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, words, fields of EngineConfig) of what the scenario's file calls its diversity, and of explained trades
    if its orders carry explanations (else all would be refused).

    The gate is left out: which models would have passed is not in the journal.
    """
    found: list[tuple[str, str, dict[str, Any]]] = []
    try:
        chosen = defence_settings(scenario.name).get("diversity", {})
    except ConfigurationError:  # a scenario of one's own, in a file that the run does not name
        chosen = {}
    caps = {key.removeprefix("admission."): value for key, value in chosen.items() if key.startswith("admission.")}
    admission = Admission.model_validate({**scenario.admission.model_dump(), **caps, "validated": False}).config()
    if admission is not None:
        found.append(("diversity", "the scenario's caps on one vendor's models", {"admission": admission.model_dump()}))
    if carries:
        found.append(("explained", "no order without the inputs of its decision", {"explanations_required": True}))
    return found


def _is_unset(config: EngineConfig, name: str) -> bool:
    """Whether there is such a field, and it is as if nobody had asked for it."""
    field = EngineConfig.model_fields.get(name)
    return field is not None and getattr(config, name) == field.get_default(call_default_factory=True)


def _breakers(scenario: Scenario, config: EngineConfig) -> list[Defence]:
    """The scenario's named ones that were not in force; none of a scenario that is no longer there."""
    found = []
    try:
        names = choices(scenario.name)["breakers"]
    except ConfigurationError:  # a scenario of one's own, in a file that the run does not name
        return []
    for name in names:
        breaker = load_scenario(scenario.name, breaker=name, size=scenario.size).breaker
        if breaker is not None and (changed := with_breaker(config, breaker)) != config:
            found.append(Defence(name, "breaker", _breaker_words(breaker), changed))
    return found


def _breaker_words(breaker: Breaker) -> str:
    """The settings that are not a breaker's defaults."""
    plain = Breaker().model_dump()
    chosen = {name: value for name, value in breaker.model_dump().items() if value != plain[name]}
    shown = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in chosen.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def supervisor_of(scenario: Scenario, accounts: int) -> Supervisor:
    """The scenario's, or, without one, the thresholds that the other scenarios' are set to, scaled by the accounts."""
    if scenario.supervisor is not None:
        return scenario.supervisor
    return Supervisor(
        imbalance_bps=9000,
        imbalance_lots=2 * accounts,
        depth_bps=1000,
        pressure_bps=10_000,
        fall_bps=200,
        herding_bps=4500,
        similarity_bps=9900,
        herd_accounts=max(10, accounts // 10),
    )


def alerts_of(recorded: Journal, supervisor: Supervisor) -> Array:
    """ALERT[k]: all that a supervisor with these thresholds alarms of; as live, but for when it was computed."""
    engine = Engine(recorded.config)
    watch = new_watch(supervisor.config(), engine.state)
    events = np.zeros(events_bound(engine.state), EVENT)
    found = [watch.alerts[:0].copy()]
    at = 0
    while at < len(recorded.commands):
        at, count = follow(engine.state, watch, recorded.commands, at, events)
        found.append(watch.alerts[:count].copy())
    return np.concatenate(found)


# ── the replay ───────────────────────────────────────────────────────────────────────────────────────────────────────


def replay_with(recorded: Journal, defence: Defence) -> Replayed:
    """The run's commands under a defence, with the timers that fall due only then."""
    commands, added = _with_halt(recorded.commands, defence)
    commands, positions = with_timers(defence.config, commands)
    if added is not None:
        positions = np.delete(positions, added)
    changed = Journal(defence.config, commands)
    coin = defence.config.stablecoin
    return Replayed(
        changed,
        replay(defence.config, commands).events,
        trace_tops(changed),
        None if coin is None else trace_tops(changed, coin.instrument),
        positions,
        len(commands) - len(recorded.commands) - int(added is not None),
    )


def _with_halt(commands: Array, defence: Defence) -> tuple[Array, int | None]:
    """The commands with the supervisor's, and its position; without it, if it comes after all of them."""
    if defence.halt_ns is None:
        return commands, None
    at = int(np.searchsorted(commands["received_ns"], defence.halt_ns, side="right"))
    at = max(at, defence.evidence)  # of commands received in the same nanosecond
    if at >= len(commands):
        return commands, None
    halt = np.zeros(1, COMMAND)
    halt["kind"], halt["account"], halt["instrument"] = int(CommandKind.HALT), NOBODY, MAIN
    halt["received_ns"], halt["quantity_lots"] = (
        max(defence.halt_ns, int(commands["received_ns"][at - 1])),
        defence.evidence,
    )
    return np.concatenate([commands[:at], halt, commands[at:]]), at


@helper
def _is_due(state: Any, command: Any) -> bool:
    """Whether a timer is due that the loop would have sequenced before this command. Of one moment the order is
    fixed: a TIMER for each instrument, then the REVALUE."""
    kind = command["kind"]
    if kind != _TIMER and kind != _REVALUE:
        return command["received_ns"] >= state.counters[0]["next_timer_ns"]
    due = False
    for number in range(state.instruments.shape[0]):
        earlier = kind == _REVALUE or number < command["instrument"]
        due = due or (earlier and state.instruments[number]["timer_ns"] <= command["received_ns"])
    return due


@kernel
def _until_due(state: Any, commands: Any, first: int, shift: int, events: Any) -> int:
    """Apply commands, numbered anew, until one before which a timer of the venue is due; returns its position.

    Args: shift: how many commands were added before `first`; events: scratch.
    """
    at = first
    while at < commands.shape[0]:
        command = commands[at]
        if _is_due(state, command):
            break
        command["sequence"] = at + 1 + shift
        apply_commands(state, commands, at, at + 1, events)
        at += 1
    return at


def with_timers(config: EngineConfig, commands: Array) -> tuple[Array, Array]:
    """The commands as a venue of this configuration would have sequenced them: each TIMER and REVALUE that was due and
    is not among them is put where it was due. One that the other venue needed and this one does not is refused by the
    engine and changes nothing.

    Returns: (COMMAND[m], numbered anew; int64[n]: the sequence in it of each of the n commands).
    """
    engine = Engine(config)
    state = engine.state
    events = np.zeros(events_bound(state), EVENT)
    commands = commands.copy()
    added: list[Array] = []
    places: list[int] = []
    at = int(_until_due(state, commands, 0, 0, events))
    while at < len(commands):
        now_ns = int(state.counters["next_timer_ns"][0])
        if at:
            now_ns = max(now_ns, int(commands["received_ns"][at - 1]))
        for command in _due(state, now_ns):
            command["sequence"] = at + 1 + len(added)
            apply_commands(state, command, 0, 1, events)
            added.append(command)
            places.append(at)
        at = int(_until_due(state, commands, at, len(added), events))
    before = np.searchsorted(np.array(places, np.int64), np.arange(len(commands)), side="right")
    positions = np.arange(1, len(commands) + 1) + before
    if added:
        commands = np.insert(commands, places, np.concatenate(added))
        commands["sequence"] = np.arange(1, len(commands) + 1)
    return commands, positions


def _due(state: Any, now_ns: int) -> list[Array]:
    """The loop's order: a TIMER for each instrument that is due, then a REVALUE."""
    found = [
        (_TIMER, number) for number, due_ns in enumerate(state.instruments["timer_ns"].tolist()) if due_ns <= now_ns
    ]
    if state.counters["revalue_ns"][0] <= now_ns:
        found.append((_REVALUE, NOBODY))
    assert found and now_ns < NEVER, "a timer is due and none is known"
    made = []
    for kind, instrument in found:
        command = np.zeros(1, COMMAND)
        command["kind"], command["account"], command["instrument"] = kind, NOBODY, instrument
        command["received_ns"] = now_ns
        made.append(command)
    return made
