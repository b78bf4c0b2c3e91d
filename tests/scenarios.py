"""Short sessions with every event worked out by hand from docs/matching.md. The oracle and the engine both play them.

Each begins with four accounts of 10 000 in cash and 100 lots of instrument 0, and the session open: nine commands, so
the first command written here has the sequence 10.
"""

from exchange.types import CommandKind, EventKind, Phase, Reason, Trigger
from tests.admission_scenarios import ADMISSION_SCENARIOS
from tests.auction_scenarios import AUCTION_SCENARIOS
from tests.breaker_scenarios import BREAKER_SCENARIOS
from tests.oracle_records import Event
from tests.order_scenarios import ORDER_SCENARIOS
from tests.scenario_parts import (
    BUY,
    CASH,
    IOC,
    LOTS,
    MARKET,
    SELL,
    Breaker,
    Scenario,
    accepted,
    cancel,
    cancel_rejected,
    cancelled,
    exchange,
    filled,
    halted,
    market,
    operator,
    phase,
    place,
    rejected,
    repeated,
    session,
)

MATCHING = [
    Scenario(
        "the best price first, then the oldest order",
        [
            place(1, 1, SELL, 5, 50),
            place(2, 1, SELL, 5, 50),
            place(3, 1, SELL, 5, 49),
            place(0, 1, BUY, 12, 50),
        ],
        [
            accepted(10, 1, 1, SELL, 50, 5),
            accepted(11, 2, 1, SELL, 50, 5),
            accepted(12, 3, 1, SELL, 49, 5),
            accepted(13, 0, 1, BUY, 50, 12),
            filled(13, (0, 1, BUY), 49, 5, 7, (3, 1), 0),
            filled(13, (0, 1, BUY), 50, 5, 2, (1, 1), 0),
            filled(13, (0, 1, BUY), 50, 2, 0, (2, 1), 3),
        ],
    ),
    Scenario(
        "a remainder rests at its own limit and is met there",
        [
            place(1, 1, SELL, 3, 50),
            place(0, 1, BUY, 5, 52),
            place(2, 1, SELL, 4, 40),
            place(3, 1, BUY, 1, 40, IOC),
        ],
        [
            accepted(10, 1, 1, SELL, 50, 3),
            accepted(11, 0, 1, BUY, 52, 5),
            filled(11, (0, 1, BUY), 50, 3, 2, (1, 1), 0),
            accepted(12, 2, 1, SELL, 40, 4),
            filled(12, (2, 1, SELL), 52, 2, 2, (0, 1), 0),
            accepted(13, 3, 1, BUY, 40, 1),
            filled(13, (3, 1, BUY), 40, 1, 0, (2, 1), 1),
        ],
    ),
    Scenario(
        "what an IOC order does not find is cancelled",
        [place(1, 1, SELL, 3, 50), place(0, 1, BUY, 5, 50, IOC), place(0, 2, BUY, 1, 50, IOC)],
        [
            accepted(10, 1, 1, SELL, 50, 3),
            accepted(11, 0, 1, BUY, 50, 5),
            filled(11, (0, 1, BUY), 50, 3, 2, (1, 1), 0),
            cancelled(11, (0, 1, BUY), 50, 2, Reason.IOC_REMAINDER),
            accepted(12, 0, 2, BUY, 50, 1),
            cancelled(12, (0, 2, BUY), 50, 1, Reason.IOC_REMAINDER),
        ],
    ),
    Scenario(
        "a market order takes every price there is",
        [place(1, 1, BUY, 3, 50), place(2, 1, BUY, 1, 1), place(0, 1, SELL, 5, order_type=MARKET)],
        [
            accepted(10, 1, 1, BUY, 50, 3),
            accepted(11, 2, 1, BUY, 1, 1),
            accepted(12, 0, 1, SELL, 0, 5),
            filled(12, (0, 1, SELL), 50, 3, 2, (1, 1), 0),
            filled(12, (0, 1, SELL), 1, 1, 1, (2, 1), 0),
            cancelled(12, (0, 1, SELL), 0, 1, Reason.NO_LIQUIDITY),
        ],
    ),
    Scenario(
        # Its own ask gives the cash back with each fill: without a stop, 100 lots would be filled 78 by 22, and with
        # less cash lot by lot, in one command.
        "a market order that its cash cut short stops, also against its own ask",
        [
            place(0, 1, SELL, 100, 127),
            place(0, 2, BUY, 100, order_type=MARKET),
        ],
        [
            accepted(10, 0, 1, SELL, 127, 100),
            accepted(11, 0, 2, BUY, 0, 100),
            filled(11, (0, 2, BUY), 127, 78, 22, (0, 1), 22),
            cancelled(11, (0, 2, BUY), 0, 22, Reason.CASH_EXHAUSTED),
        ],
    ),
    Scenario(
        # 50 lots at 100 take 5 000; the other 5 000 pay for 39 lots at 127 (4 953), and 47 are left.
        "a market order buys what its account can pay",
        [
            place(1, 1, SELL, 50, 100),
            place(2, 1, SELL, 50, 127),
            place(0, 1, BUY, 100, order_type=MARKET),
            place(0, 2, BUY, 1, order_type=MARKET),
            place(0, 3, BUY, 1, 48),
            place(0, 4, BUY, 1, 47),
            place(0, 5, BUY, 1, order_type=MARKET),
        ],
        [
            accepted(10, 1, 1, SELL, 100, 50),
            accepted(11, 2, 1, SELL, 127, 50),
            accepted(12, 0, 1, BUY, 0, 100),
            filled(12, (0, 1, BUY), 100, 50, 50, (1, 1), 0),
            filled(12, (0, 1, BUY), 127, 39, 11, (2, 1), 11),
            cancelled(12, (0, 1, BUY), 0, 11, Reason.CASH_EXHAUSTED),
            accepted(13, 0, 2, BUY, 0, 1),
            cancelled(13, (0, 2, BUY), 0, 1, Reason.CASH_EXHAUSTED),
            rejected(14, 0, 3, BUY, 48, 1, Reason.INSUFFICIENT_CASH),
            accepted(15, 0, 4, BUY, 47, 1),
            rejected(16, 0, 5, BUY, 0, 1, Reason.INSUFFICIENT_CASH),
        ],
    ),
    Scenario(
        "an order that meets one of its own account trades with it",
        [place(0, 1, SELL, 100, 50), place(0, 2, BUY, 60, 51), place(0, 3, SELL, 61, 50)],
        [
            accepted(10, 0, 1, SELL, 50, 100),
            accepted(11, 0, 2, BUY, 51, 60),
            filled(11, (0, 2, BUY), 50, 60, 0, (0, 1), 40),
            rejected(12, 0, 3, SELL, 50, 61, Reason.INSUFFICIENT_POSITION),
        ],
    ),
    Scenario(
        "a partial cancel keeps the order's place in the queue",
        [
            place(1, 1, BUY, 5, 50),
            place(2, 1, BUY, 5, 50),
            cancel(1, 1, 2),
            place(3, 1, SELL, 4, 50),
            cancel(2, 1, 100),
            cancel(2, 1, 4),
            cancel(3, 1),
        ],
        [
            accepted(10, 1, 1, BUY, 50, 5),
            accepted(11, 2, 1, BUY, 50, 5),
            cancelled(12, (1, 1, BUY), 50, 2, Reason.BY_OWNER, leaves=3),
            accepted(13, 3, 1, SELL, 50, 4),
            filled(13, (3, 1, SELL), 50, 3, 1, (1, 1), 0),
            filled(13, (3, 1, SELL), 50, 1, 0, (2, 1), 4),
            cancelled(14, (2, 1, BUY), 50, 4, Reason.BY_OWNER),
            cancel_rejected(15, 2, 1, 4, Reason.UNKNOWN_ORDER),
            cancel_rejected(16, 3, 1, 0, Reason.UNKNOWN_ORDER),
        ],
    ),
]

