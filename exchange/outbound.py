"""What the venue says: reports to one session, notices to everyone, market data when it is due.

Owns which fields of an event go to whom. Compiled, called by the loop alone; `loop` is its scratch memory and status.
"""

from exchange import auction, book, codec, libzmq, wire
from exchange.jit import helper, routine
from exchange.types import NEVER, NO_BID, NOBODY, EventKind, Phase, Reason

_DEPTH_DIVISOR = 100  # depth is counted within 1 % of the mid
_TOP, _SLOW_TOP = int(wire.MessageKind.TOP_OF_BOOK), int(wire.MessageKind.SLOW_TOP_OF_BOOK)
_HEARTBEAT, _DEPTH = int(wire.MessageKind.HEARTBEAT), int(wire.MessageKind.DEPTH)
_LOAN, _ORACLE_UPDATED = int(wire.MessageKind.LOAN), int(EventKind.ORACLE_UPDATED)
_MARGIN_CALLED, _LOAN_LIQUIDATED = int(EventKind.MARGIN_CALLED), int(EventKind.LOAN_LIQUIDATED)
_COLLATERAL_DEPOSITED, _REPAID = int(EventKind.COLLATERAL_DEPOSITED), int(EventKind.REPAID)
_DELEVERAGED = int(EventKind.DELEVERAGED)
_TRADE, _INDICATIVE = int(wire.MessageKind.TRADE), int(wire.MessageKind.INDICATIVE)
_LOGGED_ON_MESSAGE = int(wire.MessageKind.LOGGED_ON)
_FILLED, _REPLACED = int(EventKind.ORDER_FILLED), int(EventKind.ORDER_REPLACED)
_REPEATED, _AUCTION_ENDED = int(EventKind.ORDER_REPEATED), int(EventKind.AUCTION_ENDED)
_HALTED, _OPENED = int(EventKind.INSTRUMENT_HALTED), int(EventKind.SESSION_OPENED)
_SIGNAL, _CLOSED = int(EventKind.SIGNAL_PUBLISHED), int(EventKind.SESSION_CLOSED)
_PHASE_CHANGED, _VENUE_STARTED = int(EventKind.PHASE_CHANGED), int(EventKind.VENUE_STARTED)
_KILLED, _EXTENDED = int(EventKind.PARTICIPANTS_KILLED), int(EventKind.AUCTION_EXTENDED)
_THRESHOLD = int(EventKind.THRESHOLD_PUBLISHED)
_AUCTION, _BATCH = int(Phase.AUCTION), int(Phase.BATCH)
_LEVELS, _MAX_TRADES_RESENT = wire.DEPTH_LEVELS, wire.MAX_TRADES_RESENT
_TOP_FIELDS, _DEPTH_FIELDS = 14, wire.DEPTH_FIELDS
_REPORT_FIELDS, _NOTICE_FIELDS = 12, 12
_TAKER, _MAKER, _IN_AUCTION = 1, 2, 3
_BY_AUCTION = int(Reason.AUCTION)
_NEVER = int(NEVER)
_CONNECTION_BYTES, _ACCOUNT_BYTES = codec.CONNECTION_ID_BYTES, wire.ACCOUNT_BYTES


@helper
def _send(loop, socket, address, address_size, channel, count):
    """Send the first `count` of loop.values to one connection, to one account of those that share it if channel is not
    NOBODY. Returns whether it took it; if not, that is counted."""
    sent = libzmq.zmq_send(socket, address.ctypes.data, address_size, libzmq.DONTWAIT | libzmq.SNDMORE)
    if sent >= 0 and channel != NOBODY:
        codec.put_account(loop.out, channel)
        sent = libzmq.zmq_send(socket, loop.out.ctypes.data, _ACCOUNT_BYTES, libzmq.DONTWAIT | libzmq.SNDMORE)
    if sent >= 0:
        size = codec.put_array(loop.out, loop.values, count)
        sent = libzmq.zmq_send(socket, loop.out.ctypes.data, size, libzmq.DONTWAIT)
    if sent < 0:
        loop.status[0]["unsent"] += 1
    else:
        loop.status[0]["sent"] += 1
    return sent >= 0


