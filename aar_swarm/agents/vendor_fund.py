"""A fund that has no opinion of its own: it buys a valuation from its vendor and holds by it."""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aar_swarm.agents.base import OPENED, Action, AskVendor, Event, Rule, Strategy, Timer, Valuation, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, buy, own, private, public, sell
from exchange.clock import MS
from exchange.config import Config
from exchange.types import OrderType
from exchange.wire import MessageKind, TopOfBook

_BPS = 10_000


class VendorFundParams(Config):
    period_ms: Annotated[float, Field(ge=1, le=600_000)] = 1000.0
    """How often it asks its vendor; each time between half and one and a half times as long."""
    tilt: Annotated[float, Field(ge=0, le=1000)] = 10.0
    """Median over funds of what 100 % of mispricing is worth, in benchmark holdings (at 10, 1 % is worth a tenth)."""
    spread_of_tastes: Annotated[float, Field(ge=0, le=3)] = 0.3
    """Standard deviation of the logarithm of the tilt over funds."""
    largest_multiple: Annotated[float, Field(ge=1, le=100)] = 2.5
    """Most it ever holds, in benchmark holdings."""
    slice_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 20
    """Most lots of one order; there is one order a period."""
    smallest_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 3
    """A smaller distance from the target is left alone."""
    slippage_bps: Annotated[float, Field(ge=0, le=5000)] = 100.0
    """How far behind the best price that it last saw an order may reach."""
    silent_periods: Annotated[int, Field(ge=1, le=1000)] = 3
    """Unanswered for so long, it takes the valuation for withdrawn."""


def target_lots(valuation: float, price: float, benchmark_lots: int, tilt: float, most_lots: float) -> int:
    """Its benchmark, tilted in proportion to the mispricing; none sold short, and no more than most_lots."""
    wanted = benchmark_lots * (1 + tilt * (valuation / price - 1))
    return round(min(max(wanted, 0.0), most_lots))


def act_on_valuation(
    valuation: float, price: float, benchmark_lots: int, tilt: float, most_lots: float, shares: int, slice_lots: int,
    reach_ticks: int, cash: int,
) -> Choice | None:  # fmt: skip
    """One slice towards the target, limited to the reach and never beyond the valuation; a purchase, to its cash."""
    gap = target_lots(valuation, price, benchmark_lots, tilt, most_lots) - shares
    lots = min(abs(gap), slice_lots)
    if gap > 0:
        return _bought(lots, min(reach_ticks, int(valuation)), cash)
    return sell(OrderType.IOC, max(reach_ticks, 1, math.ceil(valuation)), lots) if gap else None


def return_to_benchmark(
    benchmark_lots: int, shares: int, slice_lots: int, reach_ticks: int, cash: int
) -> Choice | None:
    """One slice towards the benchmark, limited to the reach alone."""
    gap = benchmark_lots - shares
    lots = min(abs(gap), slice_lots)
    if gap > 0:
        return _bought(lots, reach_ticks, cash)
    return sell(OrderType.IOC, max(reach_ticks, 1), lots) if gap else None


