"""Commands, events and the numbers that name things: the contract between Python, compiled code and files.

Every field is int64. Prices are in ticks, quantities in lots, cash in the minor unit (one tick times one lot times
the instrument's multiplier), times in nanoseconds of CLOCK_MONOTONIC. This module has no behaviour.
"""

from enum import IntEnum

import numpy as np


def _record(*names: str) -> np.dtype:
    return np.dtype([(name, np.int64) for name in names])


class CommandKind(IntEnum):
    """What a command asks for. Below 10 and from 60: participants. 10 … 19: the operator. 20 … 29: the venue itself.
    30 … 39: a supervisor."""

    PLACE_ORDER = 1
    CANCEL_ORDER = 2
    LOG_ON = 3
    REPLACE_ORDER = 4
    MASS_CANCEL = 5
    EXPLAIN = 9
    """Why the order is sent that follows it: the inputs of its decision, in the fields that EXPLANATION names."""
    DEPOSIT_CASH = 10
    DEPOSIT_POSITION = 11
    OPEN_SESSION = 12
    PUBLISH_SIGNAL = 13
    CLOSE_SESSION = 14
    SET_LIMIT = 15
    WITHDRAW_CASH = 16
    SET_MARGIN = 17
    """Make an account a margin account (quantity_lots 1) or a cash account again (0)."""
    PUBLISH_INDEX = 18
    """The price of an instrument elsewhere, in ticks (quantity_lots)."""
    TIMER = 20
    """An instrument's timer is due: the end of a halt, of a call auction or of a batch interval."""
    LOG_OFF = 21
    """A participant's connection ended."""
    START = 22
    REVALUE = 23
    """Oracles are read, margin accounts marked to market, and liquidations go on (docs/money.md)."""
    KILL_VENDOR = 37
    """Kill every participant whose model is this vendor's (account); quantity_lots as in HALT."""
    HALT = 38
    """Halt an instrument (NOBODY: all); quantity_lots: the sequence of what the supervisor saw."""
    KILL = 39
    """Kill one participant (account), or all (NOBODY); quantity_lots as in HALT."""
    DEPOSIT_COLLATERAL = 60
    WITHDRAW_COLLATERAL = 61
    BORROW = 62
    REPAY = 63
    LIQUIDATE = 64
    """Repay another account's unhealthy loan (target_order_id: that account) and take its collateral with a bonus."""
    REDEEM = 65
    MINT = 66


ORDER_COMMANDS = (
    CommandKind.PLACE_ORDER,
    CommandKind.CANCEL_ORDER,
    CommandKind.REPLACE_ORDER,
    CommandKind.MASS_CANCEL,
)
REQUEST_COMMANDS = (
    CommandKind.DEPOSIT_COLLATERAL,
    CommandKind.WITHDRAW_COLLATERAL,
    CommandKind.BORROW,
    CommandKind.REPAY,
    CommandKind.LIQUIDATE,
    CommandKind.REDEEM,
    CommandKind.MINT,
)
"""What a participant asks of the lending pool and of the stablecoin's issuer."""
DECISION_COMMANDS = ORDER_COMMANDS + REQUEST_COMMANDS
"""What a participant decides, with the times and the rule of its decision."""


EXPLANATION = (
    "instrument",
    "target_order_id",
    "side",
    "order_type",
    "price_ticks",
    "quantity_lots",
    "heard_ns",
    "sent_ns",
    "cause_sequence",
)
"""Where the nine words of an EXPLAIN lie in its COMMAND: fields that its order has, and it has no other use for."""


