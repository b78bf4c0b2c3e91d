"""A momentum trader: buys what has risen, sells what has fallen, and closes its position once the trend is over."""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aar_swarm.agents.base import OPENED, Action, Event, Rule, Strategy, Timer, Wake
from exchange.clock import MS
from exchange.config import Config
from exchange.types import OrderType
from exchange.wire import MessageKind, TopOfBook

_BPS = 10_000


class MomentumParams(Config):
    lookback_ms: Annotated[float, Field(ge=1, le=3_600_000)] = 1000.0
    """Median over traders of the memory (time constant) of the average price that the trend is measured against."""
    threshold_bps: Annotated[float, Field(gt=0, le=5000)] = 10.0
    """Median over traders of the trend that each acts on."""
    spread_of_tastes: Annotated[float, Field(ge=0, le=3)] = 0.5
    """Standard deviation of the logarithm of lookback and threshold over traders."""
    quantity_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 5
    """Of one order."""
    position_limit_lots: Annotated[int, Field(ge=1, le=1 << 30)] = 20
    """Furthest from the position it began with, on both sides."""
    reach_ticks: Annotated[int, Field(ge=0, le=10_000)] = 2
    """How far beyond the best opposite price that it last saw its orders reach."""
    period_ms: Annotated[float, Field(ge=1, le=600_000)] = 500.0


class Momentum(Strategy):
    """Decision rule.

    The trend is the mid that it last saw over the mid's exponential average with its own lookback, less one. Every
    period_ms (with jitter) it buys quantity_lots while the trend is at or above its own threshold and sells as much
    while it is at or below minus that, until its position is position_limit_lots from where it began; in between, a
    position that was taken is closed at the same pace. All as IOC orders that reach reach_ticks beyond the touch.
    It has no opinion of the value. (Positive feedback: De Long, Shleifer, Summers, Waldmann, JF 45(2), 1990.)
    """

    Params = MomentumParams
    listens_to = (MessageKind.SLOW_TOP_OF_BOOK,)

    def setup(self, params: Config) -> None:
        assert isinstance(params, MomentumParams)
        self.p = params
        tastes = self.rng.normal(0, params.spread_of_tastes, 2)
        self.lookback_ns = params.lookback_ms * MS * math.exp(tastes[0])
        self.threshold_bps = params.threshold_bps * math.exp(tastes[1])
        self.began_with = self.shares
        self.top: TopOfBook | None = None
        self.average = float(self.market.opening_ticks)

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, TopOfBook):
            self._look(event)
        elif isinstance(event, Timer) or event.kind == OPENED:
            pause_ns = int(self.p.period_ms * MS * self.rng.uniform(0.5, 1.5))
            return [*(() if self.halted else self._follow()), Wake(now_ns + pause_ns, 0)]
        return ()

    def _look(self, top: TopOfBook) -> None:
        if not (top.bid_lots and top.ask_lots):
            return
        before, self.top = self.top, top
        if before is not None:
            mid = (top.bid_ticks + top.ask_ticks) / 2
            self.average += (mid - self.average) * -math.expm1(-(top.time_ns - before.time_ns) / self.lookback_ns)

    def trend_bps(self) -> float:
        if self.top is None:
            return 0.0
        return ((self.top.bid_ticks + self.top.ask_ticks) / 2 / self.average - 1) * _BPS

    def _follow(self) -> list[Action]:
        if self.top is None or self.open_orders:
            return []
        trend = self.trend_bps()
        position = self.shares - self.began_with
        if trend >= self.threshold_bps:
            wanted = self.p.position_limit_lots - position
        elif trend <= -self.threshold_bps:
            wanted = -self.p.position_limit_lots - position
        else:
            wanted = -position
        quantity = min(abs(wanted), self.p.quantity_lots)
        if wanted > 0:
            price = min(self.top.ask_ticks + self.p.reach_ticks, self.market.price_levels - 1)
            quantity = min(quantity, self.cash // price)
            return [self.buy(OrderType.IOC, price, quantity, Rule.FOLLOW_TREND)] if quantity > 0 else []
        quantity = min(quantity, self.shares)
        price = max(self.top.bid_ticks - self.p.reach_ticks, 1)
        return [self.sell(OrderType.IOC, price, quantity, Rule.FOLLOW_TREND)] if wanted and quantity > 0 else []
