"""Every limit and setting of the engine and the venue, checked once, before anything starts."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from exchange.types import MAX_CASH, MAX_MULTIPLIER, MAX_PRICE_LEVELS, MAX_QUANTITY_LOTS, SystemAccount

MAX_WINDOW_NS = 3_600_000_000_000
MAX_PHASE_NS = 24 * 3_600_000_000_000
MIN_PHASE_NS = 1_000_000
"""Of a batch interval, and in a venue of halts and call auctions too."""


class Config(BaseModel):
    """A setting that nobody knows is refused, and nothing changes after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Window = Annotated[int, Field(ge=0, le=MAX_WINDOW_NS)]


class BreakerConfig(Config):
    """The in-line breaker of one instrument; rules in docs/breaker.md. A trigger with the threshold 0 is off.

    price_move_bps over price_window_ns is CME's velocity logic (N ticks within time T; no match at the triggering
    price); sell_volume_lots over sell_window_ns is a rate of aggressive selling; liquidations and liquidation_notional
    are a liquidation-rate breaker. All prevent the triggering match, as Eurex's volatility interruption does.
    """

    price_move_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    price_window_ns: _Window = 0
    sell_volume_lots: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    sell_window_ns: _Window = 0
    liquidations: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    """Orders of the liquidation engine within liquidation_window_ns: one an account, instrument and revaluation. Loans
    do not count: nothing of theirs is matched."""
    liquidation_notional: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    """Traded by liquidations within liquidation_window_ns, in minor units."""
    liquidation_window_ns: _Window = 0
    depth_lots: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    """It trips on a match that would leave less than this within depth_bps beyond its price."""
    depth_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    imbalance_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    """|lots that takers sold − bought| over their sum, within imbalance_window_ns."""
    imbalance_lots: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    """That sum, before the imbalance counts."""
    imbalance_window_ns: _Window = 0
    action: Literal["halt", "halt_market", "kill_participant", "kill_vendor", "kill_all"] = "halt"
    publish_thresholds: bool = False
    """Tell the thresholds at the opening. Price limits pull prices towards them (the magnet effect), which is why
    Eurex withholds its own; why it tripped is always told."""
    halt_ns: Annotated[int, Field(ge=0, le=MAX_PHASE_NS)] = 0
    """How long a halt lasts before the reopening auction; 0: to the close."""
    reopening_auction_ns: Annotated[int, Field(ge=0, le=MAX_PHASE_NS)] = 0
    cancels_while_halted: bool = False
    risk_reducing_while_halted: bool = False
    """A halt takes cancels, and limit orders that reduce a position; they wait for the reopening."""
    collar_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    """A reopening auction that would clear further than this from the last price goes on instead; 0: none."""
    collar_widening_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    """By how much each extension widens the collar (LULD: by 5 % of the price)."""
    collar_extensions: Annotated[int, Field(ge=0, le=1000)] = 0
    """After so many it clears wherever it may."""

    @model_validator(mode="after")
    def _armed_triggers_have_a_window(self) -> "BreakerConfig":
        for threshold, window in (
            ("price_move_bps", "price_window_ns"),
            ("sell_volume_lots", "sell_window_ns"),
            ("liquidations", "liquidation_window_ns"),
            ("liquidation_notional", "liquidation_window_ns"),
            ("imbalance_bps", "imbalance_window_ns"),
        ):
            if getattr(self, threshold) and not getattr(self, window):
                raise ValueError(
                    f"{threshold} is set but {window} is 0, so it could see one match at most: give it a window"
                )
        if self.halt_ns and not self.reopening_auction_ns:
            raise ValueError("halt_ns is set but reopening_auction_ns is 0: a halt that ends reopens by a call auction")
        if bool(self.collar_bps) != bool(self.collar_extensions) or (self.collar_bps and not self.halt_ns):
            raise ValueError(
                "collar_bps, collar_extensions and halt_ns go together: a collar extends a reopening auction"
            )
        return self

    @property
    def triggers(self) -> tuple[str, ...]:
        """The triggers that are armed."""
        return tuple(name for name in BREAKER_TRIGGERS if getattr(self, name))

    @property
    def armed(self) -> bool:
        return bool(self.triggers)