@routine
def send(loop, socket, address, address_size, channel, count):
    """_send, compiled once for all who seldom call it."""
    return _send(loop, socket, address, address_size, channel, count)


@helper
def _send_to_session(loop, sockets, account, count):
    """Send to an account's session; if it is gone, or too slow, it is marked as lost, and the loop ends it."""
    session = loop.sessions[account]
    codec.put_connection(loop.address, session["connection"])
    if not _send(loop, sockets.orders, loop.address, _CONNECTION_BYTES, session["channel"], count):
        loop.connections[session["row"]]["lost"] = 1
        loop.status[0]["lost"] = 1


@routine
def _publish(loop, socket, count):
    """Publish to whoever is not too slow. A drop is counted once, however many subscribers it hits."""
    size = codec.put_array(loop.out, loop.values, count)
    if libzmq.zmq_send(socket, loop.out.ctypes.data, size, libzmq.DONTWAIT) < 0:
        # XPUB_NODROP told that a subscriber's queue is full: send to the others.
        loop.status[0]["conflated"] += 1
        loop.option[0] = 0
        libzmq.zmq_setsockopt(socket, libzmq.XPUB_NODROP, loop.option.ctypes.data, 4)
        libzmq.zmq_send(socket, loop.out.ctypes.data, size, libzmq.DONTWAIT)
        loop.option[0] = 1
        libzmq.zmq_setsockopt(socket, libzmq.XPUB_NODROP, loop.option.ctypes.data, 4)
    loop.status[0]["sent"] += 1


@routine
def feed(loop, sockets, first, done):
    """Give commands[first:done], as they are in the journal, to the supervisors: before the reports, so that they are
    no later than the traders. One that cannot keep up misses whole messages, and sees it by the sequences."""
    record_bytes = loop.words.shape[1] * 8
    at = loop.words.ctypes.data + first * record_bytes
    libzmq.zmq_send(sockets.feed, at, (done - first) * record_bytes, libzmq.DONTWAIT)


@routine
def _send_report(loop, sockets, event, maker):
    """Tell one side of an event what became of its order: maker 1 for the maker of a fill, else 0."""
    account = event["maker_account"] if maker == 1 else event["account"]
    if account < 0 or account >= loop.sessions.shape[0]:
        return
    if loop.sessions[account]["connection"] == NOBODY:
        loop.status[0]["unsent"] += 1
        return
    kind = event["kind"]
    side = event["side"]
    values = loop.values
    values[0] = kind
    values[1] = event["sequence"]
    values[2] = event["time_ns"]
    values[3] = event["instrument"]
    values[4] = event["maker_order_id"] if maker == 1 else event["order_id"]
    values[5] = 1 - side if maker == 1 else side
    values[6] = event["price_ticks"]
    values[7] = event["quantity_lots"]
    fills = kind == _FILLED
    values[8] = event["maker_leaves_lots"] if maker == 1 and fills else event["leaves_lots"]
    values[9] = event["reason"]
    values[10] = 0
    values[11] = 0
    if kind == _FILLED:
        values[10] = _IN_AUCTION if event["reason"] == _BY_AUCTION else _MAKER if maker == 1 else _TAKER
    elif kind == _LOAN_LIQUIDATED or kind == _DELEVERAGED:
        values[10] = _MAKER if maker == 1 else _TAKER
    if kind == _REPLACED or kind == _REPEATED or kind >= _MARGIN_CALLED:
        values[11] = event["value"]
    _send_to_session(loop, sockets, account, _REPORT_FIELDS)


@helper
def _has_two_sides(kind):
    return kind == _FILLED or kind == _LOAN_LIQUIDATED or kind == _DELEVERAGED


@helper
def send_reports(loop, sockets, at):
    """Tell everyone whom event number `at` concerns."""
    event = loop.events[at]
    _send_report(loop, sockets, event, 0)
    if _has_two_sides(event["kind"]):
        _send_report(loop, sockets, event, 1)


