"""Scenarios: one TOML file each says who holds what, how they decide and what they hear. This module reads and checks.

Owns the resolution of `--set key=value`. A key is a path: `signal.bps`, `crowd.count`, `makers.levels` (a setting of
the strategy), `breaker.price_move_bps` (of the breaker in force). Errors name the key, what is wrong and
what is allowed.
"""

import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from aar_swarm.agents.base import Endowment, Market
from aar_swarm.names import function_named, strategy_class
from aar_swarm.population import counts
from aar_swarm.scenario_tables import (
    COIN,
    MAIN,
    MAX_AGENTS,
    Admission,
    Breaker,
    Group,
    Instrument,
    Lending,
    Link,
    Margin,
    MarketData,
    News,
    Sequencing,
    Signal,
    Stablecoin,
    Supervisor,
)
from aar_swarm.vendors.config import Vendors
from cluster.links import DIRECT, DIRECTLY
from exchange.clock import MS
from exchange.config import BreakerConfig, Config, EngineConfig
from exchange.errors import ConfigurationError
from exchange.loop import LoopConfig
from exchange.sequencing import MAX_HOLD_NS
from exchange.types import MAX_CASH
from exchange.wire import Declaration

_DIRECTORY = Path(__file__).parent / "scenarios"
_CROWD = "crowd"
_TABLES: dict[str, type[Config]] = {
    "signal": Signal,
    "news": News,
    "instrument": Instrument,
    "market_data": MarketData,
    "margin": Margin,
    "stablecoin": Stablecoin,
    "lending": Lending,
    "vendors": Vendors,
    "supervisor": Supervisor,
    "admission": Admission,
    "sequencing": Sequencing,
}
_TOP_KEYS = ("duration_s", "revalue_interval_ms", "explanations", "node_links")
_ALWAYS = ("admission", "sequencing")
"""Tables that a file may leave out and a setting may begin."""
_GROUP_KEYS = tuple(key for key in Group.model_fields if key != "params")
_FULL_BPS = 10_000
_VERSION = 1
"""Of a strategy's program."""


class UnknownSetting(ConfigurationError):
    """A path that leads to no setting of this scenario."""


