"""The exchange of docs/matching.md, admission.md, breaker.md, money.md, written to be read: the oracle of the engine.

Best prices, the number of resting orders, the breaker's windows and the clearing price are worked out afresh each time
they are asked for, so there is little here that can go wrong in the way the engine can. It shares the records and
numbers of `exchange.types` and the settings of `exchange.config` with the engine, and no code. It is far too slow to
trade on.

Units as in `exchange.types`: prices in ticks, quantities in lots, cash in the minor unit, times in nanoseconds.
"""

import hashlib
import struct
from collections import deque

import numpy as np

from exchange.config import EngineConfig
from exchange.types import (
    BOTH_SIDES,
    MAX_CASH,
    MAX_QUANTITY_LOTS,
    REQUEST_COMMANDS,
    CommandKind,
    EventKind,
    Limit,
    OrderType,
    Phase,
    Reason,
    SelfTrade,
    Side,
    SystemAccount,
)
from tests.oracle_admission import Admission
from tests.oracle_breaker import Breaker, price_move_trips
from tests.oracle_lending import Lending
from tests.oracle_margin import Margin
from tests.oracle_records import (
    NEVER,
    NOBODY,
    Account,
    Clearing,
    Command,
    Event,
    Happened,
    Instrument,
    Order,
    Outcome,
    Position,
    clearing_of,
)

MAX_ORDER_ID = 2**62 - 1
MAX_POSITION_LOTS = MAX_CASH >> 28
SECOND_NS = 10**9
COLLECTING = (Phase.AUCTION, Phase.BATCH)