@routine
def send_logged_on(loop, state, sockets, at):
    """Welcome the account of event number `at`, then tell it again what it missed."""
    event = loop.events[at]
    status = loop.status[0]
    account = event["account"]
    session = loop.sessions[account]
    if session["connection"] == NOBODY:
        return
    heard = session["heard_sequence"]
    values = loop.values
    values[0] = _LOGGED_ON_MESSAGE
    values[1] = event["sequence"]
    values[2] = event["time_ns"]
    values[3] = state.instruments.shape[0]
    values[4] = account
    values[5] = event["order_id"]
    values[6] = max(heard, status["forgotten"] + 1)
    values[7] = state.counters[0]["starts"]
    values[8] = event["value"]
    _send_to_session(loop, sockets, account, 9)
    if heard <= 0:
        return
    size = loop.recent.shape[0]
    skip = session["heard_reports"]
    first = max(0, status["recent"] - size)
    end = status["recent"]
    while first < end:  # the oldest report that may be missing: sequences never decrease
        middle = (first + end) // 2
        if loop.recent[middle & (size - 1)]["sequence"] < heard:
            first = middle + 1
        else:
            end = middle
    for number in range(first, status["recent"]):
        missed = loop.recent[number & (size - 1)]
        if missed["sequence"] >= heard:
            for maker in range(2 if _has_two_sides(missed["kind"]) else 1):
                if (missed["maker_account"] if maker == 1 else missed["account"]) == account:
                    if missed["sequence"] == heard and skip > 0:
                        skip -= 1
                    else:
                        _send_report(loop, sockets, missed, maker)


@helper
def _is_notice(kind):
    return (
        kind == _HALTED
        or kind == _OPENED
        or kind == _SIGNAL
        or kind == _CLOSED
        or kind == _PHASE_CHANGED
        or kind == _VENUE_STARTED
        or kind == _KILLED
        or kind == _EXTENDED
        or kind == _THRESHOLD
    )


@routine
def send_notices(loop, sockets, count):
    """Publish what everyone must hear among the events. First of all, because a halt must not wait behind reports."""
    for at in range(count):
        event = loop.events[at]
        kind = event["kind"]
        is_market_data = kind == _AUCTION_ENDED or kind == _ORACLE_UPDATED
        if _is_notice(kind) or is_market_data:
            values = loop.values
            values[0] = kind
            values[1] = event["sequence"]
            values[2] = event["time_ns"]
            values[3] = event["instrument"]
            values[4] = event["reason"]
            values[5] = event["value"]
            values[6] = event["threshold"]
            values[7] = event["window_ns"]
            values[8] = event["price_ticks"]
            values[9] = event["quantity_lots"]
            values[10] = event["maker_order_id"]
            values[11] = event["maker_leaves_lots"]
            _publish(loop, sockets.market_data if is_market_data else sockets.notices, _NOTICE_FIELDS)


@helper
def _fill_trade(loop, instrument, trade):
    values = loop.values
    values[0] = _TRADE
    values[1] = instrument
    values[2] = trade["number"]
    values[3] = trade["sequence"]
    values[4] = trade["time_ns"]
    values[5] = trade["price_ticks"]
    values[6] = trade["quantity_lots"]
    values[7] = trade["taker_side"]


@routine
def publish_trades(loop, sockets, count):
    """Publish each match among the events, and keep it for those who miss it."""
    for at in range(count):
        event = loop.events[at]
        if event["kind"] == _FILLED:
            instrument = event["instrument"]
            loop.numbers[instrument, _TRADE & 7] += 1
            number = loop.numbers[instrument, _TRADE & 7]
            trade = loop.trades[instrument][number & (loop.trades.shape[1] - 1)]
            trade["number"] = number
            trade["sequence"] = event["sequence"]
            trade["time_ns"] = event["time_ns"]
            trade["price_ticks"] = event["price_ticks"]
            trade["quantity_lots"] = event["quantity_lots"]
            trade["taker_side"] = 2 if event["reason"] == _BY_AUCTION else event["side"]
            _fill_trade(loop, instrument, trade)
            _publish(loop, sockets.market_data, 8)


