"""A noise trader: small orders, at random times, for reasons of its own."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aar_swarm.agents.base import OPENED, Action, Event, Rule, Strategy, Timer, Wake
from exchange.clock import SECOND
from exchange.config import Config
from exchange.types import OrderType


class NoiseTraderParams(Config):
    orders_per_s: Annotated[float, Field(gt=0, le=1000)] = 3.0
    largest_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 10


class NoiseTrader(Strategy):
    """Decision rule: a Poisson process of market orders, either side alike, 1 … largest_lots lots; none in a halt."""

    Params = NoiseTraderParams

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
        if self.rng.random() < 0.5:
            if self.cash > 0:
                actions.append(self.buy(OrderType.MARKET, 0, quantity, Rule.TRADE_AT_RANDOM))
        elif self.shares >= quantity:
            actions.append(self.sell(OrderType.MARKET, 0, quantity, Rule.TRADE_AT_RANDOM))
        return actions

    def _next(self, now_ns: int) -> Wake:
        return Wake(now_ns + int(self.rng.exponential(SECOND / self.p.orders_per_s)), 0)
