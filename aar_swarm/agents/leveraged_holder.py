"""A holder on margin who, when the news is bad, asks whether the others will leave before it is liquidated."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import MARGIN_CALLED, SIGNAL, Action, Event, Notice, Plan, Rule, Timer
from aar_swarm.agents.decision import Choice, Decision, Fact, own, private, public, sell
from aar_swarm.agents.holder import Holder, HolderParams, due_slice
from aar_swarm.theory import regime_threshold
from exchange.config import Config
from exchange.types import OrderType, Side
from exchange.wire import MessageKind, Report, TopOfBook

_BPS = 10_000
_SELL = int(Side.SELL)
_DEPTH_SHARE = 0.01  # TopOfBook's depth is what rests within 1 % of the mid


class LeveragedHolderParams(HolderParams):
    anticipating_share: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Share of these holders who think of the others at all; drawn by each for itself."""
    noise_sd: Annotated[float, Field(gt=0, le=10)] = 0.1
    """σ of the private signal, in units of the market's strength."""


def wants_out(expected_bps: float, signal: float, threshold: float) -> bool:
    """It expects a loss, or its signal of the market's strength is below the threshold of the global game."""
    return expected_bps < 0 or signal < threshold


def _leave(overdue: bool) -> Callable[..., Choice | None]:
    """What its plan says is due, once it wanted out. overdue: more than the step's own, as an earlier one could not be
    sold."""

    def choose(
        news_bps: int, expected_bps: float, signal: float, threshold: float, shares: int, working_lots: int,
        planned_before_lots: int, planned_lots: int,
    ) -> Choice | None:  # fmt: skip
        if not wants_out(expected_bps, signal, threshold):
            return None
        return due_slice(shares - working_lots - planned_lots, planned_before_lots - planned_lots, overdue)

    return choose


def answer_margin_call(
    equity: int, coins: int, coin_ticks: float, mid_ticks: float, shares: int, working_lots: int, margin_bps: int,
    coin_margin_bps: int,
) -> Choice | None:  # fmt: skip
    """Keep what the equity that the venue counted carries at the initial margin; sell the rest."""
    coin_margin = coin_margin_bps / _BPS * coins * coin_ticks
    keep = int(max(0.0, equity - coin_margin) / (margin_bps / _BPS * mid_ticks))
    lots = shares - working_lots - keep
    return sell(OrderType.MARKET, 0, lots) if lots > 0 else None


_INPUTS = (
    public("news_bps", int, Fact.SIGNAL, recent=False),  # by which it decided to leave
    private("expected_bps", float),  # its expected return when it left
    private("signal", float),  # x: what it took the market's strength for: depth, its own leverage, and its noise
    private("threshold", float),  # x*: of its cost of leaving; −∞: it does not think of the others
    own("shares", int, Fact.POSITION),
    own("working_lots"),
    private("planned_before_lots"),  # what its schedule holds after the step before, and after this one: sufficient
    private("planned_lots"),  # statistics of what it had, its horizon, its fear and the market that it saw
)


def _fear(v: SimpleNamespace) -> str:
    if v.expected_bps < 0:
        why = f"the news of {v.news_bps:+d} bps made its expected return {v.expected_bps:+.1f} bps"
    else:
        why = (
            f"after news of {v.news_bps:+d} bps it took the market's strength for {v.signal:.3f}, below the "
            f"{v.threshold:.3f} where it pays to leave before the others"
        )
    return f"{why}, and its plan is to hold {v.planned_lots} of {v.shares} now"


_LEAVE_EARLY = Decision(_leave(overdue=False), _INPUTS, _fear)
_LEAVE_OVERDUE = Decision(
    _leave(overdue=True), _INPUTS, lambda v: f"{_fear(v)}, with what earlier steps could not sell"
)
_ANSWER_MARGIN_CALL = Decision(
    answer_margin_call,
    (
        own("equity"),  # as the margin call said
        own("coins"),
        public("coin_ticks", float, Fact.COIN_MID),
        public("mid_ticks", float, Fact.MID),
        own("shares", int, Fact.POSITION),
        own("working_lots"),
        public("margin_bps"),
        public("coin_margin_bps"),
    ),
    lambda v: (
        f"a margin call left it an equity of {v.equity}, which at an initial margin of {v.margin_bps} bps and a mid of "
        f"{v.mid_ticks:g} carries fewer than its {v.shares} shares"
    ),
)