class EventKind(IntEnum):
    """What happened. Past tense; one record each, in the order in which it happened. Below 10 and not 6: reports."""

    ORDER_ACCEPTED = 1
    ORDER_REJECTED = 2
    ORDER_FILLED = 3
    """One match. The taker is account/order_id, the maker maker_account/maker_order_id; in an auction the buyer is
    account/order_id."""
    ORDER_CANCELLED = 4
    """A remainder (or a part, by a cancel with a quantity) left the market; quantity_lots says how much."""
    CANCEL_REJECTED = 5
    INSTRUMENT_HALTED = 6
    ORDER_REPEATED = 7
    """An order id came again; nothing happened but that the first outcome is told again."""
    ORDER_REPLACED = 8
    MASS_CANCELLED = 9
    CASH_DEPOSITED = 10
    POSITION_DEPOSITED = 11
    SESSION_OPENED = 12
    SIGNAL_PUBLISHED = 13
    SESSION_CLOSED = 14
    LIMIT_SET = 15
    AUCTION_ENDED = 16
    """A call auction or a batch was uncrossed: price, volume, imbalance."""
    PHASE_CHANGED = 17
    LOGGED_ON = 18
    LOGGED_OFF = 19
    VENUE_STARTED = 20
    MARGIN_SET = 21
    CASH_WITHDRAWN = 22
    INDEX_PUBLISHED = 23
    ORACLE_UPDATED = 24
    PARTICIPANTS_KILLED = 25
    """Their resting orders were cancelled, and they may not come back: one participant, all (account NOBODY), or all of
    one vendor."""
    AUCTION_EXTENDED = 26
    """A reopening auction would have cleared outside its collar: it goes on, and the collar is wider."""
    THRESHOLD_PUBLISHED = 27
    """At the opening, of a breaker whose thresholds are public: one trigger."""
    MARGIN_CALLED = 60
    """From here on: reports, as the ones below 10."""
    LIQUIDATION_STARTED = 61
    LIQUIDATION_ENDED = 62
    POSITION_TAKEN_OVER = 63
    """The insurance fund took what the book did not, at the bankruptcy price."""
    DELEVERAGED = 64
    """A profitable counterparty's position was closed against a bankrupt one, at the bankruptcy price."""
    BAD_DEBT_BOOKED = 65
    COLLATERAL_DEPOSITED = 66
    COLLATERAL_WITHDRAWN = 67
    BORROWED = 68
    REPAID = 69
    LOAN_LIQUIDATED = 70
    REDEEMED = 71
    MINTED = 72
    REQUEST_REJECTED = 73
    """Of the commands from DEPOSIT_COLLATERAL on."""
    FEE_CHARGED = 74
    """Of a liquidation, to the insurance fund."""


class Side(IntEnum):
    BUY = 0
    SELL = 1


BOTH_SIDES = 2
"""side of a MASS_CANCEL that means bids and asks."""


class OrderType(IntEnum):
    LIMIT = 0
    """Match up to the limit price; the remainder rests."""
    IOC = 1
    """Immediate or cancel: match up to the limit price; the remainder is cancelled."""
    MARKET = 2
    """Match at any price; the remainder is cancelled. price_ticks must be 0."""
    FOK = 3
    """Fill or kill: match all of it at once up to the limit price, or nothing."""
    POST_ONLY = 4
    """Rest without taking; rejected if it would match."""


class SelfTrade(IntEnum):
    """Self-trade prevention: what happens when an order meets one of its own account. Chosen at logon."""

    OFF = 0
    CANCEL_RESTING = 1
    CANCEL_INCOMING = 2


class Phase(IntEnum):
    PRE_OPEN = 0
    CONTINUOUS = 1
    HALTED = 2
    CLOSED = 3
    AUCTION = 4
    """Call auction: orders are collected and matched once, at its end, at one price."""
    BATCH = 5
    """Frequent batch auctions: orders are collected and matched at the end of each interval, at one price."""


class Trigger(IntEnum):
    """Why the breaker tripped."""

    PRICE_MOVE = 1
    SELL_VOLUME = 2
    LIQUIDATIONS = 3
    """Liquidations taken up within the window."""
    LIQUIDATION_NOTIONAL = 4
    """What liquidations traded within the window, in minor units."""
    DEPTH = 5
    """Lots that would be left near the price of the match."""
    IMBALANCE = 6
    """Of what takers bought and sold within the window."""
    SUPERVISOR = 7
    MARKET = 8
    """Another instrument's trip halted the whole market."""


