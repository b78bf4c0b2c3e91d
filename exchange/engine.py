"""The matching engine: `apply(commands) -> events`, the only door to book, accounts and breaker.

A pure state machine: it reads no clock, draws no random number and touches no socket or file; the same commands give
the same events and the same state, for ever. The rules are in docs/matching.md.
"""

import hashlib

import numpy as np

from exchange import accounts, book, breaker
from exchange.config import EngineConfig
from exchange.jit import helper, kernel, routine
from exchange.state import Array, State, new_state
from exchange.types import (
    COMMAND,
    EVENT,
    MAX_CASH,
    MAX_QUANTITY_LOTS,
    NO_BID,
    NO_MAKER,
    NO_SLOT,
    CommandKind,
    EventKind,
    OrderType,
    Phase,
    Reason,
    Side,
)

MAX_ORDER_ID = (1 << 62) - 1
MAX_POSITION = MAX_CASH >> 28
EVENTS_BESIDE_RESTING = 4
"""A command makes at most one event an order that rests, and this many more."""

# Plain integers: an enum member is an object when the JIT is off and a constant when it is on.
_PLACE_ORDER, _CANCEL_ORDER = int(CommandKind.PLACE_ORDER), int(CommandKind.CANCEL_ORDER)
_DEPOSIT_CASH, _DEPOSIT_POSITION = int(CommandKind.DEPOSIT_CASH), int(CommandKind.DEPOSIT_POSITION)
_OPEN_SESSION, _CLOSE_SESSION = int(CommandKind.OPEN_SESSION), int(CommandKind.CLOSE_SESSION)
_PUBLISH_SIGNAL = int(CommandKind.PUBLISH_SIGNAL)
_ACCEPTED, _REJECTED = int(EventKind.ORDER_ACCEPTED), int(EventKind.ORDER_REJECTED)
_FILLED, _CANCELLED = int(EventKind.ORDER_FILLED), int(EventKind.ORDER_CANCELLED)
_CANCEL_REJECTED, _INSTRUMENT_HALTED = int(EventKind.CANCEL_REJECTED), int(EventKind.INSTRUMENT_HALTED)
_CASH_DEPOSITED, _POSITION_DEPOSITED = int(EventKind.CASH_DEPOSITED), int(EventKind.POSITION_DEPOSITED)
_SESSION_OPENED, _SESSION_CLOSED = int(EventKind.SESSION_OPENED), int(EventKind.SESSION_CLOSED)
_SIGNAL_PUBLISHED = int(EventKind.SIGNAL_PUBLISHED)
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_LIMIT, _IOC, _MARKET = int(OrderType.LIMIT), int(OrderType.IOC), int(OrderType.MARKET)
_PRE_OPEN, _CONTINUOUS = int(Phase.PRE_OPEN), int(Phase.CONTINUOUS)
_HALTED, _CLOSED = int(Phase.HALTED), int(Phase.CLOSED)
_OK = int(Reason.NONE)
_UNKNOWN_ACCOUNT, _UNKNOWN_INSTRUMENT = int(Reason.UNKNOWN_ACCOUNT), int(Reason.UNKNOWN_INSTRUMENT)
_PRICE_OUT_OF_RANGE, _QUANTITY_OUT_OF_RANGE = int(Reason.PRICE_OUT_OF_RANGE), int(Reason.QUANTITY_OUT_OF_RANGE)
_INVALID_SIDE, _INVALID_ORDER_TYPE = int(Reason.INVALID_SIDE), int(Reason.INVALID_ORDER_TYPE)
_ORDER_ID_NOT_INCREASING, _UNKNOWN_ORDER = int(Reason.ORDER_ID_NOT_INCREASING), int(Reason.UNKNOWN_ORDER)
_BOOK_FULL, _UNKNOWN_COMMAND = int(Reason.BOOK_FULL), int(Reason.UNKNOWN_COMMAND)
_INSUFFICIENT_CASH, _INSUFFICIENT_POSITION = int(Reason.INSUFFICIENT_CASH), int(Reason.INSUFFICIENT_POSITION)
_AMOUNT_OUT_OF_RANGE = int(Reason.AMOUNT_OUT_OF_RANGE)
_NOT_OPEN, _IS_HALTED, _IS_CLOSED = int(Reason.NOT_OPEN), int(Reason.HALTED), int(Reason.CLOSED)
_BY_OWNER, _IOC_REMAINDER, _NO_LIQUIDITY = int(Reason.BY_OWNER), int(Reason.IOC_REMAINDER), int(Reason.NO_LIQUIDITY)
_BY_BREAKER, _BY_CLOSE = int(Reason.BREAKER), int(Reason.SESSION_CLOSED)
_CASH_EXHAUSTED = int(Reason.CASH_EXHAUSTED)


