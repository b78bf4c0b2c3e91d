"""What the oracle is made of: commands, events, orders, accounts, books and the breaker's question.

Dictionaries, deques, lists and Python integers. Nothing here is kept that can be worked out again.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple, Protocol

from exchange.types import COMMAND, EVENT, Phase, Side, Trigger

NOBODY = -1
BPS = 10_000


class BreakerSettings(Protocol):
    @property
    def price_move_bps(self) -> int: ...
    @property
    def price_window_ns(self) -> int: ...
    @property
    def sell_volume_lots(self) -> int: ...
    @property
    def sell_window_ns(self) -> int: ...


class InstrumentSettings(Protocol):
    @property
    def price_levels(self) -> int: ...
    @property
    def multiplier(self) -> int: ...
    @property
    def max_quantity_lots(self) -> int: ...
    @property
    def breaker(self) -> BreakerSettings: ...


class Settings(Protocol):
    """What an exchange is built with. `exchange.config.EngineConfig` is one."""

    @property
    def instruments(self) -> Sequence[InstrumentSettings]: ...
    @property
    def accounts(self) -> int: ...
    @property
    def max_orders(self) -> int: ...


class Command(NamedTuple):
    """One record of `exchange.types.COMMAND`."""

    sequence: int
    kind: int
    account: int = 0
    instrument: int = 0
    order_id: int = 0
    target_order_id: int = 0
    side: int = 0
    order_type: int = 0
    price_ticks: int = 0
    quantity_lots: int = 0
    heard_ns: int = 0
    sent_ns: int = 0
    received_ns: int = 0
    cause_sequence: int = 0
    rule: int = 0
    check: int = 0


class Event(NamedTuple):
    """One record of `exchange.types.EVENT`; the defaults are what a field holds where it has no use."""

    sequence: int
    kind: int
    time_ns: int
    instrument: int = NOBODY
    account: int = 0
    order_id: int = 0
    side: int = 0
    price_ticks: int = 0
    quantity_lots: int = 0
    leaves_lots: int = 0
    maker_account: int = NOBODY
    maker_order_id: int = 0
    maker_leaves_lots: int = 0
    reason: int = 0
    value: int = 0
    threshold: int = 0
    window_ns: int = 0


assert Command._fields == COMMAND.names
assert Event._fields == EVENT.names


@dataclass
class Order:
    """An accepted order, kept for good so that its whole life can be checked."""

    accepted_sequence: int
    account: int
    order_id: int
    side: int
    price_ticks: int
    quantity_lots: int
    leaves_lots: int
    filled_lots: int = 0
    cancelled_lots: int = 0


@dataclass
class Fill:
    time_ns: int
    taker_side: int
    price_ticks: int
    quantity_lots: int


@dataclass
class Position:
    quantity_lots: int = 0
    reserved_lots: int = 0


@dataclass
class Account:
    positions: list[Position]
    cash: int = 0
    reserved_cash: int = 0
    last_order_id: int = 0

    @property
    def free_cash(self) -> int:
        return self.cash - self.reserved_cash


@dataclass
class Instrument:
    settings: InstrumentSettings
    phase: int = Phase.PRE_OPEN
    last_ticks: int = 0
    volume_lots: int = 0
    trigger: int = 0
    deposited_lots: int = 0
    queues: tuple[dict[int, deque[Order]], dict[int, deque[Order]]] = field(default_factory=lambda: ({}, {}))
    """By side, then by price. A price without orders is not in the dictionary."""
    fills: list[Fill] = field(default_factory=list)

    def best_ticks(self, side: int) -> int | None:
        """Best price at which orders of this side rest."""
        prices = self.queues[side]
        if not prices:
            return None
        return max(prices) if side == Side.BUY else min(prices)

    def resting(self) -> Iterator[Order]:
        """Bids from best to worst, then asks from best to worst, each price from head to tail."""
        for side in (Side.BUY, Side.SELL):
            for price_ticks in sorted(self.queues[side], reverse=side == Side.BUY):
                yield from self.queues[side][price_ticks]

    def notional(self, price_ticks: int, quantity_lots: int) -> int:
        return price_ticks * quantity_lots * self.settings.multiplier


class Trip(NamedTuple):
    trigger: int
    observed: int
    threshold: int
    window_ns: int


def breaker_trips(
    instrument: Instrument, now_ns: int, taker_side: int, price_ticks: int, quantity_lots: int
) -> Trip | None:
    """Ask the breaker about one match, from the list of every fill there has been."""
    breaker, fills = instrument.settings.breaker, instrument.fills
    if breaker.price_move_bps and fills:
        in_force = [
            fill.price_ticks
            for fill, following in zip_longest(fills, fills[1:])
            if following is None or following.time_ns > now_ns - breaker.price_window_ns
        ]
        high, low = max(in_force), min(in_force)
        fall = (high - price_ticks) * BPS
        rise = (price_ticks - low) * BPS
        if fall >= breaker.price_move_bps * high:
            return Trip(Trigger.PRICE_MOVE, fall // high, breaker.price_move_bps, breaker.price_window_ns)
        if rise >= breaker.price_move_bps * low:
            return Trip(Trigger.PRICE_MOVE, rise // low, breaker.price_move_bps, breaker.price_window_ns)
    if breaker.sell_volume_lots and taker_side == Side.SELL:
        sold_lots = quantity_lots + sum(
            fill.quantity_lots
            for fill in fills
            if fill.taker_side == Side.SELL and fill.time_ns > now_ns - breaker.sell_window_ns
        )
        if sold_lots >= breaker.sell_volume_lots:
            return Trip(Trigger.SELL_VOLUME, sold_lots, breaker.sell_volume_lots, breaker.sell_window_ns)
    return None
