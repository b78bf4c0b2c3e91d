"""A liquidator: races others for the loans that the oracle's word has made unhealthy."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from aar_swarm.agents.base import (
    LOAN_LIQUIDATED,
    ORACLE_UPDATED,
    REQUEST_REJECTED,
    Action,
    Event,
    Notice,
    Rule,
    Strategy,
)
from aar_swarm.agents.decision import Choice, Decision, Fact, own, private, sell
from aar_swarm.theory import seized
from exchange.config import Config
from exchange.types import CommandKind, EventKind, OrderType
from exchange.wire import Loan, MessageKind, Report, TopOfBook

_BPS = 10_000
_TAKER = 1


class LiquidatorParams(Config):
    slippage_bps: Annotated[float, Field(ge=0, le=5000)] = 50.0
    """What it expects to lose against the best bid when it sells what it seized."""
    requests_at_once: Annotated[int, Field(ge=1, le=1000)] = 8


class _Target(NamedTuple):
    profit: float  # ticks × lots
    account: int
    lots: int  # of debt


def sell_seized(shares: int, began_with: int, working_lots: int) -> Choice | None:
    """All that it has beyond what it began with and does not sell yet."""
    lots = shares - began_with - working_lots
    return sell(OrderType.MARKET, 0, lots) if lots > 0 else None


_SELL_SEIZED = Decision(
    sell_seized,
    (own("shares", int, Fact.POSITION), private("began_with"), own("working_lots")),
    lambda v: f"it held {v.shares}, began with {v.began_with}, and keeps nothing that it seized",
)


class Liquidator(Strategy):
    """Decision rule.

    It keeps every loan, which are public, and the oracle's prices. When the oracle has spoken, or a loan has changed,
    it looks for loans whose debt is worth more than collateral × liquidation threshold. Of each it would repay what the
    close factor allows, as far as its coins go, and take repaid × (1 + bonus) of collateral at the oracle's price:
    worth the best bid it last saw, less slippage_bps, against coins at their mid. Those that gain anything it asks for,
    most gainful first, requests_at_once at most, and each only once until it is answered. All liquidators see the same
    and want the same: the venue takes the first, and who comes later is refused. What it seized it sells at once, at
    the market.
    """

    Params: ClassVar[type[Config]] = LiquidatorParams
    listens_to: ClassVar[Sequence[MessageKind | EventKind]] = (
        MessageKind.TOP_OF_BOOK,
        MessageKind.LOAN,
        EventKind.ORACLE_UPDATED,
    )
    listens_to_coin = (MessageKind.SLOW_TOP_OF_BOOK,)
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.SELL_SEIZED: _SELL_SEIZED}

    def setup(self, params: Config) -> None:
        assert isinstance(params, LiquidatorParams)
        self.p = params
        self.loans: dict[int, tuple[int, int]] = {}  # account → collateral and debt, lots
        self.oracle: dict[int, int] = {}  # instrument → ticks
        self.asked: dict[int, int] = {}  # account → lots of coins, of requests that were not answered yet
        self.bid_ticks = self.market.opening_ticks
        self.coin_ticks = float(self.market.par_ticks)

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, Notice) and event.kind == ORACLE_UPDATED:
            self.oracle[event.instrument] = event.price_ticks
            return self._liquidate(self.loans)
        if isinstance(event, Loan):
            self.loans[event.account] = (event.collateral_lots, event.debt_lots)
            return self._liquidate((event.account,))
        if isinstance(event, TopOfBook):
            return self._look(event)
        if isinstance(event, Report) and event.kind == REQUEST_REJECTED:
            self.asked.pop(event.order_id, None)
        elif isinstance(event, Report) and event.kind == LOAN_LIQUIDATED and event.liquidity == _TAKER:
            self.asked.pop(next(iter(self.asked), 0), None)  # answers come in the order of the questions
            return self._sell_seized()
        return ()

    def _look(self, top: TopOfBook) -> list[Action]:
        if top.instrument == self.market.stablecoin:
            if top.bid_lots and top.ask_lots:
                self.coin_ticks = (top.bid_ticks + top.ask_ticks) / 2
            return []
        self.bid_ticks = top.bid_ticks if top.bid_lots else 0
        return self._sell_seized() if self.bid_ticks else []

    def _liquidate(self, accounts: Iterable[int]) -> list[Action]:
        """Ask for the most gainful of these loans, as far as the coins go that no question has taken up yet."""
        price = self.oracle.get(self.market.instrument, 0)
        if not price or self.halted:
            return []
        targets = sorted(filter(None, (self._target(account, price) for account in accounts)), reverse=True)
        coins = self.coins - sum(self.asked.values())
        actions: list[Action] = []
        for _, account, lots in targets[: self.p.requests_at_once]:
            lots = min(lots, coins)
            if lots <= 0:
                break
            coins -= lots
            self.asked[account] = lots
            actions.append(self.request(CommandKind.LIQUIDATE, lots, Rule.LIQUIDATE, account))
        return actions

    def _target(self, account: int, price: int) -> _Target | None:
        """What this loan would bring, if it may be liquidated, is worth it and was not asked for yet."""
        collateral, debt = self.loans.get(account, (0, 0))
        market = self.market
        debt_ticks = market.par_ticks if market.debt_at_par else self.oracle.get(market.stablecoin, market.par_ticks)
        if debt <= 0 or account in self.asked:
            return None
        if debt * debt_ticks <= collateral * price * market.liquidation_threshold_bps // _BPS:
            return None
        lots = max(1, debt * market.close_factor_bps // _BPS)
        taken = min(float(collateral), seized(lots, market.bonus_bps / _BPS, price, debt_ticks))
        profit = taken * self.bid_ticks * (1 - self.p.slippage_bps / _BPS) - lots * self.coin_ticks
        return _Target(profit, account, lots) if profit > 0 else None

    def _sell_seized(self) -> list[Action]:
        working = sum(order.leaves_lots for order in self.open_orders.values())
        if self.halted:
            return []
        order = self.decide(Rule.SELL_SEIZED, self.shares, self.endowment.shares, working)
        return [] if order is None else [order]
