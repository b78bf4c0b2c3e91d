"""An arbitrageur between the stablecoin's book and its issuer."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import (
    CANCELLED,
    FILLED,
    MINTED,
    REDEEMED,
    REQUEST_REJECTED,
    SIGNAL,
    Action,
    Event,
    Notice,
    Rule,
    Strategy,
    Timer,
    Wake,
)
from exchange.clock import MS
from exchange.config import Config
from exchange.types import CommandKind, OrderType, Reason, Side
from exchange.wire import MessageKind, Report, TopOfBook

_BPS = 10_000
_BUY = int(Side.BUY)


class CoinArbitrageurParams(Config):
    margin_bps: Annotated[float, Field(ge=0, le=5000)] = 20.0
    """How far from par the price must be to be worth the trouble."""
    risk_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """How much of a rumour it adds to its margin below par."""
    trade_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 200
    request_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 200
    retry_ms: Annotated[float, Field(ge=1, le=600_000)] = 250.0


class CoinArbitrageur(Strategy):
    """Decision rule.

    While it believes in par: below par less margin_bps (and risk_share of any rumour, as what it bought may wait) it
    buys trade_lots, as far as its cash goes, and redeems them, request_lots at a time, asking again after about
    retry_ms if the issuer's rate refuses. Above par plus margin_bps it mints as many and sells them. A refusal because
    the reserves are exhausted ends its belief: it trades no more and keeps what it has. Its capital is what limits it:
    coins that wait for redemption are cash that it does not have.
    """

    Params: ClassVar[type[Config]] = CoinArbitrageurParams
    listens_to_coin = (MessageKind.TOP_OF_BOOK,)

    def setup(self, params: Config) -> None:
        assert isinstance(params, CoinArbitrageurParams)
        self.p = params
        self.margin = params.margin_bps / _BPS
        self.risk = 0.0
        self.believes = True
        self.to_redeem = 0
        """Coins that it bought to redeem."""
        self.asked = 0  # the kind of the request that was not answered yet
        self.waiting = False  # for the issuer's rate

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        coin = self.market.stablecoin
        if isinstance(event, Notice) and event.kind == SIGNAL and event.instrument == coin:
            self.risk += max(0.0, -event.value / _BPS) * self.p.risk_share
        elif isinstance(event, Report):
            return self._told(event, now_ns)
        elif isinstance(event, Timer):
            self.waiting = False
            return self._redeem()
        elif isinstance(event, TopOfBook) and event.instrument == coin and self.believes:
            return self._look(event)
        return ()

    def _look(self, top: TopOfBook) -> list[Action]:
        par, coin = self.market.par_ticks, self.market.stablecoin
        if any(order.instrument == coin for order in self.open_orders.values()):
            return []  # one at a time: the last one may have changed the price already
        buy_limit = int(par * (1 - self.margin - self.risk))
        sell_limit = int(par * (1 + self.margin)) + 1
        if top.ask_lots and 0 < top.ask_ticks <= buy_limit:
            lots = min(self.p.trade_lots, self.cash // buy_limit)
            if lots > 0:
                return [self.buy(OrderType.IOC, buy_limit, lots, Rule.ARBITRAGE, coin)]
        elif top.bid_lots and top.bid_ticks >= sell_limit and not self.asked:
            lots = min(self.p.trade_lots, self.cash // par)
            if lots > 0:
                self.asked = int(CommandKind.MINT)
                return [self.request(CommandKind.MINT, lots, Rule.ARBITRAGE)]
        return []

    def _told(self, report: Report, now_ns: int) -> list[Action]:
        if report.kind == FILLED and report.instrument == self.market.stablecoin and report.side == _BUY:
            self.to_redeem += report.quantity_lots
        elif report.kind == CANCELLED and report.instrument == self.market.stablecoin and report.side != _BUY:
            self.to_redeem += report.quantity_lots  # minted, but the price was gone
        elif report.kind == REDEEMED:
            self.asked = 0
            self.to_redeem -= report.quantity_lots
        elif report.kind == MINTED:
            self.asked = 0
            limit = int(self.market.par_ticks * (1 + self.margin)) + 1
            return [self.sell(OrderType.IOC, limit, report.quantity_lots, Rule.ARBITRAGE, self.market.stablecoin)]
        elif report.kind == REQUEST_REJECTED:
            self.asked = 0
            if report.reason == Reason.RESERVES_EXHAUSTED:
                self.believes = False
            elif report.reason == Reason.REDEMPTION_RATE and not self.waiting:
                self.waiting = True
                return [Wake(now_ns + int(self.p.retry_ms * MS * self.rng.uniform(0.5, 1.5)), 0)]
            return []
        else:
            return []
        return self._redeem()

    def _redeem(self) -> list[Action]:
        if self.to_redeem <= 0 or self.asked or self.waiting or not self.believes:
            return []
        self.asked = int(CommandKind.REDEEM)
        return [self.request(CommandKind.REDEEM, min(self.to_redeem, self.p.request_lots), Rule.REDEEM)]