class Scenario(Config):
    name: str
    title: str
    duration_s: Annotated[float, Field(gt=0, le=86_400)]
    default_agents: Annotated[int, Field(ge=1, le=MAX_AGENTS)]
    revalue_interval_ms: Annotated[float, Field(ge=1, le=86_400_000)] = 1.0
    """How long after a command the venue looks at oracles and margin accounts."""
    signal: Signal
    news: News | None = None
    instrument: Instrument
    market_data: MarketData
    margin: Margin | None = None
    stablecoin: Stablecoin | None = None
    lending: Lending | None = None
    vendors: Vendors | None = None
    supervisor: Supervisor | None = None
    admission: Admission = Admission()
    sequencing: Sequencing = Sequencing()
    explanations: Literal["off", "carried", "required"] = "carried"
    """Whether orders carry the inputs of their decisions, and whether the venue refuses those that do not."""
    breaker: Breaker | None
    """The one in force; None: off."""
    breaker_name: str
    size: str
    dials: dict[str, str] = Field(default_factory=dict)
    """Settings that are worth varying, each with what it is: path → words."""
    links: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")], Link] = Field(default_factory=dict)
    """Latency classes."""
    node_links: tuple[str, ...] = ()
    """The link of those on the n-th host whose group names none; "", or no n-th entry: directly."""
    participants: dict[str, Group]
    measures: str | None = None
    """Of its own, beside everyone's: `module:function`, called with the session and the agents' scoreboard."""

    def counts(self, agents: int) -> dict[str, int]:
        """How many of each kind there are among so many agents.

        Raises: ConfigurationError: too few agents, or none that takes the rest.
        """
        return counts(self.name, self.participants, agents)

    def members(self, agents: int) -> Iterator[tuple[str, int]]:
        """Of each account: the name of its group, and its number within it."""
        return ((name, number) for name, count in self.counts(agents).items() for number in range(count))

    def link_of(self, group: str, host: int) -> str:
        """Of a group's members on the n-th host."""
        own = self.participants[group].link
        return own or (self.node_links[host] if host < len(self.node_links) else DIRECT)

    def leverages(self, agents: int) -> list[float]:
        """Of each account: the value of its shares over its equity; 0: a cash account."""
        dealt = {name: group.leverage for name, group in self.participants.items()}
        return [dealt[name][number % len(dealt[name])] for name, number in self.members(agents)]

    def endowments(self, agents: int) -> list[Endowment]:
        """Of each account: what it begins with. Shares on margin are financed to value / equity = leverage.

        Equity is the shares and the coins (at par) less what the venue lends for them.
        """
        found = []
        for (name, _), leverage in zip(self.members(agents), self.leverages(agents), strict=True):
            group = self.participants[name]
            value = group.shares * self.instrument.opening_ticks
            coins = group.coins * self.stablecoin.par_ticks if self.stablecoin else 0
            borrowed = coins + int(value * (1 - 1 / Fraction(str(leverage)))) if leverage else 0
            found.append(Endowment(group.cash - borrowed, group.shares, group.coins, leverage))
        return found

    def link_delays_ns(self, link: str) -> tuple[int, int]:
        """Of a link's members: what the way to the venue and the way from it nominally take, the medians of the jitter
        included; (0, 0) of those without one."""
        if link == DIRECT:
            return 0, 0
        of = self.links[link].in_ns()
        jitter_ns = (of.nominal_rtt_ns - of.up_ns - of.down_ns) // 2
        return of.up_ns + jitter_ns, of.down_ns + jitter_ns

    def vendors_of(self, agents: int) -> list[list[int]]:
        """Of each account: the vendors that it asks, in its order of preference; none, if it needs none. Those who ask
        are dealt in the order of their numbers."""
        asking = [strategy_class(self.participants[name].strategy).asks_vendor for name, _ in self.members(agents)]
        dealt = iter(self.vendors.preferences(sum(asking)) if self.vendors else [])
        return [next(dealt, []) if asks else [] for asks in asking]

    def declarations(self, agents: int) -> list[Declaration]:
        """Of each account: what it declares if it asks no vendor: whose its model is, and its group's number."""
        numbers = {name: number for number, name in enumerate(self.participants, 1)}
        return [
            Declaration(self.participants[name].vendor, numbers[name], _VERSION) for name, _ in self.members(agents)
        ]

    def value_of(self, key: str) -> Any:
        """Of a setting, by its path."""
        table, _, field = key.partition(".")
        group = self.participants.get(table)
        if group is not None:
            if field == "leverage" and len(group.leverage) == 1:
                return group.leverage[0]  # as a file says it
            return group.params[field] if field in group.params else getattr(group, field)
        if table == "links":
            link, _, field = field.partition(".")
            return getattr(self.links[link], field) if link in self.links else None
        found = getattr(self, table)
        return getattr(found, field) if field and found is not None else found

    def market(self, agents: int) -> Market:
        """What every participant knows before the session."""
        endowments = self.endowments(agents)
        facts: dict[str, Any] = {"open_interest_lots": sum(each.shares for each in endowments if each.leverage)}
        if self.stablecoin:
            pool_lots = self.lending.pool_lots if self.lending else 0
            facts |= {
                "stablecoin": COIN,
                "par_ticks": self.stablecoin.par_ticks,
                "coin_levels": self.stablecoin.price_levels,
                "coin_initial_margin_bps": self.stablecoin.initial_margin_bps,
                "coin_maintenance_margin_bps": self.stablecoin.maintenance_margin_bps,
                "reserves": self.stablecoin.reserves,
                "coin_supply_lots": pool_lots + sum(each.coins for each in endowments),
            }
        if self.lending:
            facts |= {
                key: getattr(self.lending, key)
                for key in ("max_ltv_bps", "liquidation_threshold_bps", "close_factor_bps", "bonus_bps", "debt_at_par")
            }
        return Market(
            instrument=MAIN,
            opening_ticks=self.instrument.opening_ticks,
            price_levels=self.instrument.price_levels,
            initial_margin_bps=self.instrument.initial_margin_bps,
            maintenance_margin_bps=self.instrument.maintenance_margin_bps,
            **facts,
        )

    def instruments(self) -> list[Instrument | Stablecoin]:
        return [self.instrument, *([self.stablecoin] if self.stablecoin else [])]

    def engine_config(self, agents: int, validated: Sequence[tuple[int, int, int]] = ()) -> EngineConfig:
        """validated: (vendor, model, version) of those that passed the gate, if there is one."""
        has_oracle = self.lending is not None
        breaker = self.breaker.in_ns() if self.breaker else BreakerConfig()
        instruments = [self.instrument.config(breaker, has_oracle)]
        if self.stablecoin:
            instruments.append(self.stablecoin.config(BreakerConfig(), has_oracle))
        return EngineConfig(
            instruments=tuple(instruments),
            accounts=agents,
            market_breaker=self.breaker.market_in_ns() if self.breaker else None,
            revalue_interval_ns=round(self.revalue_interval_ms * MS),
            margin=self.margin.config() if self.margin else None,
            lending=self.lending.config() if self.lending else None,
            stablecoin=self.stablecoin.facility() if self.stablecoin else None,
            admission=self.admission.config(validated),
            explanations_required=self.explanations == "required",
        )

    def loop_config(self) -> LoopConfig:
        return LoopConfig(
            market_data_interval_ns=round(self.market_data.interval_ms * MS),
            slow_market_data_interval_ns=round(self.market_data.slow_interval_ms * MS),
        )