def _bought(lots: int, limit: int, cash: int) -> Choice | None:
    lots = min(lots, cash // max(limit, 1))
    return buy(OrderType.IOC, limit, lots) if lots > 0 and limit > 0 else None


_REACH = private("reach_ticks")  # so far beyond the best price that it last saw, within the venue's prices
_DECISIONS: dict[int, Decision] = {
    Rule.ACT_ON_VALUATION: Decision(
        act_on_valuation,
        (
            private("valuation", float),  # its vendor's
            public("price", float, Fact.MID),
            private("benchmark_lots"),
            private("tilt", float),
            private("most_lots", float),
            own("shares", int, Fact.POSITION),
            private("slice_lots"),
            _REACH,
            own("cash", int, Fact.CASH),
        ),
        lambda v: (
            f"its vendor's model says {v.valuation:.1f} and the price was {v.price:g}: of a benchmark of "
            f"{v.benchmark_lots} it wants {target_lots(v.valuation, v.price, v.benchmark_lots, v.tilt, v.most_lots)} "
            f"and held {v.shares}"
        ),
    ),
    Rule.RETURN_TO_BENCHMARK: Decision(
        return_to_benchmark,
        (
            private("benchmark_lots"),
            own("shares", int, Fact.POSITION),
            private("slice_lots"),
            _REACH,
            own("cash", int, Fact.CASH),
        ),
        lambda v: f"its vendor stood by no valuation, its benchmark is {v.benchmark_lots} and it held {v.shares}",
    ),
}


class VendorFund(Strategy):
    """Decision rule.

    What it is endowed with is its benchmark: what it holds without a view. With a view it holds
    benchmark × (1 + tilt × (valuation / price − 1)): mean-variance demand at constant risk aversion and variance, which
    is linear in the expected return (Merton 1969), between nothing (no short sales) and largest_multiple, as far as its
    cash goes. The valuation is its vendor's, taken at its word; the price is the mid that it last saw.

    It asks every period_ms (with jitter) and, on the answer, moves towards the target by one IOC order of at most
    slice_lots, limited to slippage_bps behind the best price it last saw and never beyond the valuation itself. When
    the vendor stands by no valuation (or has not answered for silent_periods), an active position cannot be justified
    to anybody: the target is the benchmark, and the slippage alone limits the price. A version of the model that it
    has not seen makes it ask once more before it acts. It hears no signal and asks nobody else.
    """

    Params = VendorFundParams
    decisions = _DECISIONS
    listens_to = (MessageKind.SLOW_TOP_OF_BOOK,)
    asks_vendor = True

    def setup(self, params: Config) -> None:
        assert isinstance(params, VendorFundParams)
        self.p = params
        self.benchmark = self.shares
        self.tilt = params.tilt * math.exp(float(self.rng.normal(0, params.spread_of_tastes)))
        self.bid = self.ask = 0
        self.price = float(self.market.opening_ticks)
        self.version: int | None = None
        self.unanswered = 0

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, TopOfBook):
            self._look(event)
        elif isinstance(event, Timer) or event.kind == OPENED:
            self.unanswered += 1
            spread = 0.5 if isinstance(event, Timer) else 0.0  # the first questions are spread over a whole period
            pause_ns = int(self.p.period_ms * MS * self.rng.uniform(spread, 1 + spread))
            actions: list[Action] = [Wake(now_ns + pause_ns, 0), AskVendor()]
            if self.unanswered > self.p.silent_periods:
                actions += self._move(None)
            return actions
        elif isinstance(event, Valuation):
            self.unanswered = 0
            if event.withdrawn:
                return self._move(None)
            if self.version is None:
                self.version = event.version
            if event.version != self.version:
                self.version = event.version
                return [AskVendor()]
            return self._move(event.value_ticks)
        return ()

    def _look(self, top: TopOfBook) -> None:
        self.bid = top.bid_ticks if top.bid_lots else 0
        self.ask = top.ask_ticks if top.ask_lots else 0
        if self.bid and self.ask:
            self.price = (self.bid + self.ask) / 2
        elif top.last_ticks:
            self.price = float(top.last_ticks)

    def target_lots(self, value_ticks: float | None) -> int:
        """What it wants to hold at the price it last saw; None: no valuation."""
        if value_ticks is None:
            return self.benchmark
        return target_lots(value_ticks, *self._taste())

    def _taste(self) -> tuple[float, int, float, float]:
        return self.price, self.benchmark, self.tilt, self.benchmark * self.p.largest_multiple

    def _move(self, value_ticks: float | None) -> list[Action]:
        """One order towards the target, if it is far enough and the other side of the book is there."""
        if self.halted or self.open_orders:
            return []
        gap = self.target_lots(value_ticks) - self.shares
        if abs(gap) < self.p.smallest_lots:
            return []
        reach = self.p.slippage_bps / _BPS
        if gap > 0 and self.ask:
            limit = min(int(self.ask * (1 + reach)), self.market.price_levels - 1)
        elif gap < 0 and self.bid:
            limit = math.ceil(self.bid * (1 - reach))
        else:
            return []
        rest = (self.shares, self.p.slice_lots, limit, self.cash)
        if value_ticks is None:
            order = self.decide(Rule.RETURN_TO_BENCHMARK, self.benchmark, *rest)
        else:
            order = self.decide(Rule.ACT_ON_VALUATION, value_ticks, *self._taste(), *rest)
        return [] if order is None else [order]
