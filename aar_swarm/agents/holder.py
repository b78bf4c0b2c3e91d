"""A holder of shares who, on bad news, computes its own best exit as if it were alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from aar_swarm.agents.base import PHASE_CHANGED, SIGNAL, Action, Event, Plan, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, own, private, public, sell
from aar_swarm.execution import Impact, expected_cost, schedule, urgency
from exchange.clock import MS, SECOND
from exchange.config import Config
from exchange.types import EventKind, OrderType, Phase
from exchange.wire import MessageKind, TopOfBook

_BPS = 10_000
MAX_STEPS = 1000
_DEPTH_SHARE = 0.01  # TopOfBook's depth is what rests within 1 % of the mid


class HolderParams(Config):
    conviction_bps: Annotated[float, Field(ge=-5000, le=5000)] = 20.0
    """Mean over holders of the return that each expects before the signal."""
    conviction_spread_bps: Annotated[float, Field(ge=0, le=5000)] = 20.0
    horizon_s: Annotated[float, Field(ge=0.001, le=3600)] = 1.5
    """Median over holders of the time within which each wants to be out."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 10
    risk_aversion: Annotated[float, Field(ge=0, le=1e6)] = 5e-3
    """Median λ, 1/(ticks × lots)."""
    spread_of_tastes: Annotated[float, Field(ge=0, le=3)] = 0.5
    """Standard deviation of the logarithm of horizon and risk aversion over holders."""
    permanent_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """γ as a share of the slope of the visible book: what a holder believes its own selling moves for good."""
    recovery_s: Annotated[float, Field(gt=0, le=3600)] = 0.15
    """ρ: the time in which a holder believes a walked book to refill; makers look about every 0.1 s."""
    volatility_floor: Annotated[float, Field(gt=0, le=1e6)] = 2.0
    """Least σ, ticks/√s, that a holder believes in."""


@lru_cache(maxsize=256)
def planned_holding(lots: int, horizon_s: float, steps: int, urgency: float) -> tuple[int, ...]:
    """What to hold after step 0 … steps: the schedule of Almgren and Chriss, in whole lots."""
    return tuple(int(held) for held in np.round(schedule(lots, horizon_s, steps, urgency)))


def due_slice(due: int, planned: int, overdue: bool) -> Choice | None:
    """What is due, as what was planned or as more than that, which are two rules."""
    return sell(OrderType.MARKET, 0, due) if due > 0 and overdue == (due > planned) else None


def _exit(overdue: bool) -> Callable[..., Choice | None]:
    """Once the news has made the expected return negative: what is due of the plan's step. overdue: more than the
    step's own, as an earlier one could not be sold."""

    def choose(
        news_bps: int, before_bps: float, shares: int, working_lots: int, lots: int, horizon_s: float, steps: int,
        urgency: float, step: int,
    ) -> Choice | None:  # fmt: skip
        if before_bps + news_bps >= 0 or not 0 < step <= steps <= MAX_STEPS:
            return None
        held = planned_holding(lots, horizon_s, steps, urgency)
        return due_slice(shares - working_lots - held[step], held[step - 1] - held[step], overdue)

    return choose


_INPUTS = (
    public("news_bps", int, Fact.SIGNAL, recent=False),  # by which it decided to leave
    private("before_bps", float),  # the return that it expected before that
    own("shares", int, Fact.POSITION),
    own("working_lots"),
    private("lots"),  # of its plan, the shares that it had then
    private("horizon_s", float),
    private("steps"),
    private("urgency", float),  # κ, 1/s: a sufficient statistic of spread, depth and volatility seen, and of its fear
    private("step"),
)


def _news(v: SimpleNamespace) -> str:
    return (
        f"the news of {v.news_bps:+d} bps made its expected return {v.before_bps + v.news_bps:+.1f} bps, and step "
        f"{v.step} of {v.steps} of its plan to sell {v.lots} within {v.horizon_s:.2f} s was due"
    )


EXIT = Decision(_exit(overdue=False), _INPUTS, _news)
EXIT_OVERDUE = Decision(_exit(overdue=True), _INPUTS, lambda v: f"{_news(v)}, with what earlier steps could not sell")