class BreakerAction(IntEnum):
    """What a trip does beyond halting its instrument at that command."""

    HALT = 0
    KILL_PARTICIPANT = 1
    """Kill the one whose order or liquidation tripped it."""
    HALT_MARKET = 2
    KILL_ALL = 3
    """Halt the market and kill every participant."""
    KILL_VENDOR = 4
    """Kill every participant with a model of the vendor of the one who tripped it; of no vendor: that one alone."""


class MarkRule(IntEnum):
    """At which price margin accounts are valued."""

    LAST = 0
    MID = 1
    INDEX = 2


class OracleSource(IntEnum):
    """Whose price a lending oracle reports."""

    OWN_BOOK = 0
    OTHER_VENUE = 1
    """The index: what PUBLISH_INDEX said last."""
    DELAYED = 2
    """The own book's price as it was some time ago."""


class MarginState(IntEnum):
    """Of a margin account."""

    NORMAL = 0
    CALLED = 1
    LIQUIDATING = 2


class SystemAccount(IntEnum):
    """Accounts of the venue's own, behind the participants': account = EngineConfig.accounts + this."""

    INSURANCE_FUND = 0
    LENDING_POOL = 1
    ISSUER = 2
    DEFICIT = 3
    """Its cash is minus all bad debt that was booked."""


class Limit(IntEnum):
    """Pre-trade limits of an account; 0 means no limit."""

    ORDER_LOTS = 1
    OPEN_ORDERS = 2
    POSITION_LOTS = 3
    NOTIONAL = 4
    """Of one order, in minor units."""
    MESSAGES_PER_S = 5


class Reason(IntEnum):
    """Why something was rejected or refused, why an order was cancelled, or how it matched. Numbered by subsystem.

    1xx session, 2xx order, 3xx account, 4xx phase: rejects. 5xx: how an accepted order ended without being filled.
    6xx: how a fill or a replacement came about. 103 and above in 1xx are the gateway's: such a message never becomes
    a command.
    """

    NONE = 0
    MALFORMED = 101
    UNKNOWN_ACCOUNT = 102
    NOT_LOGGED_ON = 103
    SESSION_IN_USE = 104
    TOO_MANY_SESSIONS = 105
    WRONG_KEY = 106
    OVERSIZED = 107
    UNKNOWN_VERSION = 108
    TOO_FAST = 109
    UNDECLARED = 110
    """No model was declared, and the venue asks for one; this and the next four: docs/admission.md."""
    NOT_VALIDATED = 111
    VENDOR_AGENTS_CAP = 112
    VENDOR_CAPITAL_CAP = 113
    DECLARED_OTHERWISE = 114
    """A session keeps the model with which it began."""
    UNKNOWN_INSTRUMENT = 201
    PRICE_OUT_OF_RANGE = 202
    QUANTITY_OUT_OF_RANGE = 203
    INVALID_SIDE = 204
    INVALID_ORDER_TYPE = 205
    ORDER_ID_NOT_INCREASING = 206
    UNKNOWN_ORDER = 207
    BOOK_FULL = 208
    UNKNOWN_COMMAND = 209
    WOULD_MATCH = 210
    UNEXPLAINED = 211
    """The venue takes no order without the inputs of its decision."""
    INSUFFICIENT_CASH = 301
    INSUFFICIENT_POSITION = 302
    AMOUNT_OUT_OF_RANGE = 303
    ORDER_SIZE_LIMIT = 304
    OPEN_ORDERS_LIMIT = 305
    POSITION_LIMIT = 306
    NOTIONAL_LIMIT = 307
    MESSAGE_RATE_LIMIT = 308
    UNKNOWN_LIMIT = 309
    INSUFFICIENT_MARGIN = 310
    IN_LIQUIDATION = 311
    NOT_A_CASH_ACCOUNT = 312
    INSUFFICIENT_COLLATERAL = 313
    POOL_EXHAUSTED = 314
    NO_DEBT = 315
    UNKNOWN_LOAN = 316
    LOAN_HEALTHY = 317
    RESERVES_EXHAUSTED = 318
    REDEMPTION_RATE = 319
    NO_SUCH_FACILITY = 320
    """The venue has no margin accounts, no lending pool or no stablecoin."""
    IS_KILLED = 321
    """The participant was killed: by the breaker, or by a supervisor."""
    NOT_RISK_REDUCING = 322
    """In a halt that takes only limit orders that reduce a position."""
    VENDOR_FLOW_CAP = 323
    """Its vendor's models have sent as large a share of the orders that take as they may."""
    NOT_OPEN = 401
    HALTED = 402
    CLOSED = 403
    NOT_IN_AUCTION = 404
    TIMER_NOT_DUE = 405
    BY_OWNER = 501
    IOC_REMAINDER = 502
    NO_LIQUIDITY = 503
    BREAKER = 504
    SESSION_CLOSED = 505
    CASH_EXHAUSTED = 506
    FOK_UNFILLABLE = 507
    SELF_TRADE = 508
    REPLACED = 509
    MASS_CANCEL = 510
    DISCONNECTED = 511
    AUCTION_REMAINDER = 512
    LIQUIDATED = 513
    """Its account is being liquidated."""
    KILLED = 514
    """Its participant was killed."""
    AUCTION = 601
    LOST_PRIORITY = 602
    LIQUIDATION = 603
    """A fill by the liquidation engine, for the account."""
    FUND_SALE = 604
    """A fill by which the insurance fund sells or buys back what it took over."""


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