_PRICE_MOVE = exchange(market(breaker=Breaker(price_move_bps=1_000, price_window_ns=100)))
"""10 % within 100 ns."""
# 50 is in force from 0 to 60, then 52. 10 lots at 55 wait for whoever buys next: 10 % above 50, less above 52.
_FIFTY_THEN_52 = [
    place(1, 1, SELL, 1, 50),
    place(0, 1, BUY, 1, 50),
    place(1, 2, SELL, 1, 52, at=60),
    place(0, 2, BUY, 1, 52, at=60),
    place(1, 3, SELL, 10, 55, at=60),
]
_FIFTY_THEN_52_EVENTS = [
    accepted(10, 1, 1, SELL, 50, 1),
    accepted(11, 0, 1, BUY, 50, 1),
    filled(11, (0, 1, BUY), 50, 1, 0, (1, 1), 0),
    accepted(12, 1, 2, SELL, 52, 1, at=60),
    accepted(13, 0, 2, BUY, 52, 1, at=60),
    filled(13, (0, 2, BUY), 52, 1, 0, (1, 2), 0, at=60),
    accepted(14, 1, 3, SELL, 55, 10, at=60),
]
_SELL_VOLUME = exchange(market(breaker=Breaker(sell_volume_lots=10, sell_window_ns=100)))
_SIX_SOLD = [place(0, 1, BUY, 50, 50), place(1, 1, SELL, 6, 50)]
_SIX_SOLD_EVENTS = [
    accepted(10, 0, 1, BUY, 50, 50),
    accepted(11, 1, 1, SELL, 50, 6),
    filled(11, (1, 1, SELL), 50, 6, 0, (0, 1), 44),
]