@routine
def _publish_loan(loop, state, sockets, account, sequence, now):
    instrument = state.counters[0]["collateral_instrument"]
    loan = state.loans[account]
    loop.numbers[instrument, _LOAN & 7] += 1
    values = loop.values
    values[0] = _LOAN
    values[1] = instrument
    values[2] = loop.numbers[instrument, _LOAN & 7]
    values[3] = sequence
    values[4] = now
    values[5] = account
    values[6] = loan["collateral_lots"]
    values[7] = loan["debt_lots"]
    _publish(loop, sockets.market_data, 8)


@routine
def publish_loans(loop, state, sockets, count):
    """Publish what each loan has become that is named among the events."""
    for at in range(count):
        event = loop.events[at]
        kind = event["kind"]
        if kind >= _COLLATERAL_DEPOSITED and kind <= _REPAID:
            _publish_loan(loop, state, sockets, event["account"], event["sequence"], event["time_ns"])
        elif kind == _LOAN_LIQUIDATED:
            _publish_loan(loop, state, sockets, event["maker_account"], event["sequence"], event["time_ns"])


@routine
def send_trades(loop, sockets, peer_size, instrument, first):
    """Answer a TRADES_REQUEST: the trades of an instrument from number `first` on that are still kept."""
    latest = loop.numbers[instrument, _TRADE & 7]
    number = max(max(first, 1), latest - loop.trades.shape[1] + 1)
    last = min(latest, number + _MAX_TRADES_RESENT - 1)
    while number <= last:
        _fill_trade(loop, instrument, loop.trades[instrument][number & (loop.trades.shape[1] - 1)])
        send(loop, sockets.orders, loop.peer, peer_size, loop.status[0]["channel"], 8)
        number += 1


@helper
def _is_sealed(state, instrument):
    """Whether orders are being collected for a batch: until it is matched, the book is nobody's to see."""
    row = state.instruments[instrument]
    return row["phase"] == _BATCH and row["timer_ns"] != _NEVER


@routine
def _measure_depth(loop, state, instrument, now):
    """Write what the depth is now into loop.values."""
    values = loop.values
    values[0] = _DEPTH
    values[1] = instrument
    values[2] = loop.numbers[instrument, _DEPTH & 7]
    values[3] = loop.status[0]["sequence"]
    values[4] = now
    values[5] = state.instruments[instrument]["phase"]
    values[6] = loop.numbers[instrument, _TRADE & 7]
    at = 7
    for side in range(2):
        number = 2 * instrument + side
        price = book.best(state, number)
        for _ in range(_LEVELS):
            if book.is_price(state, number, price):
                values[at] = price
                values[at + 1] = state.levels[number][price]["quantity_lots"]
                price = book.next_price(state, number, price)
            else:
                values[at] = 0
                values[at + 1] = 0
            at += 2


@routine
def fill_depth(loop, state, instrument, now):
    """Write a Depth into loop.values; returns its number of fields. Of a sealed book it is what was last published."""
    if _is_sealed(state, instrument):
        for field in range(_DEPTH_FIELDS):
            loop.values[field] = loop.depths[instrument, field]
    else:
        _measure_depth(loop, state, instrument, now)
    return _DEPTH_FIELDS


@routine
def _publish_depth(loop, state, sockets, instrument, now):
    """Publish the ten best levels if any of them has changed."""
    _measure_depth(loop, state, instrument, now)
    said = loop.depths[instrument]
    changed = said[5] != loop.values[5]
    for field in range(7, _DEPTH_FIELDS):
        changed = changed or said[field] != loop.values[field]
    if changed:
        loop.numbers[instrument, _DEPTH & 7] += 1
        loop.values[2] = loop.numbers[instrument, _DEPTH & 7]
        for field in range(_DEPTH_FIELDS):
            said[field] = loop.values[field]
        _publish(loop, sockets.market_data, _DEPTH_FIELDS)


