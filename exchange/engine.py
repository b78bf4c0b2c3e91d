"""The matching engine: `apply(commands) -> events`, the only door to books, accounts, auctions and breaker.

A pure state machine: it reads no clock, draws no random number and touches no socket or file; the same commands give
the same events and the same state, for ever. The rules are in docs/matching.md.
"""

import hashlib

import numpy as np

from exchange import accounts, admission, auction, book, breaker, lending, margin, market
from exchange.config import EngineConfig
from exchange.jit import helper, kernel, routine
from exchange.state import Array, State, new_state
from exchange.types import (
    BOTH_SIDES,
    COMMAND,
    EVENT,
    MAX_CASH,
    MAX_QUANTITY_LOTS,
    MAX_VENDORS,
    NEVER,
    NO_SLOT,
    NOBODY,
    CommandKind,
    EventKind,
    Limit,
    OrderType,
    Phase,
    Reason,
    SelfTrade,
    Side,
    Trigger,
)

MAX_ORDER_ID = (1 << 62) - 1
MAX_POSITION = MAX_CASH >> 28
MAX_FLAGS = 5
EVENTS_BESIDE_RESTING = 6
EVENTS_AN_INSTRUMENT = 7
"""A command makes at most one event an order that rests, seven an instrument (the opening: its phase and six
thresholds), and six more."""

# Plain integers: an enum member is an object when the JIT is off and a constant when it is on.
_PLACE_ORDER, _CANCEL_ORDER = int(CommandKind.PLACE_ORDER), int(CommandKind.CANCEL_ORDER)
_REPLACE_ORDER, _MASS_CANCEL = int(CommandKind.REPLACE_ORDER), int(CommandKind.MASS_CANCEL)
_LOG_ON, _LOG_OFF, _START = int(CommandKind.LOG_ON), int(CommandKind.LOG_OFF), int(CommandKind.START)
_DEPOSIT_CASH, _DEPOSIT_POSITION = int(CommandKind.DEPOSIT_CASH), int(CommandKind.DEPOSIT_POSITION)
_OPEN_SESSION, _CLOSE_SESSION = int(CommandKind.OPEN_SESSION), int(CommandKind.CLOSE_SESSION)
_PUBLISH_SIGNAL, _SET_LIMIT = int(CommandKind.PUBLISH_SIGNAL), int(CommandKind.SET_LIMIT)
_TIMER, _REVALUE = int(CommandKind.TIMER), int(CommandKind.REVALUE)
_WITHDRAW_CASH, _SET_MARGIN = int(CommandKind.WITHDRAW_CASH), int(CommandKind.SET_MARGIN)
_PUBLISH_INDEX, _FIRST_REQUEST = int(CommandKind.PUBLISH_INDEX), int(CommandKind.DEPOSIT_COLLATERAL)
_LAST_REQUEST = int(CommandKind.MINT)
_ACCEPTED, _REJECTED = int(EventKind.ORDER_ACCEPTED), int(EventKind.ORDER_REJECTED)
_FILLED, _CANCELLED = int(EventKind.ORDER_FILLED), int(EventKind.ORDER_CANCELLED)
_REPEATED, _WAS_REPLACED = int(EventKind.ORDER_REPEATED), int(EventKind.ORDER_REPLACED)
_CANCEL_REJECTED, _MASS_CANCELLED = int(EventKind.CANCEL_REJECTED), int(EventKind.MASS_CANCELLED)
_INSTRUMENT_HALTED, _PHASE_CHANGED = int(EventKind.INSTRUMENT_HALTED), int(EventKind.PHASE_CHANGED)
_AUCTION_ENDED, _VENUE_STARTED = int(EventKind.AUCTION_ENDED), int(EventKind.VENUE_STARTED)
_CASH_DEPOSITED, _POSITION_DEPOSITED = int(EventKind.CASH_DEPOSITED), int(EventKind.POSITION_DEPOSITED)
_SESSION_OPENED, _SESSION_CLOSED = int(EventKind.SESSION_OPENED), int(EventKind.SESSION_CLOSED)
_SIGNAL_PUBLISHED, _LIMIT_SET = int(EventKind.SIGNAL_PUBLISHED), int(EventKind.LIMIT_SET)
_LOGGED_ON, _LOGGED_OFF = int(EventKind.LOGGED_ON), int(EventKind.LOGGED_OFF)
_MARGIN_SET, _CASH_WITHDRAWN = int(EventKind.MARGIN_SET), int(EventKind.CASH_WITHDRAWN)
_INDEX_PUBLISHED = int(EventKind.INDEX_PUBLISHED)
_AUCTION_EXTENDED, _THRESHOLD_PUBLISHED = int(EventKind.AUCTION_EXTENDED), int(EventKind.THRESHOLD_PUBLISHED)
_HALT, _KILL, _KILL_VENDOR = int(CommandKind.HALT), int(CommandKind.KILL), int(CommandKind.KILL_VENDOR)
_EXPLAIN = int(CommandKind.EXPLAIN)
_NOT_LOGGED_ON, _UNEXPLAINED = int(Reason.NOT_LOGGED_ON), int(Reason.UNEXPLAINED)
_BY_SUPERVISOR = int(Trigger.SUPERVISOR)
_FIRST_TRIGGER, _LAST_TRIGGER = int(Trigger.PRICE_MOVE), int(Trigger.IMBALANCE)
_IS_KILLED, _NOT_RISK_REDUCING = int(Reason.IS_KILLED), int(Reason.NOT_RISK_REDUCING)
_BUY, _SELL, _BOTH = int(Side.BUY), int(Side.SELL), BOTH_SIDES
_LIMIT, _IOC, _MARKET = int(OrderType.LIMIT), int(OrderType.IOC), int(OrderType.MARKET)
_FOK, _POST_ONLY = int(OrderType.FOK), int(OrderType.POST_ONLY)
_CANCEL_RESTING, _CANCEL_INCOMING = int(SelfTrade.CANCEL_RESTING), int(SelfTrade.CANCEL_INCOMING)
_PRE_OPEN, _CONTINUOUS, _BATCH = int(Phase.PRE_OPEN), int(Phase.CONTINUOUS), int(Phase.BATCH)
_AUCTION, _HALTED, _CLOSED = int(Phase.AUCTION), int(Phase.HALTED), int(Phase.CLOSED)
_MAX_LIMIT = max(Limit)
_LIMIT_ORDER_LOTS, _LIMIT_OPEN_ORDERS = int(Limit.ORDER_LOTS), int(Limit.OPEN_ORDERS)
_LIMIT_POSITION_LOTS, _LIMIT_NOTIONAL = int(Limit.POSITION_LOTS), int(Limit.NOTIONAL)
_OK = int(Reason.NONE)
_MALFORMED, _UNKNOWN_ACCOUNT = int(Reason.MALFORMED), int(Reason.UNKNOWN_ACCOUNT)
_UNKNOWN_INSTRUMENT, _UNKNOWN_ORDER = int(Reason.UNKNOWN_INSTRUMENT), int(Reason.UNKNOWN_ORDER)
_PRICE_OUT_OF_RANGE, _QUANTITY_OUT_OF_RANGE = int(Reason.PRICE_OUT_OF_RANGE), int(Reason.QUANTITY_OUT_OF_RANGE)
_INVALID_SIDE, _INVALID_ORDER_TYPE = int(Reason.INVALID_SIDE), int(Reason.INVALID_ORDER_TYPE)
_ORDER_ID_NOT_INCREASING, _WOULD_MATCH = int(Reason.ORDER_ID_NOT_INCREASING), int(Reason.WOULD_MATCH)
_BOOK_FULL, _UNKNOWN_COMMAND = int(Reason.BOOK_FULL), int(Reason.UNKNOWN_COMMAND)
_INSUFFICIENT_CASH, _INSUFFICIENT_POSITION = int(Reason.INSUFFICIENT_CASH), int(Reason.INSUFFICIENT_POSITION)
_AMOUNT_OUT_OF_RANGE, _UNKNOWN_LIMIT = int(Reason.AMOUNT_OUT_OF_RANGE), int(Reason.UNKNOWN_LIMIT)
_ORDER_SIZE_LIMIT, _OPEN_ORDERS_LIMIT = int(Reason.ORDER_SIZE_LIMIT), int(Reason.OPEN_ORDERS_LIMIT)
_POSITION_LIMIT, _NOTIONAL_LIMIT = int(Reason.POSITION_LIMIT), int(Reason.NOTIONAL_LIMIT)
_MESSAGE_RATE_LIMIT = int(Reason.MESSAGE_RATE_LIMIT)
_NOT_OPEN, _IS_HALTED, _IS_CLOSED = int(Reason.NOT_OPEN), int(Reason.HALTED), int(Reason.CLOSED)
_NO_SUCH_FACILITY = int(Reason.NO_SUCH_FACILITY)
_NOT_IN_AUCTION, _TIMER_NOT_DUE = int(Reason.NOT_IN_AUCTION), int(Reason.TIMER_NOT_DUE)
_BY_OWNER, _IOC_REMAINDER, _NO_LIQUIDITY = int(Reason.BY_OWNER), int(Reason.IOC_REMAINDER), int(Reason.NO_LIQUIDITY)
_BY_BREAKER, _BY_CLOSE = int(Reason.BREAKER), int(Reason.SESSION_CLOSED)
_CASH_EXHAUSTED, _FOK_UNFILLABLE = int(Reason.CASH_EXHAUSTED), int(Reason.FOK_UNFILLABLE)
_SELF_TRADE, _BY_REPLACE, _BY_MASS = int(Reason.SELF_TRADE), int(Reason.REPLACED), int(Reason.MASS_CANCEL)
_DISCONNECTED, _AUCTION_REMAINDER = int(Reason.DISCONNECTED), int(Reason.AUCTION_REMAINDER)
_BY_AUCTION, _LOST_PRIORITY = int(Reason.AUCTION), int(Reason.LOST_PRIORITY)
_NEVER = int(NEVER)
_BPS = 10_000