BREAKERS = [
    Scenario(
        "a price superseded 1 ns inside the window still counts, and a halt stays",
        [
            *_FIFTY_THEN_52,
            place(0, 3, BUY, 3, order_type=MARKET, at=159),
            place(2, 1, BUY, 1, 10, at=159),
            cancel(1, 3, at=159),
            place(2, 2, BUY, 0, 10, IOC, at=9_999),
            operator(CommandKind.CLOSE_SESSION, at=9_999),
        ],
        [
            *_FIFTY_THEN_52_EVENTS,
            accepted(15, 0, 3, BUY, 0, 3, at=159),
            halted(15, (0, 3, BUY), 55, 3, 3, Trigger.PRICE_MOVE, 1_000, 1_000, 100, 11, at=159),
            phase(15, Phase.HALTED, at=159),
            cancelled(15, (0, 3, BUY), 0, 3, Reason.BREAKER, at=159),
            rejected(16, 2, 1, BUY, 10, 1, Reason.HALTED, at=159),
            cancel_rejected(17, 1, 3, 0, Reason.HALTED, at=159),
            rejected(18, 2, 2, BUY, 10, 0, Reason.HALTED, at=9_999),
            cancelled(19, (1, 3, SELL), 55, 10, Reason.SESSION_CLOSED, at=9_999),
            phase(19, Phase.CLOSED, at=9_999),
            session(19, EventKind.SESSION_CLOSED, at=9_999),
        ],
        _PRICE_MOVE,
    ),
    Scenario(
        # At 160 the window begins after 60, when 50 ceased to be in force. Then 49 is 6 under 55, or 1 090 bps.
        "a price superseded exactly one window ago no longer counts",
        [
            *_FIFTY_THEN_52,
            place(0, 3, BUY, 3, order_type=MARKET, at=160),
            place(2, 1, BUY, 2, 49, at=160),
            place(3, 1, SELL, 5, 49, at=160),
        ],
        [
            *_FIFTY_THEN_52_EVENTS,
            accepted(15, 0, 3, BUY, 0, 3, at=160),
            filled(15, (0, 3, BUY), 55, 3, 0, (1, 3), 7, at=160),
            accepted(16, 2, 1, BUY, 49, 2, at=160),
            accepted(17, 3, 1, SELL, 49, 5, at=160),
            halted(17, (3, 1, SELL), 49, 2, 5, Trigger.PRICE_MOVE, 1_090, 1_000, 100, 15, at=160),
            phase(17, Phase.HALTED, at=160),
            cancelled(17, (3, 1, SELL), 49, 5, Reason.BREAKER, at=160),
        ],
        _PRICE_MOVE,
    ),
    Scenario(
        "the last price is in force however old it is",
        [
            place(1, 1, SELL, 1, 50),
            place(0, 1, BUY, 1, 50),
            place(2, 1, BUY, 1, 45, at=10**9),
            place(1, 2, SELL, 1, 45, IOC, at=10**9),
        ],
        [
            accepted(10, 1, 1, SELL, 50, 1),
            accepted(11, 0, 1, BUY, 50, 1),
            filled(11, (0, 1, BUY), 50, 1, 0, (1, 1), 0),
            accepted(12, 2, 1, BUY, 45, 1, at=10**9),
            accepted(13, 1, 2, SELL, 45, 1, at=10**9),
            halted(13, (1, 2, SELL), 45, 1, 1, Trigger.PRICE_MOVE, 1_000, 1_000, 100, 11, at=10**9),
            phase(13, Phase.HALTED, at=10**9),
            cancelled(13, (1, 2, SELL), 45, 1, Reason.BREAKER, at=10**9),
        ],
        _PRICE_MOVE,
    ),
    Scenario(
        "a sale 1 ns inside the window still counts",
        [*_SIX_SOLD, place(1, 2, SELL, 9, 50, at=99)],
        [
            *_SIX_SOLD_EVENTS,
            accepted(12, 1, 2, SELL, 50, 9, at=99),
            halted(12, (1, 2, SELL), 50, 9, 9, Trigger.SELL_VOLUME, 15, 10, 100, 11, at=99),
            phase(12, Phase.HALTED, at=99),
            cancelled(12, (1, 2, SELL), 50, 9, Reason.BREAKER, at=99),
        ],
        _SELL_VOLUME,
    ),
    Scenario(
        "a sale exactly one window ago no longer counts, nor does what a buyer took",
        [
            *_SIX_SOLD,
            place(1, 2, SELL, 9, 50, at=100),
            place(2, 1, SELL, 5, 51, at=100),
            place(3, 1, BUY, 5, 51, at=100),
            place(1, 3, SELL, 1, 50, at=100),
        ],
        [
            *_SIX_SOLD_EVENTS,
            accepted(12, 1, 2, SELL, 50, 9, at=100),
            filled(12, (1, 2, SELL), 50, 9, 0, (0, 1), 35, at=100),
            accepted(13, 2, 1, SELL, 51, 5, at=100),
            accepted(14, 3, 1, BUY, 51, 5, at=100),
            filled(14, (3, 1, BUY), 51, 5, 0, (2, 1), 0, at=100),
            accepted(15, 1, 3, SELL, 50, 1, at=100),
            halted(15, (1, 3, SELL), 50, 1, 1, Trigger.SELL_VOLUME, 10, 10, 100, 12, at=100),
            phase(15, Phase.HALTED, at=100),
            cancelled(15, (1, 3, SELL), 50, 1, Reason.BREAKER, at=100),
        ],
        _SELL_VOLUME,
    ),
    Scenario(
        "fills before the match that trips the breaker stand",
        [place(0, 1, BUY, 4, 50), place(2, 1, BUY, 6, 49), place(1, 1, SELL, 12, 40)],
        [
            accepted(10, 0, 1, BUY, 50, 4),
            accepted(11, 2, 1, BUY, 49, 6),
            accepted(12, 1, 1, SELL, 40, 12),
            filled(12, (1, 1, SELL), 50, 4, 8, (0, 1), 0),
            halted(12, (1, 1, SELL), 49, 6, 8, Trigger.SELL_VOLUME, 10, 10, 100, 12),
            phase(12, Phase.HALTED),
            cancelled(12, (1, 1, SELL), 40, 8, Reason.BREAKER),
        ],
        _SELL_VOLUME,
    ),
    Scenario(
        "the price is asked about before the volume",
        [place(0, 1, BUY, 1, 50), place(2, 1, BUY, 9, 40), place(1, 1, SELL, 10, order_type=MARKET)],
        [
            accepted(10, 0, 1, BUY, 50, 1),
            accepted(11, 2, 1, BUY, 40, 9),
            accepted(12, 1, 1, SELL, 0, 10),
            filled(12, (1, 1, SELL), 50, 1, 9, (0, 1), 0),
            halted(12, (1, 1, SELL), 40, 9, 9, Trigger.PRICE_MOVE, 2_000, 1_000, 100, 12),
            phase(12, Phase.HALTED),
            cancelled(12, (1, 1, SELL), 0, 9, Reason.BREAKER),
        ],
        exchange(
            market(breaker=Breaker(price_move_bps=1_000, price_window_ns=100, sell_volume_lots=10, sell_window_ns=100))
        ),
    ),
]

