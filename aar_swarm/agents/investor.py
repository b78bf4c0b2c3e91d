"""An investor: trades at random times for reasons of its own, and pays the spread as long as that is not too wide."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import OPENED, Action, Event, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, buy, own, private, public, sell
from aar_swarm.agents.public_value import BPS, PublicValue
from exchange.clock import SECOND
from exchange.config import Config
from exchange.types import OrderType


class InvestorParams(Config):
    orders_per_s: Annotated[float, Field(gt=0, le=1000)] = 2.0
    largest_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 8
    reach_bps: Annotated[float, Field(ge=0, le=1000)] = 100.0
    """The most that trading now is worth to it."""


def invest(
    value_ticks: float, reach_bps: float, side_drawn: float, lots_drawn: int, cash: int, shares: int
) -> Choice | None:
    """Below a half it buys, if it has the cash; else it sells, if it has so many; up to its reach from the value."""
    reach = value_ticks * reach_bps / BPS
    if side_drawn < 0.5:
        price = math.ceil(value_ticks + reach)
        return buy(OrderType.IOC, price, lots_drawn) if cash >= price * lots_drawn else None
    return sell(OrderType.IOC, max(math.floor(value_ticks - reach), 1), lots_drawn) if shares >= lots_drawn else None


_INVEST = Decision(
    invest,
    (
        public("value_ticks", float, Fact.VALUE, recent=False),
        private("reach_bps", float),
        private("side_drawn", float),
        private("lots_drawn"),
        own("cash", int, Fact.CASH),
        own("shares", int, Fact.POSITION),
    ),
    lambda v: (
        f"it drew {v.side_drawn:.3f} (below a half it buys) and {v.lots_drawn} lots, and pays up to "
        f"{v.reach_bps:g} bps from a value of {v.value_ticks:.2f}"
    ),
)


class Investor(Strategy):
    """Decision rule: a Poisson process of IOC orders, either side alike, 1 … largest_lots lots, with a limit of
    reach_bps beyond the public value that it knows; none in a halt. (Batches take no market orders.)"""

    Params: ClassVar[type[Config]] = InvestorParams
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.TRADE_AT_RANDOM: _INVEST}

    def setup(self, params: Config) -> None:
        assert isinstance(params, InvestorParams)
        self.p = params
        self.value = PublicValue(self.market)

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if self.value.hear(event):
            return ()
        if event.kind == OPENED:
            return [self._next(now_ns)]
        if not isinstance(event, Timer):
            return ()
        actions: list[Action] = [self._next(now_ns)]
        if self.halted:
            return actions
        lots = int(self.rng.integers(1, self.p.largest_lots + 1))
        drawn = float(self.rng.random())
        order = self.decide(
            Rule.TRADE_AT_RANDOM, self.value.ticks, self.p.reach_bps, drawn, lots, self.cash, self.shares
        )
        return actions if order is None else [*actions, order]

    def _next(self, now_ns: int) -> Wake:
        return Wake(now_ns + int(self.rng.exponential(SECOND / self.p.orders_per_s)), 0)