def scenario_names() -> list[str]:
    return sorted(path.stem for path in _DIRECTORY.glob("*.toml"))


def choices(name: str) -> dict[str, list[str]]:
    """What a scenario lets one choose from: its breakers and its sizes. Raises: ConfigurationError."""
    raw = _read(name)[1]
    return {"breakers": [*raw.get("breakers", {}), "off"], "sizes": ["default", *raw.get("sizes", {})]}


def load_scenario(
    name: str, breaker: str = "default", settings: Mapping[str, Any] | None = None, size: str = "default"
) -> Scenario:
    """Read a scenario by name (or a path to one's own .toml), choose its breaker and size, and apply settings.

    Args: settings: path → value, values as text or already typed; size: of the scenario's, applied before settings.
    Raises: ConfigurationError: one line saying what, where and what to do.
    """
    path, raw = _read(name)
    for table in ("defences", "calm", "designs"):
        raw.pop(table, None)
    if name.endswith(".toml") and str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))  # a strategy of one's own may stand beside its scenario
    breakers, sizes = raw.pop("breakers", {}), raw.pop("sizes", {})
    if breaker != "off" and breaker not in breakers:
        known = ", ".join([*sorted(breakers), "off"])
        raise ConfigurationError(f"unknown breaker {breaker!r}; scenario {name} has: {known} (--breaker NAME)")
    if size != "default" and size not in sizes:
        known = ", ".join(["default", *sizes])
        raise ConfigurationError(f"unknown size {size!r}; scenario {name} has: {known} (--size NAME)")
    raw["name"] = path.stem
    raw["breaker"] = None if breaker == "off" else breakers[breaker]
    raw["breaker_name"] = breaker
    raw["size"] = size
    for group_name, group in raw["participants"].items():
        group.setdefault("rehearse", group_name == _CROWD)
        group["params"] = {key: group.pop(key) for key in list(group) if key not in _GROUP_KEYS}
    raw["dials"] = dict(_flat(raw.get("dials", {})))
    for key, value in _flat(sizes.get(size, {})):
        if key == "agents":
            raw["default_agents"] = value
        elif raw["breaker"] is not None or not key.startswith("breaker."):
            _set(raw, key, value)
    linked = set(raw.get("links", {}))
    for key, value in (settings or {}).items():
        _set(raw, key, value)
    scenario = _validate(raw)
    used = {*scenario.node_links, *(group.link for group in scenario.participants.values())}
    if idle := sorted(scenario.links.keys() - linked - used):
        raise ConfigurationError(
            f"links.{idle[0]}: nobody uses such a link; name it in a group's link (--set crowd.link={idle[0]}) or in "
            "node_links"
        )
    return scenario