class Oracle:
    """A whole exchange in one object. Give it commands in the order of their sequence numbers."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.sequence = 0
        self.starts = 0
        self.cash_deposited = 0
        """Less what was withdrawn."""
        self.deposited_to_deficit = 0
        self.deposited_to_pool = [0] * len(config.instruments)
        self.came_to_rest = 0
        limits = {limit: getattr(config.limits, limit.name.lower()) for limit in Limit}
        self.instruments = [Instrument(settings) for settings in config.instruments]
        self.participants = config.accounts
        self.accounts = [
            Account([Position() for _ in self.instruments], dict(limits))
            for _ in range(config.accounts + config.system_accounts)
        ]
        """The participants', then the venue's own."""
        self.orders: list[Order] = []
        """Every order ever accepted."""
        self._events: list[Event] = []
        self.admission = Admission(self)
        self.breaker = Breaker(self)
        self.margin = Margin(self)
        self.lending = Lending(self)

    def apply(self, command: "np.void | tuple[int, ...]") -> list[tuple[int, ...]]:
        """Apply one command: a record of COMMAND, or its fields in that order. Return its events as plain tuples."""
        c = Command(*(command.item() if isinstance(command, np.void) else command))
        self.sequence = c.sequence
        self._events = []
        match c.kind:
            case CommandKind.PLACE_ORDER | CommandKind.REPLACE_ORDER:
                self._place_or_replace(c)
            case CommandKind.CANCEL_ORDER:
                self._cancel_order(c)
            case CommandKind.MASS_CANCEL:
                self._mass_cancel(c)
            case CommandKind.LOG_ON:
                self._log_on(c)
            case CommandKind.EXPLAIN:
                self.admission.explain(c)
            case CommandKind.LOG_OFF:
                self._log_off(c)
            case CommandKind.TIMER:
                self._timer(c)
            case CommandKind.START:
                self.starts += 1
                self.emit(c, EventKind.VENUE_STARTED, account=NOBODY, value=self.starts)
            case CommandKind.DEPOSIT_CASH:
                self._deposit_cash(c)
            case CommandKind.DEPOSIT_POSITION:
                self._deposit_position(c)
            case CommandKind.OPEN_SESSION:
                self._open_session(c)
            case CommandKind.PUBLISH_SIGNAL:
                self._publish_signal(c)
            case CommandKind.CLOSE_SESSION:
                self._close_session(c)
            case CommandKind.SET_LIMIT:
                self._set_limit(c)
            case CommandKind.WITHDRAW_CASH:
                self.margin.withdraw_cash(c)
            case CommandKind.SET_MARGIN:
                self.margin.set_margin(c)
            case CommandKind.PUBLISH_INDEX:
                self._publish_index(c)
            case CommandKind.REVALUE:
                self.margin.revalue(c)
            case CommandKind.HALT:
                self.breaker.supervisor_halts(c)
            case CommandKind.KILL:
                self.breaker.supervisor_kills(c)
            case CommandKind.KILL_VENDOR:
                self.breaker.supervisor_kills_vendor(c)
            case kind if kind in REQUEST_COMMANDS:
                self.lending.request(c)
            case _:
                self.reject_operator(c, Reason.UNKNOWN_COMMAND)
        if c.kind != CommandKind.REVALUE:
            self.margin.arm_after_command(c)
        return [tuple(int(value) for value in event) for event in self._events]

    def emit(self, c: Command, kind: EventKind, **fields: int) -> None:
        self._events.append(Event(c.sequence, kind, c.received_ns, **fields))

    def event_count(self) -> int:
        """Of the command that is being applied, so far."""
        return len(self._events)

    def account_exists(self, account: int) -> bool:
        """Whether it is a participant's."""
        return 0 <= account < self.participants

    def _may_be_given(self, account: int) -> bool:
        return 0 <= account < len(self.accounts)

    def instrument_exists(self, instrument: int) -> bool:
        return 0 <= instrument < len(self.instruments)

    # Phases

    def _phase_refusal(self, number: int, cancels: bool = False) -> Reason:
        instrument = self.instruments[number]
        breaker = instrument.settings.breaker
        if instrument.phase == Phase.HALTED and cancels:  # noqa: SIM102
            if breaker.cancels_while_halted or breaker.risk_reducing_while_halted:
                return Reason.NONE
        return {
            Phase.PRE_OPEN: Reason.NOT_OPEN,
            Phase.AUCTION: Reason.NONE,
            Phase.CONTINUOUS: Reason.NONE,
            Phase.BATCH: Reason.NONE,
            Phase.HALTED: Reason.HALTED,
            Phase.CLOSED: Reason.CLOSED,
        }[Phase(instrument.phase)]

    def begin_phase(self, c: Command, number: int, phase: Phase, lasts_ns: int = 0) -> None:
        """lasts_ns: 0 if no timer ends it."""
        instrument = self.instruments[number]
        instrument.phase = phase
        instrument.phase_started_ns = c.received_ns if phase == Phase.BATCH else 0
        instrument.timer_ns = c.received_ns + lasts_ns if lasts_ns else NEVER
        ends_ns = instrument.timer_ns if lasts_ns else 0
        self.emit(c, EventKind.PHASE_CHANGED, instrument=number, account=NOBODY, value=phase, threshold=ends_ns)

    def _begin_trading(self, c: Command, number: int) -> None:
        batches = self.instruments[number].settings.batch_interval_ns
        self.begin_phase(c, number, Phase.BATCH if batches else Phase.CONTINUOUS)

    # Orders: the checks

    def _place_or_replace(self, c: Command) -> None:
        if not self.account_exists(c.account):
            self._reject_order(c, Reason.UNKNOWN_ACCOUNT)
            return
        account = self.accounts[c.account]
        over_rate = self.charge_message(c)
        if not 1 <= c.order_id <= MAX_ORDER_ID:
            self._reject_order(c, Reason.ORDER_ID_NOT_INCREASING)
            return
        if c.order_id <= account.last_order_id:
            self._repeat(c)
            return
        account.last_order_id = c.order_id
        if account.killed:
            reason = Reason.IS_KILLED
        elif over_rate:
            reason = Reason.MESSAGE_RATE_LIMIT
        elif (not_admitted := self.admission.order_refusal(c)) != Reason.NONE:
            reason = not_admitted
        elif c.kind == CommandKind.PLACE_ORDER:
            reason = self._place_refusal(c)
        else:
            reason = self._replace_refusal(c)
        outcome = reason
        if reason != Reason.NONE:
            self._reject_order(c, reason)
        elif c.kind == CommandKind.PLACE_ORDER:
            self._place(c)
        else:
            outcome = self._replace(c)
        account.remembered.append(Outcome(c.order_id, c.sequence, c.quantity_lots, outcome))
        del account.remembered[: -self.config.remembered_orders]

    def charge_message(self, c: Command) -> bool:
        """Charge one message of a known account. Return whether it is over the rate."""
        account = self.accounts[c.account]
        rate = account.limits[Limit.MESSAGES_PER_S]
        if rate == 0:
            return False
        interval_ns = SECOND_NS // rate
        time_ns = max(account.rate_ns, c.received_ns)
        if time_ns - c.received_ns > SECOND_NS - interval_ns:
            return True
        account.rate_ns = time_ns + interval_ns
        return False

    def _reject_order(self, c: Command, reason: Reason) -> None:
        self.emit(
            c,
            EventKind.ORDER_REJECTED,
            instrument=c.instrument,
            account=c.account,
            order_id=c.order_id,
            side=c.side,
            price_ticks=c.price_ticks,
            quantity_lots=c.quantity_lots,
            reason=reason,
        )

    def _repeat(self, c: Command) -> None:
        for outcome in self.accounts[c.account].remembered:
            if outcome.order_id == c.order_id:
                resting = [
                    order.leaves_lots
                    for each in self.instruments
                    for order in each.resting()
                    if (order.account, order.order_id) == (c.account, c.order_id)
                ]
                self.emit(
                    c,
                    EventKind.ORDER_REPEATED,
                    instrument=c.instrument,
                    account=c.account,
                    order_id=c.order_id,
                    quantity_lots=outcome.quantity_lots,
                    leaves_lots=sum(resting),
                    reason=outcome.reason,
                    value=outcome.sequence,
                )
                return
        self._reject_order(c, Reason.ORDER_ID_NOT_INCREASING)

    def _place_refusal(self, c: Command) -> Reason:
        """Checks 4 to 13: the first that fails."""
        if not self.instrument_exists(c.instrument):
            return Reason.UNKNOWN_INSTRUMENT
        only_reducing = self.breaker.takes_reducing(self.instruments[c.instrument])
        if not only_reducing and (reason := self._phase_refusal(c.instrument)) != Reason.NONE:
            return reason
        if c.side not in (Side.BUY, Side.SELL):
            return Reason.INVALID_SIDE
        if c.order_type not in set(OrderType):
            return Reason.INVALID_ORDER_TYPE
        if only_reducing and not self.breaker.order_reduces(c):
            return Reason.NOT_RISK_REDUCING
        collecting = self.instruments[c.instrument].phase in COLLECTING
        if collecting and c.order_type in (OrderType.MARKET, OrderType.FOK):
            return Reason.NOT_IN_AUCTION
        if (reason := self._number_refusal(c)) != Reason.NONE:
            return reason
        if (reason := self._limit_refusal(c, c.side, c.quantity_lots, gone=None)) != Reason.NONE:
            return reason
        if (reason := self._funds_refusal(c, c.side, c.quantity_lots, gone=None)) != Reason.NONE:
            return reason
        if self._may_rest(c) and self._resting_orders() >= self.config.max_orders:
            return Reason.BOOK_FULL
        if (reason := self._post_only_refusal(c, c.side)) != Reason.NONE:
            return reason
        return self.admission.flow_refusal(c, c.side, c.quantity_lots)

    def _replace_refusal(self, c: Command) -> Reason:
        """Checks 4 to 9 and, if the order goes to the back, those of a new order."""
        if not self.instrument_exists(c.instrument):
            return Reason.UNKNOWN_INSTRUMENT
        if (reason := self._phase_refusal(c.instrument)) != Reason.NONE:
            return reason
        if c.order_type not in (OrderType.LIMIT, OrderType.POST_ONLY):
            return Reason.INVALID_ORDER_TYPE
        if (reason := self._number_refusal(c)) != Reason.NONE:
            return reason
        order = self._find_resting(c.instrument, c.account, c.target_order_id)
        if order is None:
            return Reason.UNKNOWN_ORDER
        new_leaves_lots = c.quantity_lots - order.filled_lots
        if new_leaves_lots <= 0 or self._stays_in_place(c, order):
            return Reason.NONE
        if (reason := self._limit_refusal(c, order.side, new_leaves_lots, gone=order)) != Reason.NONE:
            return reason
        if (reason := self._funds_refusal(c, order.side, new_leaves_lots, gone=order)) != Reason.NONE:
            return reason
        if (reason := self._post_only_refusal(c, order.side)) != Reason.NONE:
            return reason
        return self.admission.flow_refusal(c, order.side, new_leaves_lots)

    def _stays_in_place(self, c: Command, order: Order) -> bool:
        return c.price_ticks == order.price_ticks and c.quantity_lots - order.filled_lots <= order.leaves_lots

    def _number_refusal(self, c: Command) -> Reason:
        settings = self.instruments[c.instrument].settings
        if not 1 <= c.quantity_lots <= settings.max_quantity_lots:
            return Reason.QUANTITY_OUT_OF_RANGE
        if c.order_type == OrderType.MARKET:
            price_valid = c.price_ticks == 0
        else:
            price_valid = 1 <= c.price_ticks <= settings.price_levels - 1
        return Reason.NONE if price_valid else Reason.PRICE_OUT_OF_RANGE

    def _may_rest(self, c: Command) -> bool:
        if c.order_type == OrderType.IOC:
            return self.instruments[c.instrument].phase in COLLECTING
        return c.order_type in (OrderType.LIMIT, OrderType.POST_ONLY)

    def _limit_refusal(self, c: Command, side: int, lots: int, gone: Order | None) -> Reason:
        """Check 9. lots: what may trade or rest; gone: the order being replaced."""
        instrument, account = self.instruments[c.instrument], self.accounts[c.account]
        limits = account.limits
        if limits[Limit.ORDER_LOTS] and c.quantity_lots > limits[Limit.ORDER_LOTS]:
            return Reason.ORDER_SIZE_LIMIT
        price_ticks = instrument.best_ticks(1 - side) if c.order_type == OrderType.MARKET else c.price_ticks
        if limits[Limit.NOTIONAL] and price_ticks is not None:  # noqa: SIM102
            if instrument.notional(price_ticks, lots) > limits[Limit.NOTIONAL]:
                return Reason.NOTIONAL_LIMIT
        if limits[Limit.POSITION_LOTS] and side == Side.BUY:
            position_lots = account.positions[c.instrument].quantity_lots + self.buying_lots(c.account, c.instrument)
            if gone is not None:
                position_lots -= gone.leaves_lots
            if position_lots + lots > limits[Limit.POSITION_LOTS]:
                return Reason.POSITION_LIMIT
        if limits[Limit.OPEN_ORDERS] and self._may_rest(c) and gone is None:  # noqa: SIM102
            if len(self.resting_of(c.account)) >= limits[Limit.OPEN_ORDERS]:
                return Reason.OPEN_ORDERS_LIMIT
        return Reason.NONE

    def _funds_refusal(self, c: Command, side: int, lots: int, gone: Order | None) -> Reason:
        """Check 10."""
        instrument, account = self.instruments[c.instrument], self.accounts[c.account]
        if account.margin:
            return self.margin.order_refusal(c, side, lots, gone.leaves_lots if gone is not None else 0)
        if side == Side.SELL:
            position = account.positions[c.instrument]
            free_lots = position.quantity_lots - position.reserved_lots
            if gone is not None:
                free_lots += gone.leaves_lots
            return Reason.NONE if free_lots >= lots else Reason.INSUFFICIENT_POSITION
        free_cash = account.free_cash
        if gone is not None:
            free_cash += instrument.notional(gone.price_ticks, gone.leaves_lots)
        if c.order_type == OrderType.MARKET:
            needed = instrument.notional(1, 1)
        else:
            needed = instrument.notional(c.price_ticks, lots)
        return Reason.NONE if free_cash >= needed else Reason.INSUFFICIENT_CASH

    def _post_only_refusal(self, c: Command, side: int) -> Reason:
        """Check 12."""
        instrument = self.instruments[c.instrument]
        if c.order_type != OrderType.POST_ONLY or instrument.phase != Phase.CONTINUOUS:
            return Reason.NONE
        return Reason.WOULD_MATCH if self.reachable_ticks(c, side) is not None else Reason.NONE

    # Orders: what they do

    def _place(self, c: Command) -> None:
        self.emit(
            c,
            EventKind.ORDER_ACCEPTED,
            instrument=c.instrument,
            account=c.account,
            order_id=c.order_id,
            side=c.side,
            price_ticks=c.price_ticks,
            quantity_lots=c.quantity_lots,
            leaves_lots=c.quantity_lots,
        )
        order = Order(
            c.account, c.order_id, c.instrument, c.side, c.price_ticks, c.quantity_lots, leaves_lots=c.quantity_lots
        )
        self.orders.append(order)
        self._enter_market(c, order)

    def _replace(self, c: Command) -> Reason:
        """Return the outcome to remember."""
        order = self._find_resting(c.instrument, c.account, c.target_order_id)
        assert order is not None
        new_leaves_lots = c.quantity_lots - order.filled_lots
        if new_leaves_lots <= 0:
            self.cancel_resting(c, order, order.leaves_lots, Reason.REPLACED)
            return Reason.REPLACED
        in_place = self._stays_in_place(c, order)
        if in_place:
            self._reserve(order, new_leaves_lots - order.leaves_lots)
        else:
            self._reserve(order, -order.leaves_lots)
            self._leave_book(order)
        order.replaced_lots += order.leaves_lots - new_leaves_lots
        order.order_id, order.price_ticks, order.leaves_lots = c.order_id, c.price_ticks, new_leaves_lots
        order.expiring = False
        self.emit(
            c,
            EventKind.ORDER_REPLACED,
            instrument=c.instrument,
            account=c.account,
            order_id=c.order_id,
            side=order.side,
            price_ticks=c.price_ticks,
            quantity_lots=c.quantity_lots,
            leaves_lots=new_leaves_lots,
            reason=Reason.NONE if in_place else Reason.LOST_PRIORITY,
            value=c.target_order_id,
        )
        if not in_place:
            self._enter_market(c, order)
        return Reason.NONE

    def _enter_market(self, c: Command, order: Order) -> None:
        """Collect the order, or match it and let its remainder rest or leave."""
        instrument = self.instruments[order.instrument]
        if instrument.phase in (*COLLECTING, Phase.HALTED):
            order.expiring = c.order_type == OrderType.IOC
            self._rest(order)
            if instrument.phase == Phase.BATCH and instrument.timer_ns == NEVER:
                interval_ns = instrument.settings.batch_interval_ns
                intervals = (c.received_ns - instrument.phase_started_ns) // interval_ns + 1
                instrument.timer_ns = instrument.phase_started_ns + intervals * interval_ns
            return
        if c.order_type == OrderType.FOK and self._measure(c, order) < order.leaves_lots:
            self._take_off(c, order, order.leaves_lots, Reason.FOK_UNFILLABLE)
            return
        reason = self._match_order(c, order)
        if order.leaves_lots == 0:
            return
        if reason == Reason.NONE and c.order_type in (OrderType.LIMIT, OrderType.POST_ONLY):
            self._rest(order)
            return
        if reason == Reason.NONE:
            reason = Reason.IOC_REMAINDER if c.order_type == OrderType.IOC else Reason.NO_LIQUIDITY
        self._take_off(c, order, order.leaves_lots, reason)

    def reachable_ticks(self, c: Command, side: int) -> int | None:
        """The best opposite price, if it is at or better than the limit."""
        price_ticks = self.instruments[c.instrument].best_ticks(1 - side)
        if price_ticks is None or c.order_type == OrderType.MARKET:
            return price_ticks
        worse = price_ticks > c.price_ticks if side == Side.BUY else price_ticks < c.price_ticks
        return None if worse else price_ticks

    def _measure(self, c: Command, taker: Order) -> int:
        """How many lots a FOK would find."""
        self_trade = self.accounts[c.account].self_trade
        sum_lots = 0
        for maker in self.instruments[c.instrument].resting_of(1 - taker.side):
            if maker.price_ticks > c.price_ticks if taker.side == Side.BUY else maker.price_ticks < c.price_ticks:
                break
            if maker.account == taker.account and self_trade == SelfTrade.CANCEL_INCOMING:
                break
            if maker.account == taker.account and self_trade == SelfTrade.CANCEL_RESTING:
                continue
            sum_lots += maker.leaves_lots
        return sum_lots

    def _match_order(self, c: Command, taker: Order) -> Reason:
        """Match until nothing can be matched. Return why a remainder must leave the market, NONE if no reason arose."""
        instrument, account = self.instruments[c.instrument], self.accounts[c.account]
        while taker.leaves_lots > 0:
            price_ticks = self.reachable_ticks(c, taker.side)
            if price_ticks is None:
                return Reason.NONE
            maker = instrument.queues[1 - taker.side][price_ticks][0]
            if maker.account == taker.account and account.self_trade == SelfTrade.CANCEL_RESTING:
                self.cancel_resting(c, maker, maker.leaves_lots, Reason.SELF_TRADE)
                continue
            if maker.account == taker.account and account.self_trade == SelfTrade.CANCEL_INCOMING:
                return Reason.SELF_TRADE
            wanted_lots = quantity_lots = min(taker.leaves_lots, maker.leaves_lots)
            if c.order_type == OrderType.MARKET and taker.side == Side.BUY and not account.margin:
                quantity_lots = min(quantity_lots, account.free_cash // instrument.notional(price_ticks, 1))
                if quantity_lots == 0:
                    return Reason.CASH_EXHAUSTED
            trip = self.breaker.match_trips(c, c.instrument, taker.side, price_ticks, quantity_lots)
            if trip is not None:
                self.breaker.act(c, c.instrument, trip, price_ticks, quantity_lots, taker)
                return Reason.BREAKER
            buy, sell = (taker, maker) if taker.side == Side.BUY else (maker, taker)
            self.trade(buy, sell, price_ticks, quantity_lots)
            self.take_from_book(maker, quantity_lots)
            taker.leaves_lots -= quantity_lots
            self.breaker.matched(c, c.instrument, taker.side, price_ticks, quantity_lots)
            self.emit_fill(c, taker, maker, price_ticks, quantity_lots)
            if quantity_lots < wanted_lots:
                return Reason.CASH_EXHAUSTED
        return Reason.NONE

    def trade(self, buy: Order, sell: Order, price_ticks: int, quantity_lots: int) -> None:
        """Move cash and lots; whose reservations shrink, and by what, is the caller's to say."""
        instrument = self.instruments[buy.instrument]
        buyer, seller = self.accounts[buy.account], self.accounts[sell.account]
        notional = instrument.notional(price_ticks, quantity_lots)
        buyer.cash -= notional
        seller.cash += notional
        self.margin.move(buy.account, buy.instrument, quantity_lots, notional)
        self.margin.move(sell.account, buy.instrument, -quantity_lots, notional)
        buy.filled_lots += quantity_lots
        sell.filled_lots += quantity_lots
        instrument.last_ticks = price_ticks
        instrument.volume_lots += quantity_lots

    def take_from_book(self, order: Order, quantity_lots: int) -> None:
        """What of a resting order was filled or cancelled no longer rests."""
        self._reserve(order, -quantity_lots)
        order.leaves_lots -= quantity_lots
        if order.leaves_lots == 0:
            self._leave_book(order)

    def emit_fill(
        self,
        c: Command,
        order: Order,
        maker: Order,
        price_ticks: int,
        quantity_lots: int,
        reason: Reason = Reason.NONE,
        value: int = 0,
    ) -> None:
        self.emit(
            c,
            EventKind.ORDER_FILLED,
            instrument=order.instrument,
            account=order.account,
            order_id=order.order_id,
            side=order.side,
            price_ticks=price_ticks,
            quantity_lots=quantity_lots,
            leaves_lots=order.leaves_lots,
            maker_account=maker.account,
            maker_order_id=maker.order_id,
            maker_leaves_lots=maker.leaves_lots,
            reason=reason,
            value=value,
        )

    # The book

    def _resting_orders(self) -> int:
        return sum(1 for each in self.instruments for _ in each.resting())

    def resting_of(self, account: int) -> list[Order]:
        """An account's resting orders, oldest first."""
        resting = [order for each in self.instruments for order in each.resting() if order.account == account]
        return sorted(resting, key=lambda order: order.came_to_rest)

    def buying_lots(self, account: int, instrument: int) -> int:
        bids = self.instruments[instrument].resting_of(Side.BUY)
        return sum(order.leaves_lots for order in bids if order.account == account)

    def _find_resting(self, instrument: int, account: int, order_id: int) -> Order | None:
        for order in self.instruments[instrument].resting():
            if (order.account, order.order_id) == (account, order_id):
                return order
        return None

    def _rest(self, order: Order) -> None:
        self.came_to_rest += 1
        order.came_to_rest = self.came_to_rest
        self.instruments[order.instrument].queues[order.side].setdefault(order.price_ticks, deque()).append(order)
        self._reserve(order, order.leaves_lots)

    def _leave_book(self, order: Order) -> None:
        prices = self.instruments[order.instrument].queues[order.side]
        prices[order.price_ticks].remove(order)
        if not prices[order.price_ticks]:
            del prices[order.price_ticks]

    def _reserve(self, order: Order, quantity_lots: int) -> None:
        """Reserve (or release, if negative) what this many lots of a resting order need."""
        account = self.accounts[order.account]
        if order.side == Side.BUY:
            account.reserved_cash += self.instruments[order.instrument].notional(order.price_ticks, quantity_lots)
        else:
            account.positions[order.instrument].reserved_lots += quantity_lots

    def _take_off(self, c: Command, order: Order, quantity_lots: int, reason: Reason) -> None:
        """Cancel this many lots of an order that never came to rest."""
        order.leaves_lots -= quantity_lots
        self._emit_cancelled(c, order, quantity_lots, reason)

    def cancel_resting(self, c: Command, order: Order, quantity_lots: int, reason: Reason) -> None:
        self.take_from_book(order, quantity_lots)
        self._emit_cancelled(c, order, quantity_lots, reason)

    def _emit_cancelled(self, c: Command, order: Order, quantity_lots: int, reason: Reason) -> None:
        order.cancelled_lots += quantity_lots
        self.emit(
            c,
            EventKind.ORDER_CANCELLED,
            instrument=order.instrument,
            account=order.account,
            order_id=order.order_id,
            side=order.side,
            price_ticks=order.price_ticks,
            quantity_lots=quantity_lots,
            leaves_lots=order.leaves_lots,
            reason=reason,
        )

    # Cancels

    def _cancel_order(self, c: Command) -> None:
        reason = self._cancel_refusal(c)
        if reason != Reason.NONE:
            self.emit(
                c,
                EventKind.CANCEL_REJECTED,
                instrument=c.instrument,
                account=c.account,
                order_id=c.target_order_id,
                quantity_lots=c.quantity_lots,
                reason=reason,
            )
            return
        order = self._find_resting(c.instrument, c.account, c.target_order_id)
        assert order is not None
        quantity_lots = min(c.quantity_lots, order.leaves_lots) or order.leaves_lots
        self.cancel_resting(c, order, quantity_lots, Reason.BY_OWNER)

    def _cancel_refusal(self, c: Command) -> Reason:
        """The first check that fails. Side effect: the message rate is charged."""
        if not self.account_exists(c.account):
            return Reason.UNKNOWN_ACCOUNT
        self.charge_message(c)
        if not self.instrument_exists(c.instrument):
            return Reason.UNKNOWN_INSTRUMENT
        if (reason := self._phase_refusal(c.instrument, cancels=True)) != Reason.NONE:
            return reason
        if not 0 <= c.quantity_lots <= self.instruments[c.instrument].settings.max_quantity_lots:
            return Reason.QUANTITY_OUT_OF_RANGE
        if self._find_resting(c.instrument, c.account, c.target_order_id) is None:
            return Reason.UNKNOWN_ORDER
        return Reason.NONE

    def _mass_cancel(self, c: Command) -> None:
        asked = {"instrument": c.instrument, "account": c.account, "side": c.side}
        reason = self._mass_cancel_refusal(c)
        if reason != Reason.NONE:
            self.emit(c, EventKind.CANCEL_REJECTED, **asked, reason=reason)
            return
        matching = [
            order
            for order in self.resting_of(c.account)
            if c.instrument in (NOBODY, order.instrument)
            and c.side in (BOTH_SIDES, order.side)
            and self._phase_refusal(order.instrument, cancels=True) == Reason.NONE
        ]
        for order in matching:
            self.cancel_resting(c, order, order.leaves_lots, Reason.MASS_CANCEL)
        self.emit(c, EventKind.MASS_CANCELLED, **asked, quantity_lots=len(matching))

    def _mass_cancel_refusal(self, c: Command) -> Reason:
        """The first check that fails. Side effect: the message rate is charged."""
        if not self.account_exists(c.account):
            return Reason.UNKNOWN_ACCOUNT
        self.charge_message(c)
        if c.instrument != NOBODY and not self.instrument_exists(c.instrument):
            return Reason.UNKNOWN_INSTRUMENT
        if c.side not in (Side.BUY, Side.SELL, BOTH_SIDES):
            return Reason.INVALID_SIDE
        if c.instrument != NOBODY:
            return self._phase_refusal(c.instrument, cancels=True)
        return Reason.NONE

    # Sessions of participants

    def _log_on(self, c: Command) -> None:
        flags = c.quantity_lots
        if not self.account_exists(c.account):
            self._reject_session(c, Reason.UNKNOWN_ACCOUNT)
            return
        if not 0 <= flags <= 5:
            self._reject_session(c, Reason.MALFORMED)
            return
        if self.accounts[c.account].killed:
            self._reject_session(c, Reason.IS_KILLED)
            return
        if (reason := self.admission.log_on_refusal(c)) != Reason.NONE:
            self._reject_session(c, reason)
            return
        account = self.accounts[c.account]
        account.logged_on = 1
        account.cancel_on_disconnect = flags % 2
        account.self_trade = flags // 2
        account.vendor, account.model, account.model_version = c.target_order_id, c.order_type, c.price_ticks
        self.emit(
            c,
            EventKind.LOGGED_ON,
            account=c.account,
            order_id=account.last_order_id,
            price_ticks=account.model_version,
            leaves_lots=account.model,
            maker_order_id=account.vendor,
            value=flags,
        )

    def _log_off(self, c: Command) -> None:
        if not self.account_exists(c.account):
            self._reject_session(c, Reason.UNKNOWN_ACCOUNT)
            return
        account = self.accounts[c.account]
        account.logged_on = 0
        orders = self.resting_of(c.account) if account.cancel_on_disconnect else []
        for order in orders:
            self.cancel_resting(c, order, order.leaves_lots, Reason.DISCONNECTED)
        self.emit(c, EventKind.LOGGED_OFF, account=c.account, quantity_lots=len(orders))

    def _reject_session(self, c: Command, reason: Reason) -> None:
        self.emit(c, EventKind.ORDER_REJECTED, account=c.account, quantity_lots=c.quantity_lots, reason=reason)

    # Timers and uncrossing

    def _timer(self, c: Command) -> None:
        reason = Reason.NONE
        if not self.instrument_exists(c.instrument):
            reason = Reason.UNKNOWN_INSTRUMENT
        elif c.received_ns < self.instruments[c.instrument].timer_ns:
            reason = Reason.TIMER_NOT_DUE
        if reason != Reason.NONE:
            self.emit(c, EventKind.ORDER_REJECTED, instrument=c.instrument, account=NOBODY, reason=reason)
            return
        instrument = self.instruments[c.instrument]
        instrument.timer_ns = NEVER
        if instrument.phase == Phase.HALTED:
            self.begin_phase(c, c.instrument, Phase.AUCTION, instrument.settings.breaker.reopening_auction_ns)
        elif instrument.phase == Phase.AUCTION:
            self._end_auction(c, instrument)
        else:
            assert instrument.phase == Phase.BATCH
            self._end_batch(c, instrument)

    def _end_auction(self, c: Command, instrument: Instrument) -> None:
        clearing = clearing_of(instrument)
        if self.breaker.extends(c, c.instrument, clearing):
            return
        self._uncross(c, instrument, clearing)
        self._cancel_expiring(c, instrument, Reason.AUCTION_REMAINDER)
        self.breaker.auction_ended(c, instrument, clearing)
        self._begin_trading(c, c.instrument)

    def _end_batch(self, c: Command, instrument: Instrument) -> None:
        clearing = clearing_of(instrument)
        if clearing is not None:
            trip = price_move_trips(c, instrument, clearing.price_ticks)
            if trip is not None:
                self.breaker.act(c, c.instrument, trip, clearing.price_ticks, clearing.volume_lots, taker=None)
                self._cancel_expiring(c, instrument, Reason.BREAKER)
                return
            self._uncross(c, instrument, clearing)
            instrument.prices.append(Happened(c.received_ns, clearing.price_ticks, c.sequence))
        self._cancel_expiring(c, instrument, Reason.AUCTION_REMAINDER)

    def _uncross(self, c: Command, instrument: Instrument, clearing: Clearing | None) -> None:
        price_ticks, volume_lots, imbalance_lots, reference_ticks = clearing or (0, 0, 0, 0)
        self.emit(
            c,
            EventKind.AUCTION_ENDED,
            instrument=c.instrument,
            account=NOBODY,
            price_ticks=price_ticks,
            quantity_lots=volume_lots,
            value=imbalance_lots,
            threshold=reference_ticks,
        )
        while volume_lots > 0:
            bid, ask = next(instrument.resting_of(Side.BUY)), next(instrument.resting_of(Side.SELL))
            quantity_lots = min(bid.leaves_lots, ask.leaves_lots, volume_lots)
            volume_lots -= quantity_lots
            self.trade(bid, ask, price_ticks, quantity_lots)
            self.take_from_book(bid, quantity_lots)
            self.take_from_book(ask, quantity_lots)
            self.emit_fill(c, bid, ask, price_ticks, quantity_lots, Reason.AUCTION)

    def _cancel_expiring(self, c: Command, instrument: Instrument, reason: Reason) -> None:
        for order in [order for order in instrument.resting() if order.expiring]:
            self.cancel_resting(c, order, order.leaves_lots, reason)

    # The operator

    def reject_operator(self, c: Command, reason: Reason) -> None:
        self.emit(
            c,
            EventKind.ORDER_REJECTED,
            instrument=c.instrument,
            account=c.account,
            quantity_lots=c.quantity_lots,
            reason=reason,
        )

    def _deposit_cash(self, c: Command) -> None:
        if not self._may_be_given(c.account):
            self.reject_operator(c, Reason.UNKNOWN_ACCOUNT)
        elif not 1 <= c.quantity_lots <= MAX_CASH or self.cash_deposited + c.quantity_lots > MAX_CASH:
            self.reject_operator(c, Reason.AMOUNT_OUT_OF_RANGE)
        else:
            self.cash_deposited += c.quantity_lots
            self.accounts[c.account].cash += c.quantity_lots
            if c.account == self.participants + SystemAccount.DEFICIT:
                self.deposited_to_deficit += c.quantity_lots
            self.emit(c, EventKind.CASH_DEPOSITED, account=c.account, quantity_lots=c.quantity_lots)

    def _deposit_position(self, c: Command) -> None:
        if not self._may_be_given(c.account):
            self.reject_operator(c, Reason.UNKNOWN_ACCOUNT)
            return
        if not self.instrument_exists(c.instrument):
            self.reject_operator(c, Reason.UNKNOWN_INSTRUMENT)
            return
        position = self.accounts[c.account].positions[c.instrument]
        amount_valid = 1 <= c.quantity_lots <= MAX_QUANTITY_LOTS
        if not amount_valid or position.quantity_lots + c.quantity_lots > MAX_POSITION_LOTS:
            self.reject_operator(c, Reason.AMOUNT_OUT_OF_RANGE)
            return
        position.quantity_lots += c.quantity_lots
        if c.account == self.participants + SystemAccount.LENDING_POOL:
            self.deposited_to_pool[c.instrument] += c.quantity_lots
        if self.accounts[c.account].margin:
            position.entry_value += self.margin.mark_value(c.instrument, c.quantity_lots)
        self.instruments[c.instrument].deposited_lots += c.quantity_lots
        self.emit(
            c,
            EventKind.POSITION_DEPOSITED,
            instrument=c.instrument,
            account=c.account,
            quantity_lots=c.quantity_lots,
        )

    def _set_limit(self, c: Command) -> None:
        if not self.account_exists(c.account):
            self.reject_operator(c, Reason.UNKNOWN_ACCOUNT)
        elif c.instrument not in set(Limit):
            self.reject_operator(c, Reason.UNKNOWN_LIMIT)
        elif not 0 <= c.quantity_lots <= MAX_CASH:
            self.reject_operator(c, Reason.AMOUNT_OUT_OF_RANGE)
        else:
            self.accounts[c.account].limits[Limit(c.instrument)] = c.quantity_lots
            self.emit(c, EventKind.LIMIT_SET, account=c.account, reason=c.instrument, value=c.quantity_lots)

    def _open_session(self, c: Command) -> None:
        for number, instrument in enumerate(self.instruments):
            if instrument.phase != Phase.PRE_OPEN:
                continue
            if instrument.settings.opening_auction_ns:
                self.begin_phase(c, number, Phase.AUCTION, instrument.settings.opening_auction_ns)
            else:
                self._begin_trading(c, number)
            self.breaker.publish_thresholds(c, number)
        self.emit(c, EventKind.SESSION_OPENED, account=NOBODY)

    def _publish_signal(self, c: Command) -> None:
        if not self.instrument_exists(c.instrument):
            self.reject_operator(c, Reason.UNKNOWN_INSTRUMENT)
        else:
            self.emit(c, EventKind.SIGNAL_PUBLISHED, instrument=c.instrument, account=NOBODY, value=c.quantity_lots)

    def _publish_index(self, c: Command) -> None:
        if not self.instrument_exists(c.instrument):
            self.reject_operator(c, Reason.UNKNOWN_INSTRUMENT)
        elif not 1 <= c.quantity_lots <= self.instruments[c.instrument].settings.price_levels - 1:
            self.reject_operator(c, Reason.AMOUNT_OUT_OF_RANGE)
        else:
            self.instruments[c.instrument].index_ticks = c.quantity_lots
            self.emit(c, EventKind.INDEX_PUBLISHED, instrument=c.instrument, account=NOBODY, value=c.quantity_lots)

    def _close_session(self, c: Command) -> None:
        for number, instrument in enumerate(self.instruments):
            for order in list(instrument.resting()):
                self.cancel_resting(c, order, order.leaves_lots, Reason.SESSION_CLOSED)
            if instrument.phase != Phase.CLOSED:
                self.begin_phase(c, number, Phase.CLOSED)
        self.emit(c, EventKind.SESSION_CLOSED, account=NOBODY)
        self.margin.revalue_ns = NEVER

    # What can be asked of it

    def resting_rows(self, instrument: int) -> list[tuple[int, ...]]:
        """As the state hash has them."""
        return [
            (
                order.account,
                order.order_id,
                order.side,
                order.price_ticks,
                order.leaves_lots,
                order.filled_lots,
                int(order.expiring),
            )
            for order in self.instruments[instrument].resting()
        ]

    def state_hash(self) -> str:
        """BLAKE2b (16 bytes, hex) over the words that docs/matching.md lists."""
        words = [self.sequence, self._resting_orders(), self.starts]
        for number, each in enumerate(self.instruments):
            words += [each.phase, each.last_ticks, each.volume_lots, each.trigger, each.timer_ns, each.phase_started_ns]
            words += [each.index_ticks, each.oracle_ticks, each.oracle_ns, each.extensions]
            for row in self.resting_rows(number):
                words += row
        for number, account in enumerate(self.accounts):
            words += [account.cash, account.reserved_cash, account.last_order_id, len(self.resting_of(number))]
            words += [account.self_trade, account.cancel_on_disconnect, account.logged_on, account.rate_ns]
            words += [account.killed, account.margin, account.margin_state]
            words += [account.vendor, account.model, account.model_version, *account.explained]
            words += [account.limits[limit] for limit in Limit]
        for number, account in enumerate(self.accounts):
            for instrument, position in enumerate(account.positions):
                words += [position.quantity_lots, position.reserved_lots, self.buying_lots(number, instrument)]
                words.append(position.entry_value)
        for account in self.accounts:
            for outcome in account.remembered:
                words += outcome
        words += self.admission.flow_words()
        if self.config.system_accounts or any(each.settings.oracle for each in self.instruments):
            words += [self.margin.revalue_ns, self.margin.revalue_account, self.margin.liquidating()]
            words += [self.lending.written_off_lots, self.lending.redemption_ns]
            for account in self.accounts:
                words += [account.collateral_lots, account.debt_lots]
        return hashlib.blake2b(struct.pack(f"<{len(words)}q", *words), digest_size=16).hexdigest()

    def check_invariants(self) -> None:
        """Assert what docs/matching.md says is always true."""
        resting: set[tuple[int, int]] = set()
        reserved_cash = [0] * len(self.accounts)
        for number, instrument in enumerate(self.instruments):
            reserved_lots = [0] * len(self.accounts)
            for order in instrument.resting():
                assert order.leaves_lots > 0, order
                assert order.instrument == number, order
                assert (order.account, order.order_id) not in resting, order
                resting.add((order.account, order.order_id))
                if order.side == Side.BUY:
                    reserved_cash[order.account] += instrument.notional(order.price_ticks, order.leaves_lots)
                else:
                    reserved_lots[order.account] += order.leaves_lots
                # A whole market's halt leaves what was collected where it is.
                assert not order.expiring or instrument.phase in (*COLLECTING, Phase.HALTED), order
                assert not self.accounts[order.account].killed, "a killed participant has an order in the book"
            for side, prices in enumerate(instrument.queues):
                for price_ticks, queue in prices.items():
                    assert 1 <= price_ticks < instrument.settings.price_levels
                    assert all((order.side, order.price_ticks) == (side, price_ticks) for order in queue)
                    arrivals = [order.came_to_rest for order in queue]
                    assert arrivals, "an empty level is kept"
                    assert arrivals == sorted(arrivals), "a level is not first in, first out"
            self._check_phase(instrument)
            positions = [account.positions[number] for account in self.accounts]
            assert [position.reserved_lots for position in positions] == reserved_lots
            for account in self.accounts[: self.participants]:
                if not account.margin:
                    position = account.positions[number]
                    assert 0 <= position.reserved_lots <= position.quantity_lots, position
            assert sum(position.quantity_lots for position in positions) == instrument.deposited_lots
        assert [account.reserved_cash for account in self.accounts] == reserved_cash
        for account in self.accounts[: self.participants]:
            assert account.margin or 0 <= account.reserved_cash <= account.cash, account
        assert sum(account.cash for account in self.accounts) == self.cash_deposited
        assert len(resting) <= self.config.max_orders
        for account in self.accounts:
            assert len(account.remembered) <= self.config.remembered_orders
            assert not account.remembered or account.remembered[-1].order_id == account.last_order_id
            assert not (account.killed and account.logged_on), account
        for order in self.orders:
            gone_lots = order.filled_lots + order.cancelled_lots + order.replaced_lots
            assert order.leaves_lots == order.quantity_lots - gone_lots >= 0, order
            rests = (order.account, order.order_id) in resting
            assert (order.leaves_lots == 0) != rests, f"{order} has ended and rests, or neither"
        filled_lots = sum(order.filled_lots for order in self.orders) + self.margin.swept_lots
        assert filled_lots == 2 * sum(each.volume_lots for each in self.instruments)
        self.admission.check_invariants()
        self.margin.check_invariants()
        self.lending.check_invariants()

    def _check_phase(self, instrument: Instrument) -> None:
        best_bid, best_ask = instrument.best_ticks(Side.BUY), instrument.best_ticks(Side.SELL)
        crossed = best_bid is not None and best_ask is not None and best_bid >= best_ask
        armed = instrument.timer_ns != NEVER
        assert 0 <= instrument.extensions <= instrument.settings.breaker.collar_extensions
        assert instrument.extensions == 0 or instrument.trigger, "extended, but not a reopening"
        match instrument.phase:
            case Phase.CONTINUOUS:
                assert not crossed, "the book is crossed"
                assert not armed and not instrument.trigger
            case Phase.PRE_OPEN:
                assert not any(instrument.queues) and not armed and not instrument.trigger
            case Phase.AUCTION:
                assert armed
            case Phase.BATCH:
                assert armed or not crossed, "the book is crossed and no timer will uncross it"
            case Phase.HALTED:
                assert armed == bool(instrument.settings.breaker.halt_ns) and instrument.trigger
            case Phase.CLOSED:
                assert not any(instrument.queues), "an order rests after the close"
                assert not armed
