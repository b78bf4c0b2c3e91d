"""Scenarios: one TOML file each says who holds what, how they decide and what they hear. This module reads and checks.

Owns the resolution of `--set key=value`. A key is a path: `signal.bps`, `crowd.count`, `makers.levels` (a setting of
the strategy), `breaker.price_move_bps` (of the breaker in force). Errors name the key, what is wrong and
what is allowed.
"""

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from aar_swarm.names import function_named, strategy_class
from exchange.clock import MS
from exchange.config import BreakerConfig, Config, EngineConfig, InstrumentConfig
from exchange.errors import ConfigurationError
from exchange.loop import LoopConfig
from exchange.types import MAX_CASH

MAX_AGENTS = 100_000
_DIRECTORY = Path(__file__).parent / "scenarios"
_GROUP_KEYS = ("strategy", "count", "cash", "shares")


class Signal(Config):
    at_s: Annotated[float, Field(ge=0, le=3600)]
    """After the session opened."""
    bps: Annotated[int, Field(ge=-9000, le=9000)]


class Instrument(Config):
    opening_ticks: Annotated[int, Field(ge=1, lt=1 << 18)]
    price_levels: Annotated[int, Field(ge=64, le=1 << 18, multiple_of=64)]
    tick_size: Annotated[float, Field(gt=0, le=1e6)]
    max_quantity_lots: Annotated[int, Field(ge=1, le=1 << 31)]


class MarketData(Config):
    interval_ms: Annotated[float, Field(ge=0.1, le=60_000)]
    slow_interval_ms: Annotated[float, Field(ge=1, le=600_000)]


class Breaker(Config):
    """BreakerConfig of the exchange, with windows in ms."""

    price_move_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    price_window_ms: Annotated[float, Field(ge=0, le=3_600_000)] = 0.0
    sell_volume_lots: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    sell_window_ms: Annotated[float, Field(ge=0, le=3_600_000)] = 0.0

    @classmethod
    def from_ns(cls, breaker: BreakerConfig) -> "Breaker":
        return cls(
            price_move_bps=breaker.price_move_bps,
            price_window_ms=breaker.price_window_ns / MS,
            sell_volume_lots=breaker.sell_volume_lots,
            sell_window_ms=breaker.sell_window_ns / MS,
        )

    def in_ns(self) -> BreakerConfig:
        return BreakerConfig(
            price_move_bps=self.price_move_bps,
            price_window_ns=round(self.price_window_ms * MS),
            sell_volume_lots=self.sell_volume_lots,
            sell_window_ns=round(self.sell_window_ms * MS),
        )


_TABLES: dict[str, type[Config]] = {"signal": Signal, "instrument": Instrument, "market_data": MarketData}


class Group(Config):
    """Participants of one kind; `params` are the strategy's own settings."""

    strategy: str
    count: Annotated[int, Field(ge=0, le=MAX_AGENTS)] | Literal["rest"]
    cash: Annotated[int, Field(ge=0, le=1 << 50)]
    shares: Annotated[int, Field(ge=0, le=1 << 31)]
    params: dict[str, Any] = Field(default_factory=dict)


