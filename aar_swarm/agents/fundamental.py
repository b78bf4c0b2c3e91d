"""A fundamental buyer or seller: builds a position for reasons of value, in large orders, and takes its time."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Annotated, Literal

from pydantic import Field

from aar_swarm.agents.base import OPENED, PHASE_CHANGED, SIGNAL, Action, Event, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, Input, buy, own, private, public, sell
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


def lots_at(sign: int, limit_ticks: int, seen_ticks: int, lots: int, eager_bps: float, largest_orders: float) -> int:
    """What it wants at a price that it saw: nothing on the wrong side of its limit, and more the further beyond it."""
    beyond = sign * (limit_ticks - seen_ticks)
    if beyond < 0:
        return 0
    return int(lots * min(1 + beyond * _BPS / (limit_ticks * eager_bps), largest_orders))


def buy_fundamental(
    look_limit_ticks: int, seen_ticks: int, quantity_lots: int, eager_bps: float, largest_orders: float,
    limit_ticks: int, reach_bps: float, cash: int, committed_cash: int,
) -> Choice | None:  # fmt: skip
    """What it decided on at its look, at its limit of now or a little beyond the price that it saw, and as far as the
    cash goes that its resting orders do not need."""
    quantity = lots_at(1, look_limit_ticks, seen_ticks, quantity_lots, eager_bps, largest_orders)
    price = max(round(min(limit_ticks, seen_ticks * (1 + reach_bps / _BPS))), 1)
    quantity = min(quantity, (cash - committed_cash) // price)
    return buy(OrderType.LIMIT, price, quantity) if quantity > 0 else None


def sell_fundamental(
    look_limit_ticks: int, seen_ticks: int, quantity_lots: int, eager_bps: float, largest_orders: float,
    limit_ticks: int, reach_bps: float, shares: int, committed_lots: int,
) -> Choice | None:  # fmt: skip
    """The mirror image, of what it has."""
    quantity = lots_at(-1, look_limit_ticks, seen_ticks, quantity_lots, eager_bps, largest_orders)
    price = max(round(max(limit_ticks, seen_ticks * (1 - reach_bps / _BPS))), 1)
    quantity = min(quantity, shares - committed_lots)
    return sell(OrderType.LIMIT, price, quantity) if quantity > 0 else None


def _inputs(seen: Fact, *means: Input) -> tuple[Input, ...]:
    return (
        private("look_limit_ticks"),  # its value less its margin when it looked
        public("seen_ticks", int, seen, recent=False),  # when it looked; it thinks before it acts
        private("quantity_lots"),
        private("eager_bps", float),
        private("largest_orders", float),
        private("limit_ticks"),  # its value less its margin now, within the venue's prices
        private("reach_bps", float),
        *means,
    )


def _mispricing(v: SimpleNamespace) -> str:
    return (
        f"it saw {v.seen_ticks} when its limit was {v.look_limit_ticks}, and trades {v.quantity_lots} lots at that "
        f"and as much again for every {v.eager_bps:g} bps beyond it"
    )


_DECISIONS: dict[int, Decision] = {
    Rule.BUY_FUNDAMENTAL: Decision(
        buy_fundamental, _inputs(Fact.ASK, own("cash", int, Fact.CASH), own("committed_cash")), _mispricing
    ),
    Rule.SELL_FUNDAMENTAL: Decision(
        sell_fundamental, _inputs(Fact.BID, own("shares", int, Fact.POSITION), own("committed_lots")), _mispricing
    ),
}


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
    decisions = _DECISIONS
    listens_to = (MessageKind.SLOW_TOP_OF_BOOK,)

    def setup(self, params: Config) -> None:
        assert isinstance(params, FundamentalParams)
        self.p = params
        self.sign = 1 if params.side == "buy" else -1
        self.value = self.market.opening_ticks * (1 + float(self.rng.normal(0, params.opinion_bps)) / _BPS)
        self.top: TopOfBook | None = None
        self.decided_lots = 0
        self.seen_ticks = 0
        self.look_limit_ticks = 0

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
        self.seen_ticks, self.look_limit_ticks = seen, self.limit_ticks
        return lots_at(self.sign, self.limit_ticks, seen, *self._appetite) if there else 0

    @property
    def _appetite(self) -> tuple[int, float, float]:
        return self.p.quantity_lots, self.p.eager_bps, self.p.largest_orders

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
        if not self.decided_lots:
            return []
        self.decided_lots = 0
        resting = self.open_orders.values()
        if self.sign > 0:
            rule = Rule.BUY_FUNDAMENTAL
            means = (self.cash, sum(order.price_ticks * order.leaves_lots for order in resting))
        else:
            rule = Rule.SELL_FUNDAMENTAL
            means = (self.shares, sum(order.leaves_lots for order in resting))
        limit = min(self.limit_ticks, self.market.price_levels - 1)
        seen = (self.look_limit_ticks, self.seen_ticks)
        order = self.decide(rule, *seen, *self._appetite, limit, self.p.reach_bps, *means)
        return [] if order is None else [order]
