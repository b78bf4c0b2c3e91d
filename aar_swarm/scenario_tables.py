"""The tables of a scenario file: their keys, the ranges of these, and what the exchange's configuration makes of them.

Times are in ms here and in ns there. scenario.py reads the file and checks what concerns several tables.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cluster import links
from exchange.clock import MS
from exchange.config import (
    AdmissionConfig,
    BreakerConfig,
    Config,
    InstrumentConfig,
    LendingConfig,
    MarginConfig,
    MarketBreakerConfig,
    OracleConfig,
    StablecoinConfig,
    SupervisionConfig,
)
from exchange.sequencing import SequencingConfig
from exchange.types import MAX_CASH, MAX_VENDORS

MAX_AGENTS = 100_000
MAIN, COIN = 0, 1
"""Numbers of the instruments of [instrument] and [stablecoin]."""
_Bps = Annotated[int, Field(ge=0, le=10_000)]
_CapBps = Annotated[int, Field(ge=0, lt=10_000)]
_MarginBps = Annotated[int, Field(ge=1, le=10_000)]
_Ticks = Annotated[int, Field(ge=1, lt=1 << 18)]
_Lots = Annotated[int, Field(ge=0, le=1 << 31)]
_Cash = Annotated[int, Field(ge=0, le=MAX_CASH)]
_WindowMs = Annotated[float, Field(ge=0, le=3_600_000)]
_OF_MARKET = "market_"
_PhaseMs = Annotated[float, Field(ge=0, le=86_400_000)]
_Leverage = Annotated[float, Field(ge=0, le=10_000)]
_LinkMs = Annotated[float, Field(ge=0, le=10_000)]


class Signal(Config):
    at_s: Annotated[float, Field(ge=0, le=3600)]
    """After the session opened."""
    bps: Annotated[int, Field(ge=-9000, le=9000)]
    """0: no news, only a public moment."""
    instrument: Annotated[int, Field(ge=MAIN, le=COIN)] = MAIN


class News(Config):
    """More public news, after the signal and until shortly before the close: many small jumps of the asset's value."""

    rate_per_s: Annotated[float, Field(ge=0, le=1000)]
    """A Poisson process; 0: none."""
    sd_bps: Annotated[float, Field(ge=0, le=1000)]
    """Standard deviation of a jump, of the value before it."""
    quiet_ms: Annotated[float, Field(ge=0, le=60_000)] = 200.0
    """Before the close there is none, so that it can be traded on."""


class Traded(Config):
    """What both instruments have. Margins are for a scenario with [margin], oracles for one with [lending]."""

    price_levels: Annotated[int, Field(ge=64, le=1 << 18, multiple_of=64)]
    max_quantity_lots: Annotated[int, Field(ge=1, le=1 << 31)]
    initial_margin_bps: _MarginBps = 10_000
    maintenance_margin_bps: _MarginBps = 10_000
    oracle_source: Literal["own_book", "other_venue", "delayed"] = "own_book"
    oracle_deviation_bps: _Bps = 0
    oracle_heartbeat_ms: _PhaseMs = 0.0
    oracle_delay_ms: _PhaseMs = 0.0

    def oracle_config(self) -> OracleConfig:
        return OracleConfig(
            source=self.oracle_source,
            deviation_bps=self.oracle_deviation_bps,
            heartbeat_ns=round(self.oracle_heartbeat_ms * MS),
            delay_ns=round(self.oracle_delay_ms * MS),
        )

    def config(self, breaker: BreakerConfig, has_oracle: bool) -> InstrumentConfig:
        return InstrumentConfig(
            price_levels=self.price_levels,
            max_quantity_lots=self.max_quantity_lots,
            breaker=breaker,
            initial_margin_bps=self.initial_margin_bps,
            maintenance_margin_bps=self.maintenance_margin_bps,
            oracle=self.oracle_config() if has_oracle else None,
        )


class Instrument(Traded):
    opening_ticks: _Ticks
    tick_size: Annotated[float, Field(gt=0, le=1e6)]
    """Currency a tick, for display; of the stablecoin too."""
    batch_ms: _PhaseMs = 0.0
    """Frequent batch auctions of this interval; 0: continuous trading."""

    def config(self, breaker: BreakerConfig, has_oracle: bool) -> InstrumentConfig:
        continuous = super().config(breaker, has_oracle)
        # Validated anew: a batch has rules of its own.
        return InstrumentConfig.model_validate({**dict(continuous), "batch_interval_ns": round(self.batch_ms * MS)})


class Stablecoin(Traded):
    """Instrument 1. A lot of it is redeemed for par_ticks of cash while the issuer's reserves last."""

    par_ticks: _Ticks
    opening_ticks: _Ticks
    """Default: par."""
    reserves: _Cash = 0
    """The issuer's cash."""
    treasury_lots: _Lots = 0
    """The issuer's own lots, which MINT sells."""
    redemption_lots_per_s: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    redemption_burst_lots: _Lots = 0

    @model_validator(mode="before")
    @classmethod
    def _opens_at_par(cls, values: Any) -> Any:
        if isinstance(values, dict) and "par_ticks" in values:
            return {"opening_ticks": values["par_ticks"], **values}
        return values

    def facility(self) -> StablecoinConfig:
        return StablecoinConfig(
            instrument=COIN,
            par_ticks=self.par_ticks,
            redemption_lots_per_s=self.redemption_lots_per_s,
            redemption_burst_lots=self.redemption_burst_lots,
        )