def path_of(name: str) -> Path:
    """Where a scenario is, by name or path; there may be no such file."""
    return Path(name) if name.endswith(".toml") else _DIRECTORY / f"{name}.toml"


def _read(name: str) -> tuple[Path, dict[str, Any]]:
    """A scenario's file and its tables, unchecked but for their shapes. Raises: ConfigurationError."""
    path = path_of(name)
    if not path.is_file() and name.endswith(".toml"):
        raise ConfigurationError(f"{path}: there is no such file")
    if not path.is_file():
        raise ConfigurationError(f"unknown scenario {name!r}; there are: {', '.join(scenario_names())}")
    try:
        raw = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    _check_shapes(path, raw)
    return path, raw


def defence_settings(name: str) -> dict[str, dict[str, Any]]:
    """The [defences.NAME] tables of a scenario, each flat: path → value; `breaker` is the name of one.

    They are what the study of the defences sets (defences.py); a run of the scenario itself does not know them.
    Raises: ConfigurationError.
    """
    return {defence: dict(_flat(table)) for defence, table in _read(name)[1].get("defences", {}).items()}


def design_settings(name: str) -> dict[str, dict[str, Any]]:
    """The [designs.NAME] tables of a scenario, each flat: path → value, as designs.py compares them.

    Raises: ConfigurationError.
    """
    return {design: dict(_flat(table)) for design, table in _read(name)[1].get("designs", {}).items()}


def calm_settings(name: str) -> dict[str, Any]:
    """What makes a day of this scenario calm, path → value: its [calm] table, or else a signal without news.

    Raises: ConfigurationError.
    """
    return dict(_flat(_read(name)[1].get("calm", {"signal": {"bps": 0}})))


