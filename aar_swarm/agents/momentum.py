"""A momentum trader: buys what has risen, sells what has fallen, and closes its position once the trend is over."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import OPENED, Action, Event, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, buy, own, private, public, sell
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


def wanted_lots(trend: float, inventory: int, limit_lots: int) -> int:
    """To its limit on the side of a trend that is at or above its threshold (of which it is a multiple); else home."""
    if trend >= 1:
        return limit_lots - inventory
    return -limit_lots - inventory if trend <= -1 else -inventory


def follow_trend(
    trend: float, bid_ticks: int, ask_ticks: int, inventory: int, limit_lots: int, quantity_lots: int, reach_ticks: int,
    cash: int, shares: int,
) -> Choice | None:  # fmt: skip
    """At most quantity_lots of what it wants, as far as its cash or its shares go."""
    wanted = wanted_lots(trend, inventory, limit_lots)
    quantity = min(abs(wanted), quantity_lots)
    if wanted > 0:
        price = ask_ticks + reach_ticks
        quantity = min(quantity, cash // price)
        return buy(OrderType.IOC, price, quantity) if quantity > 0 else None
    quantity = min(quantity, shares)
    return sell(OrderType.IOC, max(bid_ticks - reach_ticks, 1), quantity) if quantity > 0 else None


_FOLLOW_TREND = Decision(
    follow_trend,
    (
        private("trend", float),  # of the mid that it saw over its own average of it, in its own thresholds
        public("bid_ticks", int, Fact.BID),
        public("ask_ticks", int, Fact.ASK),
        own("inventory", int, Fact.INVENTORY),
        private("limit_lots"),
        private("quantity_lots"),
        private("reach_ticks"),  # not beyond the venue's prices
        own("cash", int, Fact.CASH),
        own("shares", int, Fact.POSITION),
    ),
    lambda v: (
        f"the trend was {v.trend:+.2f} of its thresholds and it was {v.inventory:+d} lots from where it began, of at "
        f"most {v.limit_lots}"
    ),
)


class Momentum(Strategy):
    """Decision rule.

    The trend is the mid that it last saw over the mid's exponential average with its own lookback, less one. Every
    period_ms (with jitter) it buys quantity_lots while the trend is at or above its own threshold and sells as much
    while it is at or below minus that, until its position is position_limit_lots from where it began; in between, a
    position that was taken is closed at the same pace. All as IOC orders that reach reach_ticks beyond the touch.
    It has no opinion of the value. (Positive feedback: De Long, Shleifer, Summers, Waldmann, JF 45(2), 1990.)
    """

    Params = MomentumParams
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.FOLLOW_TREND: _FOLLOW_TREND}
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
        top, inventory, limit = self.top, self.shares - self.began_with, self.p.position_limit_lots
        trend, reach = self.trend_bps() / self.threshold_bps, self.p.reach_ticks
        if wanted_lots(trend, inventory, limit) > 0:
            reach = min(reach, self.market.price_levels - 1 - top.ask_ticks)
        quantity = self.p.quantity_lots
        order = self.decide(
            Rule.FOLLOW_TREND,
            trend,
            top.bid_ticks,
            top.ask_ticks,
            inventory,
            limit,
            quantity,
            reach,
            self.cash,
            self.shares,
        )
        return [] if order is None else [order]
