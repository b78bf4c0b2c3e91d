"""A high-frequency intermediary: quotes and takes at the touch, and holds next to nothing for next to no time."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aar_swarm.agents.base import CANCELLED, FILLED, Action, Event, OpenOrder, Rule, Strategy, Timer, Wake
from exchange.clock import MS
from exchange.config import Config
from exchange.types import OrderType, Side
from exchange.wire import MessageKind, TopOfBook


class HighFrequencyParams(Config):
    quantity_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 10
    """Of one quote, and the most of one take."""
    inventory_limit_lots: Annotated[int, Field(ge=1, le=1 << 30)] = 30
    hold_ms: Annotated[float, Field(ge=1, le=3_600_000)] = 200.0
    """Longest that it is willing to be long, or short, without a break."""
    take_imbalance: Annotated[float, Field(ge=0, le=1)] = 0.2
    """It takes the rest of a touch that is smaller than this share of the opposite one; 0: never."""
    reach_ticks: Annotated[int, Field(ge=0, le=10_000)] = 2
    """How far beyond the touch that it last saw it goes to offload."""
    pause_ms: Annotated[float, Field(ge=0, le=60_000)] = 5.0
    """Least time between two takes, and two attempts to offload that found nobody."""


class HighFrequency(Strategy):
    """Decision rule.

    Each time it sees the top of the book or is filled, by the first that applies to its inventory (lots away from what
    it began with):
    1. At or beyond inventory_limit_lots, or once it has been long (or short) for hold_ms, it *offloads*: it cancels its
       quotes and sends an IOC for all of it, up to reach_ticks through the touch; until that is done it does nothing
       else. Whoever is there may be another of its kind with the same rule: the hot potato.
    2. If the touch of one side has less than take_imbalance of what the other has, the price is about to move: it takes
       what is left there, as far as its limit allows ("immediacy absorption": Kirilenko et al., JF 72(3), 2017).
    3. It quotes up to quantity_lots at both touches, as far as its limit allows, one tick better where the spread is
       wider than two, or two and that reduces its inventory; beyond half its limit only on the side that reduces it. A
       quote elsewhere is cancelled.
    """

    Params = HighFrequencyParams
    listens_to = (MessageKind.TOP_OF_BOOK,)

    def setup(self, params: Config) -> None:
        assert isinstance(params, HighFrequencyParams)
        self.p = params
        self.began_with = self.shares
        self.top: TopOfBook | None = None
        self.offloading = False
        self.direction = 0  # of its inventory
        self.since_ns = 0
        self.aggressor = 0  # its latest IOC
        self.not_before_ns = 0

    @property
    def inventory(self) -> int:
        return self.shares - self.began_with

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, TopOfBook):
            self.top = event
        elif not isinstance(event, Timer) and event.kind not in (FILLED, CANCELLED):
            return ()
        if self.halted or self.top is None or not (self.top.bid_lots or self.top.ask_lots):
            return ()
        direction = (self.inventory > 0) - (self.inventory < 0)
        if direction != self.direction:
            self.direction, self.since_ns, self.offloading = direction, now_ns, False
        overdue = direction != 0 and now_ns - self.since_ns >= self.p.hold_ms * MS
        self.offloading = self.offloading or overdue or abs(self.inventory) >= self.p.inventory_limit_lots
        if self.offloading:
            return self._offload(self.top, now_ns)
        return [*self._take(self.top, now_ns), *self._quote(self.top)]

    def _offload(self, top: TopOfBook, now_ns: int) -> list[Action]:
        actions: list[Action] = [
            self.cancel(number, Rule.WITHDRAW)
            for number, order in self.open_orders.items()
            if number != self.aggressor and not order.cancelling
        ]
        excess = abs(self.inventory)
        side = Side.SELL if self.inventory > 0 else Side.BUY
        return [*actions, *self._aggress(top, side, excess, self.p.reach_ticks, Rule.REDUCE_INVENTORY, now_ns)]

    def _take(self, top: TopOfBook, now_ns: int) -> list[Action]:
        for side, here, there in ((Side.BUY, top.ask_lots, top.bid_lots), (Side.SELL, top.bid_lots, top.ask_lots)):
            room = self.p.inventory_limit_lots - (self.inventory if side == Side.BUY else -self.inventory)
            mine = any(order.side != side for order in self.open_orders.values() if self._at_touch(order, top))
            if 0 < here <= self.p.take_imbalance * there and not mine:
                quantity = min(here, self.p.quantity_lots, room)
                return self._aggress(top, side, quantity, 0, Rule.TAKE_TOUCH, now_ns)
        return []

    def _at_touch(self, order: OpenOrder, top: TopOfBook) -> bool:
        return order.price_ticks == (top.bid_ticks if order.side == Side.BUY else top.ask_ticks)

    def _aggress(
        self, top: TopOfBook, side: Side, quantity_lots: int, reach_ticks: int, rule: Rule, now_ns: int
    ) -> list[Action]:
        there = top.ask_lots if side == Side.BUY else top.bid_lots
        if self.aggressor in self.open_orders or now_ns < self.not_before_ns or quantity_lots <= 0 or not there:
            return []
        if side == Side.BUY:
            price = min(top.ask_ticks + reach_ticks, self.market.price_levels - 1)
            order = self.buy(OrderType.IOC, price, quantity_lots, rule)
        else:
            order = self.sell(OrderType.IOC, max(top.bid_ticks - reach_ticks, 1), quantity_lots, rule)
        self.aggressor = order.order_id
        self.not_before_ns = now_ns + int(self.p.pause_ms * MS)
        return [order, Wake(self.not_before_ns, 0)]

    def _quote(self, top: TopOfBook) -> list[Action]:
        actions: list[Action] = []
        limit = self.p.inventory_limit_lots
        bid = top.bid_ticks if top.bid_lots else top.ask_ticks - 2
        ask = top.ask_ticks if top.ask_lots else top.bid_ticks + 2
        for side in (Side.BUY, Side.SELL):
            towards = self.inventory if side == Side.BUY else -self.inventory
            inwards = 1 if side == Side.BUY else -1
            touch = bid if side == Side.BUY else ask
            standing = False
            for number, order in self.open_orders.items():
                if order.side != side or number == self.aggressor or order.cancelling:
                    continue
                # One tick inside may be this agent's own improvement that it has not seen published yet.
                near = order.price_ticks in (touch, touch + inwards) and 2 * towards < limit
                if near and not standing:
                    standing = True
                else:
                    actions.append(self.cancel(number, Rule.WITHDRAW))
            price = touch + inwards if ask - bid > 2 or (ask - bid == 2 and towards < 0) else touch
            quantity = min(self.p.quantity_lots, limit - towards)
            if not standing and 2 * towards < limit and 0 < price < self.market.price_levels:
                place = self.buy if side == Side.BUY else self.sell
                actions.append(place(OrderType.POST_ONLY, price, quantity, Rule.QUOTE))
        return actions