def _check_shapes(path: Path, raw: dict[str, Any]) -> None:
    """The tables that are read before pydantic sees them. Raises: ConfigurationError."""
    needed = ("participants", "signal", "instrument", "market_data")
    for key in ("breakers", "sizes", "defences", "designs", "participants", "links", "dials", "calm", *_TABLES):
        inner = key in ("breakers", "sizes", "defences", "designs", "participants", "links")
        table = raw.get(key, None if key in needed else {})
        if not isinstance(table, dict) or (inner and not all(isinstance(entry, dict) for entry in table.values())):
            what = f"[{key}.NAME] tables" if inner else f"a [{key}] table"
            raise ConfigurationError(f"{path}: it needs {what}; see those of {', '.join(scenario_names())}")
    for name, group in raw["participants"].items():
        if not isinstance(group.get("strategy"), str):
            raise ConfigurationError(f'{path}: participants.{name}.strategy is missing; write it as "module:Class"')


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`crowd.shares = 7` in TOML is a table in a table: back to paths."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    """Put one setting into the raw tables, where it must have a place."""
    table, *rest = key.split(".")
    groups = raw["participants"]
    if table in groups and len(rest) == 1:
        group = groups[table]
        _expect(key, rest[0], [*_GROUP_KEYS, *strategy_class(group["strategy"]).Params.model_fields])
        target = group if rest[0] in _GROUP_KEYS else group["params"]
        if rest[0] in ("count", "weight"):  # the one takes the place of the other
            for other in ("count", "weight", *(["at_least"] if rest[0] == "count" else [])):
                group.pop(other, None)
        target[rest[0]] = _parse(value)
    elif table == "breaker" and len(rest) == 1:
        if raw["breaker"] is None:
            raise ConfigurationError(f"{key}: the breaker is off; leave out --breaker off to set it")
        _expect(key, rest[0], Breaker.model_fields)
        raw["breaker"][rest[0]] = _parse(value)
    elif table in _TABLES and len(rest) == 1:
        _expect(key, rest[0], _TABLES[table].model_fields)
        if table not in raw and table in _ALWAYS:
            raw[table] = {}
        if table not in raw:
            raise UnknownSetting(f"{key}: scenario {raw['name']} has no [{table}] table; write one into its file")
        raw[table][rest[0]] = _parse(value)
    elif table == "links" and len(rest) == 2:  # one that no file has is begun by a setting
        _expect(key, rest[1], Link.model_fields)
        raw.setdefault("links", {}).setdefault(rest[0], {})[rest[1]] = _parse(value)
    elif key in _TOP_KEYS:
        raw[key] = _parse(value)
    else:
        tables = [*_TOP_KEYS, *(f"{name}.…" for name in (*_TABLES, "breaker", *groups, "links.NAME"))]
        raise UnknownSetting(f"unknown setting {key!r}; settings start with: {', '.join(tables)}")


def _expect(key: str, field: str, known: Any) -> None:
    if field not in known:
        raise UnknownSetting(f"unknown setting {key!r}; here there are: {', '.join(known)}")


def _parse(value: Any) -> Any:
    """Text as TOML reads it, so that lists and numbers work; anything else is text."""
    if not isinstance(value, str):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _validate(raw: dict[str, Any]) -> Scenario:
    with _told(""):
        scenario = Scenario.model_validate(raw)
    with _told("breaker"):
        breaker = scenario.breaker
        if breaker is not None and not (breaker.in_ns().armed or breaker.market_in_ns()):
            raise ConfigurationError(
                "the breaker has no threshold, so it could never trip; set one, or use --breaker off"
            )
    if scenario.signal.at_s >= scenario.duration_s:
        raise ConfigurationError(
            f"signal.at_s {scenario.signal.at_s} is not before the end of the session (duration_s "
            f"{scenario.duration_s}); raise duration_s"
        )
    if scenario.measures is not None:
        function_named(scenario.measures)  # a name that leads nowhere is told before anything runs
    _check_facilities(scenario)
    for name, group in scenario.participants.items():
        if strategy_class(group.strategy).asks_vendor and scenario.vendors is None:
            raise ConfigurationError(
                f"{name}: {group.strategy} asks a vendor, but there is no [vendors] table; write one"
            )
    groups = {}
    for name, group in scenario.participants.items():
        with _told(f"{name}."):
            params = strategy_class(group.strategy).Params.model_validate(group.params)
        groups[name] = group.model_copy(update={"params": params.model_dump()})
    return scenario.model_copy(update={"participants": groups})


@contextmanager
def _told(where: str) -> Iterator[None]:
    """pydantic's first finding in one line, with where it was. Raises: ConfigurationError."""
    try:
        yield
    except ValidationError as error:
        raise ConfigurationError(explain(error, where)) from None


