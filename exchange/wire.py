"""The messages: msgpack arrays of integers. docs/wire.md is the protocol for others.

Owns the layout of every message; codec.py reads and writes them within compiled code. Every message fits one frame and
is an array of integers, at most 15 but for Depth (and, to the venue, an explained order), so that its first bytes are
the array's length and its kind: what a subscription names.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import msgpack

from exchange.types import EXPLANATION, CommandKind, EventKind, SelfTrade

PROTOCOL_VERSION = 3
MAX_MESSAGE_BYTES = 256
"""Of a message to the venue."""
ACCOUNT_BYTES = 4
"""Of the frame that names the account where several have their sessions over one connection."""
DEPTH_LEVELS = 10


class MessageKind(IntEnum):
    """Kinds of message beside those of commands (to the venue) and events (from it)."""

    # from participants
    LOG_OFF = 6
    DEPTH_REQUEST = 7
    TRADES_REQUEST = 8
    # to one session
    REFUSED = 30
    LOGGED_ON = 31
    DONE = 32
    # to everyone
    TOP_OF_BOOK = 40
    SLOW_TOP_OF_BOOK = 41
    HEARTBEAT = 42
    DEPTH = 43
    TRADE = 44
    INDICATIVE = 45
    LOAN = 46
    # from operators
    STATUS = 50
    STOP = 51


class Report(NamedTuple):
    """To one participant: what became of its order, its margin or its loan. Kinds ORDER_…, CANCEL_REJECTED,
    MASS_CANCELLED and all from MARGIN_CALLED on of EventKind."""

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
    liquidity: int  # of a fill: 1 the order was the taker, 2 the maker, 3 an auction
    reference: (
        int  # ORDER_REPLACED: the old order id; ORDER_REPEATED: the first sequence; from 60 on: the event's value
    )


class Refused(NamedTuple):
    """To one session: the gateway did not take its message; it is in no journal and changed nothing."""

    kind: int
    sequence: int  # the latest of the venue
    time_ns: int
    reason: int
    order_id: int  # as sent in an order or a replace, else 0


class LoggedOn(NamedTuple):
    """The session stands. The reports that it missed follow, then new ones."""

    kind: int
    sequence: int
    time_ns: int
    instruments: int
    account: int
    last_order_id: int  # the highest that counted; go on above it
    resent_from: int  # reports of this sequence and later are complete; larger than asked for: some are lost to memory
    starts: int  # how often the venue has started
    flags: int


class Notice(NamedTuple):
    """To everyone, never dropped: INSTRUMENT_HALTED, SESSION_OPENED, SIGNAL_PUBLISHED, SESSION_CLOSED, PHASE_CHANGED,
    VENUE_STARTED, HEARTBEAT, PARTICIPANTS_KILLED, AUCTION_EXTENDED, THRESHOLD_PUBLISHED. AUCTION_ENDED and
    ORACLE_UPDATED have the same fields but are market data."""

    kind: int
    sequence: int
    time_ns: int
    instrument: int
    reason: int  # INSTRUMENT_HALTED: the Trigger
    value: int  # what was observed; bps of a signal; the new phase; the imbalance; starts of the venue (HEARTBEAT too);
    # of PARTICIPANTS_KILLED the account, −1 for all, or with the action KILL_VENDOR the vendor
    threshold: int  # PHASE_CHANGED: when the phase ends, 0 if no timer ends it; AUCTION_ENDED: the reference price
    window_ns: int
    price_ticks: int
    quantity_lots: int
    evidence_sequence: int  # INSTRUMENT_HALTED: of the oldest command in the window
    action: int  # INSTRUMENT_HALTED, PARTICIPANTS_KILLED: a BreakerAction


class TopOfBook(NamedTuple):
    """Conflated. bid_ticks 0 and ask_ticks = price_levels: none. Depth: lots within 1 % of the mid.

    number counts what was published of this kind and instrument, so that a gap shows.
    """

    kind: int
    instrument: int
    number: int
    sequence: int
    time_ns: int
    phase: int
    bid_ticks: int
    bid_lots: int
    ask_ticks: int
    ask_lots: int
    last_ticks: int
    volume_lots: int
    bid_depth_lots: int
    ask_depth_lots: int


class Depth(NamedTuple):
    """The best DEPTH_LEVELS prices of each side, conflated; (0, 0) where there are fewer. Also the answer to a
    DEPTH_REQUEST, with the number of the latest that was published."""

    kind: int
    instrument: int
    number: int
    sequence: int
    time_ns: int
    phase: int
    trade_number: int  # the number of the latest trade
    bids: tuple[tuple[int, int], ...]  # (price_ticks, lots), best first
    asks: tuple[tuple[int, int], ...]


class Trade(NamedTuple):
    """Every match, one message each; a gap in number is repaired by a TRADES_REQUEST."""

    kind: int
    instrument: int
    number: int
    sequence: int
    time_ns: int
    price_ticks: int
    quantity_lots: int
    taker_side: int  # 2: an auction


class Indicative(NamedTuple):
    """What a call auction would clear at now; price_ticks 0: nothing."""

    kind: int
    instrument: int
    number: int
    sequence: int
    time_ns: int
    price_ticks: int
    volume_lots: int
    imbalance_lots: int  # positive: more bids
    until_ns: int


class Loan(NamedTuple):
    """What an account of the lending pool has there now, after each change of it: public, as on a public ledger."""

    kind: int
    instrument: int  # of the collateral
    number: int
    sequence: int
    time_ns: int
    account: int
    collateral_lots: int
    debt_lots: int


class Done(NamedTuple):
    """To the operator: its command was applied; reason is 0, or why it was not. STATUS gives the counts too."""

    kind: int
    sequence: int
    reason: int
    commands: int
    logged_on: int  # sessions now
    refused: int  # messages that the gateway refused, ever


FIELDS: dict[int, type] = {
    **{
        int(kind): Report
        for kind in (
            EventKind.ORDER_ACCEPTED,
            EventKind.ORDER_REJECTED,
            EventKind.ORDER_FILLED,
            EventKind.ORDER_CANCELLED,
            EventKind.CANCEL_REJECTED,
            EventKind.ORDER_REPEATED,
            EventKind.ORDER_REPLACED,
            EventKind.MASS_CANCELLED,
            *(kind for kind in EventKind if kind >= EventKind.MARGIN_CALLED),
        )
    },
    **{
        int(kind): Notice
        for kind in (
            EventKind.INSTRUMENT_HALTED,
            EventKind.SESSION_OPENED,
            EventKind.SIGNAL_PUBLISHED,
            EventKind.SESSION_CLOSED,
            EventKind.AUCTION_ENDED,
            EventKind.PHASE_CHANGED,
            EventKind.VENUE_STARTED,
            EventKind.ORACLE_UPDATED,
            EventKind.PARTICIPANTS_KILLED,
            EventKind.AUCTION_EXTENDED,
            EventKind.THRESHOLD_PUBLISHED,
            MessageKind.HEARTBEAT,
        )
    },
    int(MessageKind.REFUSED): Refused,
    int(MessageKind.LOGGED_ON): LoggedOn,
    int(MessageKind.DONE): Done,
    int(MessageKind.TOP_OF_BOOK): TopOfBook,
    int(MessageKind.SLOW_TOP_OF_BOOK): TopOfBook,
    int(MessageKind.DEPTH): Depth,
    int(MessageKind.TRADE): Trade,
    int(MessageKind.INDICATIVE): Indicative,
    int(MessageKind.LOAN): Loan,
}
_DEPTH_HEAD = 7
DEPTH_FIELDS = _DEPTH_HEAD + 4 * DEPTH_LEVELS
"""On the wire a Depth is flat: seven fields, the bids' prices and lots in pairs, then the asks'."""

PLACE_FIELDS = 11
"""kind, order_id, instrument, side, order_type, price_ticks, quantity_lots, heard_ns, sent_ns, cause_sequence, rule"""
REPLACE_FIELDS = 11
"""kind, order_id, target_order_id, instrument, order_type, price_ticks, quantity_lots, heard_ns, sent_ns,
cause_sequence, rule"""
EXPLAINED_FIELDS = 20
"""An order or a replacement, and behind it nine words more: the inputs of its decision."""
CANCEL_FIELDS = 8
"""kind, target_order_id, instrument, quantity_lots, heard_ns, sent_ns, cause_sequence, rule"""
MASS_CANCEL_FIELDS = 7
"""kind, instrument, side, heard_ns, sent_ns, cause_sequence, rule"""
REQUEST_FIELDS = 7
"""kind (of REQUEST_COMMANDS), target account (of LIQUIDATE, else 0), quantity_lots, heard_ns, sent_ns, cause_sequence,
rule"""
LOG_ON_FIELDS = 10
"""kind, PROTOCOL_VERSION, account, flags, heard_sequence, heard_reports, sent_ns, vendor, model, model_version"""
LOG_OFF_FIELDS = 1
"""kind"""
DEPTH_REQUEST_FIELDS = 2
"""kind, instrument"""
TRADES_REQUEST_FIELDS = 3
"""kind, instrument, the first number wanted; answered with at most MAX_TRADES_RESENT trades"""
MAX_TRADES_RESENT = 256
CONTROL_FIELDS = 4
"""kind, account, instrument, amount; what a kind has no use for is 0"""


def log_on_flags(cancel_on_disconnect: bool, self_trade: SelfTrade) -> int:
    return int(cancel_on_disconnect) + 2 * int(self_trade)


class Declaration(NamedTuple):
    """Which model decides for an account; told at logon. vendor 0: none, its own."""

    vendor: int = 0
    model: int = 0
    version: int = 0


NO_VENDOR = Declaration()


def pack(*values: int) -> bytes:
    return msgpack.packb(values)


def unpack(frame: bytes) -> tuple[int, ...]:
    """A message as its named tuple.

    Raises: ValueError: not a message of this protocol.
    """
    values = msgpack.unpackb(frame)
    if not isinstance(values, list) or not values or any(type(value) is not int for value in values):
        raise ValueError(f"not a message of this protocol: {frame[:32].hex()}")
    if values[0] not in FIELDS:
        raise ValueError(f"not a message of this protocol: {frame[:32].hex()}")
    fields = FIELDS[values[0]]
    if fields is Depth:
        if len(values) != DEPTH_FIELDS:
            raise ValueError(f"Depth with {len(values)} fields: {frame[:32].hex()}")
        pairs = tuple(zip(values[_DEPTH_HEAD::2], values[_DEPTH_HEAD + 1 :: 2], strict=True))
        values = [*values[:_DEPTH_HEAD], pairs[:DEPTH_LEVELS], pairs[DEPTH_LEVELS:]]
    try:
        return fields(*values)
    except TypeError:
        raise ValueError(f"{fields.__name__} with {len(values)} fields: {frame[:32].hex()}") from None


def log_on(
    account: int, flags: int, heard: tuple[int, int], sent_ns: int, declaration: Declaration = NO_VENDOR
) -> bytes:
    """A LOG_ON. heard: the sequence of the latest report heard, and how many of that sequence were."""
    return pack(int(CommandKind.LOG_ON), PROTOCOL_VERSION, account, flags, *heard, sent_ns, *declaration)


def explanation(inputs: Sequence[int]) -> Sequence[int]:
    """What an order says behind its rule: nothing, or the inputs made up to nine. Raises: ValueError: too many."""
    if len(inputs) > len(EXPLANATION):
        raise ValueError(f"{len(inputs)} inputs: an explanation has room for {len(EXPLANATION)}")
    return (*inputs, *(0,) * (len(EXPLANATION) - len(inputs))) if inputs else ()


def account_frame(account: int) -> bytes:
    """What goes before a message over a connection that several accounts share, and before what the venue says to one
    of them."""
    return account.to_bytes(ACCOUNT_BYTES, "little")


def account_in(frame: bytes) -> int:
    """The inverse of account_frame."""
    return int.from_bytes(frame, "little")


def subscription(kind: int, instrument: int | None = None) -> bytes:
    """The first bytes of a public message of this kind (and, for market data, instrument)."""
    fields = FIELDS[kind]
    count: int = len(fields._fields)  # type: ignore[attr-defined]
    prefix = bytes([0xDC, 0, DEPTH_FIELDS, kind]) if fields is Depth else bytes([0x90 | count, kind])
    return prefix if instrument is None else prefix + msgpack.packb(instrument)


def control_message(kind: CommandKind | MessageKind, account: int = 0, instrument: int = 0, amount: int = 0) -> bytes:
    return pack(int(kind), account, instrument, amount)
