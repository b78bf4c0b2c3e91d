"""An arbitrageur between the stablecoin's book and its issuer."""

from collections.abc import Mapping, Sequence
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
    PlaceOrder,
    Rule,
    Strategy,
    Timer,
    Wake,
)
from aar_swarm.agents.decision import Choice, Decision, Fact, buy, own, private, public, sell
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


def sell_limit_ticks(par_ticks: int, margin: float) -> int:
    return int(par_ticks * (1 + margin)) + 1


def arbitrage(
    minted_lots: int,
    par_ticks: int,
    margin: float,
    risk: float,
    ask_ticks: int,
    ask_lots: int,
    trade_lots: int,
    cash: int,
) -> Choice | None:
    """Sell what was just minted above par and the margin; else buy below par, less margin and risk, as cash goes."""
    if minted_lots > 0:
        return sell(OrderType.IOC, sell_limit_ticks(par_ticks, margin), minted_lots)
    limit = int(par_ticks * (1 - margin - risk))
    if not ask_lots or not 0 < ask_ticks <= limit:
        return None
    lots = min(trade_lots, cash // limit)
    return buy(OrderType.IOC, limit, lots) if lots > 0 else None


_ARBITRAGE = Decision(
    arbitrage,
    (
        own("minted_lots"),  # as the issuer just said; 0: nothing
        public("par_ticks"),
        private("margin", float),
        private("risk", float),  # what a rumour adds to it
        public("ask_ticks", int, Fact.ASK),
        public("ask_lots", int, Fact.ASK_LOTS),
        private("trade_lots"),
        own("cash", int, Fact.CASH),
    ),
    lambda v: (
        f"it had {v.minted_lots} coins minted at par of {v.par_ticks}"
        if v.minted_lots > 0
        else f"the coin was offered at {v.ask_ticks}, below par of {v.par_ticks} less {v.margin + v.risk:.2%}"
    ),
    coin=True,
)


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
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.ARBITRAGE: _ARBITRAGE}

    def setup(self, params: Config) -> None:
        assert isinstance(params, CoinArbitrageurParams)
        self.p = params
        self.margin = params.margin_bps / _BPS
        self.risk = 0.0
        self.top: TopOfBook | None = None
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
        elif isinstance(event, TopOfBook) and event.instrument == coin:
            self.top = event
            return self._look(event) if self.believes else ()
        return ()

    def _look(self, top: TopOfBook) -> list[Action]:
        par, coin = self.market.par_ticks, self.market.stablecoin
        if any(order.instrument == coin for order in self.open_orders.values()):
            return []  # one at a time: the last one may have changed the price already
        order = self._trade_coin(0, top)
        if order is not None:
            return [order]
        if top.bid_lots and top.bid_ticks >= sell_limit_ticks(par, self.margin) and not self.asked:
            lots = min(self.p.trade_lots, self.cash // par)
            if lots > 0:
                self.asked = int(CommandKind.MINT)
                return [self.request(CommandKind.MINT, lots, Rule.ARBITRAGE)]
        return []

    def _trade_coin(self, minted_lots: int, top: TopOfBook | None) -> PlaceOrder | None:
        ask = (0, 0) if top is None else (top.ask_ticks, top.ask_lots)
        settings = (self.market.par_ticks, self.margin, self.risk)
        return self.decide(Rule.ARBITRAGE, minted_lots, *settings, *ask, self.p.trade_lots, self.cash)

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
            order = self._trade_coin(report.quantity_lots, self.top)
            return [] if order is None else [order]
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
