"""The event loop: receive → stamp → sequence → journal → apply → publish, compiled, over libzmq itself.

Owns the order of those steps and the counters of all that it refuses; what is said to whom is outbound.py's.
Decides nothing about the market: the engine does. It never waits to fill a batch; it takes what the sockets hold.
"""

from typing import NamedTuple

import numpy as np

from exchange import codec, libzmq, outbound, wire
from exchange.config import Config
from exchange.engine import EVENTS_BESIDE_RESTING, apply_commands
from exchange.jit import helper, kernel, routine
from exchange.journal import seal
from exchange.replay import digest_events
from exchange.state import Array, State
from exchange.types import COMMAND, EVENT, CommandKind, EventKind, Reason, _record

BATCH = 256
"""Messages taken from a socket before they are applied: bounds how long a notice can wait behind orders."""
_FRAME_BYTES = 512

SLICE_OVER, STOPPED, JOURNAL_FAILED, INTERRUPTED = 0, 1, 2, 3
"""Why serve() returned."""

_PLACE, _CANCEL, _LOGON = int(CommandKind.PLACE_ORDER), int(CommandKind.CANCEL_ORDER), int(wire.MessageKind.LOGON)
_DEPOSIT_CASH, _CLOSE_SESSION = int(CommandKind.DEPOSIT_CASH), int(CommandKind.CLOSE_SESSION)
_STATUS, _STOP = int(wire.MessageKind.STATUS), int(wire.MessageKind.STOP)
_LOGGED_ON, _DONE = int(wire.MessageKind.LOGGED_ON), int(wire.MessageKind.DONE)
_REJECTED, _FILLED = int(EventKind.ORDER_REJECTED), int(EventKind.ORDER_FILLED)
_CANCEL_REJECTED = int(EventKind.CANCEL_REJECTED)
_MALFORMED = int(Reason.MALFORMED)
_PLACE_FIELDS, _CANCEL_FIELDS = wire.PLACE_FIELDS, wire.CANCEL_FIELDS
_LOGON_FIELDS, _CONTROL_FIELDS = wire.LOGON_FIELDS, wire.CONTROL_FIELDS
_VERSION = wire.PROTOCOL_VERSION

LOOP = _record(
    "sequence",
    "last_ns",  # the latest received_ns; the clock never goes back behind it
    "check",  # of the last journaled record
    "digest",  # over all events
    "events",
    "logged_on",
    "malformed",
    "unsent",  # reports that a full or vanished session did not take
    "journal_errno",
    "timings",  # how many are recorded
    "published_ns",
    "slow_published_ns",
    "heartbeat_ns",
    "stop",
)

TIMING = _record("matched_ns", "acknowledged_ns")
"""Of the command with the sequence number row + 1: applied, and its reports handed to the sockets."""


class LoopConfig(Config):
    """How often the loop speaks without being asked. Times in ns."""

    market_data_interval_ns: int = 20_000_000
    slow_market_data_interval_ns: int = 1_000_000_000
    heartbeat_interval_ns: int = 1_000_000_000


class Sockets(NamedTuple):
    """Handles, as integers."""

    orders: int
    control: int
    market_data: int
    notices: int
    journal: int


class Loop(NamedTuple):
    """What the loop keeps between calls, and its scratch memory."""

    status: Array  # LOOP[1]
    commands: Array  # COMMAND[BATCH]
    words: Array  # the same memory as int64[BATCH, 16]
    events: Array  # EVENT[m]
    event_words: Array  # the same memory as int64[m, 17]
    timings: Array  # TIMING[t]; commands beyond it are not timed
    published: Array  # int64[I, 6]: what market data last said of each instrument
    values: Array  # int64[16]
    peer: Array  # uint8: the routing id of the message at hand
    frame: Array  # uint8: the message at hand
    address: Array  # uint8: the routing id of the session to send to
    out: Array  # uint8: the message to send
    clock: Array  # int64[2]
    option: Array  # int64[2]: value and size
    poll: Array  # int64[4]: two zmq_pollitem_t
    intervals: Array  # int64[3]: market data, slow market data, heartbeat


def new_loop(state: State, config: LoopConfig, check: int, max_timings: int) -> Loop:
    events = np.zeros(len(state.orders) + EVENTS_BESIDE_RESTING + 4 * BATCH, EVENT)
    commands = np.zeros(BATCH, COMMAND)
    loop = Loop(
        status=np.zeros(1, LOOP),
        commands=commands,
        words=commands.view(np.int64).reshape(BATCH, -1),
        events=events,
        event_words=events.view(np.int64).reshape(len(events), -1),
        timings=np.zeros(max_timings, TIMING),
        published=np.zeros((len(state.instruments), 6), np.int64),
        values=np.zeros(16, np.int64),
        peer=np.zeros(_FRAME_BYTES, np.uint8),
        frame=np.zeros(_FRAME_BYTES, np.uint8),
        address=np.zeros(8, np.uint8),
        out=np.zeros(_FRAME_BYTES, np.uint8),
        clock=np.zeros(2, np.int64),
        option=np.zeros(2, np.int64),
        poll=np.zeros(4, np.int64),
        intervals=np.array(
            [config.market_data_interval_ns, config.slow_market_data_interval_ns, config.heartbeat_interval_ns],
            np.int64,
        ),
    )
    loop.status["check"] = check
    return loop


