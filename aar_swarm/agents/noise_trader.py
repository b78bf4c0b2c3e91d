"""A noise trader: small orders, at random times, for reasons of its own."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import OPENED, Action, Event, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, buy, own, private, sell
from exchange.clock import SECOND
from exchange.config import Config
from exchange.types import OrderType


class NoiseTraderParams(Config):
    orders_per_s: Annotated[float, Field(gt=0, le=1000)] = 3.0
    largest_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 10


def trade_at_random(side_drawn: float, lots_drawn: int, cash: int, shares: int) -> Choice | None:
    """Below a half it buys, if it has any cash; else it sells, if it has so many."""
    if side_drawn < 0.5:
        return buy(OrderType.MARKET, 0, lots_drawn) if cash > 0 else None
    return sell(OrderType.MARKET, 0, lots_drawn) if shares >= lots_drawn else None


_TRADE_AT_RANDOM = Decision(
    trade_at_random,
    (
        private("side_drawn", float),
        private("lots_drawn"),
        own("cash", int, Fact.CASH),
        own("shares", int, Fact.POSITION),
    ),
    lambda v: f"it drew {v.side_drawn:.3f} (below a half it buys) and {v.lots_drawn} lots",
)


class NoiseTrader(Strategy):
    """Decision rule: a Poisson process of market orders, either side alike, 1 … largest_lots lots; none in a halt."""

    Params = NoiseTraderParams
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.TRADE_AT_RANDOM: _TRADE_AT_RANDOM}

    def setup(self, params: Config) -> None:
        assert isinstance(params, NoiseTraderParams)
        self.p = params

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if event.kind == OPENED:
            return [self._next(now_ns)]
        if not isinstance(event, Timer):
            return ()
        actions: list[Action] = [self._next(now_ns)]
        if self.halted:
            return actions
        quantity = int(self.rng.integers(1, self.p.largest_lots + 1))
        order = self.decide(Rule.TRADE_AT_RANDOM, float(self.rng.random()), quantity, self.cash, self.shares)
        return actions if order is None else [*actions, order]

    def _next(self, now_ns: int) -> Wake:
        return Wake(now_ns + int(self.rng.exponential(SECOND / self.p.orders_per_s)), 0)
