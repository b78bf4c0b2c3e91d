"""A high-frequency intermediary: quotes and takes at the touch, and holds next to nothing for next to no time."""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aar_swarm.agents.base import CANCELLED, FILLED, Action, Event, OpenOrder, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, buy, own, private, public, sell
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


_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_OWN_BID, _OWN_ASK = 1, 2
"""At the touch, as bits."""


def touches(bid_ticks: int, bid_lots: int, ask_ticks: int, ask_lots: int) -> tuple[int, int]:
    """The best bid and ask; where a side is empty, one that leaves a spread of two."""
    return bid_ticks if bid_lots else ask_ticks - 2, ask_ticks if ask_lots else bid_ticks + 2


def reduce_inventory(
    bid_ticks: int, bid_lots: int, ask_ticks: int, ask_lots: int, inventory: int, limit_lots: int, overdue_ns: float,
    offloading: int, reach_ticks: int,
) -> Choice | None:  # fmt: skip
    """All of it, at or beyond its limit, once it is overdue, or when it has begun to already."""
    if not (offloading or overdue_ns >= 0 or abs(inventory) >= limit_lots):
        return None
    if inventory > 0:
        return sell(OrderType.IOC, max(bid_ticks - reach_ticks, 1), inventory) if bid_lots else None
    return buy(OrderType.IOC, ask_ticks + reach_ticks, -inventory) if inventory and ask_lots else None


def take_touch(
    bid_ticks: int, bid_lots: int, ask_ticks: int, ask_lots: int, inventory: int, limit_lots: int, quantity_lots: int,
    take_imbalance: float, own_at_touch: int,
) -> Choice | None:  # fmt: skip
    """What is left of a side that has less than that share of the other, if it is not its own order."""
    for side, price, here, there, mine in (
        (_BUY, ask_ticks, ask_lots, bid_lots, _OWN_ASK),
        (_SELL, bid_ticks, bid_lots, ask_lots, _OWN_BID),
    ):
        if 0 < here <= take_imbalance * there and not own_at_touch & mine:
            room = limit_lots - (inventory if side == _BUY else -inventory)
            quantity = min(here, quantity_lots, room)
            return Choice(side, int(OrderType.IOC), price, quantity) if quantity > 0 else None
    return None


def quote_at_touch(
    bid_ticks: int, bid_lots: int, ask_ticks: int, ask_lots: int, inventory: int, limit_lots: int, quantity_lots: int,
    sign: int,
) -> Choice | None:  # fmt: skip
    """At the touch of a side (1: bids), or one better in a wide spread; beyond half its limit only what reduces it."""
    bid, ask = touches(bid_ticks, bid_lots, ask_ticks, ask_lots)
    towards = sign * inventory
    touch = bid if sign > 0 else ask
    price = touch + sign if ask - bid > 2 or (ask - bid == 2 and towards < 0) else touch
    if 2 * towards >= limit_lots or price <= 0:
        return None
    side = _BUY if sign > 0 else _SELL
    return Choice(side, int(OrderType.POST_ONLY), price, min(quantity_lots, limit_lots - towards))


