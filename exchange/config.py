"""Every limit and setting of the engine and the venue, checked once, before anything starts."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from exchange.types import MAX_CASH, MAX_MULTIPLIER, MAX_PRICE_LEVELS, MAX_QUANTITY_LOTS

MAX_WINDOW_NS = 3_600_000_000_000
MAX_PHASE_NS = 24 * 3_600_000_000_000
MIN_PHASE_NS = 1_000_000
"""Of a batch interval, and in a venue of halts and call auctions too."""


class Config(BaseModel):
    """A setting that nobody knows is refused, and nothing changes after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BreakerConfig(Config):
    """The in-line breaker of one instrument. A trigger with the threshold 0 is off.

    price_move_bps over price_window_ns is CME's velocity logic (N ticks within time T; no match at the triggering
    price); sell_volume_lots over sell_window_ns is a rate of aggressive selling, as a liquidation-rate breaker
    has it. Both prevent the triggering match, as Eurex's volatility interruption does.
    """

    price_move_bps: Annotated[int, Field(ge=0, le=10_000)] = 0
    price_window_ns: Annotated[int, Field(ge=0, le=MAX_WINDOW_NS)] = 0
    sell_volume_lots: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    sell_window_ns: Annotated[int, Field(ge=0, le=MAX_WINDOW_NS)] = 0
    halt_ns: Annotated[int, Field(ge=0, le=MAX_PHASE_NS)] = 0
    """How long a halt lasts before the reopening auction; 0: to the close."""
    reopening_auction_ns: Annotated[int, Field(ge=0, le=MAX_PHASE_NS)] = 0
    cancels_while_halted: bool = False

    @model_validator(mode="after")
    def _armed_triggers_have_a_window(self) -> "BreakerConfig":
        for threshold, window in (("price_move_bps", "price_window_ns"), ("sell_volume_lots", "sell_window_ns")):
            if getattr(self, threshold) and not getattr(self, window):
                raise ValueError(
                    f"{threshold} is set but {window} is 0, so it could see one match at most: give it a window"
                )
        if self.halt_ns and not self.reopening_auction_ns:
            raise ValueError("halt_ns is set but reopening_auction_ns is 0: a halt that ends reopens by a call auction")
        return self

    @property
    def armed(self) -> bool:
        return bool(self.price_move_bps or self.sell_volume_lots)


class LimitsConfig(Config):
    """Pre-trade limits of every account until the operator sets others; 0 is no limit. Rules in docs/matching.md."""

    order_lots: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    open_orders: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    position_lots: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    notional: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    messages_per_s: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0


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

    @model_validator(mode="after")
    def _batches_are_at_least_a_millisecond(self) -> "InstrumentConfig":
        if 0 < self.batch_interval_ns < MIN_PHASE_NS:
            raise ValueError(f"batch_interval_ns is {self.batch_interval_ns}: give 0 or at least 1 ms ({MIN_PHASE_NS})")
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

    @model_validator(mode="after")
    def _remembered_orders_is_a_power_of_two(self) -> "EngineConfig":
        if self.remembered_orders & (self.remembered_orders - 1):
            raise ValueError(f"remembered_orders is {self.remembered_orders}: give a power of two")
        return self