class MarketData(Config):
    interval_ms: Annotated[float, Field(ge=0.1, le=60_000)]
    slow_interval_ms: Annotated[float, Field(ge=1, le=600_000)]


class Breaker(Config):
    """BreakerConfig of the exchange, of the main instrument, times in ms; and, as market_…, MarketBreakerConfig."""

    price_move_bps: _Bps = 0
    price_window_ms: _WindowMs = 0.0
    sell_volume_lots: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    sell_window_ms: _WindowMs = 0.0
    liquidations: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    liquidation_notional: _Cash = 0
    liquidation_window_ms: _WindowMs = 0.0
    depth_lots: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    depth_bps: _Bps = 0
    imbalance_bps: _Bps = 0
    imbalance_lots: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    imbalance_window_ms: _WindowMs = 0.0
    action: Literal["halt", "halt_market", "kill_participant", "kill_vendor", "kill_all"] = "halt"
    publish_thresholds: bool = False
    halt_ms: _PhaseMs = 0.0
    """0: to the close; else a call auction of reopening_auction_ms follows."""
    reopening_auction_ms: _PhaseMs = 0.0
    cancels_while_halted: bool = False
    risk_reducing_while_halted: bool = False
    collar_bps: _Bps = 0
    collar_widening_bps: _Bps = 0
    collar_extensions: Annotated[int, Field(ge=0, le=1000)] = 0
    market_halted_instruments: Annotated[int, Field(ge=0, le=256)] = 0
    market_liquidations: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    market_liquidation_notional: _Cash = 0
    market_liquidation_window_ms: _WindowMs = 0.0
    market_action: Literal["halt_market", "kill_all"] = "halt_market"

    @classmethod
    def from_ns(cls, breaker: BreakerConfig, market: MarketBreakerConfig | None) -> "Breaker":
        found = {}
        for config, prefix in ((breaker, ""), (market, _OF_MARKET)):
            for name, value in (config.model_dump() if config else {}).items():
                in_ns = name.endswith("_ns")
                found[prefix + (name.removesuffix("_ns") + "_ms" if in_ns else name)] = value / MS if in_ns else value
        return cls.model_validate(found)

    def _settings(self, of_market: bool) -> dict[str, Any]:
        found = {}
        for name, value in self.model_dump().items():
            if name.startswith(_OF_MARKET) == of_market:
                plain = name.removeprefix(_OF_MARKET)
                in_ms = plain.endswith("_ms")
                found[plain.removesuffix("_ms") + "_ns" if in_ms else plain] = round(value * MS) if in_ms else value
        return found

    def in_ns(self) -> BreakerConfig:
        return BreakerConfig.model_validate(self._settings(of_market=False))

    def market_in_ns(self) -> MarketBreakerConfig | None:
        settings = self._settings(of_market=True)
        armed = settings["halted_instruments"] or settings["liquidations"] or settings["liquidation_notional"]
        return MarketBreakerConfig.model_validate(settings) if armed else None


class Supervisor(Config):
    """SupervisionConfig of the exchange, times in ms: a process beside the venue that follows every command."""

    watching: bool = True
    """Whether there is one in this run."""
    instrument: Annotated[int, Field(ge=MAIN, le=COIN)] = MAIN
    window_ms: Annotated[float, Field(ge=1, le=3_600_000)] = 100.0
    average_ms: Annotated[float, Field(ge=1, le=3_600_000)] = 1000.0
    imbalance_bps: _Bps = 0
    imbalance_lots: Annotated[int, Field(ge=1, le=1 << 40)] = 1
    depth_bps: _Bps = 0
    pressure_bps: Annotated[int, Field(ge=0, le=1 << 30)] = 0
    fall_bps: Annotated[int, Field(ge=1, le=9_999)] = 100
    herding_bps: Annotated[int, Field(ge=0, le=5_000)] = 0
    similarity_bps: _Bps = 0
    herd_accounts: Annotated[int, Field(ge=1, le=1 << 20)] = 10
    authorised: bool = False
    """Whether it may halt the instrument."""
    reaction_ms: _WindowMs = 0.0
    """Between its alert and its halt: 0 is a supervisor as fast as the traders, 5000 one who reads a screen."""

    def config(self) -> SupervisionConfig:
        settings = self.model_dump(exclude={"watching"})
        for name in ("window", "average", "reaction"):
            settings[f"{name}_ns"] = round(settings.pop(f"{name}_ms") * MS)
        return SupervisionConfig.model_validate(settings)