_SEEN = (
    public("bid_ticks", int, Fact.BID),
    public("bid_lots", int, Fact.BID_LOTS),
    public("ask_ticks", int, Fact.ASK),
    public("ask_lots", int, Fact.ASK_LOTS),
    own("inventory", int, Fact.INVENTORY),
    private("limit_lots"),
)
_DECISIONS: dict[int, Decision] = {
    Rule.REDUCE_INVENTORY: Decision(
        reduce_inventory,
        # reach_ticks: not beyond the venue's prices
        (*_SEEN, private("overdue_ns", float), private("offloading"), private("reach_ticks")),
        lambda v: (
            f"its inventory was {v.inventory:+d} of at most {v.limit_lots}"
            + (", and it had begun to offload" if v.offloading else "")
            + (f", {v.overdue_ns / MS:.1f} ms longer than it holds one" if v.overdue_ns >= 0 else "")
        ),
    ),
    Rule.TAKE_TOUCH: Decision(
        take_touch,
        (*_SEEN, private("quantity_lots"), private("take_imbalance", float), own("own_at_touch")),
        lambda v: (
            f"the touch had {v.bid_lots} bid at {v.bid_ticks} and {v.ask_lots} offered at {v.ask_ticks}, and less than "
            f"{v.take_imbalance:.0%} of the other side is about to go"
        ),
    ),
    Rule.QUOTE: Decision(
        quote_at_touch,
        (*_SEEN, private("quantity_lots"), private("sign")),
        lambda v: (
            f"it had no {'bid' if v.sign > 0 else 'offer'} at the touch of {v.bid_ticks}/{v.ask_ticks} with an "
            f"inventory of {v.inventory:+d} of at most {v.limit_lots}"
        ),
    ),
}


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
    decisions = _DECISIONS
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
        overdue_ns = now_ns - self.since_ns - self.p.hold_ms * MS if direction else -math.inf
        begun = self.offloading
        self.offloading = begun or overdue_ns >= 0 or abs(self.inventory) >= self.p.inventory_limit_lots
        if self.offloading:
            return self._offload(self.top, begun, overdue_ns, now_ns)
        return [*self._take(self.top, now_ns), *self._quote(self.top)]

    def _seen(self, top: TopOfBook) -> tuple[int, ...]:
        touch = (top.bid_ticks, top.bid_lots, top.ask_ticks, top.ask_lots)
        return (*touch, self.inventory, self.p.inventory_limit_lots)

    def _offload(self, top: TopOfBook, begun: bool, overdue_ns: float, now_ns: int) -> list[Action]:
        actions: list[Action] = [
            self.cancel(number, Rule.WITHDRAW)
            for number, order in self.open_orders.items()
            if number != self.aggressor and not order.cancelling
        ]
        reach = self.p.reach_ticks
        if self.inventory < 0:
            reach = min(reach, self.market.price_levels - 1 - top.ask_ticks)
        inputs = (*self._seen(top), overdue_ns, begun, reach)
        return [*actions, *self._aggress(Rule.REDUCE_INVENTORY, inputs, now_ns)]

    def _take(self, top: TopOfBook, now_ns: int) -> list[Action]:
        mine = 0
        for order in self.open_orders.values():
            if self._at_touch(order, top):
                mine |= _OWN_BID if order.side == _BUY else _OWN_ASK
        inputs = (*self._seen(top), self.p.quantity_lots, self.p.take_imbalance, mine)
        return self._aggress(Rule.TAKE_TOUCH, inputs, now_ns)

    def _at_touch(self, order: OpenOrder, top: TopOfBook) -> bool:
        return order.price_ticks == (top.bid_ticks if order.side == Side.BUY else top.ask_ticks)

    def _aggress(self, rule: Rule, inputs: tuple[float, ...], now_ns: int) -> list[Action]:
        """One at a time, and not sooner after another than its pause."""
        if self.aggressor in self.open_orders or now_ns < self.not_before_ns:
            return []
        order = self.decide(rule, *inputs)
        if order is None:
            return []
        self.aggressor = order.order_id
        self.not_before_ns = now_ns + int(self.p.pause_ms * MS)
        return [order, Wake(self.not_before_ns, 0)]

    def _quote(self, top: TopOfBook) -> list[Action]:
        actions: list[Action] = []
        limit = self.p.inventory_limit_lots
        bid, ask = touches(top.bid_ticks, top.bid_lots, top.ask_ticks, top.ask_lots)
        for side in (Side.BUY, Side.SELL):
            inwards = 1 if side == Side.BUY else -1
            towards = inwards * self.inventory
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
            if not standing:
                placed = self.decide(Rule.QUOTE, *self._seen(top), self.p.quantity_lots, inwards)
                if placed is not None:
                    actions.append(placed)
        return actions