@helper
def _write_order(events, count, command, kind, quantity_lots, leaves_lots, reason):
    """An event about the command's own order."""
    event = market.write(events, count, command, kind)
    event["order_id"] = command["order_id"]
    event["side"] = command["side"]
    event["price_ticks"] = command["price_ticks"]
    event["quantity_lots"] = quantity_lots
    event["leaves_lots"] = leaves_lots
    event["reason"] = reason
    return event


@routine
def _arm_batch(state, instrument, now_ns):
    row = state.instruments[instrument]
    started = row["phase_started_ns"]
    interval = row["batch_interval_ns"]
    market.set_timer(state, instrument, started + ((now_ns - started) // interval + 1) * interval)


@helper
def _trading_phase(state, instrument):
    return _CONTINUOUS if state.instruments[instrument]["batch_interval_ns"] == 0 else _BATCH


@helper
def _check_size(state, account, instrument, side, price, quantity, new_lots, freed_lots):
    """The limits on an order's size: `quantity` in all, `new_lots` of them open, `freed_lots` open no longer."""
    row = state.accounts[account]
    reason = _OK
    limit = row["order_lots_limit"]
    if limit > 0 and quantity > limit:
        reason = _ORDER_SIZE_LIMIT
    else:
        limit = row["notional_limit"]
        if limit > 0 and price * new_lots * state.instruments[instrument]["multiplier"] > limit:
            reason = _NOTIONAL_LIMIT
        else:
            limit = row["position_lots_limit"]
            if limit > 0 and side == _BUY:
                position = state.positions[account][instrument]
                if position["quantity_lots"] + position["buying_lots"] - freed_lots + new_lots > limit:
                    reason = _POSITION_LIMIT
    return reason


@helper
def _would_match(state, instrument, side, price):
    return not book.beyond(book.best(state, 2 * instrument + 1 - side), price, side)


@routine
def _reduces_risk(state, account, instrument, side, order_type, quantity):
    """Whether a limit order, with those that rest, can only bring the account's position nearer to 0."""
    position = state.positions[account][instrument]
    if order_type != _LIMIT:
        return False
    if side == _SELL:
        return position["quantity_lots"] - position["reserved_lots"] >= quantity
    return -position["quantity_lots"] - position["buying_lots"] >= quantity


@helper
def _check_order(state, command):
    """Why a new order whose name was accepted is rejected, or _OK; the checks of docs/matching.md from 4 on."""
    account = command["account"]
    instrument = command["instrument"]
    if instrument < 0 or instrument >= state.instruments.shape[0]:
        return _UNKNOWN_INSTRUMENT
    reason = market.phase_reason(state, instrument, False)
    row = state.instruments[instrument]
    reducing = reason == _IS_HALTED and row["risk_reducing_while_halted"] != 0
    if reason != _OK and not reducing:
        return reason
    side = command["side"]
    if side != _BUY and side != _SELL:
        return _INVALID_SIDE
    order_type = command["order_type"]
    if order_type < _LIMIT or order_type > _POST_ONLY:
        return _INVALID_ORDER_TYPE
    if reducing and not _reduces_risk(state, account, instrument, side, order_type, command["quantity_lots"]):
        return _NOT_RISK_REDUCING
    collecting = row["phase"] != _CONTINUOUS
    if collecting and (order_type == _MARKET or order_type == _FOK):
        return _NOT_IN_AUCTION
    quantity = command["quantity_lots"]
    if quantity < 1 or quantity > row["max_quantity_lots"]:
        return _QUANTITY_OUT_OF_RANGE
    price = command["price_ticks"]
    priced = price
    if order_type == _MARKET:
        if price != 0:
            return _PRICE_OUT_OF_RANGE
        needed = row["multiplier"]
        priced = book.best(state, 2 * instrument + 1 - side)
        if priced == row["price_levels"]:
            priced = 0  # no ask: nothing to trade with, nothing to check
    else:
        if price < 1 or price >= row["price_levels"]:
            return _PRICE_OUT_OF_RANGE
        needed = price * quantity * row["multiplier"]
    reason = _check_size(state, account, instrument, side, priced, quantity, quantity, 0)
    if reason != _OK:
        return reason
    may_rest = order_type == _LIMIT or order_type == _POST_ONLY or collecting
    if may_rest:
        limit = state.accounts[account]["open_orders_limit"]
        if limit > 0 and state.accounts[account]["open_orders"] >= limit:
            return _OPEN_ORDERS_LIMIT
    if state.accounts[account]["margin"] != 0:
        if order_type == _MARKET:
            priced = margin.worst_price(state, instrument, side, quantity)
        reason = margin.check_order(state, account, instrument, side, priced, quantity, NO_SLOT)
        if reason != _OK:
            return reason
    elif side == _SELL:
        if accounts.free_lots(state, account, instrument) < quantity:
            return _INSUFFICIENT_POSITION
    elif accounts.free_cash(state, account) < needed:
        return _INSUFFICIENT_CASH
    if may_rest and state.counters[0]["free_head"] == NO_SLOT:
        return _BOOK_FULL
    if order_type == _POST_ONLY and not collecting and _would_match(state, instrument, side, price):
        return _WOULD_MATCH
    return admission.flow_reason(state, account, instrument, side, order_type, price, quantity, command["received_ns"])


@routine
def _fillable(state, account, opposite, limit, quantity):
    """Whether a FOK of `quantity` lots can be filled from the opposite book up to its limit."""
    self_trade = state.accounts[account]["self_trade"]
    price = book.best(state, opposite)
    total = 0
    while book.is_price(state, opposite, price) and not book.beyond(price, limit, 1 - book.side_of(opposite)):
        slot = book.head(state, opposite, price)
        while slot != NO_SLOT:
            order = state.orders[slot]
            if order["account"] != account or self_trade == 0:
                total += order["leaves_lots"]
                if total >= quantity:
                    return True
            elif self_trade == _CANCEL_INCOMING:
                return False
            slot = np.int64(order["next"])
        price = book.next_price(state, opposite, price)
    return False


@routine
def _repeat(state, command, events, count):
    """Tell again what became of an order id; returns the number of events so far."""
    account = command["account"]
    order_id = command["order_id"]
    for number in range(state.outcomes.shape[1]):
        outcome = state.outcomes[account][number]
        if outcome["order_id"] == order_id:
            slot = book.find(state, account, order_id)
            event = market.write(events, count, command, _REPEATED)
            event["order_id"] = order_id
            event["quantity_lots"] = outcome["quantity_lots"]
            event["leaves_lots"] = state.orders[slot]["leaves_lots"] if slot != NO_SLOT else 0
            event["reason"] = outcome["reason"]
            event["value"] = outcome["sequence"]
            return count + 1
    _write_order(events, count, command, _REJECTED, command["quantity_lots"], 0, _ORDER_ID_NOT_INCREASING)
    return count + 1


@routine
def _check_replace(state, command):
    """Why a replacement whose name was accepted is rejected, and of which slot; the checks from 4 on.

    Returns: (reason, slot, new_leaves, whether it keeps its place); the reason is REPLACED if it only cancels.
    """
    account = command["account"]
    instrument = command["instrument"]
    if instrument < 0 or instrument >= state.instruments.shape[0]:
        return _UNKNOWN_INSTRUMENT, NO_SLOT, 0, False
    reason = market.phase_reason(state, instrument, False)
    if reason != _OK:
        return reason, NO_SLOT, 0, False
    order_type = command["order_type"]
    if order_type != _LIMIT and order_type != _POST_ONLY:
        return _INVALID_ORDER_TYPE, NO_SLOT, 0, False
    row = state.instruments[instrument]
    quantity = command["quantity_lots"]
    if quantity < 1 or quantity > row["max_quantity_lots"]:
        return _QUANTITY_OUT_OF_RANGE, NO_SLOT, 0, False
    price = command["price_ticks"]
    if price < 1 or price >= row["price_levels"]:
        return _PRICE_OUT_OF_RANGE, NO_SLOT, 0, False
    slot = book.find(state, account, command["target_order_id"])
    if slot == NO_SLOT or book.instrument_of(state.orders[slot]["book"]) != instrument:
        return _UNKNOWN_ORDER, NO_SLOT, 0, False
    order = state.orders[slot]
    leaves = order["leaves_lots"]
    new_leaves = quantity - order["filled_lots"]
    if new_leaves <= 0:
        return _BY_REPLACE, slot, new_leaves, False
    if price == np.int64(order["price_ticks"]) and new_leaves <= leaves:
        return _OK, slot, new_leaves, True
    side = book.side_of(order["book"])
    reason = _check_size(state, account, instrument, side, price, quantity, new_leaves, leaves)
    if reason == _OK:
        if state.accounts[account]["margin"] != 0:
            reason = margin.check_order(state, account, instrument, side, price, new_leaves, slot)
        elif side == _SELL:
            if accounts.free_lots(state, account, instrument) + leaves < new_leaves:
                reason = _INSUFFICIENT_POSITION
        else:
            freed = np.int64(order["price_ticks"]) * leaves * row["multiplier"]
            if accounts.free_cash(state, account) + freed < price * new_leaves * row["multiplier"]:
                reason = _INSUFFICIENT_CASH
    if (
        reason == _OK
        and order_type == _POST_ONLY
        and row["phase"] == _CONTINUOUS
        and _would_match(state, instrument, side, price)
    ):
        reason = _WOULD_MATCH
    if reason == _OK:
        now_ns = command["received_ns"]
        reason = admission.flow_reason(state, account, instrument, side, order_type, price, new_leaves, now_ns)
    return reason, slot, new_leaves, False


@routine
def _replace(state, command, slot, new_leaves, keeps, events, count):
    """Carry out a checked replacement up to the matching.

    Returns: (side, lots filled under earlier names) of the order.
    """
    order = state.orders[slot]
    instrument = command["instrument"]
    account = command["account"]
    side = book.side_of(order["book"])
    filled = order["filled_lots"]
    leaves = order["leaves_lots"]
    old_price = np.int64(order["price_ticks"])
    event = market.write(events, count, command, _WAS_REPLACED)
    event["order_id"] = command["order_id"]
    event["side"] = side
    event["price_ticks"] = command["price_ticks"]
    event["quantity_lots"] = command["quantity_lots"]
    event["leaves_lots"] = new_leaves
    event["value"] = order["order_id"]
    state.instruments[instrument]["expiring"] -= np.int64(order["expiring"])
    order["expiring"] = 0
    if keeps:
        accounts.reserve(state, account, instrument, side, old_price, leaves - new_leaves, -1)
        book.take(state, slot, leaves - new_leaves)
        book.rename(state, slot, command["order_id"])
    else:
        event["reason"] = _LOST_PRIORITY
        accounts.reserve(state, account, instrument, side, old_price, leaves, -1)
        book.take(state, slot, leaves)
        market.drop(state, slot)
    return side, filled


@helper
def _is_explained(owner, command):
    return owner["explained_id"] == command["order_id"] and owner["explained_rule"] == command["rule"]


@helper
def _explain(state, command):
    """Keep which order the account has just explained; its inputs are for who reads the journal."""
    account = command["account"]
    if account >= 0 and account < state.counters[0]["participants"]:
        state.accounts[account]["explained_id"] = command["order_id"]
        state.accounts[account]["explained_rule"] = command["rule"]


@helper
def _enter(state, command, events, count):
    """Check, accept, match and rest or cancel a new or replaced order; returns the number of events so far."""
    account = command["account"]
    order_id = command["order_id"]
    quantity = command["quantity_lots"]
    if account < 0 or account >= state.counters[0]["participants"]:
        _write_order(events, count, command, _REJECTED, quantity, 0, _UNKNOWN_ACCOUNT)
        return count + 1
    now_ns = command["received_ns"]
    over = accounts.charge(state, account, now_ns)
    owner = state.accounts[account]
    if order_id < 1 or order_id > MAX_ORDER_ID:
        _write_order(events, count, command, _REJECTED, quantity, 0, _ORDER_ID_NOT_INCREASING)
        return count + 1
    if order_id <= owner["last_order_id"]:
        return _repeat(state, command, events, count)
    owner["last_order_id"] = order_id
    slot = NO_SLOT
    leaves = quantity
    keeps = False
    if owner["killed"] != 0:
        reason = _IS_KILLED
    elif over:
        reason = _MESSAGE_RATE_LIMIT
    elif state.counters[0]["admission"] != 0 and owner["logged_on"] == 0:
        reason = _NOT_LOGGED_ON
    elif state.counters[0]["explanations_required"] != 0 and not _is_explained(owner, command):
        reason = _UNEXPLAINED
    elif command["kind"] == _REPLACE_ORDER:
        reason, slot, leaves, keeps = _check_replace(state, command)
    else:
        reason = _check_order(state, command)
    accounts.remember(state, account, order_id, command["sequence"], quantity, reason)
    if reason == _BY_REPLACE:
        market.take_off_whole(state, slot, _BY_REPLACE, command, events, count)
        return count + 1
    if reason != _OK:
        _write_order(events, count, command, _REJECTED, quantity, 0, reason)
        return count + 1
    side = command["side"]
    filled = 0
    if slot != NO_SLOT:
        side, filled = _replace(state, command, slot, leaves, keeps, events, count)
        if keeps:
            return count + 1
    else:
        _write_order(events, count, command, _ACCEPTED, leaves, leaves, 0)
    count += 1

    instrument = command["instrument"]
    order_type = command["order_type"]
    limit = command["price_ticks"]
    top = state.instruments[instrument]
    collecting = top["phase"] != _CONTINUOUS
    own_book = 2 * instrument + side
    opposite = own_book ^ 1
    rests = order_type == _LIMIT or order_type == _POST_ONLY or collecting
    ended = _IOC_REMAINDER
    working = not collecting
    if order_type == _MARKET:
        limit = top["price_levels"] - 1 if side == _BUY else 1
        ended = _NO_LIQUIDITY
    elif order_type == _FOK and not _fillable(state, account, opposite, limit, leaves):
        ended = _FOK_UNFILLABLE
        working = False

    while working and leaves > 0:
        price = book.best(state, opposite)
        if book.beyond(price, limit, side):  # as an empty book's best always is
            break
        slot = book.head(state, opposite, price)
        maker = state.orders[slot]
        maker_account = np.int64(maker["account"])
        if maker_account == account and owner["self_trade"] != 0:
            if owner["self_trade"] == _CANCEL_RESTING:
                market.take_off_whole(state, slot, _SELF_TRADE, command, events, count)
                count += 1
                continue
            ended = _SELF_TRADE
            rests = False
            break
        wanted = min(leaves, maker["leaves_lots"])
        matched = wanted
        if order_type == _MARKET and side == _BUY and owner["margin"] == 0:
            matched = min(wanted, accounts.free_cash(state, account) // (price * top["multiplier"]))
            if matched == 0:
                ended = _CASH_EXHAUSTED
                break
        if breaker.trips(state, instrument, side, price, matched, now_ns, command["sequence"]):
            count = market.halt(
                state, instrument, account, order_id, side, price, matched, leaves, command, events, count
            )
            ended = _BY_BREAKER
            rests = False
            break
        leaves -= matched
        filled += matched
        market.trade(state, slot, account, side, price, matched, command)
        market.write_fill(
            state, slot, command, instrument, account, order_id, side, price, matched, leaves, events, count
        )
        count += 1
        if maker["leaves_lots"] == 0:
            book.remove(state, slot)
        if matched < wanted:
            # Stop here: against an ask of its own account each fill would give the cash back, lot by lot, without end.
            ended = _CASH_EXHAUSTED
            break

    if leaves > 0:
        if rests:
            slot = book.rest(state, account, order_id, own_book, limit, leaves, filled)
            accounts.reserve(state, account, instrument, side, limit, leaves, 1)
            if collecting:
                if order_type == _IOC:
                    state.orders[slot]["expiring"] = 1
                    top["expiring"] += 1
                if top["phase"] == _BATCH and top["timer_ns"] == _NEVER:
                    _arm_batch(state, instrument, now_ns)
        else:
            event = _write_order(events, count, command, _CANCELLED, leaves, 0, ended)
            event["side"] = side
            count += 1
    return count


@helper
def _cancel(state, command, events, count):
    """Take an order, or a part of it, off the book; returns the number of events so far."""
    account = command["account"]
    instrument = command["instrument"]
    target = command["target_order_id"]
    quantity = command["quantity_lots"]
    slot = NO_SLOT
    if account < 0 or account >= state.counters[0]["participants"]:
        reason = _UNKNOWN_ACCOUNT
    else:
        accounts.charge(state, account, command["received_ns"])
        if instrument < 0 or instrument >= state.instruments.shape[0]:
            reason = _UNKNOWN_INSTRUMENT
        else:
            reason = market.phase_reason(state, instrument, True)
            if reason == _OK:
                if quantity < 0 or quantity > state.instruments[instrument]["max_quantity_lots"]:
                    reason = _QUANTITY_OUT_OF_RANGE
                else:
                    slot = book.find(state, account, target)
                    if slot == NO_SLOT or book.instrument_of(state.orders[slot]["book"]) != instrument:
                        reason = _UNKNOWN_ORDER
    if reason != _OK:
        event = market.write(events, count, command, _CANCEL_REJECTED)
        event["order_id"] = target
        event["quantity_lots"] = quantity
        event["reason"] = reason
        return count + 1
    market.take_off(state, slot, quantity, _BY_OWNER, command, events, count)
    return count + 1


@routine
def _mass_cancel(state, command, events, count):
    """Returns the number of events so far."""
    account = command["account"]
    instrument = command["instrument"]
    side = command["side"]
    first = count
    if account < 0 or account >= state.counters[0]["participants"]:
        reason = _UNKNOWN_ACCOUNT
    else:
        accounts.charge(state, account, command["received_ns"])
        if instrument < NOBODY or instrument >= state.instruments.shape[0]:
            reason = _UNKNOWN_INSTRUMENT
        elif side < _BUY or side > _BOTH:
            reason = _INVALID_SIDE
        else:
            reason = _OK if instrument == NOBODY else market.phase_reason(state, instrument, True)
    if reason == _OK:
        count = market.cancel_all(state, account, instrument, side, _BY_MASS, command, events, count)
        event = market.write(events, count, command, _MASS_CANCELLED)
        event["quantity_lots"] = count - first
    else:
        event = market.write(events, count, command, _CANCEL_REJECTED)
        event["reason"] = reason
    event["side"] = side
    return count + 1


@routine
def _uncross(state, command, instrument, price, volume, events, count):
    """Match `volume` lots of crossing orders at one price; returns the number of events so far."""
    bids = 2 * instrument
    asks = bids + 1
    top = state.instruments[instrument]
    if volume > 0:
        top["last_ticks"] = price
        top["volume_lots"] += volume
    while volume > 0:
        buying = book.head(state, bids, book.best(state, bids))
        selling = book.head(state, asks, book.best(state, asks))
        bid = state.orders[buying]
        ask = state.orders[selling]
        matched = min(min(bid["leaves_lots"], ask["leaves_lots"]), volume)
        volume -= matched
        accounts.reserve(state, np.int64(bid["account"]), instrument, _BUY, np.int64(bid["price_ticks"]), matched, -1)
        accounts.reserve(state, np.int64(ask["account"]), instrument, _SELL, np.int64(ask["price_ticks"]), matched, -1)
        accounts.settle(state, instrument, np.int64(bid["account"]), np.int64(ask["account"]), price, matched)
        book.take(state, buying, matched)
        book.take(state, selling, matched)
        bid["filled_lots"] += matched
        ask["filled_lots"] += matched
        event = market.write(events, count, command, _FILLED)
        event["instrument"] = instrument
        event["account"] = bid["account"]
        event["order_id"] = bid["order_id"]
        event["side"] = _BUY
        event["price_ticks"] = price
        event["quantity_lots"] = matched
        event["leaves_lots"] = bid["leaves_lots"]
        event["maker_account"] = ask["account"]
        event["maker_order_id"] = ask["order_id"]
        event["maker_leaves_lots"] = ask["leaves_lots"]
        event["reason"] = _BY_AUCTION
        count += 1
        if bid["leaves_lots"] == 0:
            top["expiring"] -= np.int64(bid["expiring"])
            market.drop(state, buying)
        if ask["leaves_lots"] == 0:
            top["expiring"] -= np.int64(ask["expiring"])
            market.drop(state, selling)
    return count


@routine
def _expire(state, command, instrument, reason, events, count):
    """Cancel every expiring order of an instrument; returns the number of events so far."""
    for side in range(2):
        number = 2 * instrument + side
        price = book.best(state, number)
        while state.instruments[instrument]["expiring"] > 0 and book.is_price(state, number, price):
            slot = book.head(state, number, price)
            while slot != NO_SLOT:
                following = np.int64(state.orders[slot]["next"])
                if state.orders[slot]["expiring"] != 0:
                    market.take_off_whole(state, slot, reason, command, events, count)
                    count += 1
                slot = following
            price = book.next_price(state, number, price)
    return count


@routine
def _outside_collar(state, instrument, price):
    """Whether a reopening auction would clear outside its collar around the last price, and may go on instead."""
    row = state.instruments[instrument]
    if row["collar_bps"] == 0 or state.breakers[instrument]["trigger"] == 0 or row["last_ticks"] == 0:
        return False
    if row["extensions"] >= row["collar_extensions"]:
        return False
    collar = row["collar_bps"] + row["extensions"] * row["collar_widening_bps"]
    return abs(price - row["last_ticks"]) * _BPS > collar * row["last_ticks"]


@routine
def _extend(state, instrument, price, command, events, count):
    """Let a reopening auction go on with a wider collar; returns the number of events so far."""
    row = state.instruments[instrument]
    row["extensions"] += 1
    event = market.write(events, count, command, _AUCTION_EXTENDED)
    event["account"] = NOBODY
    event["price_ticks"] = price
    event["value"] = row["collar_bps"] + row["extensions"] * row["collar_widening_bps"]
    event["threshold"] = row["last_ticks"]
    return market.change_phase(state, instrument, _AUCTION, row["reopening_auction_ns"], command, events, count + 1)


@routine
def _timer(state, command, events, count):
    """An instrument's timer is due; returns the number of events so far."""
    instrument = command["instrument"]
    now_ns = command["received_ns"]
    reason = _OK
    if instrument < 0 or instrument >= state.instruments.shape[0]:
        reason = _UNKNOWN_INSTRUMENT
    elif now_ns < state.instruments[instrument]["timer_ns"]:
        reason = _TIMER_NOT_DUE
    if reason != _OK:
        event = market.write(events, count, command, _REJECTED)
        event["account"] = NOBODY
        event["reason"] = reason
        return count + 1
    top = state.instruments[instrument]
    phase = top["phase"]
    if phase == _HALTED:
        return market.change_phase(state, instrument, _AUCTION, top["reopening_auction_ns"], command, events, count)
    market.set_timer(state, instrument, _NEVER)
    price, volume, imbalance, reference = auction.clearing(state, instrument)
    if phase == _AUCTION and volume > 0 and _outside_collar(state, instrument, price):
        return _extend(state, instrument, price, command, events, count)
    asked = phase == _BATCH and volume > 0
    if asked and breaker.trips(state, instrument, _BUY, price, volume, now_ns, command["sequence"]):
        count = market.halt(state, instrument, NOBODY, 0, _BUY, price, volume, 0, command, events, count)
        return _expire(state, command, instrument, _BY_BREAKER, events, count)
    if phase == _AUCTION or volume > 0:
        event = market.write(events, count, command, _AUCTION_ENDED)
        event["account"] = NOBODY
        event["price_ticks"] = price
        event["quantity_lots"] = volume
        event["value"] = imbalance
        event["threshold"] = reference
        count += 1
        count = _uncross(state, command, instrument, price, volume, events, count)
    count = _expire(state, command, instrument, _AUCTION_REMAINDER, events, count)
    if phase == _AUCTION:
        breaker.forget(state, instrument)
        top["extensions"] = 0
    if volume > 0:
        breaker.record_price(state, instrument, price, now_ns, command["sequence"])
    if phase == _AUCTION:
        count = market.change_phase(state, instrument, _trading_phase(state, instrument), 0, command, events, count)
    return count


@routine
def _open_session(state, command, events, count):
    for number in range(state.instruments.shape[0]):
        row = state.instruments[number]
        if row["phase"] == _PRE_OPEN:
            lasts = row["opening_auction_ns"]
            phase = _AUCTION if lasts > 0 else _trading_phase(state, number)
            count = market.change_phase(state, number, phase, lasts, command, events, count)
            count = _publish_thresholds(state, number, command, events, count)
    return count


@routine
def _close_session(state, command, events, count):
    for number in range(state.instruments.shape[0]):
        for side in range(2):
            while book.is_price(state, 2 * number + side, book.best(state, 2 * number + side)):
                slot = book.head(state, 2 * number + side, book.best(state, 2 * number + side))
                market.take_off_whole(state, slot, _BY_CLOSE, command, events, count)
                count += 1
        if state.instruments[number]["phase"] != _CLOSED:
            count = market.change_phase(state, number, _CLOSED, 0, command, events, count)
    market.set_revaluation(state, _NEVER)
    return count


@routine
def _set_margin(state, account, amount):
    """Make an account a margin or a cash account; returns why not, or _OK."""
    if state.counters[0]["mark_rule"] == NOBODY:
        return _NO_SUCH_FACILITY
    if (amount != 0 and amount != 1) or not margin.may_change(state, account):
        return _AMOUNT_OUT_OF_RANGE
    state.accounts[account]["margin"] = amount
    state.accounts[account]["margin_state"] = 0
    for number in range(state.instruments.shape[0]):
        state.positions[account][number]["entry_value"] = 0
    return _OK


@routine
def _revalue(state, command, events, count):
    """Oracles, margin accounts, the insurance fund's inventory, in this order; returns the number of events so far."""
    counters = state.counters[0]
    now_ns = command["received_ns"]
    if now_ns < counters["revalue_ns"]:
        event = market.write(events, count, command, _REJECTED)
        event["account"] = NOBODY
        event["reason"] = _TIMER_NOT_DUE
        return count + 1
    market.set_revaluation(state, _NEVER)
    count = lending.update_oracles(state, command, events, count)
    again = False
    if counters["mark_rule"] != NOBODY:
        count, again = margin.examine_all(state, command, events, count)
        count = margin.sell_inventory(state, command, events, count)
    soonest_ns = now_ns + counters["revalue_interval_ns"]
    if counters["mark_rule"] != NOBODY and margin.is_pending(state, again):
        market.set_revaluation(state, soonest_ns)
    else:
        market.set_revaluation(state, lending.next_heartbeat(state, soonest_ns))
    return count


@routine
def _arm_revaluation(state, due_ns):
    """Arm REVALUE if a market is open."""
    for number in range(state.instruments.shape[0]):
        phase = state.instruments[number]["phase"]
        if phase != _PRE_OPEN and phase != _CLOSED:
            market.set_revaluation(state, due_ns)
            return


@routine
def _has_living(state, vendor):
    """Whether a participant that is not killed has a model of this vendor."""
    if vendor < 1 or vendor >= MAX_VENDORS:
        return False
    for number in range(state.counters[0]["participants"]):
        row = state.accounts[number]
        if row["vendor"] == vendor and row["killed"] == 0:
            return True
    return False


@routine
def _supervise(state, command, events, count):
    """A supervisor's HALT, KILL or KILL_VENDOR; returns the number of events so far."""
    account = command["account"]
    instrument = command["instrument"]
    reason = _OK
    first = count
    if command["kind"] == _KILL:
        if account < NOBODY or account >= state.counters[0]["participants"]:
            reason = _UNKNOWN_ACCOUNT
        elif account != NOBODY and state.accounts[account]["killed"] != 0:
            reason = _IS_KILLED
        else:
            return market.kill(state, account, 0, _BY_SUPERVISOR, command, events, count)
    elif command["kind"] == _KILL_VENDOR:
        if _has_living(state, account):
            return market.kill(state, NOBODY, account, _BY_SUPERVISOR, command, events, count)
        reason = _UNKNOWN_ACCOUNT
    elif instrument < NOBODY or instrument >= state.instruments.shape[0]:
        reason = _UNKNOWN_INSTRUMENT
    else:
        count = market.halt_by_supervisor(state, instrument, _BY_SUPERVISOR, command, events, count)
        if count > first:
            return count
        reason = _IS_HALTED
    event = market.write(events, count, command, _REJECTED)
    event["quantity_lots"] = command["quantity_lots"]
    event["reason"] = reason
    return count + 1


@routine
def _publish_thresholds(state, instrument, command, events, count):
    """One event a trigger that is armed; returns the number of events so far."""
    row = state.breakers[instrument]
    for trigger in range(_FIRST_TRIGGER, _LAST_TRIGGER + 1):
        threshold, window_ns = breaker.threshold_of(state, instrument, trigger)
        if threshold > 0 and row["publish_thresholds"] != 0:
            event = market.write(events, count, command, _THRESHOLD_PUBLISHED)
            event["instrument"] = instrument
            event["account"] = NOBODY
            event["reason"] = trigger
            event["threshold"] = threshold
            event["window_ns"] = window_ns
            count += 1
    return count


@routine
def _log_on_or_off(state, command, events, count):
    """A participant's session begins or ends; returns the number of events so far."""
    account = command["account"]
    flags = command["quantity_lots"]
    vendor = command["target_order_id"]
    model = command["order_type"]
    version = command["price_ticks"]
    known = account >= 0 and account < state.counters[0]["participants"]
    row = state.accounts[account if known else 0]
    reason = _OK
    if not known:
        reason = _UNKNOWN_ACCOUNT
    elif command["kind"] == _LOG_ON:
        if flags < 0 or flags > MAX_FLAGS:
            reason = _MALFORMED
        elif row["killed"] != 0:
            reason = _IS_KILLED
        else:
            reason = admission.log_on_reason(state, account, vendor, model, version)
    if reason != _OK:
        event = market.write(events, count, command, _REJECTED)
        event["quantity_lots"] = flags
        event["reason"] = reason
    elif command["kind"] == _LOG_ON:
        row["logged_on"] = 1
        row["cancel_on_disconnect"] = flags & 1
        row["self_trade"] = flags >> 1
        row["vendor"] = vendor
        row["model"] = model
        row["model_version"] = version
        event = market.write(events, count, command, _LOGGED_ON)
        event["order_id"] = row["last_order_id"]
        event["value"] = flags
        event["maker_order_id"] = vendor
        event["leaves_lots"] = model
        event["price_ticks"] = version
    else:
        row["logged_on"] = 0
        first = count
        if row["cancel_on_disconnect"] != 0:
            count = market.cancel_all(state, account, NOBODY, _BOTH, _DISCONNECTED, command, events, count)
        event = market.write(events, count, command, _LOGGED_OFF)
        event["quantity_lots"] = count - first
    event["instrument"] = NOBODY
    return count + 1


@routine
def _administer(state, command, events, count):
    """Sessions of participants, the operator's commands and the venue's start; returns the number of events so far."""
    kind = command["kind"]
    account = command["account"]
    instrument = command["instrument"]
    amount = command["quantity_lots"]
    known = account >= 0 and account < state.counters[0]["participants"]
    reason = _OK
    if kind == _OPEN_SESSION or kind == _CLOSE_SESSION or kind == _START:
        if kind == _OPEN_SESSION:
            count = _open_session(state, command, events, count)
            event = market.write(events, count, command, _SESSION_OPENED)
        elif kind == _CLOSE_SESSION:
            count = _close_session(state, command, events, count)
            event = market.write(events, count, command, _SESSION_CLOSED)
        else:
            state.counters[0]["starts"] += 1
            event = market.write(events, count, command, _VENUE_STARTED)
            event["value"] = state.counters[0]["starts"]
        event["instrument"] = NOBODY
        event["account"] = NOBODY
        return count + 1
    if kind == _LOG_ON or kind == _LOG_OFF:
        return _log_on_or_off(state, command, events, count)
    if kind == _HALT or kind == _KILL or kind == _KILL_VENDOR:
        return _supervise(state, command, events, count)
    if kind == _PUBLISH_SIGNAL:
        if instrument < 0 or instrument >= state.instruments.shape[0]:
            reason = _UNKNOWN_INSTRUMENT
        else:
            event = market.write(events, count, command, _SIGNAL_PUBLISHED)
            event["account"] = NOBODY
            event["value"] = amount
    elif kind == _SET_LIMIT:
        if not known:
            reason = _UNKNOWN_ACCOUNT
        elif instrument < 1 or instrument > _MAX_LIMIT:
            reason = _UNKNOWN_LIMIT
        elif amount < 0 or amount > MAX_CASH:
            reason = _AMOUNT_OUT_OF_RANGE
        else:
            row = state.accounts[account]
            if instrument == _LIMIT_ORDER_LOTS:
                row["order_lots_limit"] = amount
            elif instrument == _LIMIT_OPEN_ORDERS:
                row["open_orders_limit"] = amount
            elif instrument == _LIMIT_POSITION_LOTS:
                row["position_lots_limit"] = amount
            elif instrument == _LIMIT_NOTIONAL:
                row["notional_limit"] = amount
            else:
                row["messages_per_s_limit"] = amount
            event = market.write(events, count, command, _LIMIT_SET)
            event["instrument"] = NOBODY
            event["reason"] = instrument
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
                event = market.write(events, count, command, _CASH_DEPOSITED)
                event["instrument"] = NOBODY
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
            position = state.positions[account][instrument]
            if state.accounts[account]["margin"] != 0:
                multiplier = state.instruments[instrument]["multiplier"]
                position["entry_value"] += margin.mark(state, instrument) * amount * multiplier
            position["quantity_lots"] += amount
            event = market.write(events, count, command, _POSITION_DEPOSITED)
            event["quantity_lots"] = amount
    elif kind == _WITHDRAW_CASH or kind == _SET_MARGIN:
        reason = _UNKNOWN_ACCOUNT
        if known and kind == _WITHDRAW_CASH:
            reason = margin.withdraw(state, account, amount)
        elif known:
            reason = _set_margin(state, account, amount)
        if reason == _OK:
            event = market.write(events, count, command, _CASH_WITHDRAWN if kind == _WITHDRAW_CASH else _MARGIN_SET)
            event["instrument"] = NOBODY
            if kind == _WITHDRAW_CASH:
                event["quantity_lots"] = amount
            else:
                event["value"] = amount
    elif kind == _PUBLISH_INDEX:
        if instrument < 0 or instrument >= state.instruments.shape[0]:
            reason = _UNKNOWN_INSTRUMENT
        elif amount < 1 or amount >= state.instruments[instrument]["price_levels"]:
            reason = _AMOUNT_OUT_OF_RANGE
        else:
            state.instruments[instrument]["index_ticks"] = amount
            event = market.write(events, count, command, _INDEX_PUBLISHED)
            event["account"] = NOBODY
            event["value"] = amount
    else:
        reason = _UNKNOWN_COMMAND
    if reason != _OK:
        event = market.write(events, count, command, _REJECTED)
        event["quantity_lots"] = amount
        event["reason"] = reason
    return count + 1


def events_bound(state: State) -> int:
    """Length of an events buffer that holds whatever one command can cause."""
    counters = state.counters[0]
    beside = EVENTS_AN_INSTRUMENT * len(state.instruments) + EVENTS_BESIDE_RESTING
    return len(state.orders) + beside + int(counters["revalue_events"])


@kernel
def apply_commands(state, commands, first, last, events):
    """Apply commands[first:last] until done or until `events` might not hold what the next one causes.

    Args: commands: COMMAND[n]; events: EVENT[m] to fill, m ≥ events_bound(state).
    Returns: (number of the first command not applied, number of events written).
    """
    count = 0
    counters = state.counters[0]
    beside = EVENTS_AN_INSTRUMENT * state.instruments.shape[0] + EVENTS_BESIDE_RESTING + counters["revalue_events"]
    interval_ns = counters["revalue_interval_ns"]
    at = first
    while at < last:
        if events.shape[0] - count < counters["resting_orders"] + beside:
            break
        command = commands[at]
        counters["sequence"] = command["sequence"]
        kind = command["kind"]
        if kind == _PLACE_ORDER or kind == _REPLACE_ORDER:
            count = _enter(state, command, events, count)
        elif kind == _CANCEL_ORDER:
            count = _cancel(state, command, events, count)
        elif kind == _MASS_CANCEL:
            count = _mass_cancel(state, command, events, count)
        elif kind == _EXPLAIN:
            _explain(state, command)
        elif kind == _TIMER:
            count = _timer(state, command, events, count)
        elif kind == _REVALUE:
            count = _revalue(state, command, events, count)
        elif kind >= _FIRST_REQUEST and kind <= _LAST_REQUEST:
            count = lending.request(state, command, events, count)
        else:
            count = _administer(state, command, events, count)
        if interval_ns > 0 and kind != _REVALUE:
            due_ns = command["received_ns"] + interval_ns
            if counters["revalue_ns"] > due_ns:
                _arm_revaluation(state, due_ns)
        at += 1
    return at, count


@kernel
def _write_resting(state, instrument, out, at):
    """Write what Engine.resting returns, as one row of words; returns its end."""
    for side in range(2):
        number = 2 * instrument + side
        price = book.best(state, number)
        while book.is_price(state, number, price):
            slot = book.head(state, number, price)
            while slot != NO_SLOT:
                order = state.orders[slot]
                out[at] = order["account"]
                out[at + 1] = order["order_id"]
                out[at + 2] = side
                out[at + 3] = price
                out[at + 4] = order["leaves_lots"]
                out[at + 5] = order["filled_lots"]
                out[at + 6] = order["expiring"]
                at += 7
                slot = np.int64(order["next"])
            price = book.next_price(state, number, price)
    return at


class Engine:
    """The engine as Python sees it; the event loop calls apply_commands on `state` itself."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.state: State = new_state(config)
        self._events = np.zeros(2 * events_bound(self.state), EVENT)

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
        """int64[n, 7]: account, order_id, side, price_ticks, leaves_lots, filled_lots, expiring; bids best first, then
        asks, FIFO a level."""
        out = np.zeros(7 * (int(self.state.counters["resting_orders"][0]) + 1), np.int64)
        end = _write_resting(self.state, instrument, out, 0)
        return out[:end].reshape(-1, 7)

    def state_hash(self) -> str:
        """BLAKE2b over what any correct implementation must agree on; the layout is in docs/matching.md."""
        digest = hashlib.blake2b(digest_size=16)
        state = self.state

        def add(*values: object) -> None:
            for value in values:
                digest.update(np.ascontiguousarray(value, "<i8").tobytes())

        add(*(state.counters[name] for name in ("sequence", "resting_orders", "starts")))
        for number in range(len(state.instruments)):
            row = state.instruments[number]
            add(row["phase"], row["last_ticks"], row["volume_lots"], state.breakers[number]["trigger"])
            add(row["timer_ns"], row["phase_started_ns"], row["index_ticks"], row["oracle_ticks"], row["oracle_ns"])
            add(row["extensions"])
            add(self.resting(number))
        hidden = ("oldest", "newest", "remembered")
        names = [name for name in state.accounts.dtype.names or () if name not in hidden]
        add(np.stack([state.accounts[name] for name in names], axis=1))
        add(np.stack([state.positions[name] for name in state.positions.dtype.names or ()], axis=2))
        for account in range(len(state.accounts)):
            add(self._remembered(account))
        if len(state.vendors) > 1:
            add(state.vendors["flow"])
        if self.config.system_accounts or any(instrument.oracle for instrument in self.config.instruments):
            names = ["revalue_ns", "revalue_account", "liquidating", "written_off_lots", "redemption_ns"]
            add(*(state.counters[name] for name in names))
            add(np.stack([state.loans[name] for name in state.loans.dtype.names or ()], axis=1))
        return digest.hexdigest()

    def _remembered(self, account: int) -> Array:
        """int64[n, 4]: the outcomes that an account may hear again, oldest first."""
        ring = self.state.outcomes[account]
        count = int(self.state.accounts["remembered"][account])
        rows = [ring[number % len(ring)] for number in range(max(0, count - len(ring)), count)]
        return np.array([tuple(row) for row in rows], np.int64).reshape(-1, 4)
