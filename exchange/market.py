"""What several kinds of command do to a market: events, phases and timers, halts, cancellations, one trade.

Between the engine's modules: the books, accounts and breaker are below it, the engine and the liquidation engine above.
"""

import numpy as np

from exchange import accounts, book, breaker
from exchange.jit import helper, routine
from exchange.types import (
    BOTH_SIDES,
    NEVER,
    NO_SLOT,
    NOBODY,
    BreakerAction,
    CommandKind,
    EventKind,
    Phase,
    Reason,
    Side,
    Trigger,
)

_TIMER = int(CommandKind.TIMER)
_FILLED, _CANCELLED = int(EventKind.ORDER_FILLED), int(EventKind.ORDER_CANCELLED)
_INSTRUMENT_HALTED, _PHASE_CHANGED = int(EventKind.INSTRUMENT_HALTED), int(EventKind.PHASE_CHANGED)
_BUY, _BOTH = int(Side.BUY), BOTH_SIDES
_PRE_OPEN, _CONTINUOUS, _BATCH = int(Phase.PRE_OPEN), int(Phase.CONTINUOUS), int(Phase.BATCH)
_AUCTION, _HALTED, _CLOSED = int(Phase.AUCTION), int(Phase.HALTED), int(Phase.CLOSED)
_OK = int(Reason.NONE)
_NOT_OPEN, _IS_HALTED, _IS_CLOSED = int(Reason.NOT_OPEN), int(Reason.HALTED), int(Reason.CLOSED)
_DISCONNECTED, _LIQUIDATED = int(Reason.DISCONNECTED), int(Reason.LIQUIDATED)
_BY_KILL, _PARTICIPANTS_KILLED = int(Reason.KILLED), int(EventKind.PARTICIPANTS_KILLED)
_BY_MARKET = int(Trigger.MARKET)
_HALT_ALONE = int(BreakerAction.HALT)
_HALT_MARKET, _KILL_PARTICIPANT = int(BreakerAction.HALT_MARKET), int(BreakerAction.KILL_PARTICIPANT)
_KILL_ALL, _KILL_VENDOR = int(BreakerAction.KILL_ALL), int(BreakerAction.KILL_VENDOR)
_NEVER = int(NEVER)


@helper
def write(events, count, command, kind):
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
    event["maker_account"] = NOBODY
    event["maker_order_id"] = 0
    event["maker_leaves_lots"] = 0
    event["reason"] = 0
    event["value"] = 0
    event["threshold"] = 0
    event["window_ns"] = 0
    return event


@helper
def phase_reason(state, instrument, cancels):
    """Why the phase allows no orders (cancels False) or no cancels, or _OK."""
    row = state.instruments[instrument]
    phase = row["phase"]
    reason = _OK
    if phase != _CONTINUOUS and phase != _BATCH and phase != _AUCTION:
        if phase == _PRE_OPEN:
            reason = _NOT_OPEN
        elif phase == _CLOSED:
            reason = _IS_CLOSED
        elif not (cancels and row["cancels_while_halted"] + row["risk_reducing_while_halted"] != 0):
            reason = _IS_HALTED
    return reason


@helper
def _refresh_next_timer(state):
    """Keep the earliest of all timers at hand for the venue's loop."""
    earliest = state.counters[0]["revalue_ns"]
    for number in range(state.instruments.shape[0]):
        earliest = min(earliest, state.instruments[number]["timer_ns"])
    state.counters[0]["next_timer_ns"] = earliest


@routine
def set_revaluation(state, due_ns):
    """Arm the timer of REVALUE (_NEVER: disarm it)."""
    state.counters[0]["revalue_ns"] = due_ns
    _refresh_next_timer(state)


@helper
def set_timer(state, instrument, due_ns):
    """Arm an instrument's timer (_NEVER: disarm it)."""
    state.instruments[instrument]["timer_ns"] = due_ns
    _refresh_next_timer(state)


@routine
def change_phase(state, instrument, phase, lasts_ns, command, events, count):
    """Enter a phase and write its PHASE_CHANGED; lasts_ns 0: no timer ends it. Returns the number of events so far."""
    row = state.instruments[instrument]
    row["phase"] = phase
    row["phase_started_ns"] = command["received_ns"] if phase == _BATCH else 0
    until = command["received_ns"] + lasts_ns
    set_timer(state, instrument, until if lasts_ns > 0 else _NEVER)
    event = write(events, count, command, _PHASE_CHANGED)
    event["instrument"] = instrument
    event["account"] = NOBODY
    event["value"] = phase
    event["threshold"] = until if lasts_ns > 0 else 0
    return count + 1