class Sequencing(Config):
    """SequencingConfig of the exchange, times in ms; nothing set: in the order of arrival, at once."""

    speed_bump_ms: Annotated[float, Field(ge=0, le=1000)] = 0.0
    speed_bump_on: Literal["all", "takers"] = "all"
    hold_ms: Annotated[float, Field(ge=0, le=1000)] = 0.0

    def config(self, link_delays_ns: Sequence[int] = ()) -> SequencingConfig:
        """link_delays_ns: of each account, which hold-and-release takes into account."""
        return SequencingConfig(
            speed_bump_ns=round(self.speed_bump_ms * MS),
            speed_bump_on=self.speed_bump_on,
            hold_ns=round(self.hold_ms * MS),
            link_delays_ns=tuple(link_delays_ns) if self.hold_ms else (),
        )


class Admission(Config):
    """AdmissionConfig of the exchange, times in ms; nothing set: none."""

    declaration_required: bool = False
    validated: bool = False
    """Admit only those models of [vendors] that pass the battery of vendors/validation.py before the session."""
    vendor_agents_bps: _CapBps = 0
    vendor_capital_bps: _CapBps = 0
    vendor_flow_bps: _CapBps = 0
    flow_window_ms: _WindowMs = 0.0
    flow_floor: _Cash = 0

    def config(self, validated: Sequence[tuple[int, int, int]] = ()) -> AdmissionConfig | None:
        """validated: (vendor, model, version) of those that passed; used if there is a gate."""
        if self == Admission():
            return None
        settings = self.model_dump(exclude={"validated", "flow_window_ms"})
        gate = tuple(validated) if self.validated else None
        return AdmissionConfig(validated=gate, flow_window_ns=round(self.flow_window_ms * MS), **settings)


class Margin(MarginConfig):
    """The exchange's margin rules, and what the insurance fund begins with."""

    insurance_fund: _Cash = 0

    def config(self) -> MarginConfig:
        return MarginConfig.model_validate(self.model_dump(exclude={"insurance_fund"}))


class Lending(Config):
    """A pool that lends stablecoins against lots of the main instrument."""

    max_ltv_bps: Annotated[int, Field(ge=1, le=10_000)] = 8000
    liquidation_threshold_bps: Annotated[int, Field(ge=1, le=10_000)] = 8250
    close_factor_bps: Annotated[int, Field(ge=1, le=10_000)] = 5000
    full_close_health_bps: _Bps = 9500
    bonus_bps: Annotated[int, Field(ge=0, le=5000)] = 500
    debt_at_par: bool = False
    pool_lots: _Lots = 0
    """Stablecoins that can be borrowed."""

    def config(self) -> LendingConfig:
        settings = self.model_dump(exclude={"pool_lots"})
        return LendingConfig(collateral_instrument=MAIN, debt_instrument=COIN, **settings)


class Link(Config):
    """A latency class: how far its members are from the venue. docs/links.md."""

    up_ms: _LinkMs = 0.0
    """To the venue, one way."""
    down_ms: _LinkMs = 0.0
    """From it. Asymmetry is that the two differ."""
    jitter_ms: _LinkMs = 0.0
    """Sigma of the half-normal extra of each direction; the order of a connection's bytes is kept."""
    rate_mbit: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Of one host's connections over this link together, each direction; 0: unlimited."""

    def in_ns(self) -> links.Link:
        return links.Link(round(self.up_ms * MS), round(self.down_ms * MS), round(self.jitter_ms * MS), self.rate_mbit)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


class Group(Config):
    """Participants of one kind; `params` are the strategy's own settings.

    How many: `count`, or "rest" for all whom the other groups leave, or a `weight` among those whom fixed counts leave.
    """

    strategy: str
    count: Annotated[int, Field(ge=0, le=MAX_AGENTS)] | Literal["rest"] | None = None
    weight: Annotated[float, Field(ge=0, le=1e9)] | None = None
    at_least: Annotated[int, Field(ge=0, le=MAX_AGENTS)] = 0
    cash: Annotated[int, Field(ge=0, le=1 << 50)]
    shares: _Lots
    coins: _Lots = 0
    leverage: Annotated[tuple[_Leverage, ...], Field(min_length=1), BeforeValidator(_listed)] = (0.0,)
    """Value of the shares over equity, dealt round robin; 0: a cash account, else one on margin."""
    vendor: Annotated[int, Field(ge=0, lt=MAX_VENDORS)] = 0
    """Whose software it is, as each declares at logon; 0: its own. Who asks one of [vendors] declares that one."""
    link: str = links.DIRECT
    """By which of [links.NAME] they reach the venue; "": as their host does (node_links), else directly."""
    rehearse: bool = False
    """Go through the decisions once before the session, for those who decide all at once (the crowd, by default)."""
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way_to_count(self) -> "Group":
        if (self.count is None) == (self.weight is None):
            raise ValueError("give it either a count or a weight")
        if self.at_least and self.weight is None:
            raise ValueError("at_least goes with a weight")
        if any(0 < each < 1 for each in self.leverage):
            raise ValueError("leverage must be 0 (a cash account) or at least 1")
        return self
