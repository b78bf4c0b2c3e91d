"""A borrower: stablecoins against collateral, and a loan to defend."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import (
    FILLED,
    OPENED,
    ORACLE_UPDATED,
    REQUEST_REJECTED,
    Action,
    Event,
    Notice,
    Rule,
    Strategy,
    Timer,
    Wake,
)
from aar_swarm.agents.decision import Choice, Decision, Fact, buy, own, private, public, sell
from aar_swarm.theory import health_factor
from exchange.clock import MS
from exchange.config import Config
from exchange.types import CommandKind, EventKind, OrderType, Side
from exchange.wire import MessageKind, Report

_BPS = 10_000
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_COLLATERAL_IN, _BORROWED = int(EventKind.COLLATERAL_DEPOSITED), int(EventKind.BORROWED)


class BorrowerParams(Config):
    ltv_bps: Annotated[float, Field(ge=0, le=10_000)] = 6500.0
    """Mean over borrowers of the loan, as a share of the collateral's value, that each aims for."""
    ltv_spread_bps: Annotated[float, Field(ge=0, le=5000)] = 700.0
    sold_share: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Of the coins that it borrows it sells so many."""
    kept_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Of the proceeds, what it keeps to defend the loan; the rest is spent, elsewhere."""
    attentive_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Share of borrowers who watch the oracle all the time; drawn by each for itself."""
    comfort_health: Annotated[float, Field(ge=1, le=10)] = 1.05
    target_health: Annotated[float, Field(ge=1, le=10)] = 1.15
    slippage_bps: Annotated[float, Field(ge=0, le=5000)] = 30.0
    """How far from par it sells what it borrowed and buys what it repays."""
    retry_ms: Annotated[float, Field(ge=1, le=600_000)] = 300.0


def sell_borrowed(to_sell_lots: int, coins: int, par_ticks: int, slippage_bps: float) -> Choice | None:
    """What it means to sell of its loan and has, not further below par than its slippage."""
    lots = min(to_sell_lots, coins)
    return sell(OrderType.IOC, int(par_ticks * (1 - slippage_bps / _BPS)), lots) if lots > 0 else None


def health(collateral_value: int, threshold_bps: int, debt: int, coin_ticks: int) -> float:
    return health_factor(collateral_value, 1.0, threshold_bps / _BPS, debt * coin_ticks)


def excess_lots(collateral_value: int, threshold_bps: int, debt: int, coin_ticks: int, target_health: float) -> int:
    """Debt beyond what gives the target."""
    return debt - int(collateral_value * threshold_bps / _BPS / (target_health * coin_ticks))


def buy_to_repay(
    collateral_value: int, threshold_bps: int, debt: int, coin_ticks: int, comfort_health: float, target_health: float,
    coins: int, kept: int, limit_ticks: int,
) -> Choice | None:  # fmt: skip
    """Below its comfort: the coins that it lacks for its target, as far as what it kept goes."""
    if not (debt and collateral_value) or health(collateral_value, threshold_bps, debt, coin_ticks) >= comfort_health:
        return None
    excess = excess_lots(collateral_value, threshold_bps, debt, coin_ticks, target_health)
    missing = min(excess - min(excess, coins), kept // limit_ticks)
    return buy(OrderType.IOC, limit_ticks, missing) if missing > 0 else None


_DECISIONS: dict[int, Decision] = {
    Rule.SELL_COIN: Decision(
        sell_borrowed,
        (
            private("to_sell_lots"),
            own("coins", int, Fact.POSITION),
            public("par_ticks"),
            private("slippage_bps", float),
        ),
        lambda v: f"it spends what it borrowed: {v.to_sell_lots} coins to sell within {v.slippage_bps:g} bps of par",
        coin=True,
    ),
    Rule.REPAY: Decision(
        buy_to_repay,
        (
            own("collateral_value"),  # its collateral at the oracle's price
            public("threshold_bps"),
            own("debt"),
            public("coin_ticks"),  # the oracle's, or par
            private("comfort_health", float),
            private("target_health", float),
            own("coins", int, Fact.POSITION),
            private("kept"),
            private("limit_ticks"),  # par and its slippage
        ),
        lambda v: (
            f"its loan's health was {health(v.collateral_value, v.threshold_bps, v.debt, v.coin_ticks):.3f}, below its "
            f"comfort of {v.comfort_health:g}, with {v.coins} coins and {v.kept} kept for that"
        ),
        coin=True,
    ),
}


class Borrower(Strategy):
    """Decision rule.

    At the opening it deposits all its shares as collateral. As soon as the oracle has spoken it borrows coins up to its
    own loan to value, N(ltv_bps, ltv_spread_bps) but never within 1 % of what the pool allows, and sells sold_share of
    them on the book, within slippage_bps of par, trying again after about retry_ms.

    If it is attentive, it computes its health factor (aar_swarm.theory) at each word of the oracle. Below
    comfort_health it repays what brings target_health back: with the coins it has, and for the rest it buys coins with
    what it kept, within slippage_bps above par. Beyond that it cannot help itself.
    """

    Params: ClassVar[type[Config]] = BorrowerParams
    listens_to: ClassVar[Sequence[MessageKind | EventKind]] = (EventKind.ORACLE_UPDATED,)
    decisions = _DECISIONS

    def setup(self, params: Config) -> None:
        assert isinstance(params, BorrowerParams)
        self.p = params
        most = 0.99 * self.market.max_ltv_bps
        self.ltv = min(most, max(0.0, float(self.rng.normal(params.ltv_bps, params.ltv_spread_bps)))) / _BPS
        self.attentive = bool(self.rng.random() < params.attentive_share)
        self.oracle: dict[int, int] = {}  # instrument → ticks
        self.to_sell = 0
        self.kept = self.cash
        self.asked = 0  # the kind of the request that was not answered yet

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if event.kind == OPENED and self.shares > 0:
            self.asked = int(CommandKind.DEPOSIT_COLLATERAL)
            return [self.request(CommandKind.DEPOSIT_COLLATERAL, self.shares, Rule.BORROW)]
        if isinstance(event, Notice) and event.kind == ORACLE_UPDATED:
            self.oracle[event.instrument] = event.price_ticks
            return self._borrow() if not self.debt else self._defend()
        if isinstance(event, Timer):
            return [*self._borrow(), *self._sell(now_ns)] if self.to_sell or not self.debt else []
        if not isinstance(event, Report):
            return ()
        if event.kind >= EventKind.MARGIN_CALLED:
            self.asked = 0
        if event.kind == _COLLATERAL_IN:
            return self._borrow() if not self.debt else ()
        if event.kind == _BORROWED:
            self.to_sell = int(self.p.sold_share * event.quantity_lots)
            return self._sell(now_ns)
        if event.kind == REQUEST_REJECTED and event.reference == CommandKind.BORROW:
            return [self._again(now_ns)]
        if event.kind == FILLED and event.instrument == self.market.stablecoin:
            if event.side == _SELL:
                self.to_sell -= event.quantity_lots
                self.kept += int(self.p.kept_share * event.quantity_lots * event.price_ticks)
                return ()
            self.kept -= event.quantity_lots * event.price_ticks
            return self._defend()
        return ()

    def _collateral_value(self) -> int:
        return self.collateral * self.oracle.get(self.market.instrument, 0)

    def _coin_ticks(self) -> int:
        par, market = self.market.par_ticks, self.market
        return par if market.debt_at_par else self.oracle.get(market.stablecoin, par)

    def health(self) -> float:
        """The health factor at the oracle's prices."""
        return health(*self._loan())

    def _loan(self) -> tuple[int, int, int, int]:
        return self._collateral_value(), self.market.liquidation_threshold_bps, self.debt, self._coin_ticks()

    def _borrow(self) -> list[Action]:
        lots = int(self.ltv * self._collateral_value() / self._coin_ticks())
        if self.debt or self.asked or lots <= 0:
            return []
        self.asked = int(CommandKind.BORROW)
        return [self.request(CommandKind.BORROW, lots, Rule.BORROW)]

    def _sell(self, now_ns: int) -> list[Action]:
        order = self.decide(Rule.SELL_COIN, self.to_sell, self.coins, self.market.par_ticks, self.p.slippage_bps)
        return [] if order is None else [order, self._again(now_ns)]

    def _defend(self) -> list[Action]:
        if (
            not (self.attentive and self.debt and self.collateral)
            or self.asked
            or self.health() >= self.p.comfort_health
        ):
            return []
        excess = excess_lots(*self._loan(), self.p.target_health)
        self.to_sell = 0  # it needs them itself now
        working = sum(order.leaves_lots for order in self.open_orders.values())
        actions: list[Action] = []
        repaid = min(excess, self.coins)
        if repaid > 0:
            self.asked = int(CommandKind.REPAY)
            actions.append(self.request(CommandKind.REPAY, repaid, Rule.REPAY))
        limit = int(self.market.par_ticks * (1 + self.p.slippage_bps / _BPS))
        if not working:
            aims = (self.p.comfort_health, self.p.target_health)
            order = self.decide(Rule.REPAY, *self._loan(), *aims, self.coins, self.kept, limit)
            if order is not None:
                actions.append(order)
        return actions

    def _again(self, now_ns: int) -> Wake:
        return Wake(now_ns + int(self.p.retry_ms * MS * self.rng.uniform(0.5, 1.5)), 0)