ORDER = np.dtype(
    [
        ("order_id", np.int64),
        ("leaves_lots", np.int64),
        ("filled_lots", np.int64),  # over all names that the order has had
        ("account", np.uint32),
        ("book", np.uint32),  # 2 × instrument + side: a row of the levels
        ("price_ticks", np.uint32),
        ("expiring", np.uint32),  # 1: an IOC that waits for the uncrossing
        ("next", np.uint32),  # in the queue of its price; also links the free slots
        ("previous", np.uint32),
        ("newer", np.uint32),  # in the list of its account
        ("older", np.uint32),
        ("bucket", np.uint32),  # of the index of names
        ("next_in_bucket", np.uint32),  # and one cache line is full
    ]
)
"""A slot of the pool. Slot 0 is nobody. What is an index is unsigned, so that compiled code looks for no minus sign."""

LEVEL = np.dtype([("quantity_lots", np.int64), ("head", np.uint32), ("tail", np.uint32)])
"""One price of one side of one instrument."""

INSTRUMENT = _record(
    "phase",
    "last_ticks",
    "volume_lots",
    "price_levels",
    "multiplier",
    "max_quantity_lots",
    "batch_interval_ns",  # 0: continuous trading
    "opening_auction_ns",
    "halt_ns",
    "reopening_auction_ns",
    "cancels_while_halted",
    "risk_reducing_while_halted",
    "collar_bps",  # of a reopening auction; 0: none
    "collar_widening_bps",
    "collar_extensions",  # how often at most
    "extensions",  # so far, of this reopening
    "timer_ns",  # when the phase or the batch interval ends; NEVER
    "phase_started_ns",
    "expiring",  # how many expiring orders rest
    "index_ticks",  # its price elsewhere; 0: never published
    "initial_margin_bps",
    "maintenance_margin_bps",
    "oracle_ticks",  # what the lending oracle says; 0: nothing yet
    "oracle_ns",  # when it last spoke
    "oracle_source",
    "oracle_deviation_bps",
    "oracle_heartbeat_ns",
    "oracle_delay_ns",
    "marked",  # scratch of a revaluation: what a lot is worth at the mark
    "history_head",  # of the own book's prices, kept for a delayed oracle
    "history_count",
)

ACCOUNT = _record(
    "cash",
    "reserved_cash",
    "last_order_id",
    "open_orders",
    "oldest",  # the list of its resting orders
    "newest",
    "self_trade",
    "cancel_on_disconnect",
    "logged_on",
    "remembered",  # how many outcomes were remembered, ever
    "rate_ns",
    "killed",
    "margin",  # 1: a margin account
    "margin_state",
    "vendor",  # of its model, as declared at logon; 0: none
    "model",
    "model_version",
    "explained_id",  # of the order that it explained last
    "explained_rule",
    "order_lots_limit",  # in the order of Limit
    "open_orders_limit",
    "position_lots_limit",
    "notional_limit",
    "messages_per_s_limit",
)

