"""What the oracle is made of: commands, events, orders, accounts, books, the clearing price.

Dictionaries, deques, lists and Python integers. Nothing here is kept that can be worked out again.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from exchange.config import InstrumentConfig
from exchange.types import COMMAND, EVENT, Limit, MarginState, Phase, SelfTrade, Side

NOBODY = -1
NEVER = 2**63 - 1
BPS = 10_000


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


@dataclass(eq=False)
class Order:
    """An accepted order under its latest name, kept for good so that its whole life can be checked."""

    account: int
    order_id: int
    instrument: int
    side: int
    price_ticks: int
    quantity_lots: int
    """As first accepted."""
    leaves_lots: int
    filled_lots: int = 0
    cancelled_lots: int = 0
    replaced_lots: int = 0
    """What replacing took off, less what it added."""
    expiring: bool = False
    came_to_rest: int = 0
    """A number that grows with each order that comes to rest."""


class PriceInForce(NamedTuple):
    since_ns: int
    price_ticks: int


class Happened(NamedTuple):
    """What the breaker's windows are made of."""

    time_ns: int
    amount: int
    """Lots, ticks, minor units or a count."""
    sequence: int


class Explained(NamedTuple):
    """The latest EXPLAIN of an account."""

    order_id: int = 0
    rule: int = 0


class Outcome(NamedTuple):
    order_id: int
    sequence: int
    quantity_lots: int
    reason: int


@dataclass
class Position:
    quantity_lots: int = 0
    reserved_lots: int = 0
    entry_value: int = 0
    """Of a margin account: what the position cost."""


@dataclass
class Account:
    positions: list[Position]
    limits: dict[Limit, int]
    """0: none."""
    cash: int = 0
    reserved_cash: int = 0
    last_order_id: int = 0
    self_trade: int = SelfTrade.OFF
    cancel_on_disconnect: int = 0
    logged_on: int = 0
    rate_ns: int = 0
    killed: int = 0
    vendor: int = 0
    """Of the model that was declared at the last logon; 0: none, or a model of its own."""
    model: int = 0
    model_version: int = 0
    explained: Explained = field(default_factory=Explained)
    margin: int = 0
    margin_state: int = MarginState.NORMAL
    collateral_lots: int = 0
    """In the lending pool; so is the debt."""
    debt_lots: int = 0
    remembered: list[Outcome] = field(default_factory=list)

    @property
    def free_cash(self) -> int:
        return self.cash - self.reserved_cash


@dataclass
class Instrument:
    settings: InstrumentConfig
    phase: int = Phase.PRE_OPEN
    last_ticks: int = 0
    volume_lots: int = 0
    trigger: int = 0
    timer_ns: int = NEVER
    phase_started_ns: int = 0
    """0 but in BATCH."""
    deposited_lots: int = 0
    index_ticks: int = 0
    oracle_ticks: int = 0
    oracle_ns: int = 0
    history: list[PriceInForce] = field(default_factory=list)
    """The book prices that a delayed oracle remembers, oldest first."""
    queues: tuple[dict[int, deque[Order]], dict[int, deque[Order]]] = field(default_factory=lambda: ({}, {}))
    """By side, then by price. A price without orders is not in the dictionary."""
    extensions: int = 0
    """Of its reopening auction, so far."""
    prices: list[Happened] = field(default_factory=list)
    """Of all fills since a call auction ended: what the breaker's PRICE_MOVE looks at."""
    sales: list[Happened] = field(default_factory=list)
    """Lots of those whose taker sold; of SELL_VOLUME."""
    taken: tuple[list[Happened], list[Happened]] = field(default_factory=lambda: ([], []))
    """Lots of the same fills, by the taker's side; of IMBALANCE."""
    liquidations: list[Happened] = field(default_factory=list)
    """Each time since then that an account's liquidation took it up."""
    liquidated: list[Happened] = field(default_factory=list)
    """Values of what was matched since then for accounts in liquidation."""

    def empty_windows(self) -> None:
        for window in (self.prices, self.sales, *self.taken, self.liquidations, self.liquidated):
            window.clear()

    def best_ticks(self, side: int) -> int | None:
        """Best price at which orders of this side rest."""
        prices = self.queues[side]
        if not prices:
            return None
        return max(prices) if side == Side.BUY else min(prices)

    def resting_of(self, side: int) -> Iterator[Order]:
        """From best to worst, each price from head to tail."""
        for price_ticks in sorted(self.queues[side], reverse=side == Side.BUY):
            yield from self.queues[side][price_ticks]

    def resting(self) -> Iterator[Order]:
        """Bids from best to worst, then asks from best to worst, each price from head to tail."""
        yield from self.resting_of(Side.BUY)
        yield from self.resting_of(Side.SELL)

    def book_ticks(self) -> int:
        """docs/money.md, *book price*; 0 if there is none."""
        best_bid, best_ask = self.best_ticks(Side.BUY), self.best_ticks(Side.SELL)
        if best_bid is not None and best_ask is not None:
            return (best_bid + best_ask) // 2
        return self.last_ticks or self.index_ticks

    def notional(self, price_ticks: int, quantity_lots: int) -> int:
        return price_ticks * quantity_lots * self.settings.multiplier


class Clearing(NamedTuple):
    """What an uncrossing comes to."""

    price_ticks: int
    volume_lots: int
    imbalance_lots: int
    reference_ticks: int


def clearing_of(instrument: Instrument) -> Clearing | None:
    """The one price at which an instrument is uncrossed; None if its book is not crossed."""
    best_bid, best_ask = instrument.best_ticks(Side.BUY), instrument.best_ticks(Side.SELL)
    if best_bid is None or best_ask is None or best_bid < best_ask:
        return None
    bids = [(order.price_ticks, order.leaves_lots) for order in instrument.resting_of(Side.BUY)]
    asks = [(order.price_ticks, order.leaves_lots) for order in instrument.resting_of(Side.SELL)]

    def demand(price_ticks: int) -> int:
        return sum(lots for limit_ticks, lots in bids if limit_ticks >= price_ticks)

    def supply(price_ticks: int) -> int:
        return sum(lots for limit_ticks, lots in asks if limit_ticks <= price_ticks)

    # Demand and supply are constant between these prices, so every range of equally good prices ends at some of them.
    ends = {limit for limit, _ in bids} | {limit + 1 for limit, _ in bids}
    ends |= {limit for limit, _ in asks} | {limit - 1 for limit, _ in asks}
    table = {price: (demand(price), supply(price)) for price in ends if best_ask <= price <= best_bid}
    volume_lots = max(min(each) for each in table.values())
    table = {price: each for price, each in table.items() if min(each) == volume_lots}
    least_lots = min(abs(wanted - offered) for wanted, offered in table.values())
    good = [price for price, (wanted, offered) in table.items() if abs(wanted - offered) == least_lots]
    lowest, highest = min(good), max(good)
    reference_ticks = instrument.last_ticks or (lowest + highest) // 2
    price_ticks = min(max(reference_ticks, lowest), highest)
    return Clearing(price_ticks, volume_lots, demand(price_ticks) - supply(price_ticks), reference_ticks)
