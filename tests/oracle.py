"""The exchange of docs/matching.md, written to be read: the oracle that the engine is compared with.

Best prices, the number of resting orders and the breaker's windows are worked out afresh each time they are asked for,
so there is little here that can go wrong in the way the engine can. It shares the records and numbers of
`exchange.types` with the engine, and no code. It is far too slow to trade on.

Units as in `exchange.types`: prices in ticks, quantities in lots, cash in the minor unit, times in nanoseconds.
"""

import hashlib
import struct
from collections import deque

import numpy as np

from exchange.types import MAX_CASH, MAX_QUANTITY_LOTS, CommandKind, EventKind, OrderType, Phase, Reason, Side
from tests.oracle_records import (
    NOBODY,
    Account,
    Command,
    Event,
    Fill,
    Instrument,
    Order,
    Position,
    Settings,
    breaker_trips,
)

MAX_ORDER_ID = 2**62 - 1
MAX_POSITION_LOTS = MAX_CASH >> 28


class Oracle:
    """A whole exchange in one object. Give it commands in the order of their sequence numbers."""

    def __init__(self, config: Settings) -> None:
        self.max_orders = config.max_orders
        self.sequence = 0
        self.cash_deposited = 0
        self.instruments = [Instrument(settings) for settings in config.instruments]
        self.accounts = [Account([Position() for _ in self.instruments]) for _ in range(config.accounts)]
        self.orders: dict[tuple[int, int], Order] = {}
        """Every order ever accepted, by (account, order_id)."""
        self._events: list[Event] = []

    def apply(self, command: "np.void | tuple[int, ...]") -> list[tuple[int, ...]]:
        """Apply one command: a record of COMMAND, or its fields in that order. Return its events as plain tuples."""
        c = Command(*(command.item() if isinstance(command, np.void) else command))
        self.sequence = c.sequence
        self._events = []
        match c.kind:
            case CommandKind.PLACE_ORDER:
                self._place_order(c)
            case CommandKind.CANCEL_ORDER:
                self._cancel_order(c)
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
            case _:
                self._reject_operator(c, Reason.UNKNOWN_COMMAND)
        return [tuple(int(value) for value in event) for event in self._events]

    def _emit(self, c: Command, kind: EventKind, **fields: int) -> None:
        self._events.append(Event(c.sequence, kind, c.received_ns, **fields))

    def _account_exists(self, account: int) -> bool:
        return 0 <= account < len(self.accounts)

    def _instrument_exists(self, instrument: int) -> bool:
        return 0 <= instrument < len(self.instruments)

    def _phase_refusal(self, instrument: int) -> Reason:
        return {
            Phase.PRE_OPEN: Reason.NOT_OPEN,
            Phase.CONTINUOUS: Reason.NONE,
            Phase.HALTED: Reason.HALTED,
            Phase.CLOSED: Reason.CLOSED,
        }[Phase(self.instruments[instrument].phase)]

    # Participants

    def _place_order(self, c: Command) -> None:
        named = {"instrument": c.instrument, "account": c.account, "order_id": c.order_id, "side": c.side}
        asked = {"price_ticks": c.price_ticks, "quantity_lots": c.quantity_lots}
        reason = self._place_refusal(c)
        if reason != Reason.NONE:
            self._emit(c, EventKind.ORDER_REJECTED, **named, **asked, reason=reason)
            return
        self._emit(c, EventKind.ORDER_ACCEPTED, **named, **asked, leaves_lots=c.quantity_lots)
        order = Order(c.sequence, c.account, c.order_id, c.side, c.price_ticks, c.quantity_lots, c.quantity_lots)
        self.orders[c.account, c.order_id] = order
        reason = self._match_order(c, order)
        if order.leaves_lots == 0:
            return
        if reason == Reason.NONE and c.order_type == OrderType.LIMIT:
            self.instruments[c.instrument].queues[c.side].setdefault(c.price_ticks, deque()).append(order)
            self._reserve(c.instrument, order, order.leaves_lots)
            return
        if reason == Reason.NONE:
            reason = Reason.IOC_REMAINDER if c.order_type == OrderType.IOC else Reason.NO_LIQUIDITY
        self._take_off(c, c.instrument, order, order.leaves_lots, reason)

    def _place_refusal(self, c: Command) -> Reason:
        """The first check that fails. Side effect: check 2 moves the account's last_order_id."""
        if not self._account_exists(c.account):
            return Reason.UNKNOWN_ACCOUNT
        account = self.accounts[c.account]
        if not (1 <= c.order_id <= MAX_ORDER_ID and c.order_id > account.last_order_id):
            return Reason.ORDER_ID_NOT_INCREASING
        account.last_order_id = c.order_id
        if not self._instrument_exists(c.instrument):
            return Reason.UNKNOWN_INSTRUMENT
        if (reason := self._phase_refusal(c.instrument)) != Reason.NONE:
            return reason
        if c.side not in (Side.BUY, Side.SELL):
            return Reason.INVALID_SIDE
        if c.order_type not in (OrderType.LIMIT, OrderType.IOC, OrderType.MARKET):
            return Reason.INVALID_ORDER_TYPE
        instrument = self.instruments[c.instrument]
        if not 1 <= c.quantity_lots <= instrument.settings.max_quantity_lots:
            return Reason.QUANTITY_OUT_OF_RANGE
        if c.order_type == OrderType.MARKET:
            price_valid = c.price_ticks == 0
        else:
            price_valid = 1 <= c.price_ticks <= instrument.settings.price_levels - 1
        if not price_valid:
            return Reason.PRICE_OUT_OF_RANGE
        if c.side == Side.SELL:
            position = account.positions[c.instrument]
            if position.quantity_lots - position.reserved_lots < c.quantity_lots:
                return Reason.INSUFFICIENT_POSITION
        elif c.order_type == OrderType.MARKET:
            if account.free_cash < instrument.notional(1, 1):
                return Reason.INSUFFICIENT_CASH
        elif account.free_cash < instrument.notional(c.price_ticks, c.quantity_lots):
            return Reason.INSUFFICIENT_CASH
        if c.order_type == OrderType.LIMIT:
            resting_orders = sum(1 for each in self.instruments for _ in each.resting())
            if resting_orders >= self.max_orders:
                return Reason.BOOK_FULL
        return Reason.NONE

    def _match_order(self, c: Command, taker: Order) -> Reason:
        """Match until nothing can be matched. Return why a remainder must leave the market, NONE if no reason arose."""
        instrument = self.instruments[c.instrument]
        makers = instrument.queues[1 - c.side]
        while taker.leaves_lots > 0:
            price_ticks = instrument.best_ticks(1 - c.side)
            if price_ticks is None:
                return Reason.NONE
            if c.order_type != OrderType.MARKET:
                if c.side == Side.BUY and price_ticks > c.price_ticks:
                    return Reason.NONE
                if c.side == Side.SELL and price_ticks < c.price_ticks:
                    return Reason.NONE
            maker = makers[price_ticks][0]
            wanted_lots = quantity_lots = min(taker.leaves_lots, maker.leaves_lots)
            if c.order_type == OrderType.MARKET and c.side == Side.BUY:
                payable_lots = self.accounts[c.account].free_cash // instrument.notional(price_ticks, 1)
                quantity_lots = min(quantity_lots, payable_lots)
                if quantity_lots == 0:
                    return Reason.CASH_EXHAUSTED
            trip = breaker_trips(instrument, c.received_ns, c.side, price_ticks, quantity_lots)
            if trip is not None:
                instrument.phase = Phase.HALTED
                instrument.trigger = trip.trigger
                self._emit(
                    c,
                    EventKind.INSTRUMENT_HALTED,
                    instrument=c.instrument,
                    account=c.account,
                    order_id=c.order_id,
                    side=c.side,
                    price_ticks=price_ticks,
                    quantity_lots=quantity_lots,
                    leaves_lots=taker.leaves_lots,
                    reason=trip.trigger,
                    value=trip.observed,
                    threshold=trip.threshold,
                    window_ns=trip.window_ns,
                )
                return Reason.BREAKER
            self._fill(c, taker, maker, price_ticks, quantity_lots)
            if quantity_lots < wanted_lots:
                return Reason.CASH_EXHAUSTED
        return Reason.NONE

    def _fill(self, c: Command, taker: Order, maker: Order, price_ticks: int, quantity_lots: int) -> None:
        instrument = self.instruments[c.instrument]
        notional = instrument.notional(price_ticks, quantity_lots)
        self._reserve(c.instrument, maker, -quantity_lots)
        buyer, seller = (taker, maker) if c.side == Side.BUY else (maker, taker)
        self.accounts[buyer.account].cash -= notional
        self.accounts[buyer.account].positions[c.instrument].quantity_lots += quantity_lots
        self.accounts[seller.account].cash += notional
        self.accounts[seller.account].positions[c.instrument].quantity_lots -= quantity_lots
        for order in (taker, maker):
            order.leaves_lots -= quantity_lots
            order.filled_lots += quantity_lots
        if maker.leaves_lots == 0:
            self._leave_book(c.instrument, maker)
        instrument.last_ticks = price_ticks
        instrument.volume_lots += quantity_lots
        instrument.fills.append(Fill(c.received_ns, c.side, price_ticks, quantity_lots))
        self._emit(
            c,
            EventKind.ORDER_FILLED,
            instrument=c.instrument,
            account=taker.account,
            order_id=taker.order_id,
            side=taker.side,
            price_ticks=price_ticks,
            quantity_lots=quantity_lots,
            leaves_lots=taker.leaves_lots,
            maker_account=maker.account,
            maker_order_id=maker.order_id,
            maker_leaves_lots=maker.leaves_lots,
        )

    def _reserve(self, instrument: int, order: Order, quantity_lots: int) -> None:
        """Reserve (or release, if negative) what this many lots of a resting order need."""
        account = self.accounts[order.account]
        if order.side == Side.BUY:
            account.reserved_cash += self.instruments[instrument].notional(order.price_ticks, quantity_lots)
        else:
            account.positions[instrument].reserved_lots += quantity_lots

    def _leave_book(self, instrument: int, order: Order) -> None:
        prices = self.instruments[instrument].queues[order.side]
        prices[order.price_ticks].remove(order)
        if not prices[order.price_ticks]:
            del prices[order.price_ticks]

    def _take_off(self, c: Command, instrument: int, order: Order, quantity_lots: int, reason: Reason) -> None:
        """Cancel this many lots of an order that does not rest (any more)."""
        order.leaves_lots -= quantity_lots
        order.cancelled_lots += quantity_lots
        self._emit(
            c,
            EventKind.ORDER_CANCELLED,
            instrument=instrument,
            account=order.account,
            order_id=order.order_id,
            side=order.side,
            price_ticks=order.price_ticks,
            quantity_lots=quantity_lots,
            leaves_lots=order.leaves_lots,
            reason=reason,
        )

    def _take_off_resting(self, c: Command, instrument: int, order: Order, quantity_lots: int, reason: Reason) -> None:
        if quantity_lots == order.leaves_lots:
            self._leave_book(instrument, order)
        self._reserve(instrument, order, -quantity_lots)
        self._take_off(c, instrument, order, quantity_lots, reason)

    def _cancel_order(self, c: Command) -> None:
        reason = self._cancel_refusal(c)
        if reason != Reason.NONE:
            self._emit(
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
        self._take_off_resting(c, c.instrument, order, quantity_lots, Reason.BY_OWNER)

    def _cancel_refusal(self, c: Command) -> Reason:
        if not self._account_exists(c.account):
            return Reason.UNKNOWN_ACCOUNT
        if not self._instrument_exists(c.instrument):
            return Reason.UNKNOWN_INSTRUMENT
        if (reason := self._phase_refusal(c.instrument)) != Reason.NONE:
            return reason
        if not 0 <= c.quantity_lots <= self.instruments[c.instrument].settings.max_quantity_lots:
            return Reason.QUANTITY_OUT_OF_RANGE
        if self._find_resting(c.instrument, c.account, c.target_order_id) is None:
            return Reason.UNKNOWN_ORDER
        return Reason.NONE

    def _find_resting(self, instrument: int, account: int, order_id: int) -> Order | None:
        for order in self.instruments[instrument].resting():
            if (order.account, order.order_id) == (account, order_id):
                return order
        return None

    # The operator

    def _reject_operator(self, c: Command, reason: Reason) -> None:
        self._emit(
            c,
            EventKind.ORDER_REJECTED,
            instrument=c.instrument,
            account=c.account,
            quantity_lots=c.quantity_lots,
            reason=reason,
        )

    def _deposit_cash(self, c: Command) -> None:
        if not self._account_exists(c.account):
            self._reject_operator(c, Reason.UNKNOWN_ACCOUNT)
        elif not 1 <= c.quantity_lots <= MAX_CASH or self.cash_deposited + c.quantity_lots > MAX_CASH:
            self._reject_operator(c, Reason.AMOUNT_OUT_OF_RANGE)
        else:
            self.cash_deposited += c.quantity_lots
            self.accounts[c.account].cash += c.quantity_lots
            self._emit(c, EventKind.CASH_DEPOSITED, account=c.account, quantity_lots=c.quantity_lots)

    def _deposit_position(self, c: Command) -> None:
        if not self._account_exists(c.account):
            self._reject_operator(c, Reason.UNKNOWN_ACCOUNT)
            return
        if not self._instrument_exists(c.instrument):
            self._reject_operator(c, Reason.UNKNOWN_INSTRUMENT)
            return
        position = self.accounts[c.account].positions[c.instrument]
        amount_valid = 1 <= c.quantity_lots <= MAX_QUANTITY_LOTS
        if not amount_valid or position.quantity_lots + c.quantity_lots > MAX_POSITION_LOTS:
            self._reject_operator(c, Reason.AMOUNT_OUT_OF_RANGE)
            return
        position.quantity_lots += c.quantity_lots
        self.instruments[c.instrument].deposited_lots += c.quantity_lots
        self._emit(
            c,
            EventKind.POSITION_DEPOSITED,
            instrument=c.instrument,
            account=c.account,
            quantity_lots=c.quantity_lots,
        )

    def _open_session(self, c: Command) -> None:
        for instrument in self.instruments:
            if instrument.phase == Phase.PRE_OPEN:
                instrument.phase = Phase.CONTINUOUS
        self._emit(c, EventKind.SESSION_OPENED, account=NOBODY)

    def _publish_signal(self, c: Command) -> None:
        if not self._instrument_exists(c.instrument):
            self._reject_operator(c, Reason.UNKNOWN_INSTRUMENT)
        else:
            self._emit(c, EventKind.SIGNAL_PUBLISHED, instrument=c.instrument, account=NOBODY, value=c.quantity_lots)

    def _close_session(self, c: Command) -> None:
        for number, instrument in enumerate(self.instruments):
            for order in list(instrument.resting()):
                self._take_off_resting(c, number, order, order.leaves_lots, Reason.SESSION_CLOSED)
            instrument.phase = Phase.CLOSED
        self._emit(c, EventKind.SESSION_CLOSED, account=NOBODY)

    # What can be asked of it

    def state_hash(self) -> str:
        """BLAKE2b (16 bytes, hex) over the words that docs/matching.md lists."""
        words = [self.sequence, sum(1 for each in self.instruments for _ in each.resting())]
        for each in self.instruments:
            words += [each.phase, each.last_ticks, each.volume_lots, each.trigger]
            for order in each.resting():
                words += [order.account, order.order_id, order.side, order.price_ticks, order.leaves_lots]
        for account in self.accounts:
            words += [account.cash, account.reserved_cash, account.last_order_id]
        for account in self.accounts:
            for position in account.positions:
                words += [position.quantity_lots, position.reserved_lots]
        return hashlib.blake2b(struct.pack(f"<{len(words)}q", *words), digest_size=16).hexdigest()

    def check_invariants(self) -> None:
        """Assert what docs/matching.md says is always true."""
        resting: set[tuple[int, int]] = set()
        reserved_cash = [0] * len(self.accounts)
        for number, instrument in enumerate(self.instruments):
            best_bid, best_ask = instrument.best_ticks(Side.BUY), instrument.best_ticks(Side.SELL)
            assert best_bid is None or best_ask is None or best_bid < best_ask, "the book is crossed"
            reserved_lots = [0] * len(self.accounts)
            for order in instrument.resting():
                assert order.leaves_lots > 0, order
                assert (order.account, order.order_id) not in resting, order
                resting.add((order.account, order.order_id))
                if order.side == Side.BUY:
                    reserved_cash[order.account] += instrument.notional(order.price_ticks, order.leaves_lots)
                else:
                    reserved_lots[order.account] += order.leaves_lots
            for prices in instrument.queues:
                for price_ticks, queue in prices.items():
                    assert 1 <= price_ticks < instrument.settings.price_levels
                    arrivals = [order.accepted_sequence for order in queue]
                    assert arrivals, "an empty level is kept"
                    assert arrivals == sorted(arrivals), "a level is not first in, first out"
            positions = [account.positions[number] for account in self.accounts]
            assert [position.reserved_lots for position in positions] == reserved_lots
            assert all(0 <= position.reserved_lots <= position.quantity_lots for position in positions)
            assert sum(position.quantity_lots for position in positions) == instrument.deposited_lots
            assert instrument.volume_lots == sum(fill.quantity_lots for fill in instrument.fills)
            if instrument.phase == Phase.CLOSED:
                assert not any(instrument.queues), "an order rests after the close"
        assert [account.reserved_cash for account in self.accounts] == reserved_cash
        assert all(0 <= account.reserved_cash <= account.cash for account in self.accounts)
        assert sum(account.cash for account in self.accounts) == self.cash_deposited
        assert len(resting) <= self.max_orders
        for name, order in self.orders.items():
            ended = order.filled_lots + order.cancelled_lots == order.quantity_lots
            assert order.leaves_lots == order.quantity_lots - order.filled_lots - order.cancelled_lots >= 0
            assert ended != (name in resting), f"{order} has ended and rests, or neither"
