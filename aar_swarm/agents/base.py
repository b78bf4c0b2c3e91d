"""What a strategy is: events in, actions out. It never touches a socket, reads a clock or makes its own random stream.

Owns the bookkeeping that every strategy needs: its position, its cash and its open orders, as the venue reported them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, NamedTuple

import numpy as np

from exchange.config import Config
from exchange.types import EventKind, OrderType, Side
from exchange.wire import MessageKind, Notice, Report, TopOfBook

FILLED, CANCELLED = int(EventKind.ORDER_FILLED), int(EventKind.ORDER_CANCELLED)
ACCEPTED, REJECTED = int(EventKind.ORDER_ACCEPTED), int(EventKind.ORDER_REJECTED)
HALTED, OPENED = int(EventKind.INSTRUMENT_HALTED), int(EventKind.SESSION_OPENED)
SIGNAL, CLOSED = int(EventKind.SIGNAL_PUBLISHED), int(EventKind.SESSION_CLOSED)
_BUY = int(Side.BUY)


class Rule(IntEnum):
    """Which rule decided on an order; travels with it into the journal."""

    NONE = 0
    QUOTE = 1
    WITHDRAW = 2
    BUY_BELOW_VALUE = 3
    SELL_ABOVE_VALUE = 4
    REST_AT_VALUE = 5
    TRADE_AT_RANDOM = 6
    EXIT = 7
    """A slice of the optimal execution schedule."""
    EXIT_OVERDUE = 8
    """What an earlier slice of the schedule could not sell."""
    REPLAY = 9
    """A recorded order of a real day."""


class Market(NamedTuple):
    """What everyone knows before the session opens."""

    instrument: int
    opening_ticks: int
    price_levels: int


class Endowment(NamedTuple):
    cash: int  # minor units
    shares: int  # lots


class Timer(NamedTuple):
    """A moment that the strategy asked for with Wake."""

    tag: int
    kind: int = -1
    sequence: int = 0


Event = Report | Notice | TopOfBook | Timer


class PlaceOrder(NamedTuple):
    order_id: int
    side: int
    order_type: int
    price_ticks: int
    quantity_lots: int
    rule: int


class CancelOrder(NamedTuple):
    order_id: int
    quantity_lots: int  # 0: all of it
    rule: int


class Wake(NamedTuple):
    """Ask for a Timer at a time of the agent's own clock."""

    at_ns: int
    tag: int


Action = PlaceOrder | CancelOrder | Wake


@dataclass(slots=True)
class OpenOrder:
    side: int
    price_ticks: int
    leaves_lots: int
    cancelling: bool = False


class Plan(NamedTuple):
    """What a strategy set out to do, and what it expected that to cost, as if it were alone."""

    lots: int
    expected_cost: float  # minor units


class Strategy:
    """Subclass it, name what it listens to, and answer on_event. `module:Class` names it in a scenario."""

    Params: ClassVar[type[Config]] = Config
    """Its settings, with their ranges; unknown ones are refused."""
    listens_to: ClassVar[Sequence[MessageKind]] = ()
    """Market data it wants, beside the notices that everyone hears and the reports on its own orders."""

    def __init__(self, market: Market, endowment: Endowment, params: Config, rng: np.random.Generator) -> None:
        self.market = market
        self.cash = endowment.cash
        self.shares = endowment.shares
        self.rng = rng
        self.open_orders: dict[int, OpenOrder] = {}
        self.halted = False
        self.plan: Plan | None = None
        self._last_order_id = 0
        self.setup(params)

    def setup(self, params: Config) -> None:
        """Take over the settings and draw what is this agent's own."""

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        """Decide. now_ns: the agent's clock when it took up the event."""
        raise NotImplementedError

    def handle(self, event: Event, now_ns: int) -> Sequence[Action]:
        """Keep the books, then decide."""
        if isinstance(event, Report):
            self._book(event)
        elif event.kind == HALTED:
            self.halted = True
        return self.on_event(event, now_ns)

    def buy(self, order_type: OrderType, price_ticks: int, quantity_lots: int, rule: Rule) -> PlaceOrder:
        return self._order(_BUY, order_type, price_ticks, quantity_lots, rule)

    def sell(self, order_type: OrderType, price_ticks: int, quantity_lots: int, rule: Rule) -> PlaceOrder:
        return self._order(int(Side.SELL), order_type, price_ticks, quantity_lots, rule)

    def cancel(self, order_id: int, rule: Rule) -> CancelOrder:
        self.open_orders[order_id].cancelling = True
        return CancelOrder(order_id, 0, int(rule))

    def _order(self, side: int, order_type: OrderType, price_ticks: int, quantity_lots: int, rule: Rule) -> PlaceOrder:
        self._last_order_id += 1
        self.open_orders[self._last_order_id] = OpenOrder(side, price_ticks, quantity_lots)
        return PlaceOrder(self._last_order_id, side, int(order_type), price_ticks, quantity_lots, int(rule))

    def _book(self, report: Report) -> None:
        order = self.open_orders.get(report.order_id)
        if report.kind == FILLED:
            sign = 1 if report.side == _BUY else -1
            self.shares += sign * report.quantity_lots
            self.cash -= sign * report.quantity_lots * report.price_ticks
        if order is not None and report.kind in (FILLED, CANCELLED, REJECTED):
            order.leaves_lots = report.leaves_lots
            if report.leaves_lots == 0:
                del self.open_orders[report.order_id]