class LeveragedHolder(Holder):
    """Decision rule.

    *Strength*: from public data it estimates which share of all leveraged lots (the venue publishes them) the bids can
    take before the price is where its own account would be liquidated: θ = depth within 1 % · d / 1 % / open interest,
    on a linear book, with d = (equity/value − m)/(1 − m) the fall to its maintenance margin m. Equity counts its coins
    at their mid, or at what the news says if that is less. Its private signal is x = θ + noise_sd·N(0, 1), drawn once.

    *Anticipation* (anticipating_share of them): if more than θ of the others leave, whoever stays is liquidated and
    loses its equity; leaving costs half the spread and the return it expected (conviction_bps, never below zero before
    the news). That is the global game of regime change (Morris and Shin 1998; aar_swarm.theory) with cost = cost of
    leaving / equity, both a lot, solved as if all were placed as it is. After bad news, of the asset or of the coin, it
    leaves as soon as x is below x*: at the news, or at a later look at the market. It sells all on the Almgren–Chriss
    schedule of a Holder, expecting what that costs alone. To sell before those who will have to is what Brunnermeier
    and Pedersen (2005) call predatory; here it is only fear.

    *Margin call*: whoever has not left answers it by selling, at the market, what restores the initial margin at the
    mid it last saw. While it is being liquidated it can do nothing. Its coins are pledged: it neither sells nor redeems
    them.
    """

    Params: ClassVar[type[Config]] = LeveragedHolderParams
    listens_to_coin = (MessageKind.SLOW_TOP_OF_BOOK,)
    exit_rule = Rule.LEAVE_EARLY
    decisions: ClassVar[Mapping[int, Decision]] = {
        Rule.LEAVE_EARLY: _LEAVE_EARLY,
        Rule.EXIT_OVERDUE: _LEAVE_OVERDUE,
        Rule.ANSWER_MARGIN_CALL: _ANSWER_MARGIN_CALL,
    }

    def setup(self, params: Config) -> None:
        assert isinstance(params, LeveragedHolderParams)
        super().setup(params)
        self.noise_sd = params.noise_sd
        self.conviction = max(0.0, self.conviction)
        self.anticipates = bool(self.rng.random() < params.anticipating_share)
        self.noise = params.noise_sd * float(self.rng.normal())
        self.coin_ticks = float(self.market.par_ticks)  # the mid it last saw
        self.coin_news_ticks = float(self.market.par_ticks)  # what news made of par
        self.mid_at_news: float | None = None
        self.heard_bps = 0  # the latest bad news, of the asset or of the coin; the latest, if none was bad

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, TopOfBook):
            if event.instrument != self.market.instrument:
                if event.bid_lots and event.ask_lots:
                    self.coin_ticks = (event.bid_ticks + event.ask_ticks) / 2
            else:
                self._look(event)
            return self._leave(now_ns) if self.mid_at_news is not None and self.held is None else ()
        if isinstance(event, Notice) and event.kind == SIGNAL:
            return self._hear(event, now_ns)
        if isinstance(event, Report) and event.kind == MARGIN_CALLED:
            return self._answer_call(event.reference)
        if isinstance(event, Timer) and self.held is None:
            return ()
        return super().on_event(event, now_ns)

    def _hear(self, signal: Notice, now_ns: int) -> Sequence[Action]:
        if signal.instrument == self.market.instrument:
            self.conviction += signal.value
            self.news_bps = signal.value
        else:
            self.coin_news_ticks *= 1 + signal.value / _BPS
            self.news_bps = self.news_bps or 0
        if signal.value < 0 or self.heard_bps >= 0:
            self.heard_bps = signal.value
        if signal.value < 0 and self.mid_at_news is None:
            self.mid_at_news = self._mid()
        return self._leave(now_ns) if signal.value < 0 and self.held is None else ()

    def _mid(self) -> float:
        top = self.top
        if top is None or not (top.bid_lots and top.ask_lots):
            return float((top and top.last_ticks) or self.market.opening_ticks)
        return (top.bid_ticks + top.ask_ticks) / 2

    def _equity(self, mid: float) -> float:
        return self.cash + self.shares * mid + self.coins * min(self.coin_ticks, self.coin_news_ticks)

    def strength(self) -> float:
        """θ: the share of the open interest that the bids can take before this account is liquidated; ∞: all of it."""
        mid, market = self._mid(), self.market
        margin = market.maintenance_margin_bps / _BPS
        coin_margin = market.coin_maintenance_margin_bps / _BPS * self.coins * self.coin_ticks
        value = self.shares * mid
        fall = max(0.0, (self._equity(mid) - coin_margin) / value - margin) / max(1 - margin, 1e-9)
        if fall >= 1 or not market.open_interest_lots:
            return math.inf
        depth = float(self.top.bid_depth_lots) if self.top is not None else 0.0
        return depth * fall / _DEPTH_SHARE / market.open_interest_lots

    def _wants_out(self) -> bool:
        return wants_out(self.conviction, *self._fear())

    def _fear(self) -> tuple[float, float]:
        """x and x*, for its own cost of leaving; x* is −∞ where staying is always best, or x does not matter."""
        mid = self._mid()
        equity = self._equity(mid) / self.shares
        if self.conviction < 0 or not self.anticipates or equity <= 0:
            return 0.0, -math.inf
        half_spread = (self.top.ask_ticks - self.top.bid_ticks) / 2 if self.top is not None else 0.0
        cost = (half_spread + self.conviction / _BPS * mid) / equity
        if cost >= 1:
            return 0.0, -math.inf
        threshold = regime_threshold(max(cost, 1e-6), self.noise_sd)
        return self.strength() + self.noise, threshold.signal

    def _reason(self) -> tuple[float, ...]:
        return (self.heard_bps, self.conviction, *self._fear())

    def _slice_inputs(self, working_lots: int) -> tuple[float, ...]:
        assert self.held is not None
        return (*self.reason, self.shares, working_lots, self.held[self.step - 1], self.held[self.step])

    def _make_plan(self, signal_bps: int) -> None:
        """As a Holder's; what the price has lost since the news counts too, as the cost is measured from there."""
        super()._make_plan(signal_bps)
        assert self.plan is not None
        lost = (self.mid_at_news or self._mid()) - self._mid()
        self.plan = Plan(self.plan.lots, self.plan.expected_cost + lost * self.plan.lots)

    def _answer_call(self, equity: int) -> Sequence[Action]:
        """Sell what brings the initial margin back to the equity that the venue counted."""
        if self.halted or self.liquidating or self.held is not None:
            return ()
        market = self.market
        working = sum(order.leaves_lots for order in self.open_orders.values() if order.side == _SELL)
        order = self.decide(
            Rule.ANSWER_MARGIN_CALL,
            equity,
            self.coins,
            self.coin_ticks,
            self._mid(),
            self.shares,
            working,
            market.initial_margin_bps,
            market.coin_initial_margin_bps,
        )
        return () if order is None else [order]
