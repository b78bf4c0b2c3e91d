"""The event loop: receive → decode → stamp → sequence → journal → apply → publish, compiled, over libzmq itself.

Owns the order of those steps, the sessions, and the counters of all that it refuses; what is said to whom is
outbound.py's. Decides nothing about the market: the engine does. It never waits to fill a batch; it takes what the
sockets hold.

Two rules keep what the engine sees exact. A command is applied, and so acknowledged, only after it was journaled. And
no command that was received at or after an instrument's timer comes before the TIMER that it causes: a batch ends where
a timer is due, and no batch spans the shortest time (MIN_PHASE_NS) that a command in it could arm.
"""

from typing import NamedTuple

import numpy as np

from exchange import codec, libzmq, outbound, sequencing, wire
from exchange.bits import highest_below
from exchange.config import MIN_PHASE_NS, Config
from exchange.engine import MAX_FLAGS, apply_commands, events_bound
from exchange.jit import helper, kernel, routine
from exchange.journal import seal
from exchange.replay import digest_events
from exchange.sequencing import Hold, SequencingConfig, new_hold
from exchange.state import Array, State
from exchange.types import COMMAND, EVENT, NEVER, NOBODY, CommandKind, EventKind, Reason, _record

BATCH = 256
"""Messages taken from a socket before they are applied: bounds how long a notice can wait behind orders."""
RECENT_REPORTS = 1 << 16
"""Events of participants that are kept to be told again to one who missed them."""
RECENT_TRADES = 1 << 14
"""Trades that are kept to be told again, over all instruments: each has an equal part, at least 256."""
CUT_BYTES = 4096
"""A message to the venue that is larger than this ends its connection; one above MAX_MESSAGE_BYTES is refused."""
_FRAME_BYTES = CUT_BYTES + 8
_MONITOR_BYTES = 512
_PROBES = 8
"""Connections are numbered in their order; only one that outlived a whole table's worth of others is in the way."""
_TELL_LOST_NS = 20_000_000
KEY_BYTES = 40
MAX_DESCRIPTORS = 1 << 17
LATENCY_BUCKETS = 48

SLICE_OVER, STOPPED, JOURNAL_FAILED, INTERRUPTED, SEGMENT_FULL = 0, 1, 2, 3, 4
"""Why serve() returned."""

_EXPLAIN = int(CommandKind.EXPLAIN)
_PLACE, _CANCEL, _REPLACE = int(CommandKind.PLACE_ORDER), int(CommandKind.CANCEL_ORDER), int(CommandKind.REPLACE_ORDER)
_MASS_CANCEL, _LOG_ON = int(CommandKind.MASS_CANCEL), int(CommandKind.LOG_ON)
_LOG_OFF_COMMAND, _TIMER = int(CommandKind.LOG_OFF), int(CommandKind.TIMER)
_DEPOSIT_CASH = int(CommandKind.DEPOSIT_CASH)
_LOG_OFF = int(wire.MessageKind.LOG_OFF)
_DEPTH_REQUEST, _TRADES_REQUEST = int(wire.MessageKind.DEPTH_REQUEST), int(wire.MessageKind.TRADES_REQUEST)
_STATUS, _STOP = int(wire.MessageKind.STATUS), int(wire.MessageKind.STOP)
_REFUSED, _DONE = int(wire.MessageKind.REFUSED), int(wire.MessageKind.DONE)
_REJECTED, _HALTED = int(EventKind.ORDER_REJECTED), int(EventKind.INSTRUMENT_HALTED)
_CANCEL_REJECTED, _LOGGED_ON = int(EventKind.CANCEL_REJECTED), int(EventKind.LOGGED_ON)
_MASS_CANCELLED, _MARGIN_CALLED = int(EventKind.MASS_CANCELLED), int(EventKind.MARGIN_CALLED)
_REQUEST_REJECTED = int(EventKind.REQUEST_REJECTED)
_REVALUE, _FIRST_REQUEST = int(CommandKind.REVALUE), int(CommandKind.DEPOSIT_COLLATERAL)
_LAST_REQUEST, _LAST_CONTROL = int(CommandKind.MINT), int(CommandKind.PUBLISH_INDEX)
_HALT, _KILL, _KILLED = int(CommandKind.HALT), int(CommandKind.KILL), int(EventKind.PARTICIPANTS_KILLED)
_KILL_VENDOR = int(CommandKind.KILL_VENDOR)
_IS_KILLED = int(Reason.IS_KILLED)
_OK, _MALFORMED, _UNKNOWN_ACCOUNT = int(Reason.NONE), int(Reason.MALFORMED), int(Reason.UNKNOWN_ACCOUNT)
_NOT_LOGGED_ON, _SESSION_IN_USE = int(Reason.NOT_LOGGED_ON), int(Reason.SESSION_IN_USE)
_TOO_MANY_SESSIONS, _WRONG_KEY = int(Reason.TOO_MANY_SESSIONS), int(Reason.WRONG_KEY)
_OVERSIZED, _UNKNOWN_VERSION, _TOO_FAST = int(Reason.OVERSIZED), int(Reason.UNKNOWN_VERSION), int(Reason.TOO_FAST)
_UNKNOWN_INSTRUMENT = int(Reason.UNKNOWN_INSTRUMENT)
_PLACE_FIELDS, _REPLACE_FIELDS, _CANCEL_FIELDS = wire.PLACE_FIELDS, wire.REPLACE_FIELDS, wire.CANCEL_FIELDS
_MASS_CANCEL_FIELDS, _LOG_ON_FIELDS, _LOG_OFF_FIELDS = wire.MASS_CANCEL_FIELDS, wire.LOG_ON_FIELDS, wire.LOG_OFF_FIELDS
_REQUEST_FIELDS, _EXPLAINED_FIELDS = wire.REQUEST_FIELDS, wire.EXPLAINED_FIELDS
_DEPTH_REQUEST_FIELDS, _TRADES_REQUEST_FIELDS = wire.DEPTH_REQUEST_FIELDS, wire.TRADES_REQUEST_FIELDS
_CONTROL_FIELDS, _VERSION, _MAX_BYTES = wire.CONTROL_FIELDS, wire.PROTOCOL_VERSION, wire.MAX_MESSAGE_BYTES
_NEVER = int(NEVER)
_CLOSED = -2
"""In Loop.descriptors: the connection that had this file descriptor has ended, and no other has it yet."""
_TRUNK = -2
"""In a connection's account: many have their sessions over it, each naming itself in a frame of its own."""
_SECOND = 1_000_000_000

