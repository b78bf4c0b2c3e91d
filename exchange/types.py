"""Commands, events and the numbers that name things: the contract between Python, compiled code and files.

Every field is int64. Prices are in ticks, quantities in lots, cash in the minor unit (one tick times one lot times
the instrument's multiplier), times in nanoseconds of CLOCK_MONOTONIC. This module has no behaviour.
"""

from enum import IntEnum

import numpy as np


def _record(*names: str) -> np.dtype:
    return np.dtype([(name, np.int64) for name in names])


class CommandKind(IntEnum):
    """What a command asks for. Below 10: participants. From 10: the operator only."""

    PLACE_ORDER = 1
    CANCEL_ORDER = 2
    DEPOSIT_CASH = 10
    DEPOSIT_POSITION = 11
    OPEN_SESSION = 12
    PUBLISH_SIGNAL = 13
    CLOSE_SESSION = 14


class EventKind(IntEnum):
    """What happened. Past tense; one record each, in the order in which it happened."""

    ORDER_ACCEPTED = 1
    ORDER_REJECTED = 2
    ORDER_FILLED = 3
    """One match. The taker is account/order_id, the maker maker_account/maker_order_id."""
    ORDER_CANCELLED = 4
    """A remainder (or a part, by a cancel with a quantity) left the market; quantity_lots says how much."""
    CANCEL_REJECTED = 5
    INSTRUMENT_HALTED = 6
    CASH_DEPOSITED = 10
    POSITION_DEPOSITED = 11
    SESSION_OPENED = 12
    SIGNAL_PUBLISHED = 13
    SESSION_CLOSED = 14


class Side(IntEnum):
    BUY = 0
    SELL = 1


class OrderType(IntEnum):
    LIMIT = 0
    """Match up to the limit price; the remainder rests."""
    IOC = 1
    """Match up to the limit price; the remainder is cancelled."""
    MARKET = 2
    """Match at any price; the remainder is cancelled. price_ticks must be 0."""


class Phase(IntEnum):
    PRE_OPEN = 0
    CONTINUOUS = 1
    HALTED = 2
    CLOSED = 3


class Trigger(IntEnum):
    """Why the breaker tripped."""

    PRICE_MOVE = 1
    SELL_VOLUME = 2


class Reason(IntEnum):
    """Why an order or a cancel was rejected, or why a remainder was cancelled. Numbered by subsystem.

    1xx session, 2xx order, 3xx account, 4xx phase: rejects. 5xx: how an accepted order ended without being filled.
    """

    NONE = 0
    MALFORMED = 101
    UNKNOWN_ACCOUNT = 102
    UNKNOWN_INSTRUMENT = 201
    PRICE_OUT_OF_RANGE = 202
    QUANTITY_OUT_OF_RANGE = 203
    INVALID_SIDE = 204
    INVALID_ORDER_TYPE = 205
    ORDER_ID_NOT_INCREASING = 206
    UNKNOWN_ORDER = 207
    BOOK_FULL = 208
    UNKNOWN_COMMAND = 209
    INSUFFICIENT_CASH = 301
    INSUFFICIENT_POSITION = 302
    AMOUNT_OUT_OF_RANGE = 303
    NOT_OPEN = 401
    HALTED = 402
    CLOSED = 403
    BY_OWNER = 501
    IOC_REMAINDER = 502
    NO_LIQUIDITY = 503
    BREAKER = 504
    SESSION_CLOSED = 505
    CASH_EXHAUSTED = 506


COMMAND = _record(
    "sequence",  # 1, 2, 3, … without a gap
    "kind",
    "account",
    "instrument",
    "order_id",  # the participant's own; strictly increasing per account
    "target_order_id",  # of a cancel: the order to cancel
    "side",
    "order_type",
    "price_ticks",
    "quantity_lots",  # of a cancel: how much to take off, 0 for all; of a deposit: the amount; of a signal: its bps
    "heard_ns",  # when the participant heard what made it decide
    "sent_ns",
    "received_ns",  # stamped by the venue; never decreasing
    "cause_sequence",  # the sequence of what the participant reacted to, 0 if none
    "rule",  # the participant's own number for the rule that decided
    "check",  # journal checksum over this record and the previous check
)

EVENT = _record(
    "sequence",  # of the command that caused it
    "kind",
    "time_ns",  # that command's received_ns
    "instrument",
    "account",
    "order_id",
    "side",  # of account's order; in a fill, the taker's
    "price_ticks",
    "quantity_lots",
    "leaves_lots",  # of account's order, after this event
    "maker_account",
    "maker_order_id",
    "maker_leaves_lots",
    "reason",  # a Reason; in INSTRUMENT_HALTED a Trigger
    "value",  # INSTRUMENT_HALTED: what was observed; SIGNAL_PUBLISHED: its bps
    "threshold",
    "window_ns",
)

ORDER = _record(
    "account", "order_id", "instrument", "side", "price_ticks", "leaves_lots", "next", "previous"
)  # a slot of the pool; next also links the free slots; slot 0 is nobody

LEVEL = _record("head", "tail", "quantity_lots", "orders")
"""One price of one instrument. Bids and asks share the array: a book that is never crossed has one side a price."""

INSTRUMENT = _record(
    "phase", "best_bid", "best_ask", "last_ticks", "volume_lots", "price_levels", "multiplier", "max_quantity_lots"
)

ACCOUNT = _record("cash", "reserved_cash", "last_order_id")

POSITION = _record("quantity_lots", "reserved_lots")

BREAKER = _record(
    "price_move_bps",  # 0: this trigger is off
    "price_window_ns",
    "sell_volume_lots",  # 0: this trigger is off
    "sell_window_ns",
    "high_head",
    "high_count",
    "low_head",
    "low_count",
    "sell_head",
    "sell_count",
    "sell_sum_lots",
    "trigger",  # the Trigger that halted this instrument, 0 if none
)

WINDOW_ENTRY = _record("until_ns", "value")

COUNTERS = _record("sequence", "resting_orders", "free_head", "cash_deposited")

NO_BID = 0
NO_SLOT = 0
FOREVER = np.iinfo(np.int64).max
NO_MAKER = -1
"""maker_account, or instrument, where there is none."""

MAX_CASH = 1 << 60
MAX_PRICE_LEVELS = 1 << 18
MAX_QUANTITY_LOTS = 1 << 31
MAX_MULTIPLIER = 1 << 10