class Holder(Strategy):
    """Decision rule.

    Its expected return is N(conviction_bps, conviction_spread_bps); a signal moves it in full. Once that is below zero
    the best holding is none (no short sales), and it sells all of it on the schedule of Almgren and Chriss (2000) for
    its own horizon and risk aversion, as market orders, the first at once. Everything in the formula is what it sees
    in public market data: ε half the spread; the slope s of the book from the depth within 1 % of the mid, which gives
    η − γτ/2 = sρ/2 (walking a linear book of slope s costs s/2 a lot squared, and it is whole again after ρ) and
    γ = permanent_share·s; σ from the changes of the mid. The formula has one seller in it. What a slice could not sell
    is overdue and goes with the next one, and after the last every step again. A halt stops it; when trading resumes it
    goes on where it was, or makes its plan then, if it heard the news in the halt.
    """

    Params: ClassVar[type[Config]] = HolderParams
    listens_to: ClassVar[Sequence[MessageKind | EventKind]] = (MessageKind.SLOW_TOP_OF_BOOK,)
    exit_rule: ClassVar[Rule] = Rule.EXIT
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.EXIT: EXIT, Rule.EXIT_OVERDUE: EXIT_OVERDUE}

    def setup(self, params: Config) -> None:
        assert isinstance(params, HolderParams)
        self.p = params
        self.conviction = float(self.rng.normal(params.conviction_bps, params.conviction_spread_bps))
        tastes = self.rng.normal(0, params.spread_of_tastes, 2)
        self.horizon_s = params.horizon_s * math.exp(tastes[0])
        self.risk_aversion = params.risk_aversion * math.exp(tastes[1])
        self.step_ns = max(MS, int(self.horizon_s / params.steps * SECOND))
        self.top: TopOfBook | None = None
        self.variance = params.volatility_floor**2  # ticks² a second
        self.held: tuple[int, ...] | None = None  # the schedule: what to hold after each step
        self.reason: tuple[float, ...] = ()  # for which it left
        self.schedule: tuple[float, ...] = ()  # what its schedule follows from
        self.before_bps = self.conviction  # the return that it expected before the latest news
        self.step = 0
        self.news_bps: int | None = None  # the latest
        self.departures = -1  # the number of the latest; its timers carry it

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, TopOfBook):
            self._look(event)
        elif event.kind == SIGNAL:
            self.before_bps = self.conviction
            self.conviction += event.value  # type: ignore[union-attr]
            self.news_bps = event.value  # type: ignore[union-attr]
            if self.held is None:
                return self._leave(now_ns)
        elif event.kind == PHASE_CHANGED and event.value == Phase.CONTINUOUS:  # type: ignore[union-attr]
            return self._leave(now_ns) if self.news_bps is not None else ()
        elif isinstance(event, Timer) and event.tag == self.departures and not self.halted:
            return self._sell_slice(now_ns)
        return ()

    def _leave(self, now_ns: int) -> Sequence[Action]:
        """Begin to leave, or go on after a halt; timers from before it no longer count."""
        if self.halted or self.shares <= 0 or (self.held is None and not self._wants_out()):
            return ()
        if self.held is None:
            assert self.news_bps is not None
            self._make_plan(self.news_bps)
            self.reason = self._reason()
        self.departures += 1
        return self._sell_slice(now_ns)

    def _wants_out(self) -> bool:
        return self.conviction < 0

    def _reason(self) -> tuple[float, ...]:
        """The inputs for which it leaves, the first of its exit rules."""
        assert self.news_bps is not None
        return (self.news_bps, self.before_bps)

    def _look(self, top: TopOfBook) -> None:
        before, self.top = self.top, top
        if before is None or not (before.bid_lots and before.ask_lots and top.bid_lots and top.ask_lots):
            return
        move = ((top.bid_ticks + top.ask_ticks) - (before.bid_ticks + before.ask_ticks)) / 2
        seconds = max((top.time_ns - before.time_ns) / SECOND, 1e-3)
        self.variance += 0.2 * (move**2 / seconds - self.variance)

    def _make_plan(self, signal_bps: int) -> None:
        """The schedule, and what it should cost, as if nobody else were selling. signal_bps: of this instrument.

        The cost counts from the mid before the signal, so what the news itself takes off the price belongs to it.
        """
        mid = float(self.market.opening_ticks)
        top = self.top
        if top is not None and not (top.bid_lots > 0 and top.ask_lots > 0):
            top = None
        if top is not None:
            mid = (top.bid_ticks + top.ask_ticks) / 2
        impact = book_impact(top, mid, self.p.permanent_share, self.p.recovery_s, self.horizon_s / self.p.steps)
        volatility = math.sqrt(max(self.variance, self.p.volatility_floor**2))
        step_s = self.horizon_s / self.p.steps
        kappa = urgency(impact, volatility, self.risk_aversion, step_s)
        self.schedule = (self.shares, self.horizon_s, self.p.steps, kappa)
        self.held = planned_holding(self.shares, self.horizon_s, self.p.steps, kappa)
        news = -signal_bps / _BPS * mid * self.shares
        self.plan = Plan(self.shares, expected_cost(np.array(self.held, float), impact, step_s) + news)

    def _sell_slice(self, now_ns: int) -> list[Action]:
        assert self.held is not None
        self.step = min(self.step + 1, self.p.steps)
        working = sum(order.leaves_lots for order in self.open_orders.values())
        actions: list[Action] = []
        if not self.liquidating:
            inputs = self._slice_inputs(working)
            order = self.decide(self.exit_rule, *inputs) or self.decide(Rule.EXIT_OVERDUE, *inputs)
            if order is not None:
                actions.append(order)
        if self.shares > 0:
            actions.append(Wake(now_ns + self.step_ns, self.departures))
        return actions

    def _slice_inputs(self, working_lots: int) -> tuple[float, ...]:
        return (*self.reason, self.shares, working_lots, *self.schedule, self.step)


def book_impact(top: TopOfBook | None, mid: float, permanent_share: float, recovery_s: float, step_s: float) -> Impact:
    """The impact model of a lone seller, from one look at the market; without a market (None), of a thin one.

    The book is taken as linear: `depth` lots within 1 % of the mid give the slope s = 1 % of the mid / depth. It
    refills within recovery_s, so that the cost of selling depends on the rate and not on the number of slices.
    """
    if top is None:
        half_spread, depth = 0.001 * mid, 1.0
    else:
        half_spread = (top.ask_ticks - top.bid_ticks) / 2
        depth = max(float(top.bid_depth_lots), 1.0)
    slope = _DEPTH_SHARE * mid / depth
    permanent = permanent_share * slope
    return Impact(half_spread, permanent, slope * recovery_s / 2 + permanent * step_s / 2)