LOOP = _record(
    "sequence",
    "last_ns",  # the latest stamp; the venue's clock never goes back behind it
    "sequenced_ns",  # the latest received_ns: behind the latest stamp where messages are held
    "channel",  # of the message at hand: the account that its own frame names; NOBODY: it has none
    "clock_offset_ns",  # venue time − CLOCK_MONOTONIC: not 0 only after a restart on a machine whose clock began anew
    "check",  # of the last journaled record
    "digest",  # over all events
    "events",
    "journal_descriptor",
    "journal_offset",
    "journal_room",  # records that fit into the segment
    "journal_errno",
    "journaled",  # the last sequence that is in the journal
    "sync_each_batch",
    "sessions",  # logged on now
    "untold",  # sessions that were ended because they did not read, and do not know it yet
    "told_ns",
    "lost",  # not 0: a session's connection did not take a report, and the session has not been ended yet
    "max_sessions",
    "session_interval_ns",  # 1 s / messages per second of a session; 0: no limit
    "with_keys",
    "grace_ends_ns",  # until then the sessions of before a restart may come back; NEVER once that is over
    "logons",  # ever
    "refused",  # messages, ever
    "handshakes_failed",
    "received",
    "sent",
    "unsent",  # reports that a full or vanished session did not take
    "conflated",  # market data that at least one slow subscriber did not get
    "batches",
    "largest_batch",
    "recent",  # how many reports were kept, ever
    "forgotten",  # the latest sequence of which a report is no longer kept
    "timings",  # how many are recorded
    "published_ns",
    "slow_published_ns",
    "heartbeat_ns",
    "stop",
)

TIMING = _record("arrived_ns", "matched_ns", "noticed_ns", "acknowledged_ns")
"""Of the command with the sequence number row + 1: arrived (and sequenced then, if nothing is held); applied; its
notices, then its reports handed to the sockets."""

CONNECTION = _record("number", "account", "sessions", "descriptor", "lost")
"""A connection with sessions, by its number modulo the table's length; account NOBODY: none, _TRUNK: of several. lost
1: a report did not go; 2: its sessions were ended for that, and it does not know yet."""

SESSION = _record("connection", "row", "channel", "ended", "heard_sequence", "heard_reports", "rate_ns")
"""An account's: the number of its connection, NOBODY if it has none, and that connection's row; its own number if it
shares it, else NOBODY; how many of its sessions have ended; what it said that it has heard; its message rate."""

TRADE = _record("number", "sequence", "time_ns", "price_ticks", "quantity_lots", "taker_side")


class LoopConfig(Config):
    """How often the loop speaks without being asked. Times in ns."""

    market_data_interval_ns: int = 20_000_000
    slow_market_data_interval_ns: int = 1_000_000_000
    heartbeat_interval_ns: int = 1_000_000_000


class Sockets(NamedTuple):
    """Handles, as integers. The monitor tells of the connections of `orders`. feed 0: nobody follows."""

    orders: int
    control: int
    market_data: int
    notices: int
    monitor: int
    feed: int


class Loop(NamedTuple):
    """What the loop keeps between calls, and its scratch memory."""

    status: Array  # LOOP[1]
    commands: Array  # COMMAND[BATCH + 1]: the last message may be two
    words: Array  # the same memory as int64[BATCH + 1, 16]
    arrived: Array  # int64[BATCH + 1]: when each of them came
    events: Array  # EVENT[m]
    event_words: Array  # the same memory as int64[m, 17]
    recent: Array  # EVENT[RECENT_REPORTS]: a ring
    trades: Array  # TRADE[I, k]: a ring an instrument, k a power of two; the trade with number n is at n modulo k
    timings: Array  # TIMING[t]; commands beyond it are not timed
    latencies: Array  # int64[LATENCY_BUCKETS]: commands acknowledged within 2^(n+1) ns of their receipt
    reasons: Array  # int64[1024]: rejects and refusals by Reason
    connections: Array  # CONNECTION[c], c a power of two
    sessions: Array  # SESSION[A]
    descriptors: Array  # int64[d]: the number of the session's connection by file descriptor; NOBODY; _CLOSED
    account_keys: Array  # uint8[A, 40]: the public key of each account, in Z85
    published: Array  # int64[I, 16]: the top of book that was last published
    depths: Array  # int64[I, DEPTH_FIELDS]: the depth that was last published
    indications: Array  # int64[I, 4]: price, volume, imbalance and end that were last published
    numbers: Array  # int64[I, 8]: how many messages of each kind of market data were published
    values: Array  # int64[MAX_MESSAGE_BYTES]
    message: Array  # int64[8]: a zmq_msg_t
    peer: Array  # uint8: the routing id of the message at hand
    frame: Array  # uint8: the message at hand
    key: Array  # uint8[40]: the key of the message at hand
    key_name: Array  # uint8: "User-Id"
    address: Array  # uint8: the routing id of the session to send to
    out: Array  # uint8: the message to send
    clock: Array  # int64[2]
    option: Array  # int64[2]
    poll: Array  # int64[6]: three zmq_pollitem_t
    intervals: Array  # int64[3]: market data, slow market data, heartbeat
    hold: Hold


@kernel
def _begin_message(message):
    libzmq.zmq_msg_init(message.ctypes.data)