@routine
def _publish_indication(loop, state, sockets, instrument, now):
    """Publish what a call auction would clear at, if that has changed."""
    price, volume, imbalance, _ = auction.clearing(state, instrument)
    until = state.instruments[instrument]["timer_ns"]
    said = loop.indications[instrument]
    if said[0] != price or said[1] != volume or said[2] != imbalance or said[3] != until:
        said[0] = price
        said[1] = volume
        said[2] = imbalance
        said[3] = until
        loop.numbers[instrument, _INDICATIVE & 7] += 1
        values = loop.values
        values[0] = _INDICATIVE
        values[1] = instrument
        values[2] = loop.numbers[instrument, _INDICATIVE & 7]
        values[3] = loop.status[0]["sequence"]
        values[4] = now
        values[5] = price
        values[6] = volume
        values[7] = imbalance
        values[8] = until
        _publish(loop, sockets.market_data, 9)


@routine
def _look(loop, state, instrument, now):
    """Take down what the top of the book is now, in loop.published; returns whether it has changed."""
    top = state.instruments[instrument]
    bids = 2 * instrument
    asks = bids + 1
    bid = book.best(state, bids)
    ask = book.best(state, asks)
    said = loop.published[instrument]
    bid_lots = state.levels[bids][bid]["quantity_lots"]
    ask_lots = state.levels[asks][ask]["quantity_lots"] if ask < top["price_levels"] else 0
    changed = (
        said[5] != top["phase"]
        or said[6] != bid
        or said[7] != bid_lots
        or said[8] != ask
        or said[9] != ask_lots
        or said[11] != top["volume_lots"]
    )
    middle = (bid + ask) // 2
    if bid == NO_BID:
        middle = ask
    elif ask == top["price_levels"]:
        middle = bid
    said[1] = instrument
    said[3] = loop.status[0]["sequence"]
    said[4] = now
    said[5] = top["phase"]
    said[6] = bid
    said[7] = bid_lots
    said[8] = ask
    said[9] = ask_lots
    said[10] = top["last_ticks"]
    said[11] = top["volume_lots"]
    said[12] = book.depth_within(state, bids, middle - middle // _DEPTH_DIVISOR)
    said[13] = book.depth_within(state, asks, middle + middle // _DEPTH_DIVISOR)
    return changed


@routine
def _say_top(loop, sockets, instrument, kind):
    loop.numbers[instrument, kind & 7] += 1
    for field in range(_TOP_FIELDS):
        loop.values[field] = loop.published[instrument, field]
    loop.values[0] = kind
    loop.values[2] = loop.numbers[instrument, kind & 7]
    _publish(loop, sockets.market_data, _TOP_FIELDS)


@routine
def publish_instrument(loop, state, sockets, instrument, now):
    """Publish the top of the book, the depth, and what a call auction would clear at, whichever has changed."""
    if _is_sealed(state, instrument):
        return
    if _look(loop, state, instrument, now):
        _say_top(loop, sockets, instrument, _TOP)
    _publish_depth(loop, state, sockets, instrument, now)
    if state.instruments[instrument]["phase"] == _AUCTION:
        _publish_indication(loop, state, sockets, instrument, now)


@routine
def publish_due(loop, state, sockets, now):
    """Publish market data that is due and has changed, slow market data and the heartbeat when they are due."""
    status = loop.status[0]
    if now - status["published_ns"] >= loop.intervals[0]:
        status["published_ns"] = now
        for instrument in range(state.instruments.shape[0]):
            publish_instrument(loop, state, sockets, instrument, now)
    if now - status["slow_published_ns"] >= loop.intervals[1]:
        status["slow_published_ns"] = now
        for instrument in range(state.instruments.shape[0]):
            publish_instrument(loop, state, sockets, instrument, now)
            _say_top(loop, sockets, instrument, _SLOW_TOP)
    if now - status["heartbeat_ns"] >= loop.intervals[2]:
        status["heartbeat_ns"] = now
        loop.values[:_NOTICE_FIELDS] = 0
        loop.values[0] = _HEARTBEAT
        loop.values[1] = status["sequence"]
        loop.values[2] = now
        loop.values[3] = NOBODY
        loop.values[5] = state.counters[0]["starts"]
        _publish(loop, sockets.notices, _NOTICE_FIELDS)