@helper
def _write(events, count, command, kind):
    """Start the event number `count` with what it shares with its command; returns the record to fill in."""
    event = events[count]
    event["sequence"] = command["sequence"]
    event["kind"] = kind
    event["time_ns"] = command["received_ns"]
    event["instrument"] = command["instrument"]
    event["account"] = command["account"]
    event["order_id"] = 0
    event["side"] = 0
    event["price_ticks"] = 0
    event["quantity_lots"] = 0
    event["leaves_lots"] = 0
    event["maker_account"] = NO_MAKER
    event["maker_order_id"] = 0
    event["maker_leaves_lots"] = 0
    event["reason"] = 0
    event["value"] = 0
    event["threshold"] = 0
    event["window_ns"] = 0
    return event


@helper
def _write_order(events, count, command, kind, quantity_lots, leaves_lots, reason):
    """An event about the command's own order."""
    event = _write(events, count, command, kind)
    event["order_id"] = command["order_id"]
    event["side"] = command["side"]
    event["price_ticks"] = command["price_ticks"]
    event["quantity_lots"] = quantity_lots
    event["leaves_lots"] = leaves_lots
    event["reason"] = reason


@helper
def _phase_reason(state, instrument):
    phase = state.instruments[instrument]["phase"]
    if phase == _CONTINUOUS:
        return _OK
    if phase == _HALTED:
        return _IS_HALTED
    return _NOT_OPEN if phase == _PRE_OPEN else _IS_CLOSED


@routine
def _check_order(state, command):
    """The checks of PLACE_ORDER in their documented order; the first that fails is the Reason."""
    account = command["account"]
    if account < 0 or account >= state.accounts.shape[0]:
        return _UNKNOWN_ACCOUNT
    order_id = command["order_id"]
    if order_id < 1 or order_id > MAX_ORDER_ID or order_id <= state.accounts[account]["last_order_id"]:
        return _ORDER_ID_NOT_INCREASING
    state.accounts[account]["last_order_id"] = order_id
    instrument = command["instrument"]
    if instrument < 0 or instrument >= state.instruments.shape[0]:
        return _UNKNOWN_INSTRUMENT
    reason = _phase_reason(state, instrument)
    if reason != _OK:
        return reason
    side = command["side"]
    if side != _BUY and side != _SELL:
        return _INVALID_SIDE
    order_type = command["order_type"]
    if order_type < _LIMIT or order_type > _MARKET:
        return _INVALID_ORDER_TYPE
    row = state.instruments[instrument]
    quantity = command["quantity_lots"]
    if quantity < 1 or quantity > row["max_quantity_lots"]:
        return _QUANTITY_OUT_OF_RANGE
    price = command["price_ticks"]
    if order_type == _MARKET:
        if price != 0:
            return _PRICE_OUT_OF_RANGE
        needed = row["multiplier"]
    else:
        if price < 1 or price >= row["price_levels"]:
            return _PRICE_OUT_OF_RANGE
        needed = price * quantity * row["multiplier"]
    if side == _SELL:
        if accounts.free_lots(state, account, instrument) < quantity:
            return _INSUFFICIENT_POSITION
    elif accounts.free_cash(state, account) < needed:
        return _INSUFFICIENT_CASH
    if order_type == _LIMIT and state.counters[0]["free_head"] == NO_SLOT:
        return _BOOK_FULL
    return _OK