class Scenario(Config):
    name: str
    title: str
    duration_s: Annotated[float, Field(gt=0, le=86_400)]
    default_agents: Annotated[int, Field(ge=1, le=MAX_AGENTS)]
    signal: Signal
    instrument: Instrument
    market_data: MarketData
    breaker: Breaker | None
    """The one in force; None: off."""
    breaker_name: str
    participants: dict[str, Group]
    measures: str | None = None
    """Of its own, beside everyone's: `module:function`, called with the session and the agents' scoreboard."""

    def counts(self, agents: int) -> dict[str, int]:
        """How many of each kind there are among so many agents.

        Raises: ConfigurationError: too few agents, or none that takes the rest.
        """
        fixed = sum(group.count for group in self.participants.values() if group.count != "rest")
        rest = [name for name, group in self.participants.items() if group.count == "rest"]
        if len(rest) > 1:
            raise ConfigurationError(f"scenario {self.name}: more than one group takes the rest ({', '.join(rest)})")
        if fixed > agents or (not rest and fixed != agents):
            others = ", ".join(f"{name} {group.count}" for name, group in self.participants.items() if name not in rest)
            raise ConfigurationError(
                f"--agents {agents}: scenario {self.name} needs {'at least ' if rest else ''}{fixed} ({others}); "
                f"ask for more agents or lower a count, as --set {next(iter(self.participants))}.count=1"
            )
        return {
            name: agents - fixed if group.count == "rest" else group.count for name, group in self.participants.items()
        }

    def engine_config(self, agents: int) -> EngineConfig:
        instrument = InstrumentConfig(
            price_levels=self.instrument.price_levels,
            max_quantity_lots=self.instrument.max_quantity_lots,
            breaker=self.breaker.in_ns() if self.breaker else BreakerConfig(),
        )
        return EngineConfig(instruments=(instrument,), accounts=agents)

    def loop_config(self) -> LoopConfig:
        return LoopConfig(
            market_data_interval_ns=round(self.market_data.interval_ms * MS),
            slow_market_data_interval_ns=round(self.market_data.slow_interval_ms * MS),
        )


def scenario_names() -> list[str]:
    return sorted(path.stem for path in _DIRECTORY.glob("*.toml"))


def breaker_names(name: str) -> list[str]:
    """The breakers that a scenario of this name has, and off."""
    raw = tomllib.loads((_DIRECTORY / f"{name}.toml").read_text())
    return [*raw["breakers"], "off"]


def load_scenario(name: str, breaker: str = "default", settings: Mapping[str, Any] | None = None) -> Scenario:
    """Read a scenario by name (or a path to one's own .toml), choose its breaker and apply settings.

    Args: settings: path → value, values as text or already typed.
    Raises: ConfigurationError: one line saying what, where and what to do.
    """
    path = Path(name) if name.endswith(".toml") else _DIRECTORY / f"{name}.toml"
    if not path.is_file() and name.endswith(".toml"):
        raise ConfigurationError(f"{path}: there is no such file")
    if not path.is_file():
        raise ConfigurationError(f"unknown scenario {name!r}; there are: {', '.join(scenario_names())}")
    try:
        raw = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    _check_shapes(path, raw)
    if name.endswith(".toml") and str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))  # a strategy of one's own may stand beside its scenario
    breakers = raw.pop("breakers", {})
    if breaker != "off" and breaker not in breakers:
        known = ", ".join([*sorted(breakers), "off"])
        raise ConfigurationError(f"unknown breaker {breaker!r}; scenario {name} has: {known} (--breaker NAME)")
    raw["name"] = path.stem
    raw["breaker"] = None if breaker == "off" else breakers[breaker]
    raw["breaker_name"] = breaker
    for group in raw.get("participants", {}).values():
        group["params"] = {key: group.pop(key) for key in list(group) if key not in _GROUP_KEYS}
    for key, value in (settings or {}).items():
        _set(raw, key, value)
    return _validate(raw)


