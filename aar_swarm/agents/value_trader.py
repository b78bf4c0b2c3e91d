"""A value trader: patient money with its own opinion of the price, deep but slow."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import OPENED, PHASE_CHANGED, SIGNAL, Action, Event, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, buy, own, private, public, sell
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


def buy_limit_ticks(value: float, below_bps: float) -> int:
    return int(value * (1 - below_bps / _BPS))


def sell_limit_ticks(value: float, above_bps: float) -> int:
    return int(value * (1 + above_bps / _BPS)) + 1


def buy_below_value(
    value: float, margin_bps: float, quantity_lots: int, ask_ticks: int, ask_lots: int, cash: int
) -> Choice | None:
    """What is offered more than the margin below its value, as far as its cash pays for all of it."""
    limit = buy_limit_ticks(value, margin_bps)
    if ask_lots and ask_ticks <= limit and cash >= limit * quantity_lots:
        return buy(OrderType.IOC, limit, quantity_lots)
    return None


def sell_above_value(
    value: float, margin_bps: float, quantity_lots: int, bid_ticks: int, bid_lots: int, shares: int
) -> Choice | None:
    """What is bid more than the margin above its value, if it has so many."""
    limit = sell_limit_ticks(value, margin_bps)
    if bid_lots and bid_ticks >= limit and shares >= quantity_lots:
        return sell(OrderType.IOC, limit, quantity_lots)
    return None


def rest_at_value(
    value: float, rung_bps: float, quantity_lots: int, cash: int, committed_cash: int, shares: int, committed_lots: int
) -> Choice | None:
    """A rung (below 0: of the bids), as far as what its resting orders do not need goes for all of it."""
    if rung_bps < 0:
        price = buy_limit_ticks(value, -rung_bps)
        affordable = cash - committed_cash >= price * quantity_lots
        return buy(OrderType.LIMIT, price, quantity_lots) if affordable and price > 0 else None
    price = sell_limit_ticks(value, rung_bps)
    return sell(OrderType.LIMIT, price, quantity_lots) if shares - committed_lots >= quantity_lots else None


_OPINION = (private("value", float), private("margin_bps", float), private("quantity_lots"))
_BUY_BELOW_VALUE = Decision(
    buy_below_value,
    (
        *_OPINION,
        public("ask_ticks", int, Fact.ASK),
        public("ask_lots", int, Fact.ASK_LOTS),
        own("cash", int, Fact.CASH),
    ),
    lambda v: f"it was offered at {v.ask_ticks}, more than {v.margin_bps:g} bps below its value of {v.value:.1f}",
)
_SELL_ABOVE_VALUE = Decision(
    sell_above_value,
    (
        *_OPINION,
        public("bid_ticks", int, Fact.BID),
        public("bid_lots", int, Fact.BID_LOTS),
        own("shares", int, Fact.POSITION),
    ),
    lambda v: f"{v.bid_ticks} was bid, more than {v.margin_bps:g} bps above its value of {v.value:.1f}",
)
_REST_AT_VALUE = Decision(
    rest_at_value,
    (
        private("value", float),
        private("rung_bps", float),
        private("quantity_lots"),
        own("cash", int, Fact.CASH),
        own("committed_cash"),
        own("shares", int, Fact.POSITION),
        own("committed_lots"),
    ),
    lambda v: f"its rung {v.rung_bps:+g} bps from its value of {v.value:.1f} was empty",
)


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
    decisions: ClassVar[Mapping[int, Decision]] = {
        Rule.BUY_BELOW_VALUE: _BUY_BELOW_VALUE,
        Rule.SELL_ABOVE_VALUE: _SELL_ABOVE_VALUE,
        Rule.REST_AT_VALUE: _REST_AT_VALUE,
    }

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
        opinion = (self.value, self.p.margin_bps, self.p.quantity_lots)
        bought = self.decide(Rule.BUY_BELOW_VALUE, *opinion, top.ask_ticks, top.ask_lots, self.cash)
        order = bought or self.decide(Rule.SELL_ABOVE_VALUE, *opinion, top.bid_ticks, top.bid_lots, self.shares)
        return [] if order is None else [order]

    def _rest(self) -> list[Action]:
        resting = self.open_orders.values()
        cash = sum(o.price_ticks * o.leaves_lots for o in resting if o.side == Side.BUY)
        lots = sum(o.leaves_lots for o in resting if o.side == Side.SELL)
        wanted = {}
        for rung in self.p.rungs_bps:
            wanted[Side.BUY, buy_limit_ticks(self.value, rung)] = -rung
            wanted[Side.SELL, sell_limit_ticks(self.value, rung)] = rung
        actions: list[Action] = []
        for order_id, order in list(self.open_orders.items()):
            if wanted.pop((Side(order.side), order.price_ticks), None) is None and not order.cancelling:
                actions.append(self.cancel(order_id, Rule.WITHDRAW))
        for rung in wanted.values():
            quantity = self.p.quantity_lots
            placed = self.decide(Rule.REST_AT_VALUE, self.value, rung, quantity, self.cash, cash, self.shares, lots)
            if placed is None:
                continue
            if rung < 0:
                cash += placed.price_ticks * placed.quantity_lots
            else:
                lots += placed.quantity_lots
            actions.append(placed)
        return actions
