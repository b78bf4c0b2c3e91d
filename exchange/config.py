"""Every limit and setting of the engine and the venue, checked once, before anything starts."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from exchange.types import MAX_MULTIPLIER, MAX_PRICE_LEVELS, MAX_QUANTITY_LOTS

MAX_WINDOW_NS = 3_600_000_000_000


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

    @model_validator(mode="after")
    def _armed_triggers_have_a_window(self) -> "BreakerConfig":
        for threshold, window in (("price_move_bps", "price_window_ns"), ("sell_volume_lots", "sell_window_ns")):
            if getattr(self, threshold) and not getattr(self, window):
                raise ValueError(
                    f"{threshold} is set but {window} is 0, so it could see one match at most: give it a window"
                )
        return self

    @property
    def armed(self) -> bool:
        return bool(self.price_move_bps or self.sell_volume_lots)


class InstrumentConfig(Config):
    """One instrument. Valid prices are 1 … price_levels − 1 ticks; notional = price × quantity × multiplier."""

    price_levels: Annotated[int, Field(ge=64, le=MAX_PRICE_LEVELS, multiple_of=64)]
    multiplier: Annotated[int, Field(ge=1, le=MAX_MULTIPLIER)] = 1
    max_quantity_lots: Annotated[int, Field(ge=1, le=MAX_QUANTITY_LOTS)] = 1 << 20
    breaker: BreakerConfig = BreakerConfig()


class EngineConfig(Config):
    """All that the engine needs to be built, and all that a replay needs beside the commands."""

    instruments: Annotated[tuple[InstrumentConfig, ...], Field(min_length=1, max_length=256)]
    accounts: Annotated[int, Field(ge=1, le=1 << 20)]
    max_orders: Annotated[int, Field(ge=1, le=1 << 22)] = 1 << 17
    """How many orders may rest at once, over all instruments."""