def _check_shapes(path: Path, raw: dict[str, Any]) -> None:
    """The tables that are read before pydantic sees them. Raises: ConfigurationError."""
    for key, inner in (("breakers", True), ("participants", True), ("signal", False), ("instrument", False)):
        table = raw.get(key, {} if key == "breakers" else None)
        if not isinstance(table, dict) or (inner and not all(isinstance(entry, dict) for entry in table.values())):
            what = f"[{key}.NAME] tables" if inner else f"a [{key}] table"
            raise ConfigurationError(f"{path}: it needs {what}; see those of {', '.join(scenario_names())}")
    for name, group in raw["participants"].items():
        if not isinstance(group.get("strategy"), str):
            raise ConfigurationError(f'{path}: participants.{name}.strategy is missing; write it as "module:Class"')


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    """Put one setting into the raw tables, where it must have a place."""
    table, *rest = key.split(".")
    groups = raw.get("participants", {})
    if table in groups and len(rest) == 1:
        group = groups[table]
        known = [*_GROUP_KEYS, *strategy_class(group["strategy"]).Params.model_fields]
        _expect(key, rest[0], known)
        target = group if rest[0] in _GROUP_KEYS else group["params"]
        target[rest[0]] = _parse(value)
    elif table == "breaker" and len(rest) == 1:
        if raw["breaker"] is None:
            raise ConfigurationError(f"{key}: the breaker is off; leave out --breaker off to set it")
        _expect(key, rest[0], Breaker.model_fields)
        raw["breaker"][rest[0]] = _parse(value)
    elif table in _TABLES and len(rest) == 1:
        _expect(key, rest[0], _TABLES[table].model_fields)
        raw.setdefault(table, {})[rest[0]] = _parse(value)
    elif key == "duration_s":
        raw[key] = _parse(value)
    else:
        tables = ["duration_s", "signal.…", "instrument.…", "market_data.…", "breaker.…", *(f"{g}.…" for g in groups)]
        raise ConfigurationError(f"unknown setting {key!r}; settings start with: {', '.join(tables)}")


def _expect(key: str, field: str, known: Any) -> None:
    if field not in known:
        raise ConfigurationError(f"unknown setting {key!r}; here there are: {', '.join(known)}")


def _parse(value: Any) -> Any:
    """Text as TOML reads it, so that lists and numbers work; anything else is text."""
    if not isinstance(value, str):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _validate(raw: dict[str, Any]) -> Scenario:
    try:
        scenario = Scenario.model_validate(raw)
        if scenario.breaker is not None:
            scenario.breaker.in_ns()
    except ValidationError as error:
        raise ConfigurationError(explain(error, "")) from None
    if scenario.breaker is not None and not scenario.breaker.in_ns().armed:
        raise ConfigurationError("the breaker has no threshold, so it could never trip; set one, or use --breaker off")
    if scenario.instrument.opening_ticks >= scenario.instrument.price_levels:
        raise ConfigurationError("instrument.opening_ticks must be below instrument.price_levels")
    if scenario.signal.at_s >= scenario.duration_s:
        raise ConfigurationError(
            f"signal.at_s {scenario.signal.at_s} is not before the end of the session (duration_s "
            f"{scenario.duration_s}); raise duration_s"
        )
    if scenario.measures is not None:
        function_named(scenario.measures)  # a name that leads nowhere is told before anything runs
    params = {}
    for name, group in scenario.participants.items():
        try:
            checked = strategy_class(group.strategy).Params.model_validate(group.params)
        except ValidationError as error:
            raise ConfigurationError(explain(error, f"{name}.")) from None
        params[name] = group.model_copy(update={"params": checked.model_dump()})
    return scenario.model_copy(update={"participants": params})


def explain(error: ValidationError, prefix: str) -> str:
    """pydantic's first finding in one line."""
    first = error.errors()[0]
    where = prefix + ".".join(str(part) for part in first["loc"] if part not in ("participants", "params"))
    given = first.get("input")
    shown = "" if isinstance(given, dict) else f" (given: {given!r})"
    what = first["msg"].removeprefix("Value error, ").replace("_ns", "_ms")
    return f"{where.strip('.') or 'setting'}: {what}{shown}"


def check_endowments(scenario: Scenario, agents: int) -> None:
    """All cash together must stay within the engine's bound.

    Raises: ConfigurationError.
    """
    counts = scenario.counts(agents)
    total = sum(scenario.participants[name].cash * count for name, count in counts.items())
    if total > MAX_CASH:
        raise ConfigurationError(f"the participants' cash sums to {total}, more than the engine's {MAX_CASH}; lower it")
