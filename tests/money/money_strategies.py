"""Strategies of a user's own for a scenario that uses everything: margin, the lending pool, the stablecoin."""

from typing import ClassVar

from aar_swarm.agents.base import OPENED, ORACLE_UPDATED, SIGNAL, Action, Event, Rule, Strategy
from exchange.types import CommandKind, EventKind, OrderType
from exchange.wire import Loan, MessageKind, Report, TopOfBook


class Quoter(Strategy):
    """Quotes both books once, before anybody can trade."""

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        if event.kind != OPENED:
            return []
        price, par, coin = self.market.opening_ticks, self.market.par_ticks, self.market.stablecoin
        found: list[Action] = []
        for step in (1, 5, 200, 300):
            found.append(self.buy(OrderType.LIMIT, price - step, 50, Rule.QUOTE))
            found.append(self.sell(OrderType.LIMIT, price + step, 50, Rule.QUOTE))
        for step in (1, 2):
            found.append(self.buy(OrderType.LIMIT, par - step, 100, Rule.QUOTE, coin))
            found.append(self.sell(OrderType.LIMIT, par + step, 100, Rule.QUOTE, coin))
        return found


class Sitter(Strategy):
    """Holds shares on margin and does nothing about it."""

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        return []


class Borrower(Strategy):
    """Puts its shares into the pool, borrows against them, and sells what it borrowed."""

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        if event.kind == OPENED:
            return [self.request(CommandKind.DEPOSIT_COLLATERAL, self.shares, Rule.BORROW)]
        if event.kind == EventKind.COLLATERAL_DEPOSITED:
            value = self.collateral * self.market.opening_ticks * self.market.max_ltv_bps // 10_000
            return [self.request(CommandKind.BORROW, value // self.market.par_ticks, Rule.BORROW)]
        if event.kind == EventKind.BORROWED:
            return [self.sell(OrderType.MARKET, 0, 1, Rule.SELL_COIN, self.market.stablecoin)]
        return []


class Liquidator(Strategy):
    """Repays every loan that it knows of whenever the oracle speaks: mostly in vain."""

    listens_to: ClassVar = (MessageKind.LOAN, EventKind.ORACLE_UPDATED)

    def setup(self, params: object) -> None:
        self.loans: dict[int, int] = {}

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        if isinstance(event, Loan):
            self.loans[event.account] = event.debt_lots
        elif event.kind == ORACLE_UPDATED:
            return [
                self.request(CommandKind.LIQUIDATE, debt, Rule.LIQUIDATE, account)
                for account, debt in self.loans.items()
                if debt
            ]
        return []


class Redeemer(Strategy):
    """Hears the coin's book, and at the signal turns its coins into cash."""

    listens_to_coin: ClassVar = (MessageKind.TOP_OF_BOOK,)

    def setup(self, params: object) -> None:
        self.heard_coin = False

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        if isinstance(event, TopOfBook):
            self.heard_coin = self.heard_coin or event.instrument == self.market.stablecoin
        elif event.kind == SIGNAL and self.heard_coin:
            return [self.request(CommandKind.REDEEM, self.coins, Rule.REDEEM)]
        elif isinstance(event, Report) and event.kind == EventKind.REDEEMED:
            return [self.request(CommandKind.MINT, 1, Rule.ARBITRAGE)]
        return []