_UNKNOWN = Event(0, EventKind.ORDER_REJECTED, 0)

SESSIONS = [
    Scenario(
        "the close cancels by instrument, bids then asks, best to worst, oldest first",
        [
            place(0, 1, BUY, 1, 7, instrument=1),
            place(0, 2, BUY, 2, 50),
            place(1, 1, BUY, 3, 51),
            place(2, 1, BUY, 4, 51),
            place(0, 3, SELL, 5, 60),
            place(1, 2, SELL, 6, 59),
            operator(CommandKind.CLOSE_SESSION),
            place(3, 1, BUY, 1, 50),
            operator(CommandKind.OPEN_SESSION),
            cancel(0, 2),
        ],
        [
            accepted(10, 0, 1, BUY, 7, 1, instrument=1),
            accepted(11, 0, 2, BUY, 50, 2),
            accepted(12, 1, 1, BUY, 51, 3),
            accepted(13, 2, 1, BUY, 51, 4),
            accepted(14, 0, 3, SELL, 60, 5),
            accepted(15, 1, 2, SELL, 59, 6),
            cancelled(16, (1, 1, BUY), 51, 3, Reason.SESSION_CLOSED),
            cancelled(16, (2, 1, BUY), 51, 4, Reason.SESSION_CLOSED),
            cancelled(16, (0, 2, BUY), 50, 2, Reason.SESSION_CLOSED),
            cancelled(16, (1, 2, SELL), 59, 6, Reason.SESSION_CLOSED),
            cancelled(16, (0, 3, SELL), 60, 5, Reason.SESSION_CLOSED),
            phase(16, Phase.CLOSED),
            cancelled(16, (0, 1, BUY), 7, 1, Reason.SESSION_CLOSED, instrument=1),
            phase(16, Phase.CLOSED, instrument=1),
            session(16, EventKind.SESSION_CLOSED),
            rejected(17, 3, 1, BUY, 50, 1, Reason.CLOSED),
            session(18, EventKind.SESSION_OPENED),
            cancel_rejected(19, 0, 2, 0, Reason.CLOSED),
        ],
        exchange(market(), market()),
    ),
    Scenario(
        "the first check that fails is the one reported",
        [
            place(4, 0, 2, 0, instrument=9),
            place(0, 0, 2, 0, instrument=9),
            place(0, 5, 2, 0, instrument=9),
            place(0, 5, BUY, 1, 50),
            place(0, 6, 2, 0, 128, 3),
            place(0, 7, SELL, 0, 128, 5),
            place(0, 8, SELL, 101, 128),
            place(0, 9, SELL, 100, 128),
            place(0, 10, SELL, 100, 1, MARKET),
            place(0, 2**62 - 1, SELL, 100, 127),
            place(0, 2**62, SELL, 1, 127),
            place(1, 1, BUY, 100, 100),
            place(1, 2, BUY, 100, 101),
        ],
        [
            rejected(10, 4, 0, 2, 0, 0, Reason.UNKNOWN_ACCOUNT, instrument=9),
            rejected(11, 0, 0, 2, 0, 0, Reason.ORDER_ID_NOT_INCREASING, instrument=9),
            rejected(12, 0, 5, 2, 0, 0, Reason.UNKNOWN_INSTRUMENT, instrument=9),
            repeated(13, 0, 5, 0, 0, 12, Reason.UNKNOWN_INSTRUMENT),
            rejected(14, 0, 6, 2, 128, 0, Reason.INVALID_SIDE),
            rejected(15, 0, 7, SELL, 128, 0, Reason.INVALID_ORDER_TYPE),
            rejected(16, 0, 8, SELL, 128, 101, Reason.QUANTITY_OUT_OF_RANGE),
            rejected(17, 0, 9, SELL, 128, 100, Reason.PRICE_OUT_OF_RANGE),
            rejected(18, 0, 10, SELL, 1, 100, Reason.PRICE_OUT_OF_RANGE),
            accepted(19, 0, 2**62 - 1, SELL, 127, 100),
            rejected(20, 0, 2**62, SELL, 127, 1, Reason.ORDER_ID_NOT_INCREASING),
            rejected(21, 1, 1, BUY, 100, 100, Reason.BOOK_FULL),
            rejected(22, 1, 2, BUY, 101, 100, Reason.INSUFFICIENT_CASH),
        ],
        exchange(max_orders=1),
    ),
    Scenario(
        "the operator's commands and their limits",
        [
            operator(CommandKind.DEPOSIT_CASH, 4, quantity_lots=0),
            operator(CommandKind.DEPOSIT_CASH, 0, quantity_lots=0),
            operator(CommandKind.DEPOSIT_CASH, 0, quantity_lots=2**60 - 4 * CASH + 1),
            operator(CommandKind.DEPOSIT_CASH, 0, quantity_lots=2**60 - 4 * CASH),
            operator(CommandKind.DEPOSIT_POSITION, 4, 1, 0),
            operator(CommandKind.DEPOSIT_POSITION, 3, 1, 0),
            operator(CommandKind.DEPOSIT_POSITION, 3, 0, 2**31 + 1),
            operator(CommandKind.DEPOSIT_POSITION, 3, 0, 2**31),
            operator(CommandKind.DEPOSIT_POSITION, 3, 0, 2**31 - LOTS),
            operator(CommandKind.DEPOSIT_POSITION, 3, 0, 1),
            operator(CommandKind.PUBLISH_SIGNAL, 0, 0, -250),
            operator(CommandKind.PUBLISH_SIGNAL, 0, 1, -250),
            operator(6, 9, 8, 7),
        ],
        [
            _UNKNOWN._replace(sequence=10, instrument=0, account=4, reason=Reason.UNKNOWN_ACCOUNT),
            _UNKNOWN._replace(sequence=11, instrument=0, reason=Reason.AMOUNT_OUT_OF_RANGE),
            _UNKNOWN._replace(
                sequence=12, instrument=0, quantity_lots=2**60 - 4 * CASH + 1, reason=Reason.AMOUNT_OUT_OF_RANGE
            ),
            Event(13, EventKind.CASH_DEPOSITED, 0, account=0, quantity_lots=2**60 - 4 * CASH),
            _UNKNOWN._replace(sequence=14, instrument=1, account=4, reason=Reason.UNKNOWN_ACCOUNT),
            _UNKNOWN._replace(sequence=15, instrument=1, account=3, reason=Reason.UNKNOWN_INSTRUMENT),
            _UNKNOWN._replace(
                sequence=16, instrument=0, account=3, quantity_lots=2**31 + 1, reason=Reason.AMOUNT_OUT_OF_RANGE
            ),
            Event(17, EventKind.POSITION_DEPOSITED, 0, 0, 3, quantity_lots=2**31),
            Event(18, EventKind.POSITION_DEPOSITED, 0, 0, 3, quantity_lots=2**31 - LOTS),
            _UNKNOWN._replace(sequence=19, instrument=0, account=3, quantity_lots=1, reason=Reason.AMOUNT_OUT_OF_RANGE),
            Event(20, EventKind.SIGNAL_PUBLISHED, 0, 0, -1, value=-250),
            _UNKNOWN._replace(sequence=21, instrument=1, quantity_lots=-250, reason=Reason.UNKNOWN_INSTRUMENT),
            _UNKNOWN._replace(sequence=22, instrument=8, account=9, quantity_lots=7, reason=Reason.UNKNOWN_COMMAND),
        ],
    ),
]

SCENARIOS = [
    *MATCHING,
    *BREAKERS,
    *SESSIONS,
    *ORDER_SCENARIOS,
    *AUCTION_SCENARIOS,
    *BREAKER_SCENARIOS,
    *ADMISSION_SCENARIOS,
]