POSITION = _record("quantity_lots", "reserved_lots", "buying_lots", "entry_value")
"""buying_lots: of the resting buys. entry_value: of a margin account, what its position cost, signed as it is."""

LOAN = _record("collateral_lots", "debt_lots")
"""An account's in the lending pool."""

OUTCOME = _record("order_id", "sequence", "quantity_lots", "reason")

BREAKER = _record(
    "price_move_bps",  # 0: this trigger is off; so with the others
    "price_window_ns",
    "sell_volume_lots",
    "sell_window_ns",
    "liquidations",
    "liquidation_notional",
    "liquidation_window_ns",
    "depth_lots",
    "depth_bps",
    "imbalance_bps",
    "imbalance_lots",  # taken within the window before the imbalance counts
    "imbalance_window_ns",
    "halted_instruments",  # of the market's row: so many halt all
    "action",  # a BreakerAction
    "publish_thresholds",
    "trigger",  # the Trigger that halted this instrument, 0 if none
    "tripped_by",  # the verdict: of the latest trip
    "observed",
    "threshold",
    "window_ns",
    "evidence",
    "market_wide",  # 1: the verdict is the market's
)
"""Of an instrument; behind the last one, of the whole market."""

VENDOR = _record("flow")
"""flow: what its models' orders could take at once, within the window of AdmissionConfig, in minor units."""

ADMITTED = _record("vendor", "model", "model_version")
"""A model that passed the validation gate."""

LOOK = _record("head", "count", "total")
"""A look-back window: where it begins in its ring, how many entries it has, their sum."""

WINDOW_ENTRY = _record("until_ns", "value", "sequence")

FLOW_ENTRY = _record("at_ns", "value", "vendor")

COUNTERS = _record(
    "sequence",
    "resting_orders",
    "free_head",
    "cash_deposited",
    "starts",
    "next_timer_ns",  # the earliest of all instruments
    "participants",  # how many accounts are not the venue's own
    "revalue_ns",  # when REVALUE is due; NEVER
    "revalue_interval_ns",  # 0: the venue has neither margin accounts nor an oracle
    "revalue_account",  # where the next REVALUE begins
    "mark_rule",
    "margin_call_bps",
    "liquidation_fee_bps",
    "liquidation_slice_lots",
    "accounts_per_revaluation",
    "revalue_events",  # most events of one REVALUE beside those of orders that rest
    "liquidating",  # margin accounts that are being liquidated
    "max_ltv_bps",  # of the lending pool
    "liquidation_threshold_bps",
    "close_factor_bps",
    "full_close_health_bps",
    "bonus_bps",
    "collateral_instrument",  # NOBODY: no lending pool
    "debt_instrument",
    "debt_at_par",
    "written_off_lots",  # debt of the pool without collateral, booked
    "stablecoin",  # its instrument; NOBODY: none
    "par_ticks",
    "redemption_interval_ns",  # a lot; 0: no limit
    "redemption_burst_lots",
    "redemption_ns",  # of the generic cell rate algorithm
    "explanations_required",
    "admission",  # 1: only who was admitted may trade
    "declaration_required",
    "gate",  # 1: a declared model must be among those that were validated
    "vendor_agents_bps",  # caps of AdmissionConfig; 0: none
    "vendor_capital_bps",
    "vendor_flow_bps",
    "flow_window_ns",
    "flow_floor",
    "flow_head",
    "flow_count",
    "flow",  # of all participants, within the window
    "order_salt",  # of the hash table: where names lie in it is nobody's to choose
    "account_salt",
)

NO_BID = 0
NO_SLOT = 0
NEVER = np.iinfo(np.int64).max
NOBODY = -1
"""account, maker_account or instrument, where there is none."""

MAX_CASH = 1 << 60
MAX_PRICE_LEVELS = 1 << 18
MAX_QUANTITY_LOTS = 1 << 31
MAX_MULTIPLIER = 1 << 10
MAX_VENDORS = 1024