@routine
def _halt_one(state, instrument, trigger, command, events, count):
    """Halt one instrument; its INSTRUMENT_HALTED is event number `count`. Returns the number of events so far."""
    breaker = state.breakers[instrument]
    breaker["trigger"] = trigger
    event = write(events, count, command, _INSTRUMENT_HALTED)
    event["instrument"] = instrument
    event["account"] = NOBODY
    event["reason"] = trigger
    return change_phase(
        state, instrument, _HALTED, state.instruments[instrument]["halt_ns"], command, events, count + 1
    )


@routine
def halt(state, instrument, account, order_id, side, price, quantity, leaves, command, events, count):
    """Halt an instrument because of a match that is prevented, by the verdict in its breaker's row, and do what the
    breaker is to do beyond that. account, order_id: whose match, or NOBODY. Returns the number of events so far."""
    verdict = state.breakers[instrument]
    event = events[count]
    market_row = state.breakers[state.breakers.shape[0] - 1]
    count = _halt_one(state, instrument, verdict["tripped_by"], command, events, count)
    event["account"] = account
    event["order_id"] = order_id
    event["side"] = side
    event["price_ticks"] = price
    event["quantity_lots"] = quantity
    event["leaves_lots"] = leaves
    event["value"] = verdict["observed"]
    event["threshold"] = verdict["threshold"]
    event["window_ns"] = verdict["window_ns"]
    event["maker_order_id"] = verdict["evidence"]
    halted = 0
    for number in range(state.instruments.shape[0]):
        if state.instruments[number]["phase"] == _HALTED:
            halted += 1
    action = verdict["action"]
    kills = _HALT_ALONE
    vendor = 0
    if action == _KILL_PARTICIPANT or action == _KILL_VENDOR:
        if account >= 0 and account < state.counters[0]["participants"]:
            vendor = state.accounts[account]["vendor"] if action == _KILL_VENDOR else 0
            kills = _KILL_PARTICIPANT if vendor == 0 else _KILL_VENDOR
        action = _HALT_ALONE
    of_market = market_row["halted_instruments"] > 0 and halted >= market_row["halted_instruments"]
    if verdict["market_wide"] != 0 or of_market:
        action = max(action, market_row["action"])
    if verdict["market_wide"] != 0:
        breaker.forget_market(state)
    event["maker_leaves_lots"] = kills if kills != _HALT_ALONE and action != _KILL_ALL else action
    if action >= _HALT_MARKET:
        count = halt_others(state, instrument, command, events, count)
    if action == _KILL_ALL:
        return kill(state, NOBODY, 0, verdict["tripped_by"], command, events, count)
    if kills != _HALT_ALONE:
        whom = account if vendor == 0 else NOBODY
        return kill(state, whom, vendor, verdict["tripped_by"], command, events, count)
    return count


@routine
def halt_others(state, instrument, command, events, count):
    """Halt every other instrument that is open; returns the number of events so far."""
    for number in range(state.instruments.shape[0]):
        phase = state.instruments[number]["phase"]
        if number != instrument and (phase == _CONTINUOUS or phase == _BATCH or phase == _AUCTION):
            count = _halt_one(state, number, _BY_MARKET, command, events, count)
            events[count - 2]["value"] = instrument
    return count


@routine
def halt_by_supervisor(state, instrument, trigger, command, events, count):
    """Halt one instrument, or all (NOBODY), that are open; the sequence that the supervisor saw is the evidence.

    Returns the number of events so far.
    """
    for number in range(state.instruments.shape[0]):
        phase = state.instruments[number]["phase"]
        open_now = phase == _CONTINUOUS or phase == _BATCH or phase == _AUCTION
        if open_now and (instrument == NOBODY or number == instrument):
            count = _halt_one(state, number, trigger, command, events, count)
            events[count - 2]["maker_order_id"] = command["quantity_lots"]
    return count


@routine
def kill(state, account, vendor, trigger, command, events, count):
    """Cancel every resting order of one participant, or (account NOBODY) of all those of a vendor, or (vendor 0) of
    all, and let them do nothing more.

    Returns the number of events so far.
    """
    first = count
    killed = 0
    for number in range(state.counters[0]["participants"]):
        row = state.accounts[number]
        meant = number == account or (account == NOBODY and (vendor == 0 or row["vendor"] == vendor))
        if row["killed"] == 0 and meant:
            killed += 1
            row["killed"] = 1
            row["logged_on"] = 0
            count = cancel_all(state, number, NOBODY, _BOTH, _BY_KILL, command, events, count)
    event = write(events, count, command, _PARTICIPANTS_KILLED)
    event["instrument"] = NOBODY
    event["account"] = account
    event["reason"] = trigger
    event["quantity_lots"] = killed
    event["value"] = account if vendor == 0 else vendor
    event["threshold"] = count - first
    if account != NOBODY:
        event["maker_leaves_lots"] = _KILL_PARTICIPANT
    else:
        event["maker_leaves_lots"] = _KILL_ALL if vendor == 0 else _KILL_VENDOR
    return count + 1


