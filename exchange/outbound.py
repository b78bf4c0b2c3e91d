"""What the venue says: reports to one session, notices to everyone, market data when it is due.

Owns which fields of an event go to whom. Compiled, called by the loop alone; `loop` is its scratch memory and status.
"""

from exchange import book, codec, libzmq, wire
from exchange.jit import routine
from exchange.types import NO_BID, EventKind, Side

_DEPTH_DIVISOR = 100  # depth is counted within 1 % of the mid
_TOP, _SLOW_TOP = int(wire.MessageKind.TOP_OF_BOOK), int(wire.MessageKind.SLOW_TOP_OF_BOOK)
_HEARTBEAT = int(wire.MessageKind.HEARTBEAT)
_FILLED = int(EventKind.ORDER_FILLED)
_HALTED, _OPENED = int(EventKind.INSTRUMENT_HALTED), int(EventKind.SESSION_OPENED)
_SIGNAL, _CLOSED = int(EventKind.SIGNAL_PUBLISHED), int(EventKind.SESSION_CLOSED)
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_IDENTITY_BYTES = wire.IDENTITY_BYTES


@routine
def send(loop, socket, address, address_size, count):
    """Send the first `count` of loop.values to one session; a session that cannot take it loses it, counted."""
    size = codec.put_array(loop.out, loop.values, count)
    sent = libzmq.zmq_send(socket, address.ctypes.data, address_size, libzmq.DONTWAIT | libzmq.SNDMORE)
    if sent >= 0:
        sent = libzmq.zmq_send(socket, loop.out.ctypes.data, size, libzmq.DONTWAIT)
    if sent < 0:
        loop.status[0]["unsent"] += 1


@routine
def _publish(loop, socket, count):
    size = codec.put_array(loop.out, loop.values, count)
    libzmq.zmq_send(socket, loop.out.ctypes.data, size, libzmq.DONTWAIT)


@routine
def send_report(loop, sockets, at, maker):
    """Tell one side of event number `at` what became of its order: maker 1 for the maker of a fill, else 0."""
    event = loop.events[at]
    values = loop.values
    side = event["side"]
    values[0] = event["kind"]
    values[1] = event["sequence"]
    values[2] = event["time_ns"]
    values[3] = event["instrument"]
    values[4] = event["maker_order_id"] if maker == 1 else event["order_id"]
    values[5] = 1 - side if maker == 1 else side
    values[6] = event["price_ticks"]
    values[7] = event["quantity_lots"]
    values[8] = event["maker_leaves_lots"] if maker == 1 else event["leaves_lots"]
    values[9] = event["reason"]
    values[10] = 1 + maker if event["kind"] == _FILLED else 0
    codec.put_identity(loop.address, event["maker_account"] if maker == 1 else event["account"])
    send(loop, sockets.orders, loop.address, _IDENTITY_BYTES, 11)


@routine
def send_notices(loop, sockets, count):
    """Publish what everyone must hear among the events. First of all, because a halt must not wait behind reports."""
    for at in range(count):
        event = loop.events[at]
        kind = event["kind"]
        if kind == _HALTED or kind == _OPENED or kind == _SIGNAL or kind == _CLOSED:
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
            _publish(loop, sockets.notices, 10)


@routine
def _publish_top(loop, state, sockets, instrument, kind, now):
    top = state.instruments[instrument]
    bid = top["best_bid"]
    ask = top["best_ask"]
    levels = top["price_levels"]
    values = loop.values
    values[0] = kind
    values[1] = instrument
    values[2] = loop.status[0]["sequence"]
    values[3] = now
    values[4] = bid
    values[5] = state.levels[instrument][bid]["quantity_lots"] if bid != NO_BID else 0
    values[6] = ask
    values[7] = state.levels[instrument][ask]["quantity_lots"] if ask < levels else 0
    values[8] = top["last_ticks"]
    values[9] = top["volume_lots"]
    middle = (bid + ask) // 2
    if bid == NO_BID:
        middle = ask
    elif ask == levels:
        middle = bid
    values[10] = book.depth_within(state, instrument, _BUY, middle - middle // _DEPTH_DIVISOR)
    values[11] = book.depth_within(state, instrument, _SELL, middle + middle // _DEPTH_DIVISOR)
    _publish(loop, sockets.market_data, 12)


@routine
def publish_due(loop, state, sockets, now):
    """Publish market data that is due and has changed, slow market data and the heartbeat when they are due."""
    status = loop.status[0]
    if now - status["published_ns"] >= loop.intervals[0]:
        status["published_ns"] = now
        for instrument in range(state.instruments.shape[0]):
            top = state.instruments[instrument]
            said = loop.published[instrument]
            bid = top["best_bid"]
            ask = top["best_ask"]
            bid_lots = state.levels[instrument][bid]["quantity_lots"]
            ask_lots = state.levels[instrument][ask]["quantity_lots"] if ask < top["price_levels"] else 0
            if (
                said[0] != bid
                or said[1] != bid_lots
                or said[2] != ask
                or said[3] != ask_lots
                or said[4] != top["volume_lots"]
                or said[5] != top["phase"]
            ):
                said[0] = bid
                said[1] = bid_lots
                said[2] = ask
                said[3] = ask_lots
                said[4] = top["volume_lots"]
                said[5] = top["phase"]
                _publish_top(loop, state, sockets, instrument, _TOP, now)
    if now - status["slow_published_ns"] >= loop.intervals[1]:
        status["slow_published_ns"] = now
        for instrument in range(state.instruments.shape[0]):
            _publish_top(loop, state, sockets, instrument, _SLOW_TOP, now)
    if now - status["heartbeat_ns"] >= loop.intervals[2]:
        status["heartbeat_ns"] = now
        loop.values[:] = 0
        loop.values[0] = _HEARTBEAT
        loop.values[1] = status["sequence"]
        loop.values[2] = now
        loop.values[3] = -1
        _publish(loop, sockets.notices, 10)