@routine
def _place(state, command, events, count):
    """Check, accept, match and rest or cancel one order; returns the number of events so far."""
    reason = _check_order(state, command)
    if reason != _OK:
        _write_order(events, count, command, _REJECTED, command["quantity_lots"], 0, reason)
        return count + 1
    instrument = command["instrument"]
    account = command["account"]
    side = command["side"]
    order_type = command["order_type"]
    leaves = command["quantity_lots"]
    now_ns = command["received_ns"]
    limit = command["price_ticks"]
    top = state.instruments[instrument]
    if order_type == _MARKET:
        limit = top["price_levels"] - 1 if side == _BUY else 1
    _write_order(events, count, command, _ACCEPTED, leaves, leaves, 0)
    count += 1
    ended = _NO_LIQUIDITY if order_type == _MARKET else _IOC_REMAINDER
    rests = order_type == _LIMIT

    while leaves > 0:
        if side == _BUY:
            price = top["best_ask"]
            if price > limit:
                break
        else:
            price = top["best_bid"]
            if price == NO_BID or price < limit:
                break
        slot = state.levels[instrument][price]["head"]
        maker = state.orders[slot]
        wanted = min(leaves, maker["leaves_lots"])
        quantity = wanted
        if order_type == _MARKET and side == _BUY:
            quantity = min(wanted, accounts.free_cash(state, account) // (price * top["multiplier"]))
            if quantity == 0:
                ended = _CASH_EXHAUSTED
                break
        trigger, observed, threshold, window_ns = breaker.trips(state, instrument, side, price, quantity, now_ns)
        if trigger != 0:
            top["phase"] = _HALTED
            state.breakers[instrument]["trigger"] = trigger
            event = _write(events, count, command, _INSTRUMENT_HALTED)
            event["order_id"] = command["order_id"]
            event["side"] = side
            event["price_ticks"] = price
            event["quantity_lots"] = quantity
            event["leaves_lots"] = leaves
            event["reason"] = trigger
            event["value"] = observed
            event["threshold"] = threshold
            event["window_ns"] = window_ns
            count += 1
            ended = _BY_BREAKER
            rests = False
            break
        leaves -= quantity
        maker_account = maker["account"]
        book.take(state, slot, quantity)
        accounts.reserve(state, maker_account, instrument, maker["side"], price, quantity, -1)
        if side == _BUY:
            accounts.settle(state, instrument, account, maker_account, price, quantity)
        else:
            accounts.settle(state, instrument, maker_account, account, price, quantity)
        top["last_ticks"] = price
        top["volume_lots"] += quantity
        breaker.record_fill(state, instrument, side, price, quantity, now_ns)
        event = _write(events, count, command, _FILLED)
        event["order_id"] = command["order_id"]
        event["side"] = side
        event["price_ticks"] = price
        event["quantity_lots"] = quantity
        event["leaves_lots"] = leaves
        event["maker_account"] = maker_account
        event["maker_order_id"] = maker["order_id"]
        event["maker_leaves_lots"] = maker["leaves_lots"]
        count += 1
        if maker["leaves_lots"] == 0:
            book.remove(state, slot)
        if quantity < wanted:
            # Stop here: against an ask of its own account each fill would give the cash back, lot by lot, without end.
            ended = _CASH_EXHAUSTED
            break

    if leaves > 0:
        if rests:
            book.rest(state, account, command["order_id"], instrument, side, limit, leaves)
            accounts.reserve(state, account, instrument, side, limit, leaves, 1)
        else:
            _write_order(events, count, command, _CANCELLED, leaves, 0, ended)
            count += 1
    return count


@routine
def _cancel(state, command, events, count):
    """Take an order, or a part of it, off the book; returns the number of events so far."""
    account = command["account"]
    instrument = command["instrument"]
    target = command["target_order_id"]
    quantity = command["quantity_lots"]
    slot = NO_SLOT
    if account < 0 or account >= state.accounts.shape[0]:
        reason = _UNKNOWN_ACCOUNT
    elif instrument < 0 or instrument >= state.instruments.shape[0]:
        reason = _UNKNOWN_INSTRUMENT
    else:
        reason = _phase_reason(state, instrument)
        if reason == _OK:
            if quantity < 0 or quantity > state.instruments[instrument]["max_quantity_lots"]:
                reason = _QUANTITY_OUT_OF_RANGE
            else:
                slot = book.find(state, account, target)
                if slot == NO_SLOT or state.orders[slot]["instrument"] != instrument:
                    reason = _UNKNOWN_ORDER
    if reason != _OK:
        event = _write(events, count, command, _CANCEL_REJECTED)
        event["order_id"] = target
        event["quantity_lots"] = quantity
        event["reason"] = reason
        return count + 1
    _take_off(state, slot, quantity, _BY_OWNER, command, events, count)
    return count + 1


@routine
def _take_off(state, slot, quantity, reason, command, events, count):
    """Cancel `quantity` lots (0: all) of a resting order and write its ORDER_CANCELLED."""
    order = state.orders[slot]
    if quantity == 0 or quantity > order["leaves_lots"]:
        quantity = order["leaves_lots"]
    accounts.reserve(state, order["account"], order["instrument"], order["side"], order["price_ticks"], quantity, -1)
    book.take(state, slot, quantity)
    event = _write(events, count, command, _CANCELLED)
    event["instrument"] = order["instrument"]
    event["account"] = order["account"]
    event["order_id"] = order["order_id"]
    event["side"] = order["side"]
    event["price_ticks"] = order["price_ticks"]
    event["quantity_lots"] = quantity
    event["leaves_lots"] = order["leaves_lots"]
    event["reason"] = reason
    if order["leaves_lots"] == 0:
        book.remove(state, slot)


@routine
def _operate(state, command, events, count):
    """The operator's commands; returns the number of events so far."""
    kind = command["kind"]
    account = command["account"]
    instrument = command["instrument"]
    amount = command["quantity_lots"]
    reason = _OK
    if kind == _OPEN_SESSION or kind == _CLOSE_SESSION:
        for number in range(state.instruments.shape[0]):
            row = state.instruments[number]
            if kind == _OPEN_SESSION:
                if row["phase"] == _PRE_OPEN:
                    row["phase"] = _CONTINUOUS
            else:
                while row["best_bid"] != NO_BID:
                    slot = state.levels[number][row["best_bid"]]["head"]
                    _take_off(state, slot, 0, _BY_CLOSE, command, events, count)
                    count += 1
                while row["best_ask"] < row["price_levels"]:
                    slot = state.levels[number][row["best_ask"]]["head"]
                    _take_off(state, slot, 0, _BY_CLOSE, command, events, count)
                    count += 1
                row["phase"] = _CLOSED
        event = _write(events, count, command, _SESSION_OPENED if kind == _OPEN_SESSION else _SESSION_CLOSED)
        event["instrument"] = NO_MAKER
        event["account"] = NO_MAKER
        return count + 1
    if kind == _PUBLISH_SIGNAL:
        if instrument < 0 or instrument >= state.instruments.shape[0]:
            reason = _UNKNOWN_INSTRUMENT
        else:
            event = _write(events, count, command, _SIGNAL_PUBLISHED)
            event["account"] = NO_MAKER
            event["value"] = amount
    elif kind == _DEPOSIT_CASH or kind == _DEPOSIT_POSITION:
        if account < 0 or account >= state.accounts.shape[0]:
            reason = _UNKNOWN_ACCOUNT
        elif kind == _DEPOSIT_CASH:
            if amount < 1 or amount > MAX_CASH or amount > MAX_CASH - state.counters[0]["cash_deposited"]:
                reason = _AMOUNT_OUT_OF_RANGE
            else:
                state.counters[0]["cash_deposited"] += amount
                state.accounts[account]["cash"] += amount
                event = _write(events, count, command, _CASH_DEPOSITED)
                event["instrument"] = NO_MAKER
                event["quantity_lots"] = amount
        elif instrument < 0 or instrument >= state.instruments.shape[0]:
            reason = _UNKNOWN_INSTRUMENT
        elif (
            amount < 1
            or amount > MAX_QUANTITY_LOTS
            or amount > MAX_POSITION - state.positions[account][instrument]["quantity_lots"]
        ):
            reason = _AMOUNT_OUT_OF_RANGE
        else:
            state.positions[account][instrument]["quantity_lots"] += amount
            event = _write(events, count, command, _POSITION_DEPOSITED)
            event["quantity_lots"] = amount
    else:
        reason = _UNKNOWN_COMMAND
    if reason != _OK:
        event = _write(events, count, command, _REJECTED)
        event["quantity_lots"] = amount
        event["reason"] = reason
    return count + 1


@kernel
def apply_commands(state, commands, first, last, events):
    """Apply commands[first:last] until done or until `events` might not hold what the next one causes.

    Args: commands: COMMAND[n]; events: EVENT[m] to fill, m ≥ max_orders + EVENTS_BESIDE_RESTING.
    Returns: (number of the first command not applied, number of events written).
    """
    count = 0
    counters = state.counters[0]
    at = first
    while at < last:
        if events.shape[0] - count < counters["resting_orders"] + EVENTS_BESIDE_RESTING:
            break
        command = commands[at]
        counters["sequence"] = command["sequence"]
        kind = command["kind"]
        if kind == _PLACE_ORDER:
            count = _place(state, command, events, count)
        elif kind == _CANCEL_ORDER:
            count = _cancel(state, command, events, count)
        else:
            count = _operate(state, command, events, count)
        at += 1
    return at, count


@kernel
def _write_resting(state, instrument, out, at):
    """Write (account, order_id, side, price_ticks, leaves_lots) of each resting order in priority; returns the end."""
    row = state.instruments[instrument]
    for side in range(2):
        price = row["best_bid"] if side == _BUY else row["best_ask"]
        while price != NO_BID and price < row["price_levels"]:
            slot = state.levels[instrument][price]["head"]
            while slot != NO_SLOT:
                order = state.orders[slot]
                out[at] = order["account"]
                out[at + 1] = order["order_id"]
                out[at + 2] = side
                out[at + 3] = price
                out[at + 4] = order["leaves_lots"]
                at += 5
                slot = order["next"]
            if side == _BUY:
                price = book.next_price_below(state, instrument, price)
            else:
                price = book.next_price_above(state, instrument, price)
    return at


class Engine:
    """The engine as Python sees it; the event loop calls apply_commands on `state` itself."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.state: State = new_state(config)
        self._events = np.zeros(2 * (config.max_orders + EVENTS_BESIDE_RESTING), EVENT)

    def apply(self, commands: Array) -> Array:
        """Apply commands (COMMAND[n], sequence following on from the last) and return their events (EVENT[m])."""
        if commands.dtype != COMMAND:
            raise TypeError(f"commands must be COMMAND records, not {commands.dtype}")
        parts = []
        done = 0
        while done < len(commands):
            done, count = apply_commands(self.state, commands, done, len(commands), self._events)
            parts.append(self._events[:count].copy())
        return np.concatenate(parts) if parts else np.zeros(0, EVENT)

    def resting(self, instrument: int) -> Array:
        """int64[n, 5]: account, order_id, side, price_ticks, leaves_lots; bids best first, then asks, FIFO a level."""
        out = np.zeros(5 * (int(self.state.counters["resting_orders"][0]) + 1), np.int64)
        end = _write_resting(self.state, instrument, out, 0)
        return out[:end].reshape(-1, 5)

    def state_hash(self) -> str:
        """BLAKE2b over what any correct implementation must agree on; the layout is in docs/matching.md."""
        digest = hashlib.blake2b(digest_size=16)
        state = self.state

        def add(*values: object) -> None:
            for value in values:
                digest.update(np.ascontiguousarray(value, "<i8").tobytes())

        add(state.counters["sequence"], state.counters["resting_orders"])
        for number in range(len(state.instruments)):
            row = state.instruments[number]
            add(row["phase"], row["last_ticks"], row["volume_lots"], state.breakers[number]["trigger"])
            add(self.resting(number))
        add(np.stack([state.accounts[name] for name in ("cash", "reserved_cash", "last_order_id")], axis=1))
        add(np.stack([state.positions[name] for name in ("quantity_lots", "reserved_lots")], axis=2))
        return digest.hexdigest()
