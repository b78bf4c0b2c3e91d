"""A value trader: patient money with its own opinion of the price, deep but slow."""

from collections import deque
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import OPENED, PHASE_CHANGED, SIGNAL, Action, Event, Rule, Strategy, Timer, Wake
from exchange.clock import MS
from exchange.config import Config
from exchange.types import EventKind, OrderType, Phase, Side
from exchange.wire import MessageKind, TopOfBook

_BPS = 10_000


class ValueTraderParams(Config):
    opinion_bps: Annotated[float, Field(ge=0, le=5000)] = 20.0
    """Standard deviation of its own value around the opening price."""
    margin_bps: Annotated[float, Field(ge=0, le=5000)] = 50.0
    rungs_bps: Annotated[tuple[Annotated[float, Field(gt=0, lt=10_000)], ...], Field(min_length=1, max_length=32)] = (
        100.0,
        200.0,
        400.0,
        700.0,
        1100.0,
        1600.0,
        2200.0,
    )
    """How far from its value it rests orders, on both sides."""
    quantity_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 80
    period_ms: Annotated[float, Field(ge=1, le=600_000)] = 500.0
    pause_move_bps: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    """Median over traders of the move of the mid, over pause_window_ms, at which each pauses; 0: never."""
    pause_window_ms: Annotated[float, Field(ge=1, le=3_600_000)] = 1000.0
    pause_ms: Annotated[float, Field(ge=0, le=3_600_000)] = 1000.0
    """Mean length of a pause (exponential)."""


class ValueTrader(Strategy):
    """Decision rule.

    Its value is the opening price times 1 + N(0, opinion_bps), moved by public signals in full. Every period_ms (with
    jitter) it takes what is offered more than margin_bps below its value, sells what is bid as much above it, and
    puts back any missing rung of resting orders at rungs_bps from its value, each of quantity_lots, as far as its
    cash and its shares go. It does not chase: between its looks it does nothing, which is what makes it slow. It also
    puts back its rungs in the auction that reopens a halted market.

    With pause_move_bps it has a data-integrity check, as the liquidity providers of 6 May 2010 had (SEC–CFTC report,
    section I.3): when the mid that it sees has moved by more than its own threshold (lognormal, sd 0.5) within
    pause_window_ms, it cancels everything at once and stays away for pause_ms.
    """

    Params: ClassVar[type[Config]] = ValueTraderParams
    listens_to: ClassVar[Sequence[MessageKind | EventKind]] = (MessageKind.SLOW_TOP_OF_BOOK,)

    def setup(self, params: Config) -> None:
        assert isinstance(params, ValueTraderParams)
        self.p = params
        self.value = self.market.opening_ticks * (1 + float(self.rng.normal(0, params.opinion_bps)) / _BPS)
        self.top: TopOfBook | None = None
        self.mids: deque[tuple[int, float]] = deque()
        self.pause_move_bps = (
            params.pause_move_bps * float(self.rng.lognormal(0, 0.5)) if params.pause_move_bps else 0.0
        )
        self.away_until_ns = 0

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, TopOfBook):
            self.top = event
            return self._check(event, now_ns) if self.pause_move_bps else ()
        if event.kind == PHASE_CHANGED and event.value == Phase.AUCTION and self.halted:  # type: ignore[union-attr]
            return self._rest() if now_ns >= self.away_until_ns else ()
        if event.kind == SIGNAL:
            self.value *= 1 + event.value / _BPS  # type: ignore[union-attr]
        elif isinstance(event, Timer) or event.kind == OPENED:
            wake = Wake(now_ns + int(self.p.period_ms * MS * self.rng.uniform(0.5, 1.5)), 0)
            return [wake] if self.halted or now_ns < self.away_until_ns else [*self._take(), *self._rest(), wake]
        return ()

    def _check(self, top: TopOfBook, now_ns: int) -> list[Action]:
        """Pause if the market has moved further than it trusts."""
        if not (top.bid_lots and top.ask_lots):
            return []
        mid = (top.bid_ticks + top.ask_ticks) / 2
        self.mids.append((top.time_ns, mid))
        while self.mids[0][0] < top.time_ns - self.p.pause_window_ms * MS:
            self.mids.popleft()
        moved = max(abs(mid / before - 1) for _, before in self.mids) * _BPS
        if moved <= self.pause_move_bps or self.halted or now_ns < self.away_until_ns:
            return []
        self.away_until_ns = now_ns + int(self.rng.exponential(self.p.pause_ms * MS))
        return [self.cancel(n, Rule.WITHDRAW) for n, order in self.open_orders.items() if not order.cancelling]

    def _take(self) -> list[Action]:
        """Trade at once against a price that is wrong by more than the margin; limited, as the look may be stale."""
        top = self.top
        if top is None:
            return []
        buy_limit = int(self.value * (1 - self.p.margin_bps / _BPS))
        sell_limit = int(self.value * (1 + self.p.margin_bps / _BPS)) + 1
        quantity = self.p.quantity_lots
        if top.ask_lots and top.ask_ticks <= buy_limit and self.cash >= buy_limit * quantity:
            return [self.buy(OrderType.IOC, buy_limit, quantity, Rule.BUY_BELOW_VALUE)]
        if top.bid_lots and top.bid_ticks >= sell_limit and self.shares >= quantity:
            return [self.sell(OrderType.IOC, sell_limit, quantity, Rule.SELL_ABOVE_VALUE)]
        return []

    def _rest(self) -> list[Action]:
        cash = self.cash - sum(o.price_ticks * o.leaves_lots for o in self.open_orders.values() if o.side == Side.BUY)
        shares = self.shares - sum(o.leaves_lots for o in self.open_orders.values() if o.side == Side.SELL)
        wanted = {}
        for rung in self.p.rungs_bps:
            wanted[Side.BUY, int(self.value * (1 - rung / _BPS))] = True
            wanted[Side.SELL, int(self.value * (1 + rung / _BPS)) + 1] = True
        actions: list[Action] = []
        for order_id, order in list(self.open_orders.items()):
            if wanted.pop((Side(order.side), order.price_ticks), None) is None and not order.cancelling:
                actions.append(self.cancel(order_id, Rule.WITHDRAW))
        quantity = self.p.quantity_lots
        for side, price in wanted:
            if not 0 < price < self.market.price_levels:
                continue
            if side == Side.BUY and cash >= price * quantity:
                cash -= price * quantity
                actions.append(self.buy(OrderType.LIMIT, price, quantity, Rule.REST_AT_VALUE))
            elif side == Side.SELL and shares >= quantity:
                shares -= quantity
                actions.append(self.sell(OrderType.LIMIT, price, quantity, Rule.REST_AT_VALUE))
        return actions
