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
    comfort_health: Annotated[float, Field(ge=1, le=10)] = 1.05
    target_health: Annotated[float, Field(ge=1, le=10)] = 1.15
    slippage_bps: Annotated[float, Field(ge=0, le=5000)] = 30.0
    """How far from par it sells what it borrowed and buys what it repays."""
    retry_ms: Annotated[float, Field(ge=1, le=600_000)] = 300.0


class Borrower(Strategy):
    """Decision rule.

    At the opening it deposits all its shares as collateral. As soon as the oracle has spoken it borrows coins up to its
    own loan to value, N(ltv_bps, ltv_spread_bps) but never within 1 % of what the pool allows, and sells sold_share of
    them on the book, within slippage_bps of par, trying again after about retry_ms.

    At each word of the oracle it computes its health factor (aar_swarm.theory). Below comfort_health it repays what
    brings target_health back: with the coins it has, and for the rest it buys coins with what it kept, within
    slippage_bps above par. Beyond that it cannot help itself.
    """

    Params: ClassVar[type[Config]] = BorrowerParams
    listens_to: ClassVar[Sequence[MessageKind | EventKind]] = (EventKind.ORACLE_UPDATED,)

    def setup(self, params: Config) -> None:
        assert isinstance(params, BorrowerParams)
        self.p = params
        most = 0.99 * self.market.max_ltv_bps
        self.ltv = min(most, max(0.0, float(self.rng.normal(params.ltv_bps, params.ltv_spread_bps)))) / _BPS
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
        threshold = self.market.liquidation_threshold_bps / _BPS
        return health_factor(self._collateral_value(), 1.0, threshold, self.debt * self._coin_ticks())

    def _borrow(self) -> list[Action]:
        lots = int(self.ltv * self._collateral_value() / self._coin_ticks())
        if self.debt or self.asked or lots <= 0:
            return []
        self.asked = int(CommandKind.BORROW)
        return [self.request(CommandKind.BORROW, lots, Rule.BORROW)]

    def _sell(self, now_ns: int) -> list[Action]:
        lots = min(self.to_sell, self.coins)
        if lots <= 0:
            return []
        limit = int(self.market.par_ticks * (1 - self.p.slippage_bps / _BPS))
        return [self.sell(OrderType.IOC, limit, lots, Rule.SELL_COIN, self.market.stablecoin), self._again(now_ns)]

    def _defend(self) -> list[Action]:
        if not self.debt or self.asked or not self.collateral or self.health() >= self.p.comfort_health:
            return []
        bearable = self._collateral_value() * self.market.liquidation_threshold_bps / _BPS
        excess = self.debt - int(bearable / (self.p.target_health * self._coin_ticks()))
        self.to_sell = 0  # it needs them itself now
        working = sum(order.leaves_lots for order in self.open_orders.values())
        actions: list[Action] = []
        repaid = min(excess, self.coins)
        if repaid > 0:
            self.asked = int(CommandKind.REPAY)
            actions.append(self.request(CommandKind.REPAY, repaid, Rule.REPAY))
        limit = int(self.market.par_ticks * (1 + self.p.slippage_bps / _BPS))
        missing = min(excess - repaid, self.kept // limit)
        if missing > 0 and not working:
            actions.append(self.buy(OrderType.IOC, limit, missing, Rule.REPAY, self.market.stablecoin))
        return actions

    def _again(self, now_ns: int) -> Wake:
        return Wake(now_ns + int(self.p.retry_ms * MS * self.rng.uniform(0.5, 1.5)), 0)
