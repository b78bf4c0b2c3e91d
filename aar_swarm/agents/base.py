"""What a strategy is: events in, actions out. It never touches a socket, reads a clock or makes its own random stream.

Owns the bookkeeping that every strategy needs: its position, its cash and its open orders, as the venue reported them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, NamedTuple

import numpy as np

from aar_swarm.agents.decision import Decision
from exchange.config import Config
from exchange.types import CommandKind, EventKind, OrderType, Phase, Side
from exchange.wire import Loan, MessageKind, Notice, Report, TopOfBook

FILLED, CANCELLED = int(EventKind.ORDER_FILLED), int(EventKind.ORDER_CANCELLED)
ACCEPTED, REJECTED = int(EventKind.ORDER_ACCEPTED), int(EventKind.ORDER_REJECTED)
HALTED, OPENED = int(EventKind.INSTRUMENT_HALTED), int(EventKind.SESSION_OPENED)
SIGNAL, CLOSED = int(EventKind.SIGNAL_PUBLISHED), int(EventKind.SESSION_CLOSED)
PHASE_CHANGED = int(EventKind.PHASE_CHANGED)
MARGIN_CALLED, LIQUIDATION_STARTED = int(EventKind.MARGIN_CALLED), int(EventKind.LIQUIDATION_STARTED)
LIQUIDATION_ENDED, ORACLE_UPDATED = int(EventKind.LIQUIDATION_ENDED), int(EventKind.ORACLE_UPDATED)
REQUEST_REJECTED, LOAN_LIQUIDATED = int(EventKind.REQUEST_REJECTED), int(EventKind.LOAN_LIQUIDATED)
REDEEMED, MINTED = int(EventKind.REDEEMED), int(EventKind.MINTED)
_TAKEN_OVER, _DELEVERAGED = int(EventKind.POSITION_TAKEN_OVER), int(EventKind.DELEVERAGED)
_COLLATERAL_IN, _COLLATERAL_OUT = int(EventKind.COLLATERAL_DEPOSITED), int(EventKind.COLLATERAL_WITHDRAWN)
_BORROWED, _REPAID = int(EventKind.BORROWED), int(EventKind.REPAID)
_BAD_DEBT, _FEE_CHARGED = int(EventKind.BAD_DEBT_BOOKED), int(EventKind.FEE_CHARGED)
_BUY = int(Side.BUY)
_TAKER = 1


class Rule(IntEnum):
    """Which rule decided on an order; travels with it into the journal."""

    NONE = 0
    QUOTE = 1
    WITHDRAW = 2
    BUY_BELOW_VALUE = 3
    SELL_ABOVE_VALUE = 4
    REST_AT_VALUE = 5
    TRADE_AT_RANDOM = 6
    EXIT = 7
    """A slice of the optimal execution schedule."""
    EXIT_OVERDUE = 8
    """What an earlier slice of the schedule could not sell."""
    REPLAY = 9
    """A recorded order of a real day."""
    LEAVE_EARLY = 10
    """A leveraged holder who expects the others to leave."""
    ANSWER_MARGIN_CALL = 11
    REDEEM = 12
    """A holder who turns a stablecoin into cash at its issuer."""
    SELL_COIN = 13
    ARBITRAGE = 14
    BORROW = 15
    REPAY = 16
    LIQUIDATE = 17
    SELL_SEIZED = 18
    """What a liquidator took and does not want to keep."""
    FOLLOW_TREND = 19
    FOLLOW_VOLUME = 20
    """The seller who takes a fixed share of the market's volume."""
    REDUCE_INVENTORY = 21
    BUY_FUNDAMENTAL = 22
    SELL_FUNDAMENTAL = 23
    ACT_ON_VALUATION = 24
    HEDGE = 25
    TAKE_TOUCH = 26
    """The rest of a thin best price, which is about to move."""
    RETURN_TO_BENCHMARK = 27
    """A fund whose vendor stands by no valuation."""
    SNIPE = 28
    """A quote that public news made stale."""


class Market(NamedTuple):
    """What everyone knows before the session opens."""

    instrument: int
    opening_ticks: int
    price_levels: int
    initial_margin_bps: int = 10_000
    maintenance_margin_bps: int = 10_000
    stablecoin: int = -1
    """Its instrument; −1: there is none. All that follows is then public knowledge too."""
    par_ticks: int = 0
    coin_levels: int = 0
    max_ltv_bps: int = 0
    liquidation_threshold_bps: int = 0
    close_factor_bps: int = 0
    bonus_bps: int = 0
    debt_at_par: bool = False
    coin_initial_margin_bps: int = 10_000
    coin_maintenance_margin_bps: int = 10_000
    reserves: int = 0
    """The issuer's cash before the opening, as it attests it."""
    coin_supply_lots: int = 0
    """Lots of the stablecoin that the issuer does not hold itself."""
    open_interest_lots: int = 0
    """Lots that all margin accounts hold before the opening: a venue of leverage publishes it."""