def _check_facilities(scenario: Scenario) -> None:
    """What only makes sense together. Raises: ConfigurationError."""
    if scenario.lending and not scenario.stablecoin:
        raise ConfigurationError("[lending] lends a stablecoin: it needs a [stablecoin] table")
    if scenario.supervisor and scenario.supervisor.instrument == COIN and not scenario.stablecoin:
        raise ConfigurationError("supervisor.instrument is 1, the stablecoin: it needs a [stablecoin] table")
    if scenario.signal.instrument == COIN and not scenario.stablecoin:
        raise ConfigurationError("signal.instrument is 1, the stablecoin: it needs a [stablecoin] table")
    for name, traded in zip(("instrument", "stablecoin"), scenario.instruments(), strict=False):
        if traded.opening_ticks >= traded.price_levels:
            raise ConfigurationError(f"{name}.opening_ticks must be below {name}.price_levels")
        for facility, suffix in (("margin", "_margin_bps"), ("lending", "oracle_")):
            unused = [key for key in sorted(traded.model_fields_set) if suffix in key]
            if unused and getattr(scenario, facility) is None:
                raise ConfigurationError(f"{name}.{unused[0]} is set but there is no [{facility}] table to use it")
        with _told(f"{name}.oracle"):
            traded.oracle_config()
        with _told(name):
            traded.config(BreakerConfig(), has_oracle=False)
    for where, build in (
        ("stablecoin", scenario.stablecoin.facility if scenario.stablecoin else None),
        ("lending", scenario.lending.config if scenario.lending else None),
        ("scenario", lambda: scenario.engine_config(scenario.default_agents)),
        ("supervisor", scenario.supervisor.config if scenario.supervisor else None),
        ("admission", scenario.admission.config),
        ("sequencing", scenario.sequencing.config),
    ):
        with _told(where):
            if build is not None:
                build()
    if DIRECTLY in scenario.links:
        raise ConfigurationError(f"links.{DIRECTLY}: this name is of those without a link; choose another")
    named = {
        "node_links": scenario.node_links,
        **{f"{name}.link": [g.link] for name, g in scenario.participants.items()},
    }
    for where, names in named.items():
        if unknown := [name for name in names if name not in (DIRECT, *scenario.links)]:
            known = ", ".join(sorted(scenario.links)) or "none"
            raise ConfigurationError(
                f"{where} {unknown[0]!r}: there is no such link; there are: {known} (a [links.NAME] table, or "
                "--set links.NAME.up_ms=…, makes one)"
            )
    for name in scenario.links:
        if scenario.sequencing.hold_ms and scenario.link_delays_ns(name)[0] > MAX_HOLD_NS:
            raise ConfigurationError(
                f"links.{name}.up_ms {scenario.links[name].up_ms:g}: sequencing.hold_ms models links of at most "
                f"{MAX_HOLD_NS // MS} ms; lower it, or set sequencing.hold_ms to 0"
            )
    if scenario.admission.validated and not scenario.vendors:
        raise ConfigurationError(
            "admission.validated: there is no [vendors] table, so no model to validate; leave it out"
        )
    most = Fraction(_FULL_BPS, scenario.instrument.initial_margin_bps)
    for name, group in scenario.participants.items():
        asks = strategy_class(group.strategy).asks_vendor
        if group.vendor and (asks or (scenario.vendors and group.vendor <= scenario.vendors.count)):
            raise ConfigurationError(
                f"{name}.vendor {group.vendor}: the first numbers are those of [vendors], and who asks one declares "
                "it; leave it out or take a higher number"
            )
        if group.coins and not scenario.stablecoin:
            raise ConfigurationError(f"{name}.coins is {group.coins} but there is no [stablecoin] table")
        if any(group.leverage) and not scenario.margin:
            raise ConfigurationError(f"{name}.leverage is set but there is no [margin] table")
        if max(group.leverage) > most:
            raise ConfigurationError(
                f"{name}.leverage {max(group.leverage):g}: instrument.initial_margin_bps "
                f"{scenario.instrument.initial_margin_bps} allows at most {float(most):g}; lower one of them"
            )


def explain(error: ValidationError, prefix: str) -> str:
    """pydantic's first finding in one line."""
    first = error.errors()[0]
    where = prefix + ".".join(str(part) for part in first["loc"] if part not in ("participants", "params"))
    given = first.get("input")
    shown = "" if isinstance(given, dict) else f" (given: {given!r})"
    what = first["msg"].removeprefix("Value error, ").replace("_ns", "_ms")
    return f"{where.strip('.') or 'setting'}: {what}{shown}"


def check_endowments(scenario: Scenario, agents: int) -> None:
    """All cash together, the venue's own too, must stay within the engine's bound.

    Raises: ConfigurationError.
    """
    counts = scenario.counts(agents)
    total = sum(scenario.participants[name].cash * count for name, count in counts.items())
    total += scenario.margin.insurance_fund if scenario.margin else 0
    total += scenario.stablecoin.reserves if scenario.stablecoin else 0
    if total > MAX_CASH:
        raise ConfigurationError(f"the participants' cash sums to {total}, more than the engine's {MAX_CASH}; lower it")
