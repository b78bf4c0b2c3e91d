"""The messages: msgpack arrays of integers. docs/wire.md is the protocol for others.

Owns the layout of every message; codec.py reads and writes them within compiled code. Every message fits one frame and
is an array of at most 15 integers, so that its first two bytes are the array's length and its kind: what a
subscription names.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

import msgpack

from exchange.types import CommandKind, EventKind

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 256


class MessageKind(IntEnum):
    """Kinds of message beside those of commands (to the venue) and events (from it)."""

    LOGON = 3
    STATUS = 20
    STOP = 21
    LOGGED_ON = 30
    DONE = 31
    TOP_OF_BOOK = 40
    SLOW_TOP_OF_BOOK = 41
    HEARTBEAT = 42


class Report(NamedTuple):
    """To one participant: what became of its order. Kinds ORDER_… and CANCEL_REJECTED of EventKind."""

    kind: int
    sequence: int
    time_ns: int
    instrument: int
    order_id: int
    side: int
    price_ticks: int
    quantity_lots: int
    leaves_lots: int
    reason: int
    liquidity: int  # of a fill: 1 the order was the taker, 2 the maker


class LoggedOn(NamedTuple):
    kind: int
    sequence: int
    time_ns: int
    instruments: int
    last_order_id: int


class Notice(NamedTuple):
    """To everyone, never dropped: INSTRUMENT_HALTED, SESSION_OPENED, SIGNAL_PUBLISHED, SESSION_CLOSED, HEARTBEAT."""

    kind: int
    sequence: int
    time_ns: int
    instrument: int
    reason: int  # INSTRUMENT_HALTED: the Trigger
    value: int  # INSTRUMENT_HALTED: what was observed; SIGNAL_PUBLISHED: bps
    threshold: int
    window_ns: int
    price_ticks: int
    quantity_lots: int


class TopOfBook(NamedTuple):
    """Market data, conflated. bid_ticks 0 and ask_ticks = price_levels: none. Depth: lots within 1 % of the mid."""

    kind: int
    instrument: int
    sequence: int
    time_ns: int
    bid_ticks: int
    bid_lots: int
    ask_ticks: int
    ask_lots: int
    last_ticks: int
    volume_lots: int
    bid_depth_lots: int
    ask_depth_lots: int


class Done(NamedTuple):
    """To the operator: its command was applied; reason is 0, or why it was not. STATUS gives the counts too."""

    kind: int
    sequence: int
    reason: int
    commands: int
    logged_on: int
    malformed: int


FIELDS: dict[int, type] = {
    **{
        int(kind): Report
        for kind in (
            EventKind.ORDER_ACCEPTED,
            EventKind.ORDER_REJECTED,
            EventKind.ORDER_FILLED,
            EventKind.ORDER_CANCELLED,
            EventKind.CANCEL_REJECTED,
        )
    },
    **{
        int(kind): Notice
        for kind in (
            EventKind.INSTRUMENT_HALTED,
            EventKind.SESSION_OPENED,
            EventKind.SIGNAL_PUBLISHED,
            EventKind.SESSION_CLOSED,
            MessageKind.HEARTBEAT,
        )
    },
    int(MessageKind.LOGGED_ON): LoggedOn,
    int(MessageKind.DONE): Done,
    int(MessageKind.TOP_OF_BOOK): TopOfBook,
    int(MessageKind.SLOW_TOP_OF_BOOK): TopOfBook,
}

PLACE_FIELDS = 11
"""kind, order_id, instrument, side, order_type, price_ticks, quantity_lots, heard_ns, sent_ns, cause_sequence, rule"""
CANCEL_FIELDS = 8
"""kind, target_order_id, instrument, quantity_lots, heard_ns, sent_ns, cause_sequence, rule"""
LOGON_FIELDS = 3
"""kind, PROTOCOL_VERSION, sent_ns"""
CONTROL_FIELDS = 4
"""kind, account, instrument, amount; what a kind has no use for is 0"""

IDENTITY_BYTES = 5
IDENTITY_MARK = 0x41


def identity(account: int) -> bytes:
    """The routing id of an account's session: a mark, then the account as a big-endian 32-bit number."""
    return struct.pack(">BI", IDENTITY_MARK, account)


def pack(*values: int) -> bytes:
    return msgpack.packb(values)


def unpack(frame: bytes) -> tuple[int, ...]:
    """A message as its named tuple.

    Raises: ValueError: not a message of this protocol.
    """
    values = msgpack.unpackb(frame)
    if not isinstance(values, list) or not values or values[0] not in FIELDS:
        raise ValueError(f"not a message of this protocol: {frame[:32].hex()}")
    fields = FIELDS[values[0]]
    try:
        return fields(*values)
    except TypeError:
        raise ValueError(f"{fields.__name__} with {len(values)} fields: {frame[:32].hex()}") from None


def subscription(kind: int, instrument: int | None = None) -> bytes:
    """The first bytes of a public message of this kind (and, for market data, instrument < 128)."""
    prefix = bytes([0x90 | len(FIELDS[kind]._fields), kind])  # type: ignore[attr-defined]
    return prefix if instrument is None else prefix + bytes([instrument])


def control_message(kind: CommandKind | MessageKind, account: int = 0, instrument: int = 0, amount: int = 0) -> bytes:
    return pack(int(kind), account, instrument, amount)