@routine
def _receive(loop, socket):
    """Take one message: its routing id into loop.peer, its payload into loop.frame.

    Returns: (size of the routing id, size of the payload); −1, −1 if nothing waits. A message of more than two frames,
    or without a payload, is drained and has the payload size −1.
    """
    peer_size = libzmq.zmq_recv(socket, loop.peer.ctypes.data, loop.peer.shape[0], libzmq.DONTWAIT)
    if peer_size < 0:
        return -1, -1
    size = -1
    frames = 0
    while True:
        loop.option[0] = 0
        loop.option[1] = 4
        libzmq.zmq_getsockopt(socket, libzmq.RCVMORE, loop.option.ctypes.data, loop.option.ctypes.data + 8)
        if loop.option[0] == 0:
            break
        size = libzmq.zmq_recv(socket, loop.frame.ctypes.data, loop.frame.shape[0], libzmq.DONTWAIT)
        frames += 1
    return peer_size, size if frames == 1 else -1


@helper
def _stamp(loop):
    status = loop.status[0]
    now = libzmq.now_ns(loop.clock)
    if now < status["last_ns"]:
        now = status["last_ns"]
    status["last_ns"] = now
    return now


@routine
def _refuse_message(loop, socket, peer_size, now):
    """Tell a session that its message was none; it is counted, and nothing else happens."""
    status = loop.status[0]
    status["malformed"] += 1
    loop.values[:] = 0
    loop.values[0] = _REJECTED
    loop.values[1] = status["sequence"]
    loop.values[2] = now
    loop.values[9] = _MALFORMED
    outbound.send(loop, socket, loop.peer, peer_size, 11)


@routine
def _decode_order(loop, state, sockets, at, peer_size, size, now):
    """Turn the participant's message at hand into the batch's command number `at`.

    Returns: 1 if it is a command, 0 if it was dealt with here (a logon, or refused).
    """
    values = loop.values
    values[:] = 0
    account = codec.account_of(loop.peer, peer_size)
    count = codec.get_array(loop.frame, size, values)
    kind = values[0]
    if account < 0:
        count = -1
    if count == _LOGON_FIELDS and kind == _LOGON and account < state.accounts.shape[0] and values[1] == _VERSION:
        loop.status[0]["logged_on"] += 1
        values[0] = _LOGGED_ON
        values[1] = loop.status[0]["sequence"]
        values[2] = now
        values[3] = state.instruments.shape[0]
        values[4] = state.accounts[account]["last_order_id"]
        outbound.send(loop, sockets.orders, loop.peer, peer_size, 5)
        return 0
    is_place = count == _PLACE_FIELDS and kind == _PLACE
    if not is_place and not (count == _CANCEL_FIELDS and kind == _CANCEL):
        _refuse_message(loop, sockets.orders, peer_size, now)
        return 0
    command = loop.commands[at]
    command["kind"] = kind
    command["account"] = account
    if is_place:
        command["order_id"] = values[1]
        command["target_order_id"] = 0
        command["side"] = values[3]
        command["order_type"] = values[4]
        command["price_ticks"] = values[5]
        command["quantity_lots"] = values[6]
        rest = 7
    else:
        command["order_id"] = 0
        command["target_order_id"] = values[1]
        command["side"] = 0
        command["order_type"] = 0
        command["price_ticks"] = 0
        command["quantity_lots"] = values[3]
        rest = 4
    command["instrument"] = values[2]
    command["heard_ns"] = values[rest]
    command["sent_ns"] = values[rest + 1]
    command["cause_sequence"] = values[rest + 2]
    command["rule"] = values[rest + 3]
    return 1


@routine
def _decode_control(loop, at, size):
    """Turn the operator's message at hand into a command; returns 1, or 0 if it is none."""
    values = loop.values
    values[:] = 0
    count = codec.get_array(loop.frame, size, values)
    if count != _CONTROL_FIELDS:
        values[0] = 0  # no message: whatever its first bytes seem to say
        return 0
    if values[0] < _DEPOSIT_CASH or values[0] > _CLOSE_SESSION:
        return 0
    loop.words[at, :] = 0
    command = loop.commands[at]
    command["kind"] = values[0]
    command["account"] = values[1]
    command["instrument"] = values[2]
    command["quantity_lots"] = values[3]
    return 1