BREAKER_TRIGGERS = (
    "price_move_bps",
    "sell_volume_lots",
    "liquidations",
    "liquidation_notional",
    "depth_lots",
    "imbalance_bps",
)


class MarketBreakerConfig(Config):
    """The breaker of the whole market: it halts every instrument, each for its own halt_ns."""

    halted_instruments: Annotated[int, Field(ge=0, le=256)] = 0
    """So many at once halt the others too."""
    liquidations: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    liquidation_notional: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    liquidation_window_ns: _Window = 0
    action: Literal["halt_market", "kill_all"] = "halt_market"

    @model_validator(mode="after")
    def _it_can_trip(self) -> "MarketBreakerConfig":
        if not (self.halted_instruments or self.liquidations or self.liquidation_notional):
            raise ValueError("the market's breaker has no threshold, so it could never trip: set one, or leave it out")
        if (self.liquidations or self.liquidation_notional) and not self.liquidation_window_ns:
            raise ValueError("liquidation_window_ns is 0: give the liquidation triggers a window")
        return self


class SupervisionConfig(Config):
    """What a supervisor watches in one instrument, and what it may do; indicators in docs/supervision.md. A threshold
    of 0 is off."""

    instrument: Annotated[int, Field(ge=0, le=255)] = 0
    window_ns: Annotated[int, Field(ge=MIN_PHASE_NS, le=MAX_WINDOW_NS)] = 100_000_000
    """Of the flow indicators: imbalance, herding, similarity. An alert is not repeated within it."""
    average_ns: Annotated[int, Field(ge=MIN_PHASE_NS, le=MAX_WINDOW_NS)] = 1_000_000_000
    """Time constant of the slow averages that depths are compared with."""
    imbalance_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    imbalance_lots: Annotated[int, Field(ge=1, le=1 << 40)] = 1
    """Taken within the window before the imbalance counts."""
    depth_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    """It alarms when the depth is at or below this share of its slow average."""
    pressure_bps: Annotated[int, Field(ge=0, le=1 << 30)] = 0
    fall_bps: Annotated[int, Field(ge=1, le=9_999)] = 100
    """How far the mark is supposed to fall, for the lots that would be liquidated then."""
    herding_bps: Annotated[int, Field(ge=0, le=5_000)] = 0
    similarity_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    herd_accounts: Annotated[int, Field(ge=1, le=1 << 20)] = 10
    """That took within the window before herding and similarity count."""
    authorised: bool = False
    """Whether it halts the instrument when it alarms."""
    reaction_ns: Annotated[int, Field(ge=0, le=MAX_WINDOW_NS)] = 0
    """How long it waits between alert and halt, as slower supervisors do."""

    @model_validator(mode="after")
    def _it_can_alarm(self) -> "SupervisionConfig":
        thresholds = ("imbalance_bps", "depth_bps", "pressure_bps", "herding_bps", "similarity_bps")
        if not any(getattr(self, name) for name in thresholds):
            raise ValueError(f"no threshold, so it could never alarm: set one of {', '.join(thresholds)}")
        return self


class AdmissionConfig(Config):
    """Which models may log on, and how much one vendor's may be; rules in docs/admission.md. A cap of 0 is off."""

    declaration_required: bool = False
    """Refuse who declares no vendor."""
    validated: tuple[tuple[int, int, int], ...] | None = None
    """(vendor, model, model_version) of those that passed the validation gate; None: there is no gate."""
    vendor_agents_bps: Annotated[int, Field(ge=0, lt=10_000)] = 0
    """Of the venue's accounts, logged on with models of one vendor."""
    vendor_capital_bps: Annotated[int, Field(ge=0, lt=10_000)] = 0
    """Of what all accounts are worth."""
    vendor_flow_bps: Annotated[int, Field(ge=0, lt=10_000)] = 0
    """Of what all orders could take at once, within flow_window_ns."""
    flow_window_ns: _Window = 0
    flow_floor: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    """In minor units: what a vendor's models may send within the window whatever its share."""

    @model_validator(mode="after")
    def _it_can_refuse(self) -> "AdmissionConfig":
        if bool(self.vendor_flow_bps) != bool(self.flow_window_ns):
            raise ValueError("vendor_flow_bps and flow_window_ns go together: set both, or neither")
        if self.flow_floor and not self.vendor_flow_bps:
            raise ValueError("flow_floor is set but vendor_flow_bps is 0, so it could never refuse: set it too")
        caps = (self.vendor_agents_bps, self.vendor_capital_bps, self.vendor_flow_bps)
        if not (self.declaration_required or self.validated is not None or any(caps)):
            raise ValueError(
                "no cap, no gate, no declaration asked for: it could never refuse; set one, or leave it out"
            )
        return self