class Endowment(NamedTuple):
    cash: int  # minor units; below 0: borrowed on margin
    shares: int  # lots
    coins: int = 0  # lots of the stablecoin
    leverage: float = 0.0  # value of the shares over equity; 0: a cash account


class Timer(NamedTuple):
    """A moment that the strategy asked for with Wake."""

    tag: int
    kind: int = -1
    sequence: int = 0


class Valuation(NamedTuple):
    """A vendor's answer to an AskVendor."""

    value_ticks: float
    """What its model says that the asset is worth."""
    version: int
    """Of the model; it changes when the vendor changes it."""
    withdrawn: bool
    """The vendor stands by no valuation at the moment."""
    kind: int = -2
    sequence: int = 0


Event = Report | Notice | TopOfBook | Loan | Timer | Valuation


class PlaceOrder(NamedTuple):
    order_id: int
    side: int
    order_type: int
    price_ticks: int
    quantity_lots: int
    rule: int
    instrument: int = 0
    inputs: tuple[int, ...] = ()
    """What the rule decided on, as words (docs/explained-trades.md)."""


class CancelOrder(NamedTuple):
    order_id: int
    quantity_lots: int  # 0: all of it
    rule: int
    instrument: int = 0


class Request(NamedTuple):
    """Something asked of the lending pool or the coin's issuer; kind is one of exchange.types.REQUEST_COMMANDS."""

    kind: int
    quantity_lots: int
    rule: int
    target: int = 0
    """Of LIQUIDATE: the account whose loan it is."""


class AskVendor(NamedTuple):
    """Ask this agent's vendor for a valuation; the answer is a Valuation."""


class Wake(NamedTuple):
    """Ask for a Timer at a time of the agent's own clock."""

    at_ns: int
    tag: int


Action = PlaceOrder | CancelOrder | Request | AskVendor | Wake


@dataclass(slots=True)
class OpenOrder:
    side: int
    price_ticks: int
    leaves_lots: int
    cancelling: bool = False
    instrument: int = 0


class Plan(NamedTuple):
    """What a strategy set out to do, and what it expected that to cost, as if it were alone."""

    lots: int
    expected_cost: float  # minor units