@helper
def take_off(state, slot, quantity, reason, command, events, count):
    """Cancel `quantity` lots (0: all) of a resting order and write its ORDER_CANCELLED."""
    order = state.orders[slot]
    instrument = book.instrument_of(order["book"])
    if quantity == 0 or quantity > order["leaves_lots"]:
        quantity = order["leaves_lots"]
    accounts.reserve(
        state,
        np.int64(order["account"]),
        instrument,
        book.side_of(order["book"]),
        np.int64(order["price_ticks"]),
        quantity,
        -1,
    )
    book.take(state, slot, quantity)
    event = write(events, count, command, _CANCELLED)
    event["instrument"] = instrument
    event["account"] = order["account"]
    event["order_id"] = order["order_id"]
    event["side"] = book.side_of(order["book"])
    event["price_ticks"] = order["price_ticks"]
    event["quantity_lots"] = quantity
    event["leaves_lots"] = order["leaves_lots"]
    event["reason"] = reason
    if order["leaves_lots"] == 0:
        state.instruments[instrument]["expiring"] -= np.int64(order["expiring"])
        book.remove(state, slot)


@routine
def drop(state, slot):
    """book.remove, compiled once for all who seldom call it."""
    book.remove(state, slot)


@routine
def take_off_whole(state, slot, reason, command, events, count):
    """_take_off of a whole order, compiled once for all who seldom call it."""
    take_off(state, slot, 0, reason, command, events, count)


@routine
def cancel_all(state, account, instrument, side, reason, command, events, count):
    """Cancel an account's resting orders, oldest first; instrument NOBODY: in all that allow it; side _BOTH: of both.

    With the reasons DISCONNECTED, LIQUIDATED and KILLED no phase forbids it. Returns the number of events so far.
    """
    slot = state.accounts[account]["oldest"]
    while slot != NO_SLOT:
        order = state.orders[slot]
        newer = np.int64(order["newer"])
        number = book.instrument_of(order["book"])
        if (
            (instrument == NOBODY or number == instrument)
            and (side == _BOTH or side == book.side_of(order["book"]))
            and (
                reason == _DISCONNECTED
                or reason == _LIQUIDATED
                or reason == _BY_KILL
                or phase_reason(state, number, True) == _OK
            )
        ):
            take_off_whole(state, slot, reason, command, events, count)
            count += 1
        slot = newer
    return count


@helper
def trade(state, slot, account, side, price, quantity, command):
    """One trade of a taker with the resting order in `slot`, at its price: money, lots, windows; the maker's leaves
    shrink, and it stays in its place even at 0: the caller writes the event and removes it."""
    maker = state.orders[slot]
    maker_account = np.int64(maker["account"])
    instrument = book.instrument_of(maker["book"])
    top = state.instruments[instrument]
    book.take(state, slot, quantity)
    maker["filled_lots"] += quantity
    accounts.reserve(state, maker_account, instrument, 1 - side, price, quantity, -1)
    if side == _BUY:
        accounts.settle(state, instrument, account, maker_account, price, quantity)
    else:
        accounts.settle(state, instrument, maker_account, account, price, quantity)
    top["last_ticks"] = price
    top["volume_lots"] += quantity
    breaker.record_fill(state, instrument, side, price, quantity, command["received_ns"], command["sequence"])


@helper
def write_fill(state, slot, command, instrument, account, order_id, side, price, quantity, leaves, events, count):
    """The ORDER_FILLED of a trade; returns the record, for what is special about it."""
    maker = state.orders[slot]
    event = write(events, count, command, _FILLED)
    event["instrument"] = instrument
    event["account"] = account
    event["order_id"] = order_id
    event["side"] = side
    event["price_ticks"] = price
    event["quantity_lots"] = quantity
    event["leaves_lots"] = leaves
    event["maker_account"] = maker["account"]
    event["maker_order_id"] = maker["order_id"]
    event["maker_leaves_lots"] = maker["leaves_lots"]
    return event