def new_loop(
    state: State, config: LoopConfig, max_sessions: int, max_timings: int, rules: SequencingConfig | None = None
) -> Loop:
    events = np.zeros(events_bound(state) + 4 * BATCH, EVENT)
    commands = np.zeros(BATCH + 1, COMMAND)
    connections = 1 << (4 * max_sessions - 1).bit_length()
    loop = Loop(
        status=np.zeros(1, LOOP),
        commands=commands,
        words=commands.view(np.int64).reshape(BATCH + 1, -1),
        arrived=np.zeros(BATCH + 1, np.int64),
        events=events,
        event_words=events.view(np.int64).reshape(len(events), -1),
        recent=np.zeros(RECENT_REPORTS, EVENT),
        trades=np.zeros(
            (len(state.instruments), max(256, 1 << (RECENT_TRADES // len(state.instruments)).bit_length() - 1)), TRADE
        ),
        timings=np.zeros(max_timings, TIMING),
        latencies=np.zeros(LATENCY_BUCKETS, np.int64),
        reasons=np.zeros(1024, np.int64),
        connections=np.zeros(connections, CONNECTION),
        sessions=np.zeros(len(state.accounts), SESSION),
        descriptors=np.full(MAX_DESCRIPTORS, NOBODY, np.int64),
        account_keys=np.zeros((len(state.accounts), KEY_BYTES), np.uint8),
        published=np.zeros((len(state.instruments), 16), np.int64),
        indications=np.zeros((len(state.instruments), 4), np.int64),
        depths=np.zeros((len(state.instruments), wire.DEPTH_FIELDS), np.int64),
        numbers=np.zeros((len(state.instruments), 8), np.int64),
        values=np.zeros(wire.MAX_MESSAGE_BYTES, np.int64),
        message=np.zeros(libzmq.MESSAGE_BYTES // 8, np.int64),
        peer=np.zeros(_FRAME_BYTES, np.uint8),
        frame=np.zeros(_FRAME_BYTES, np.uint8),
        key=np.zeros(KEY_BYTES, np.uint8),
        key_name=np.frombuffer(b"User-Id\0", np.uint8).copy(),
        address=np.zeros(16, np.uint8),
        out=np.zeros(_MONITOR_BYTES, np.uint8),
        clock=np.zeros(2, np.int64),
        option=np.zeros(2, np.int64),
        poll=np.zeros(6, np.int64),
        intervals=np.array(
            [config.market_data_interval_ns, config.slow_market_data_interval_ns, config.heartbeat_interval_ns],
            np.int64,
        ),
        hold=new_hold(rules or SequencingConfig(), len(state.accounts), COMMAND.itemsize // 8),
    )
    loop.status["max_sessions"] = max_sessions
    loop.status["channel"] = NOBODY
    loop.connections["account"] = NOBODY
    loop.sessions["connection"] = NOBODY
    _begin_message(loop.message)
    return loop


def journal_slack(instruments: int, max_sessions: int, held: int) -> int:
    """Records that one turn of the loop may journal: a batch of two each, and what was held at once; every timer; the
    end of every session."""
    return 3 * BATCH + 2 * held + instruments + max_sessions


# ── receiving ────────────────────────────────────────────────────────────────────────────────────────────────────────


@helper
def _receive(loop, socket):
    """Take one message: its routing id into loop.peer, the account that a frame before its payload names into the
    channel, its payload into loop.frame.

    Returns: (size of the routing id, size of the payload); −1, −1 if nothing waits. A message of any other form is
    drained and has the payload size −1.
    """
    loop.status[0]["channel"] = NOBODY
    peer_size = libzmq.zmq_recv(socket, loop.peer.ctypes.data, loop.peer.shape[0], libzmq.DONTWAIT)
    if peer_size < 0:
        return -1, -1
    message = loop.message.ctypes.data
    size = libzmq.zmq_msg_recv(message, socket, libzmq.DONTWAIT)  # frames of one message arrive together
    if size < 0:
        return peer_size, -1
    if libzmq.zmq_msg_more(message) != 0 and size == wire.ACCOUNT_BYTES:
        libzmq.memcpy(loop.frame.ctypes.data, libzmq.zmq_msg_data(message), size)
        loop.status[0]["channel"] = codec.get_account(loop.frame)
        size = libzmq.zmq_msg_recv(message, socket, libzmq.DONTWAIT)
    if libzmq.zmq_msg_more(message) != 0:
        while libzmq.zmq_msg_more(message) != 0:
            libzmq.zmq_msg_recv(message, socket, libzmq.DONTWAIT)
        return peer_size, -1
    libzmq.memcpy(loop.frame.ctypes.data, libzmq.zmq_msg_data(message), min(size, loop.frame.shape[0]))
    loop.status[0]["received"] += 1
    return peer_size, size


@helper
def _stamp(loop):
    status = loop.status[0]
    now = libzmq.now_ns(loop.clock) + status["clock_offset_ns"]
    if now < status["last_ns"]:
        now = status["last_ns"]
    status["last_ns"] = now
    return now


@routine
def _refuse(loop, socket, peer_size, reason, order_id):
    """Tell a connection that its message was not taken; it is counted, and nothing else happens."""
    status = loop.status[0]
    status["refused"] += 1
    loop.reasons[reason] += 1
    values = loop.values
    values[0] = _REFUSED
    values[1] = status["sequence"]
    values[2] = status["last_ns"]
    values[3] = reason
    values[4] = order_id
    outbound.send(loop, socket, loop.peer, peer_size, status["channel"], 5)


@routine
def _has_key_of(loop, account):
    """Whether the message at hand came over a connection that proved the account's key."""
    name = libzmq.zmq_msg_gets(loop.message.ctypes.data, loop.key_name.ctypes.data)
    if name == 0:
        return False
    libzmq.memcpy(loop.key.ctypes.data, name, KEY_BYTES)
    same = True
    for at in range(KEY_BYTES):
        same = same and loop.key[at] == loop.account_keys[account, at]
    return same


@helper
def _row_of(loop, connection):
    """The row of a connection with sessions, or −1 if it has none."""
    found = -1
    if connection >= 0:
        for probe in range(_PROBES):
            row = (connection + probe) & (loop.connections.shape[0] - 1)
            if loop.connections[row]["number"] == connection and loop.connections[row]["account"] != NOBODY:
                found = row
                break
    return found


@helper
def _free_row(loop, connection):
    """A row for a connection, or −1 if there is none near its place."""
    found = -1
    for probe in range(_PROBES):
        row = (connection + probe) & (loop.connections.shape[0] - 1)
        if loop.connections[row]["account"] == NOBODY and loop.connections[row]["lost"] == 0:
            found = row
            break
    return found


@helper
def _account_of(loop, connection):
    """Whose session it is that the message at hand came over, or −1 if it has none."""
    channel = loop.status[0]["channel"]
    found = -1
    if channel != NOBODY:
        if channel < loop.sessions.shape[0]:
            session = loop.sessions[channel]
            if connection >= 0 and session["connection"] == connection and session["channel"] == channel:
                found = channel
    else:
        row = _row_of(loop, connection)
        if row >= 0:
            found = max(loop.connections[row]["account"], -1)
    return found


@helper
def _decode(loop, at, account, count):
    """Turn the values at hand into the batch's command number `at`; returns False if they are no command."""
    values = loop.values
    kind = values[0]
    command = loop.commands[at]
    command["order_id"] = 0
    command["target_order_id"] = 0
    command["side"] = 0
    command["order_type"] = 0
    command["price_ticks"] = 0
    command["quantity_lots"] = 0
    if kind == _PLACE and (count == _PLACE_FIELDS or count == _EXPLAINED_FIELDS):
        command["order_id"] = values[1]
        command["instrument"] = values[2]
        command["side"] = values[3]
        command["order_type"] = values[4]
        command["price_ticks"] = values[5]
        command["quantity_lots"] = values[6]
        rest = 7
    elif kind == _CANCEL and count == _CANCEL_FIELDS:
        command["target_order_id"] = values[1]
        command["instrument"] = values[2]
        command["quantity_lots"] = values[3]
        rest = 4
    elif kind == _REPLACE and (count == _REPLACE_FIELDS or count == _EXPLAINED_FIELDS):
        command["order_id"] = values[1]
        command["target_order_id"] = values[2]
        command["instrument"] = values[3]
        command["order_type"] = values[4]
        command["price_ticks"] = values[5]
        command["quantity_lots"] = values[6]
        rest = 7
    elif kind == _MASS_CANCEL and count == _MASS_CANCEL_FIELDS:
        command["instrument"] = values[1]
        command["side"] = values[2]
        rest = 3
    elif kind >= _FIRST_REQUEST and kind <= _LAST_REQUEST and count == _REQUEST_FIELDS:
        command["instrument"] = 0
        command["target_order_id"] = values[1]
        command["quantity_lots"] = values[2]
        rest = 3
    else:
        return False
    command["kind"] = kind
    command["account"] = account
    command["heard_ns"] = values[rest]
    command["sent_ns"] = values[rest + 1]
    command["cause_sequence"] = values[rest + 2]
    command["rule"] = values[rest + 3]
    return True


@helper
def _decode_explanation(loop, at, account):
    """The EXPLAIN of the order at hand as the batch's command number `at`: its inputs, its name and its rule."""
    values = loop.values
    command = loop.commands[at]
    command["kind"] = _EXPLAIN
    command["account"] = account
    command["order_id"] = values[1]
    command["rule"] = values[_PLACE_FIELDS - 1]
    first = _PLACE_FIELDS
    command["instrument"] = values[first]  # in the order of types.EXPLANATION
    command["target_order_id"] = values[first + 1]
    command["side"] = values[first + 2]
    command["order_type"] = values[first + 3]
    command["price_ticks"] = values[first + 4]
    command["quantity_lots"] = values[first + 5]
    command["heard_ns"] = values[first + 6]
    command["sent_ns"] = values[first + 7]
    command["cause_sequence"] = values[first + 8]


# ── sequencing, journaling, applying ─────────────────────────────────────────────────────────────────────────────────


@helper
def _sequence(loop, at, now, arrived):
    """Give the batch's command number `at` its place: now is when it counts as received, for everyone."""
    status = loop.status[0]
    status["sequence"] += 1
    status["sequenced_ns"] = now
    command = loop.commands[at]
    command["sequence"] = status["sequence"]
    command["received_ns"] = now
    loop.arrived[at] = arrived


@routine
def _journal(loop, count):
    """Seal the batch and append it; returns False if the disk did not take all of it."""
    status = loop.status[0]
    status["check"] = seal(loop.words, 0, count, status["check"])
    size = count * loop.words.shape[1] * 8
    done = 0
    while done < size:
        wrote = libzmq.pwrite(
            status["journal_descriptor"],
            loop.words.ctypes.data + done,
            size - done,
            status["journal_offset"] + done,
        )
        if wrote < 0:
            error = libzmq.zmq_errno()
            if error != libzmq.EINTR:
                status["journal_errno"] = error
                return False
        else:
            done += wrote
    if status["sync_each_batch"] != 0 and libzmq.fdatasync(status["journal_descriptor"]) != 0:
        status["journal_errno"] = libzmq.zmq_errno()
        return False
    status["journaled"] = loop.commands[count - 1]["sequence"]
    status["journal_offset"] += size
    status["journal_room"] -= count
    return True


@helper
def _keep(loop, at):
    """Keep an event of participants, to be told again to one who misses it."""
    status = loop.status[0]
    kept = status["recent"] & (RECENT_REPORTS - 1)
    if status["recent"] >= RECENT_REPORTS:
        status["forgotten"] = loop.recent[kept]["sequence"]
    loop.recent[kept] = loop.events[at]
    status["recent"] += 1


@routine
def _close_killed(loop, state, sockets):
    """Close the sessions of participants that were killed: tell each, and hear it no more."""
    for account in range(loop.sessions.shape[0]):
        connection = loop.sessions[account]["connection"]
        if connection != NOBODY and state.accounts[account]["killed"] != 0:
            values = loop.values
            values[0] = _REFUSED
            values[1] = loop.status[0]["sequence"]
            values[2] = loop.status[0]["last_ns"]
            values[3] = _IS_KILLED
            values[4] = 0
            codec.put_connection(loop.address, connection)
            channel = loop.sessions[account]["channel"]
            outbound.send(loop, sockets.orders, loop.address, codec.CONNECTION_ID_BYTES, channel, 5)
            _unbind(loop, account)


@routine
def _commit(loop, state, sockets, count):
    """Journal the batch's first `count` commands, apply them and tell everyone concerned.

    Returns: the Reason of the last reject of an operator's command or of a logon, or 0, or −1 if the journal failed;
    then nothing was applied.
    """
    status = loop.status[0]
    if not _journal(loop, count):
        return -1
    status["batches"] += 1
    status["largest_batch"] = max(status["largest_batch"], count)
    done = 0
    reason = 0
    while done < count:
        first = done
        done, events = apply_commands(state, loop.commands, done, count, loop.events)
        matched = libzmq.now_ns(loop.clock) + status["clock_offset_ns"]
        outbound.send_notices(loop, sockets, events)
        noticed = libzmq.now_ns(loop.clock) + status["clock_offset_ns"]
        if sockets.feed != 0:
            outbound.feed(loop, sockets, first, done)
        for at in range(events):
            kind = loop.events[at]["kind"]
            if kind == _LOGGED_ON:
                outbound.send_logged_on(loop, state, sockets, at)
            elif kind == _KILLED:
                _close_killed(loop, state, sockets)
            elif (kind <= _MASS_CANCELLED and kind != _HALTED) or kind >= _MARGIN_CALLED:
                if kind == _REJECTED or kind == _CANCEL_REJECTED or kind == _REQUEST_REJECTED:
                    loop.reasons[loop.events[at]["reason"] & 1023] += 1
                asked = loop.commands[first]["kind"]
                if kind == _REJECTED and (asked >= _DEPOSIT_CASH or asked == _LOG_ON):
                    reason = loop.events[at]["reason"]
                else:
                    _keep(loop, at)
                    outbound.send_reports(loop, sockets, at)
        outbound.publish_trades(loop, sockets, events)
        if state.counters[0]["collateral_instrument"] != NOBODY:
            outbound.publish_loans(loop, state, sockets, events)
        status["digest"] = digest_events(status["digest"], loop.event_words, events)
        status["events"] += events
        acknowledged = libzmq.now_ns(loop.clock) + status["clock_offset_ns"]
        for at in range(first, done):
            bucket = highest_below(acknowledged - loop.commands[at]["received_ns"], 63)
            loop.latencies[min(max(bucket, 0), LATENCY_BUCKETS - 1)] += 1
            row = status["timings"]
            if row < loop.timings.shape[0]:
                loop.timings[row]["arrived_ns"] = loop.arrived[at]
                loop.timings[row]["matched_ns"] = matched
                loop.timings[row]["noticed_ns"] = noticed
                loop.timings[row]["acknowledged_ns"] = acknowledged
                status["timings"] = row + 1
    return reason


@helper
def _commit_own(loop, state, sockets, kind, account, instrument, amount, now):
    """Sequence, journal and apply one command that did not come as an order; returns what _commit does."""
    loop.words[0, :] = 0
    command = loop.commands[0]
    command["kind"] = kind
    command["account"] = account
    command["instrument"] = instrument
    command["quantity_lots"] = amount
    _sequence(loop, 0, now, now)
    return _commit(loop, state, sockets, 1)


@helper
def _run_timers(loop, state, sockets, now):
    """Sequence a TIMER for each instrument that is due, then a REVALUE; returns −1 if the journal failed."""
    for number in range(state.instruments.shape[0]):
        if state.instruments[number]["timer_ns"] <= now:
            if _commit_own(loop, state, sockets, _TIMER, NOBODY, number, 0, now) < 0:
                return -1
            outbound.publish_instrument(loop, state, sockets, number, now)
    revalue = state.counters[0]["revalue_ns"] <= now
    if revalue and _commit_own(loop, state, sockets, _REVALUE, NOBODY, NOBODY, 0, now) < 0:
        return -1
    return 0


@routine
def _commit_timely(loop, state, sockets, kind, account, instrument, amount):
    """_commit_own, stamped now, after the timers that are due."""
    now = _stamp(loop)
    if now >= state.counters[0]["next_timer_ns"] and _run_timers(loop, state, sockets, now) < 0:
        return -1
    return _commit_own(loop, state, sockets, kind, account, instrument, amount, now)


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@routine
def _unbind(loop, account):
    """Part an account from its connection, which has a row as long as it has sessions."""
    session = loop.sessions[account]
    connection = loop.connections[session["row"]]
    session["connection"] = NOBODY
    session["ended"] += 1
    connection["sessions"] -= 1
    if connection["sessions"] == 0:
        connection["account"] = NOBODY
        connection["lost"] = 0
        loop.descriptors[connection["descriptor"]] = NOBODY
    loop.status[0]["sessions"] -= 1


@helper
def _end_session(loop, state, sockets, account):
    """Returns −1 if the journal failed."""
    _unbind(loop, account)
    return _commit_timely(loop, state, sockets, _LOG_OFF_COMMAND, account, NOBODY, 0)


@routine
def _end_sessions(loop, state, sockets, row):
    """End all sessions of a connection. Returns −1 if the journal failed."""
    number = loop.connections[row]["number"]
    only = loop.connections[row]["account"]
    first = 0 if only == _TRUNK else only
    end = loop.sessions.shape[0] if only == _TRUNK else only + 1
    for account in range(first, end):
        if loop.sessions[account]["connection"] == number and _end_session(loop, state, sockets, account) < 0:
            return -1
    return 0


@helper
def _end_lost_sessions(loop, state, sockets):
    """End the sessions that did not take a report: they would miss it unawares. Logged on again, they are told it.
    Returns −1 if the journal failed."""
    status = loop.status[0]
    status["lost"] = 0
    for row in range(loop.connections.shape[0]):
        if loop.connections[row]["lost"] == 1:
            if _end_sessions(loop, state, sockets, row) < 0:
                return -1
            loop.connections[row]["lost"] = 2
            status["untold"] += 1
    return 0


@routine
def _tell_lost(loop, sockets, now):
    """Tell those whose session was ended because they did not read, as soon as they do: it comes after what they did
    not read, and a client takes it as it takes a restart."""
    status = loop.status[0]
    status["told_ns"] = now
    for row in range(loop.connections.shape[0]):
        if loop.connections[row]["lost"] == 2:
            values = loop.values
            values[0] = _REFUSED
            values[1] = status["sequence"]
            values[2] = now
            values[3] = _NOT_LOGGED_ON
            values[4] = 0
            codec.put_connection(loop.address, loop.connections[row]["number"])
            # To several sessions at once it is said without the frame that would name one of them.
            sent = outbound.send(loop, sockets.orders, loop.address, codec.CONNECTION_ID_BYTES, NOBODY, 5)
            if sent or libzmq.zmq_errno() == libzmq.EHOSTUNREACH:
                loop.connections[row]["lost"] = 0
                status["untold"] -= 1


@helper
def _watch_connections(loop, state, sockets):
    """End the sessions whose connections ended. Returns −1 if the journal failed.

    A descriptor is used again at once. Its events come in order, and before any message of the new connection; so a
    logon that first reads all of them cannot be taken for the one before it.
    """
    if loop.status[0]["lost"] != 0 and _end_lost_sessions(loop, state, sockets) < 0:
        return -1
    while True:
        size = libzmq.zmq_recv(sockets.monitor, loop.option.ctypes.data, 16, libzmq.DONTWAIT)
        if size < 0:
            return 0
        libzmq.zmq_recv(sockets.monitor, loop.out.ctypes.data, loop.out.shape[0], libzmq.DONTWAIT)  # the address
        event = loop.option[0] & 0xFFFF
        descriptor = (loop.option[0] >> 16) & 0xFFFFFFFF
        if (event == libzmq.EVENT_DISCONNECTED or event == libzmq.EVENT_ACCEPTED) and descriptor < MAX_DESCRIPTORS:
            row = _row_of(loop, loop.descriptors[descriptor])
            if row >= 0 and _end_sessions(loop, state, sockets, row) < 0:
                return -1
            loop.descriptors[descriptor] = _CLOSED if event == libzmq.EVENT_DISCONNECTED else NOBODY
        elif event & libzmq.EVENTS_HANDSHAKE_FAILED != 0:
            loop.status[0]["handshakes_failed"] += 1


@helper
def _too_fast(loop, account, now):
    """The generic cell rate algorithm over an account's messages, ahead of the journal."""
    interval = loop.status[0]["session_interval_ns"]
    too_fast = False
    if interval > 0:
        due = max(loop.sessions[account]["rate_ns"], now)
        too_fast = due - now > _SECOND - interval
        if not too_fast:
            loop.sessions[account]["rate_ns"] = due + interval
    return too_fast


@helper
def _log_on(loop, state, sockets, peer_size, now):
    """Bind the connection of the logon at hand to its account. Returns −1 if the journal failed."""
    values = loop.values
    status = loop.status[0]
    account = values[2]
    flags = values[3]
    heard_sequence = values[4]
    heard_reports = values[5]
    vendor, model, version = values[7], values[8], values[9]
    channel = status["channel"]
    connection = codec.connection_of(loop.peer, peer_size)
    row = _row_of(loop, connection)
    known = account >= 0 and account < state.counters[0]["participants"]
    is_bound = known and connection >= 0 and loop.sessions[account]["connection"] == connection
    owner = _TRUNK if channel != NOBODY else account
    in_use = row >= 0 and loop.connections[row]["account"] != owner
    in_use = in_use or (known and not is_bound and loop.sessions[account]["connection"] != NOBODY)
    if row < 0:
        row = _free_row(loop, connection)
    descriptor = libzmq.zmq_msg_get(loop.message.ctypes.data, libzmq.SOURCE_DESCRIPTOR)
    reason = _OK
    if values[1] != _VERSION:
        reason = _UNKNOWN_VERSION
    elif not known:
        reason = _UNKNOWN_ACCOUNT
    elif (
        (channel != NOBODY and channel != account)
        or connection < 0
        or descriptor < 0
        or descriptor >= MAX_DESCRIPTORS
        or flags < 0
        or flags > MAX_FLAGS
    ):
        reason = _MALFORMED
    elif loop.descriptors[descriptor] == _CLOSED:
        reason = _NOT_LOGGED_ON  # its connection has ended since, so nobody hears this
    elif status["with_keys"] != 0 and not _has_key_of(loop, account):
        reason = _WRONG_KEY
    elif in_use:
        reason = _SESSION_IN_USE
    elif not is_bound and (status["sessions"] >= status["max_sessions"] or row < 0):
        reason = _TOO_MANY_SESSIONS
    elif state.accounts[account]["killed"] != 0:
        reason = _IS_KILLED
    elif _too_fast(loop, account, now):
        reason = _TOO_FAST
    if reason != _OK:
        _refuse(loop, sockets.orders, peer_size, reason, 0)
        return 0
    if not is_bound:
        loop.connections[row]["number"] = connection
        loop.connections[row]["account"] = owner
        loop.connections[row]["sessions"] += 1
        loop.connections[row]["descriptor"] = descriptor
        loop.descriptors[descriptor] = connection
        loop.sessions[account]["connection"] = connection
        loop.sessions[account]["row"] = row
        loop.sessions[account]["channel"] = channel
        status["sessions"] += 1
        status["logons"] += 1
    # Only a new connection can have missed anything; telling it all again on demand would be a way to flood.
    loop.sessions[account]["heard_sequence"] = 0 if is_bound else heard_sequence
    loop.sessions[account]["heard_reports"] = heard_reports
    # Its connection may have ended, and another one have its descriptor. A poll makes libzmq see that, so that the
    # answer cannot be sent; then the session is a lost one.
    loop.poll[0] = sockets.orders
    loop.poll[1] = libzmq.POLLIN << 32
    libzmq.zmq_poll(loop.poll.ctypes.data, 1, 0)
    loop.words[0, :] = 0
    command = loop.commands[0]
    command["kind"] = _LOG_ON
    command["account"] = account
    command["instrument"] = NOBODY
    command["quantity_lots"] = flags
    command["target_order_id"] = vendor
    command["order_type"] = model
    command["price_ticks"] = version
    _sequence(loop, 0, now, now)
    reason = _commit(loop, state, sockets, 1)
    if reason > 0:  # not admitted: a session that stands already stands on as it was
        if not is_bound:
            _unbind(loop, account)
        _refuse(loop, sockets.orders, peer_size, reason, 0)
        reason = 0
    return reason


@routine
def _answer_request(loop, state, sockets, peer_size, kind, instrument, first, now):
    """A DEPTH_REQUEST, for any connection, or a TRADES_REQUEST, for a session: what is public."""
    if instrument < 0 or instrument >= state.instruments.shape[0]:
        _refuse(loop, sockets.orders, peer_size, _UNKNOWN_INSTRUMENT, 0)
    elif kind == _DEPTH_REQUEST:
        count = outbound.fill_depth(loop, state, instrument, now)
        outbound.send(loop, sockets.orders, loop.peer, peer_size, loop.status[0]["channel"], count)
    else:
        outbound.send_trades(loop, sockets, peer_size, instrument, first)


# ── one turn ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@helper
def _take_order(loop, state, sockets, count, peer_size, size, now):
    """Deal with the message at hand, with `count` commands waiting in the batch.

    Returns: how many wait now (an order with its explanation is two); 0 if they were committed on the way; −1 if the
    journal failed.
    """
    fields = codec.get_array(loop.frame, size, loop.values)
    kind = loop.values[0]
    if fields == _LOG_ON_FIELDS and kind == _LOG_ON:
        # All that ended before it must have ended; the values at hand stay, as those commits use their own.
        version, account, flags = loop.values[1], loop.values[2], loop.values[3]
        heard_sequence, heard_reports = loop.values[4], loop.values[5]
        vendor, model, model_version = loop.values[7], loop.values[8], loop.values[9]
        if count > 0 and _commit(loop, state, sockets, count) < 0:
            return -1
        if _watch_connections(loop, state, sockets) < 0:
            return -1
        # Timers that are due come first: else their reports would come before the answer, and once more behind it.
        stamped = _stamp(loop)
        if stamped >= state.counters[0]["next_timer_ns"] and _run_timers(loop, state, sockets, stamped) < 0:
            return -1
        loop.values[1] = version
        loop.values[2] = account
        loop.values[3] = flags
        loop.values[4] = heard_sequence
        loop.values[5] = heard_reports
        loop.values[7] = vendor
        loop.values[8] = model
        loop.values[9] = model_version
        return min(_log_on(loop, state, sockets, peer_size, stamped), 0)
    connection = codec.connection_of(loop.peer, peer_size)
    account = _account_of(loop, connection)
    if (fields == _DEPTH_REQUEST_FIELDS and kind == _DEPTH_REQUEST) or (
        fields == _TRADES_REQUEST_FIELDS and kind == _TRADES_REQUEST and account >= 0
    ):
        # The answer has the sequence of what came before it, so that must be in the book.
        instrument, first = loop.values[1], loop.values[2]
        if count > 0 and _commit(loop, state, sockets, count) < 0:
            return -1
        if account >= 0 and _too_fast(loop, account, now):
            _refuse(loop, sockets.orders, peer_size, _TOO_FAST, 0)
            return 0
        _answer_request(loop, state, sockets, peer_size, kind, instrument, first, now)
        return 0
    reason = _OK
    order_id = 0
    commands = 2 if fields == _EXPLAINED_FIELDS else 1
    if size > _MAX_BYTES:
        reason = _OVERSIZED
    elif fields < 1:
        reason = _MALFORMED
    else:
        if kind == _PLACE or kind == _REPLACE:
            order_id = loop.values[1]
        if kind == _LOG_ON:
            reason = _UNKNOWN_VERSION  # of another length
        elif account < 0:
            reason = _NOT_LOGGED_ON
        elif loop.status[0]["with_keys"] != 0 and not _has_key_of(loop, account):
            reason = _WRONG_KEY
        elif _too_fast(loop, account, now):
            reason = _TOO_FAST
        elif fields == _LOG_OFF_FIELDS and kind == _LOG_OFF:
            if count > 0 and _commit(loop, state, sockets, count) < 0:
                return -1
            return min(_end_session(loop, state, sockets, account), 0)
        else:
            if commands == 2:
                _decode_explanation(loop, count, account)
            if not _decode(loop, count + commands - 1, account, fields):
                reason = _MALFORMED
    release = now
    if reason == _OK and loop.hold.rules[0]["armed"] != 0:
        release = sequencing.release_time(loop.hold, loop.commands[count + commands - 1], now)
        if release > now and not sequencing.has_room(loop.hold):
            reason = _TOO_FAST
    if reason != _OK:
        if count > 0 and _commit(loop, state, sockets, count) < 0:  # what came before it is answered before it
            return -1
        _refuse(loop, sockets.orders, peer_size, reason, order_id)
        return 0
    if release > now:
        ended = loop.sessions[account]["ended"]
        sequencing.keep(loop.hold, loop.words, count, commands, account, ended, now, release)
        return count
    for at in range(count, count + commands):
        _sequence(loop, at, now, now)
    return count + commands


@helper
def _release_due(loop, state, sockets, now, longest):
    """Sequence what was held until now, in the order in which it is due. Returns −1 if the journal failed."""
    hold = loop.hold
    count = 0
    began = 0
    while hold.rules[0]["next_ns"] <= now:
        slot = sequencing.take_first(hold)
        held = hold.slots[slot]
        account = held["account"]
        session = loop.sessions[account]
        if session["connection"] == NOBODY or session["ended"] != held["session"]:  # ended while its message was held
            loop.status[0]["refused"] += 1
            loop.reasons[_NOT_LOGGED_ON] += 1
            continue
        # Others may have come meanwhile, as its time was not looked at in between.
        due = max(held["release_ns"], loop.status[0]["sequenced_ns"])
        if count == 0:
            began = due
        if count >= longest or due >= state.counters[0]["next_timer_ns"] or due - began >= MIN_PHASE_NS:
            if count > 0 and _commit(loop, state, sockets, count) < 0:
                return -1
            count = 0
            began = due
            if due >= state.counters[0]["next_timer_ns"] and _run_timers(loop, state, sockets, due) < 0:
                return -1
        for at in range(held["commands"]):
            for word in range(loop.words.shape[1]):
                loop.words[count, word] = hold.words[2 * slot + at, word]
            _sequence(loop, count, due, held["arrived_ns"])
            count += 1
    if count > 0 and _commit(loop, state, sockets, count) < 0:
        return -1
    return 0


@helper
def _serve_orders(loop, state, sockets, longest):
    """Take what participants have sent, up to a batch of `longest`. Returns: number of messages, or −1 if the journal
    failed."""
    taken = 0
    count = 0
    began = 0
    while taken < BATCH:
        peer_size, size = _receive(loop, sockets.orders)
        if peer_size < 0:
            break
        taken += 1
        now = _stamp(loop)
        if now >= loop.hold.rules[0]["next_ns"]:  # what was held until before it comes before it
            if count > 0 and _commit(loop, state, sockets, count) < 0:
                return -1
            count = 0
            if _release_due(loop, state, sockets, now, longest) < 0:
                return -1
        if count == 0:
            began = now
        if count >= longest or now >= state.counters[0]["next_timer_ns"] or now - began >= MIN_PHASE_NS:
            if count > 0:
                if _commit(loop, state, sockets, count) < 0:
                    return -1
                count = 0
                began = now
            if now >= state.counters[0]["next_timer_ns"] and _run_timers(loop, state, sockets, now) < 0:
                return -1
        count = _take_order(loop, state, sockets, count, peer_size, size, now)
        if count < 0:
            return -1
    if count > 0 and _commit(loop, state, sockets, count) < 0:
        return -1
    return taken


@helper
def _serve_control(loop, state, sockets):
    """Take one message of an operator. Returns: number of messages, or −1 if the journal failed."""
    peer_size, size = _receive(loop, sockets.control)
    if peer_size < 0:
        return 0
    status = loop.status[0]
    values = loop.values
    fields = codec.get_array(loop.frame, size, values)
    kind = values[0] if fields == _CONTROL_FIELDS else 0
    reason = 0
    if (kind >= _DEPOSIT_CASH and kind <= _LAST_CONTROL) or kind == _HALT or kind == _KILL or kind == _KILL_VENDOR:
        reason = _commit_timely(loop, state, sockets, kind, values[1], values[2], values[3])
        if reason < 0:
            return -1
    elif kind == _STOP:
        status["stop"] = 1
    elif kind != _STATUS:
        status["refused"] += 1
        loop.reasons[_MALFORMED] += 1
        reason = _MALFORMED
    values[0] = _DONE
    values[1] = status["sequence"]
    values[2] = reason
    values[3] = status["sequence"]
    values[4] = status["sessions"]
    values[5] = status["refused"]
    outbound.send(loop, sockets.control, loop.peer, peer_size, status["channel"], 6)
    return 1


@kernel
def command(loop, state, sockets, kind, account, instrument, amount):
    """Journal and apply one command of the venue itself. Returns: the Reason of its reject or 0; −1 if the journal
    failed."""
    return _commit_timely(loop, state, sockets, kind, account, instrument, amount)


@helper
def _log_off_absent(loop, state, sockets, slack):
    """End the sessions of a former life that nobody has taken up again, as many as the segment has room for.

    Returns −1 if the journal failed.
    """
    for account in range(state.accounts.shape[0]):
        if loop.status[0]["journal_room"] < slack:
            return 0  # and again in the next segment
        absent = state.accounts[account]["logged_on"] != 0 and loop.sessions[account]["connection"] == NOBODY
        if absent and _commit_timely(loop, state, sockets, _LOG_OFF_COMMAND, account, NOBODY, 0) < 0:
            return -1
    loop.status[0]["grace_ends_ns"] = _NEVER
    return 0


@kernel
def serve(loop, state, sockets, until_ns, slack, longest):
    """Serve until CLOCK_MONOTONIC reads until_ns, then return to Python for a moment.

    Args: slack: journal_slack; longest: commands a batch may have.
    Returns: SLICE_OVER, STOPPED (by an operator), JOURNAL_FAILED (errno in status), INTERRUPTED (by a signal) or
    SEGMENT_FULL (the journal must go on in its next segment).
    """
    status = loop.status[0]
    while True:
        if status["journal_room"] < slack:
            return SEGMENT_FULL
        clock = libzmq.now_ns(loop.clock)
        if clock >= until_ns:
            return SLICE_OVER
        now = _stamp(loop)
        if now >= loop.hold.rules[0]["next_ns"] and _release_due(loop, state, sockets, now, longest) < 0:
            return JOURNAL_FAILED
        if now >= state.counters[0]["next_timer_ns"] and _run_timers(loop, state, sockets, now) < 0:
            return JOURNAL_FAILED
        if now >= status["grace_ends_ns"] and _log_off_absent(loop, state, sockets, slack) < 0:
            return JOURNAL_FAILED
        if _watch_connections(loop, state, sockets) < 0:
            return JOURNAL_FAILED
        if status["untold"] > 0 and now - status["told_ns"] >= _TELL_LOST_NS:
            _tell_lost(loop, sockets, now)
        control = _serve_control(loop, state, sockets)
        taken = _serve_orders(loop, state, sockets, longest)
        if control < 0 or taken < 0:
            return JOURNAL_FAILED
        if status["stop"] != 0:
            return STOPPED
        outbound.publish_due(loop, state, sockets, now)
        if control == 0 and taken == 0:
            wait = min(until_ns - clock, status["published_ns"] + loop.intervals[0] - now)
            wait = min(wait, state.counters[0]["next_timer_ns"] - now, loop.hold.rules[0]["next_ns"] - now)
            if wait >= 1_000_000 or wait <= 0:
                wait_ms = max(1, wait // 1_000_000)
            else:
                wait_ms = 0  # less than the poll can wait: look again at once
            loop.poll[0] = sockets.orders
            loop.poll[1] = libzmq.POLLIN << 32  # int fd 0, short events, short revents
            loop.poll[2] = sockets.control
            loop.poll[3] = libzmq.POLLIN << 32
            loop.poll[4] = sockets.monitor
            loop.poll[5] = libzmq.POLLIN << 32
            if libzmq.zmq_poll(loop.poll.ctypes.data, 3, wait_ms) < 0 and libzmq.zmq_errno() == libzmq.EINTR:
                return INTERRUPTED