class Strategy:
    """Subclass it, name what it listens to, and answer on_event. `module:Class` names it in a scenario."""

    Params: ClassVar[type[Config]] = Config
    """Its settings, with their ranges; unknown ones are refused."""
    listens_to: ClassVar[Sequence[MessageKind | EventKind]] = ()
    """Market data it wants, beside the notices that everyone hears and the reports on its own orders; ORACLE_UPDATED
    and LOAN too."""
    asks_vendor: ClassVar[bool] = False
    """Whether it needs a vendor, which the scenario's [vendors] then deals it."""
    listens_to_coin: ClassVar[Sequence[MessageKind]] = ()
    """Market data of the stablecoin. Who wants none does not care about news of it either."""
    decisions: ClassVar[Mapping[int, Decision]] = {}
    """By rule: how it decides on its orders. One that it places without is unexplained."""

    def __init__(self, market: Market, endowment: Endowment, params: Config, rng: np.random.Generator) -> None:
        self.market = market
        self.endowment = endowment
        self.cash = endowment.cash
        self.holdings = {market.instrument: endowment.shares, market.stablecoin: endowment.coins}
        self.rng = rng
        self.open_orders: dict[int, OpenOrder] = {}
        self.collateral = 0
        """Lots in the lending pool."""
        self.debt = 0
        """Lots of the stablecoin owed to the lending pool."""
        self.halted = False
        self.liquidating = False
        """The venue is liquidating this account: it takes no orders of it."""
        self.plan: Plan | None = None
        self._last_order_id = 0
        self.setup(params)

    @property
    def shares(self) -> int:
        """Lots of the market's main instrument; below 0: sold short."""
        return self.holdings[self.market.instrument]

    @property
    def coins(self) -> int:
        """Lots of the stablecoin."""
        return self.holdings[self.market.stablecoin]

    def setup(self, params: Config) -> None:
        """Take over the settings and draw what is this agent's own."""

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        """Decide. now_ns: the agent's clock when it took up the event."""
        raise NotImplementedError

    def handle(self, event: Event, now_ns: int) -> Sequence[Action]:
        """Keep the books, then decide."""
        if isinstance(event, Report):
            self._book(event)
        elif isinstance(event, Notice) and event.kind == SIGNAL:
            if event.instrument == self.market.stablecoin and not self.listens_to_coin:
                return ()
        elif isinstance(event, Notice) and event.instrument == self.market.instrument:
            if event.kind == HALTED:
                self.halted = True
            elif event.kind == PHASE_CHANGED and event.value in (Phase.CONTINUOUS, Phase.BATCH):
                self.halted = False
        return self.on_event(event, now_ns)

    def decide(self, rule: Rule, *values: float) -> PlaceOrder | None:
        """Let the rule's function decide on these inputs; the order that it gives carries them. None: it gives none.

        No order is placed beyond the prices that the venue knows.
        """
        decision = self.decisions[rule]
        choice = decision.choose(*values)
        market = self.market
        if choice is None or choice.price_ticks >= (market.coin_levels if decision.coin else market.price_levels):
            return None
        side, order_type, price_ticks, quantity_lots = choice
        instrument = market.stablecoin if decision.coin else market.instrument
        words = decision.words(*values)
        return self._order(side, order_type, price_ticks, quantity_lots, rule, instrument, words)

    def buy(
        self, order_type: OrderType, price_ticks: int, quantity_lots: int, rule: Rule, instrument: int | None = None
    ) -> PlaceOrder:
        """An order without an explanation. instrument: None for the market's main one; so in sell."""
        return self._order(_BUY, order_type, price_ticks, quantity_lots, rule, instrument)

    def sell(
        self, order_type: OrderType, price_ticks: int, quantity_lots: int, rule: Rule, instrument: int | None = None
    ) -> PlaceOrder:
        return self._order(int(Side.SELL), order_type, price_ticks, quantity_lots, rule, instrument)

    def cancel(self, order_id: int, rule: Rule) -> CancelOrder:
        order = self.open_orders[order_id]
        order.cancelling = True
        return CancelOrder(order_id, 0, int(rule), order.instrument)

    def request(self, kind: CommandKind, quantity_lots: int, rule: Rule, target: int = 0) -> Request:
        return Request(int(kind), quantity_lots, int(rule), target)

    def _order(
        self,
        side: int,
        order_type: int,
        price_ticks: int,
        quantity_lots: int,
        rule: Rule,
        instrument: int | None,
        inputs: tuple[int, ...] = (),
    ) -> PlaceOrder:
        number = self.market.instrument if instrument is None else instrument
        self._last_order_id += 1
        self.open_orders[self._last_order_id] = OpenOrder(side, price_ticks, quantity_lots, instrument=number)
        return PlaceOrder(
            self._last_order_id, side, int(order_type), price_ticks, quantity_lots, int(rule), number, inputs
        )

    def _book(self, report: Report) -> None:
        kind = report.kind
        if kind in (FILLED, _TAKEN_OVER, _DELEVERAGED):
            self._trade(report.instrument, report.side, report.quantity_lots, report.price_ticks)
        order = self.open_orders.get(report.order_id)
        if order is not None and kind in (FILLED, CANCELLED, REJECTED):
            order.leaves_lots = report.leaves_lots
            if report.leaves_lots == 0:
                del self.open_orders[report.order_id]
        if kind > MARGIN_CALLED:
            self._book_facility(report)

    def _trade(self, instrument: int, side: int, lots: int, price_ticks: int) -> None:
        sign = 1 if side == _BUY else -1
        self.holdings[instrument] += sign * lots
        self.cash -= sign * lots * price_ticks

    def _book_facility(self, report: Report) -> None:
        """Liquidation, loans and the issuer; see docs/wire.md for which field says what."""
        kind, lots = report.kind, report.quantity_lots
        shares, coins = self.market.instrument, self.market.stablecoin
        if kind == LIQUIDATION_STARTED:
            self.liquidating = True
        elif kind == LIQUIDATION_ENDED:
            self.liquidating = False
            self.cash = report.reference
        elif kind == _FEE_CHARGED:
            self.cash -= report.reference
        elif kind in (_COLLATERAL_IN, _COLLATERAL_OUT):
            sign = 1 if kind == _COLLATERAL_IN else -1
            self.collateral += sign * lots
            self.holdings[shares] -= sign * lots
        elif kind in (_BORROWED, _REPAID):
            sign = 1 if kind == _BORROWED else -1
            self.debt += sign * lots
            self.holdings[coins] += sign * lots
        elif kind == LOAN_LIQUIDATED and report.liquidity == _TAKER:  # mine was the liquidation
            self.holdings[coins] -= lots
            self.holdings[shares] += report.leaves_lots
        elif kind == LOAN_LIQUIDATED:
            self.debt -= lots
            self.collateral -= report.leaves_lots
        elif kind == _BAD_DEBT and report.instrument == coins:
            self.debt = 0
        elif kind in (REDEEMED, MINTED):
            self._trade(coins, int(Side.SELL) if kind == REDEEMED else _BUY, lots, report.price_ticks)