@helper
def _sequence(loop, at, now):
    status = loop.status[0]
    status["sequence"] += 1
    command = loop.commands[at]
    command["sequence"] = status["sequence"]
    command["received_ns"] = now


@routine
def _journal(loop, sockets, count):
    """Seal the batch and append it; returns False if the disk did not take all of it."""
    status = loop.status[0]
    status["check"] = seal(loop.words, 0, count, status["check"])
    size = count * loop.words.shape[1] * 8
    done = 0
    while done < size:
        wrote = libzmq.write(sockets.journal, loop.words.ctypes.data + done, size - done)
        if wrote < 0:
            error = libzmq.zmq_errno()
            if error != libzmq.EINTR:
                status["journal_errno"] = error
                return False
        else:
            done += wrote
    return True


@routine
def _apply(loop, state, sockets, count, by_operator):
    """Apply the journaled batch and tell everyone concerned; returns the Reason of the last operator's reject or 0."""
    status = loop.status[0]
    done = 0
    reason = 0
    while done < count:
        first = done
        done, events = apply_commands(state, loop.commands, done, count, loop.events)
        matched = libzmq.now_ns(loop.clock)
        outbound.send_notices(loop, sockets, events)
        for at in range(events):
            kind = loop.events[at]["kind"]
            if kind <= _CANCEL_REJECTED:
                if kind == _REJECTED and by_operator:
                    reason = loop.events[at]["reason"]
                else:
                    outbound.send_report(loop, sockets, at, 0)
                    if kind == _FILLED:
                        outbound.send_report(loop, sockets, at, 1)
        status["digest"] = digest_events(status["digest"], loop.event_words, events)
        status["events"] += events
        acknowledged = libzmq.now_ns(loop.clock)
        for _ in range(first, done):
            row = status["timings"]
            if row < loop.timings.shape[0]:
                loop.timings[row]["matched_ns"] = matched
                loop.timings[row]["acknowledged_ns"] = acknowledged
                status["timings"] = row + 1
    return reason


@routine
def _serve_orders(loop, state, sockets):
    """Take what participants have sent, up to a batch. Returns: number of messages, or −1 if the journal failed."""
    taken = 0
    count = 0
    while taken < BATCH:
        peer_size, size = _receive(loop, sockets.orders)
        if peer_size < 0:
            break
        taken += 1
        now = _stamp(loop)
        if _decode_order(loop, state, sockets, count, peer_size, size, now) == 1:
            _sequence(loop, count, now)
            count += 1
    if count > 0:
        if not _journal(loop, sockets, count):
            return -1
        _apply(loop, state, sockets, count, False)
    return taken


@routine
def _serve_control(loop, state, sockets):
    """Take one message of the operator. Returns: number of messages, or −1 if the journal failed."""
    peer_size, size = _receive(loop, sockets.control)
    if peer_size < 0:
        return 0
    status = loop.status[0]
    reason = 0
    if _decode_control(loop, 0, size) == 1:
        _sequence(loop, 0, _stamp(loop))
        if not _journal(loop, sockets, 1):
            return -1
        reason = _apply(loop, state, sockets, 1, True)
    elif loop.values[0] == _STOP:
        status["stop"] = 1
    elif loop.values[0] != _STATUS:
        status["malformed"] += 1
        reason = _MALFORMED
    values = loop.values
    values[0] = _DONE
    values[1] = status["sequence"]
    values[2] = reason
    values[3] = status["sequence"]
    values[4] = status["logged_on"]
    values[5] = status["malformed"]
    outbound.send(loop, sockets.control, loop.peer, peer_size, 6)
    return 1


@kernel
def serve(loop, state, sockets, until_ns):
    """Serve until the clock reads until_ns, then return to Python for a moment.

    Returns: SLICE_OVER, STOPPED (by the operator), JOURNAL_FAILED (errno in status) or INTERRUPTED (by a signal).
    """
    status = loop.status[0]
    while True:
        now = libzmq.now_ns(loop.clock)
        if now >= until_ns:
            return SLICE_OVER
        control = _serve_control(loop, state, sockets)
        taken = _serve_orders(loop, state, sockets)
        if control < 0 or taken < 0:
            return JOURNAL_FAILED
        if status["stop"] != 0:
            return STOPPED
        outbound.publish_due(loop, state, sockets, now)
        if control == 0 and taken == 0:
            due = min(until_ns, status["published_ns"] + loop.intervals[0])
            wait_ms = max(1, (due - now) // 1_000_000)
            loop.poll[0] = sockets.orders
            loop.poll[1] = libzmq.POLLIN << 32  # int fd 0, short events, short revents
            loop.poll[2] = sockets.control
            loop.poll[3] = libzmq.POLLIN << 32
            if libzmq.zmq_poll(loop.poll.ctypes.data, 2, wait_ms) < 0 and libzmq.zmq_errno() == libzmq.EINTR:
                return INTERRUPTED
