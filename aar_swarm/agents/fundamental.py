"""A fundamental buyer or seller: builds a position for reasons of value, in large orders, and takes its time."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from aar_swarm.agents.base import OPENED, PHASE_CHANGED, SIGNAL, Action, Event, Rule, Strategy, Timer, Wake
from exchange.clock import MS
from exchange.config import Config
from exchange.types import OrderType, Phase
from exchange.wire import MessageKind, TopOfBook

_BPS = 10_000
_LOOK, _ACT = 0, 1


class FundamentalParams(Config):
    side: Literal["buy", "sell"]
    opinion_bps: Annotated[float, Field(ge=0, le=5000)] = 200.0
    """Standard deviation over traders of their own value around the opening price."""
    margin_bps: Annotated[float, Field(ge=-5000, le=5000)] = 0.0
    """How far on its side of its value the price must be before it trades."""
    quantity_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 20
    """Of one order at the margin."""
    eager_bps: Annotated[float, Field(gt=0, le=10_000)] = 300.0
    """Mispricing beyond the margin at which its order is twice as large; it grows in proportion up to
    largest_orders."""
    largest_orders: Annotated[float, Field(ge=1, le=100)] = 4.0
    reach_bps: Annotated[float, Field(ge=0, le=10_000)] = 10.0
    """How far beyond the price that it saw its order may go: a large order does not sweep a thin book."""
    period_ms: Annotated[float, Field(ge=1, le=600_000)] = 3000.0
    """Mean time between two looks."""
    think_ms: Annotated[float, Field(ge=0, le=600_000)] = 1000.0
    """Between a look and the order that it decided on then (with jitter)."""
    attention: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability that it looks and acts when a halt's reopening auction is announced."""


class Fundamental(Strategy):
    """Decision rule.

    A buyer's value is the opening price times 1 + N(0, opinion_bps); its limit is margin_bps below. At Poisson times it
    looks at the market. If the best ask is at or below its limit, it decides on an order of quantity_lots × (1 + (limit
    − ask) / eager_bps), at most largest_orders times quantity_lots, and think_ms later sends it as a limit order at its
    limit, or at reach_bps beyond the price that it saw, if that is better for it. What it does not get stays in the
    book until its next look. So its demand rises as the price falls, and comes late. It does not react to signals of 0
    bps; to others its value moves in full. In a reopening auction, which is announced to everyone, it joins with
    probability `attention`, by its limit and the price at which trading stopped. A seller is the mirror image, and
    sells what it has.
    """

    Params = FundamentalParams
    listens_to = (MessageKind.SLOW_TOP_OF_BOOK,)

    def setup(self, params: Config) -> None:
        assert isinstance(params, FundamentalParams)
        self.p = params
        self.sign = 1 if params.side == "buy" else -1
        self.value = self.market.opening_ticks * (1 + float(self.rng.normal(0, params.opinion_bps)) / _BPS)
        self.top: TopOfBook | None = None
        self.decided_lots = 0
        self.seen_ticks = 0

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, TopOfBook):
            self.top = event
        elif event.kind == SIGNAL:
            self.value *= 1 + event.value / _BPS  # type: ignore[union-attr]
        elif event.kind == OPENED:
            return [self._next_look(now_ns)]
        elif event.kind == PHASE_CHANGED and event.value == Phase.AUCTION and self.halted:  # type: ignore[union-attr]
            if self.rng.random() < self.p.attention:
                self.decided_lots = self._wanted()
                return self._act()
        elif isinstance(event, Timer) and event.tag == _LOOK:
            return [self._next_look(now_ns), *self._look(now_ns)]
        elif isinstance(event, Timer):
            if not self.halted:
                return self._act()
            self.decided_lots = 0  # too late; it decides again at a look
        return ()

    def _next_look(self, now_ns: int) -> Wake:
        return Wake(now_ns + int(self.rng.exponential(self.p.period_ms * MS)), _LOOK)

    @property
    def limit_ticks(self) -> int:
        return int(self.value * (1 - self.sign * self.p.margin_bps / _BPS)) + (self.sign < 0)

    def _wanted(self) -> int:
        """Lots to trade at the prices that it last saw."""
        top = self.top
        if top is None:
            return 0
        if self.sign > 0:
            seen, there = top.ask_ticks, top.ask_lots
        else:
            seen, there = top.bid_ticks, top.bid_lots
        self.seen_ticks = seen
        beyond = self.sign * (self.limit_ticks - seen)
        if not there or beyond < 0:
            return 0
        eager = 1 + beyond * _BPS / (self.limit_ticks * self.p.eager_bps)
        return int(self.p.quantity_lots * min(eager, self.p.largest_orders))

    def _look(self, now_ns: int) -> list[Action]:
        actions: list[Action] = []
        if not self.halted:
            actions += [self.cancel(n, Rule.WITHDRAW) for n, order in self.open_orders.items() if not order.cancelling]
        if not self.decided_lots:
            self.decided_lots = self._wanted()
            if self.decided_lots:
                actions.append(Wake(now_ns + int(self.p.think_ms * MS * self.rng.uniform(0.5, 1.5)), _ACT))
        return actions

    def _act(self) -> list[Action]:
        reach = self.seen_ticks * (1 + self.sign * self.p.reach_bps / _BPS)
        price = round(min(self.limit_ticks, reach) if self.sign > 0 else max(self.limit_ticks, reach))
        price = min(max(price, 1), self.market.price_levels - 1)
        quantity, self.decided_lots = self.decided_lots, 0
        resting = self.open_orders.values()
        if self.sign > 0:
            cash = self.cash - sum(order.price_ticks * order.leaves_lots for order in resting)
            quantity = min(quantity, cash // price)
            return [self.buy(OrderType.LIMIT, price, quantity, Rule.BUY_FUNDAMENTAL)] if quantity > 0 else []
        quantity = min(quantity, self.shares - sum(order.leaves_lots for order in resting))
        return [self.sell(OrderType.LIMIT, price, quantity, Rule.SELL_FUNDAMENTAL)] if quantity > 0 else []