class LimitsConfig(Config):
    """Pre-trade limits of every account until the operator sets others; 0 is no limit. Rules in docs/matching.md."""

    order_lots: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    open_orders: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    position_lots: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    notional: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    messages_per_s: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0


MAX_MARGIN_INSTRUMENTS = 16
MAX_MARGIN_PRICE = 1 << 20
"""price_levels × multiplier in a venue with margin accounts or a lending pool, so that values stay within int64."""
MAX_HISTORY = 4096


class MarginConfig(Config):
    """Margin accounts and the liquidation engine; rules in docs/money.md."""

    mark: Literal["last", "mid", "index"] = "last"
    call_bps: Annotated[int, Field(ge=10_000, le=1_000_000)] = 15_000
    """A margin call comes when equity is below this share of the maintenance margin."""
    fee_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Of what the liquidation engine trades, from the account to the insurance fund."""
    slice_lots: Annotated[int, Field(ge=0, le=MAX_QUANTITY_LOTS)] = 0
    """Most lots of an account and instrument that one revaluation liquidates; 0: all."""
    accounts_per_revaluation: Annotated[int, Field(ge=1, le=64)] = 64
    """Most accounts that one revaluation acts on; the next goes on behind them."""


class OracleConfig(Config):
    """When the lending oracle of an instrument speaks: on a deviation, or at the heartbeat (as Chainlink's do)."""

    source: Literal["own_book", "other_venue", "delayed"] = "own_book"
    deviation_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    """0: at every change."""
    heartbeat_ns: Annotated[int, Field(ge=0, le=MAX_PHASE_NS)] = 0
    """0: none."""
    delay_ns: Annotated[int, Field(ge=0, le=MAX_PHASE_NS)] = 0

    @model_validator(mode="after")
    def _only_a_delayed_one_has_a_delay(self) -> "OracleConfig":
        if (self.source == "delayed") != (self.delay_ns > 0):
            raise ValueError(f"source is {self.source} and delay_ns {self.delay_ns}: a delay goes with source delayed")
        return self


class LendingConfig(Config):
    """A lending pool: lots of one instrument as collateral, lots of another as debt (Aave's rules; docs/money.md)."""

    collateral_instrument: Annotated[int, Field(ge=0, le=255)]
    debt_instrument: Annotated[int, Field(ge=0, le=255)]
    max_ltv_bps: Annotated[int, Field(ge=1, le=10_000)] = 8000
    liquidation_threshold_bps: Annotated[int, Field(ge=1, le=10_000)] = 8250
    close_factor_bps: Annotated[int, Field(ge=1, le=10_000)] = 5000
    full_close_health_bps: Annotated[int, Field(ge=0, le=10_000)] = 9500
    """Below this health factor a liquidator may repay all."""
    bonus_bps: Annotated[int, Field(ge=0, le=5000)] = 500
    debt_at_par: bool = False
    """Value debt at the stablecoin's par, not at its oracle's price."""

    @model_validator(mode="after")
    def _two_instruments(self) -> "LendingConfig":
        if self.collateral_instrument == self.debt_instrument:
            raise ValueError("collateral and debt are the same instrument: name two")
        if self.max_ltv_bps > self.liquidation_threshold_bps:
            raise ValueError("max_ltv_bps is above liquidation_threshold_bps: a new loan could be liquidated at once")
        return self


class StablecoinConfig(Config):
    """A stablecoin whose issuer redeems at par out of finite reserves; rules in docs/money.md."""

    instrument: Annotated[int, Field(ge=0, le=255)]
    par_ticks: Annotated[int, Field(ge=1, lt=MAX_PRICE_LEVELS)]
    redemption_lots_per_s: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """0: no limit."""
    redemption_burst_lots: Annotated[int, Field(ge=0, le=MAX_QUANTITY_LOTS)] = 0
    """How many may be redeemed at once after a pause."""

    @model_validator(mode="after")
    def _a_rate_has_a_burst(self) -> "StablecoinConfig":
        if bool(self.redemption_lots_per_s) != bool(self.redemption_burst_lots):
            raise ValueError("redemption_lots_per_s and redemption_burst_lots go together: set both, or neither")
        return self


class InstrumentConfig(Config):
    """One instrument. Valid prices are 1 … price_levels − 1 ticks; notional = price × quantity × multiplier."""

    price_levels: Annotated[int, Field(ge=64, le=MAX_PRICE_LEVELS, multiple_of=64)]
    multiplier: Annotated[int, Field(ge=1, le=MAX_MULTIPLIER)] = 1
    max_quantity_lots: Annotated[int, Field(ge=1, le=MAX_QUANTITY_LOTS)] = 1 << 20
    batch_interval_ns: Annotated[int, Field(ge=0, le=MAX_PHASE_NS)] = 0
    """Frequent batch auctions of this interval, at least 1 ms; 0: continuous trading."""
    opening_auction_ns: Annotated[int, Field(ge=0, le=MAX_PHASE_NS)] = 0
    """How long the opening call auction collects; 0: none."""
    breaker: BreakerConfig = BreakerConfig()
    initial_margin_bps: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    """Of a margin account's position: 2,000 allows a leverage of five."""
    maintenance_margin_bps: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    oracle: OracleConfig | None = None

    @model_validator(mode="after")
    def _batches_are_at_least_a_millisecond(self) -> "InstrumentConfig":
        if 0 < self.batch_interval_ns < MIN_PHASE_NS:
            raise ValueError(f"batch_interval_ns is {self.batch_interval_ns}: give 0 or at least 1 ms ({MIN_PHASE_NS})")
        if self.maintenance_margin_bps > self.initial_margin_bps:
            raise ValueError("maintenance_margin_bps is above initial_margin_bps: a new position could be liquidated")
        return self


class EngineConfig(Config):
    """All that the engine needs to be built, and all that a replay needs beside the commands."""

    instruments: Annotated[tuple[InstrumentConfig, ...], Field(min_length=1, max_length=256)]
    accounts: Annotated[int, Field(ge=1, le=1 << 20)]
    max_orders: Annotated[int, Field(ge=1, le=1 << 22)] = 1 << 17
    """How many orders may rest at once, over all instruments."""
    limits: LimitsConfig = LimitsConfig()
    remembered_orders: Annotated[int, Field(ge=1, le=1 << 12)] = 32
    """How many of its last order ids an account may repeat and be told the first outcome again."""
    revalue_interval_ns: Annotated[int, Field(ge=MIN_PHASE_NS, le=MAX_PHASE_NS)] = MIN_PHASE_NS
    """How long after a command oracles and margin accounts are looked at."""
    market_breaker: MarketBreakerConfig | None = None
    margin: MarginConfig | None = None
    lending: LendingConfig | None = None
    stablecoin: StablecoinConfig | None = None
    admission: AdmissionConfig | None = None
    explanations_required: bool = False
    """Refuse an order that does not carry the inputs of its decision (docs/explained-trades.md)."""

    @property
    def system_accounts(self) -> int:
        """How many accounts of the venue's own stand behind the participants'."""
        return len(SystemAccount) if self.margin or self.lending or self.stablecoin else 0

    @model_validator(mode="after")
    def _facilities_fit_the_instruments(self) -> "EngineConfig":
        named = {}
        if self.lending:
            named["lending.collateral_instrument"] = self.lending.collateral_instrument
            named["lending.debt_instrument"] = self.lending.debt_instrument
        if self.stablecoin:
            named["stablecoin.instrument"] = self.stablecoin.instrument
        for name, number in named.items():
            if number >= len(self.instruments):
                raise ValueError(f"{name} is {number} but there are {len(self.instruments)} instruments")
        if self.stablecoin and self.stablecoin.par_ticks >= self.instruments[self.stablecoin.instrument].price_levels:
            raise ValueError("stablecoin.par_ticks is not below price_levels of its instrument")
        if self.lending:
            for what in ("collateral", "debt"):
                at_par = what == "debt" and self.lending.debt_at_par
                if not at_par and self.instruments[named[f"lending.{what}_instrument"]].oracle is None:
                    raise ValueError(f"the instrument that the pool takes as {what} has no oracle: give it one")
            if self.lending.debt_at_par and (
                self.stablecoin is None or self.stablecoin.instrument != self.lending.debt_instrument
            ):
                raise ValueError("lending.debt_at_par is set but the debt's instrument is not the stablecoin")
        for number, instrument in enumerate(self.instruments):
            if instrument.oracle and instrument.oracle.delay_ns > MAX_HISTORY * self.revalue_interval_ns:
                raise ValueError(f"oracle.delay_ns of instrument {number} is more than {MAX_HISTORY} revaluations")
        if self.system_accounts:
            if len(self.instruments) > MAX_MARGIN_INSTRUMENTS:
                raise ValueError(f"with margin, lending or a stablecoin: at most {MAX_MARGIN_INSTRUMENTS} instruments")
            for number, instrument in enumerate(self.instruments):
                if instrument.price_levels * instrument.multiplier > MAX_MARGIN_PRICE:
                    raise ValueError(
                        f"price_levels x multiplier of instrument {number} is above {MAX_MARGIN_PRICE}, too much with "
                        "margin, lending or a stablecoin"
                    )
                if self.margin and instrument.batch_interval_ns:
                    raise ValueError(f"instrument {number} has batches: the liquidation engine trades continuously")
        return self

    @model_validator(mode="after")
    def _every_breaker_can_trip(self) -> "EngineConfig":
        """Refuse a trigger that no sequence of commands could ever trip: it would be trusted and do nothing."""
        for number, instrument in enumerate(self.instruments):
            where = f"the breaker of instrument {number}"
            if instrument.batch_interval_ns:
                for name in ("sell_volume_lots", "depth_lots", "imbalance_bps"):
                    if getattr(instrument.breaker, name):
                        raise ValueError(
                            f"{where} could never trip by {name}: in a batch nobody takes; leave it out, or trade "
                            "continuously"
                        )
            self._liquidations_can_reach(where, instrument.breaker)
        market = self.market_breaker
        if market:
            self._liquidations_can_reach("the market's breaker", market)
            if market.halted_instruments > len(self.instruments):
                raise ValueError(
                    f"the market's breaker could never trip: halted_instruments is {market.halted_instruments} and "
                    f"there are {len(self.instruments)}"
                )
            sources = sum(instrument.breaker.armed for instrument in self.instruments)
            own = market.liquidations or market.liquidation_notional
            if market.halted_instruments > sources and not own:
                raise ValueError(
                    f"the market's breaker could never trip: halted_instruments is {market.halted_instruments} and "
                    f"{sources} instruments have a breaker of their own"
                )
        return self

    def _liquidations_can_reach(self, where: str, breaker: BreakerConfig | MarketBreakerConfig) -> None:
        if not (breaker.liquidations or breaker.liquidation_notional):
            return
        if not self.margin:
            raise ValueError(f"{where} could never trip by liquidations: the venue has no margin accounts")
        steps = breaker.liquidation_window_ns // self.revalue_interval_ns + 1
        of_market = isinstance(breaker, MarketBreakerConfig)
        each = min(self.margin.accounts_per_revaluation, self.accounts)
        most = steps * each * (len(self.instruments) if of_market else 1)
        if breaker.liquidations > most:
            raise ValueError(
                f"{where} could never trip: liquidations is {breaker.liquidations} and at most {most} can be taken up "
                "within liquidation_window_ns"
            )

    @model_validator(mode="after")
    def _admission_can_refuse(self) -> "EngineConfig":
        flow = self.admission is not None and self.admission.vendor_flow_bps > 0
        if flow and all(instrument.batch_interval_ns for instrument in self.instruments):
            raise ValueError(
                "admission.vendor_flow_bps could never refuse: in a batch nobody takes; leave it out, or trade "
                "continuously"
            )
        return self

    @model_validator(mode="after")
    def _remembered_orders_is_a_power_of_two(self) -> "EngineConfig":
        if self.remembered_orders & (self.remembered_orders - 1):
            raise ValueError(f"remembered_orders is {self.remembered_orders}: give a power of two")
        return self
