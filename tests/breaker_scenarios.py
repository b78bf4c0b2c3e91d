"""Scenarios of the breaker's further rules (docs/breaker.md), worked out by hand. See `tests.scenarios`."""

from exchange.config import MarketBreakerConfig
from exchange.types import BreakerAction, CommandKind, EventKind, Phase, Reason, Trigger
from tests.oracle_records import Event
from tests.scenario_parts import (
    BUY,
    IOC,
    MS,
    SELL,
    Breaker,
    Scenario,
    accepted,
    auction_ended,
    cancelled,
    crossed,
    exchange,
    filled,
    halted,
    log_on,
    market,
    operator,
    phase,
    place,
    rejected,
    timer,
)

BREAKER_SCENARIOS = [
    Scenario(
        # 10 lots cross at the opening. Then 1 is sold: of takers' lots all, but less than the 5 that must be there
        # before it counts. Had the auction's 10 been bought by a taker, 9 of 11 would be 8,181 bps.
        "what a call auction trades is nobody's imbalance",
        [
            place(0, 1, BUY, 10, 50),
            place(1, 1, SELL, 10, 50),
            timer(10),
            place(0, 2, BUY, 5, 50, at=10),
            place(1, 2, SELL, 1, 50, at=10),
            place(1, 3, SELL, 4, 50, at=10),
        ],
        [
            accepted(10, 0, 1, BUY, 50, 10),
            accepted(11, 1, 1, SELL, 50, 10),
            auction_ended(12, 50, 10, 0, 50, at=10),
            crossed(12, (0, 1), 50, 10, 0, (1, 1), 0, at=10),
            phase(12, Phase.CONTINUOUS, at=10),
            accepted(13, 0, 2, BUY, 50, 5, at=10),
            accepted(14, 1, 2, SELL, 50, 1, at=10),
            filled(14, (1, 2, SELL), 50, 1, 0, (0, 2), 4, at=10),
            accepted(15, 1, 3, SELL, 50, 4, at=10),
            halted(15, (1, 3, SELL), 50, 4, 4, Trigger.IMBALANCE, 10_000, 5_000, 100, 14, at=10),
            phase(15, Phase.HALTED, at=10),
            cancelled(15, (1, 3, SELL), 50, 4, Reason.BREAKER, at=10),
        ],
        exchange(
            market(
                opening_auction_ns=10,
                breaker=Breaker(imbalance_bps=5_000, imbalance_lots=5, imbalance_window_ns=100),
            )
        ),
    ),
    Scenario(
        # 60 is 2,000 bps above 50. Nobody took, so nobody is killed, and the action is a halt.
        "a batch that trips has no participant to kill",
        [
            place(0, 1, BUY, 1, 50),
            place(1, 1, SELL, 1, 50),
            timer(MS),
            place(0, 2, BUY, 2, 60, at=MS),
            place(1, 2, SELL, 3, 60, at=MS),
            timer(2 * MS),
        ],
        [
            accepted(10, 0, 1, BUY, 50, 1),
            accepted(11, 1, 1, SELL, 50, 1),
            auction_ended(12, 50, 1, 0, 50, at=MS),
            crossed(12, (0, 1), 50, 1, 0, (1, 1), 0, at=MS),
            accepted(13, 0, 2, BUY, 60, 2, at=MS),
            accepted(14, 1, 2, SELL, 60, 3, at=MS),
            halted(15, (-1, 0, 0), 60, 2, 0, Trigger.PRICE_MOVE, 2_000, 1_000, 10 * MS, 12, at=2 * MS),
            phase(15, Phase.HALTED, at=2 * MS),
        ],
        exchange(
            market(
                batch_interval_ns=MS,
                breaker=Breaker(price_move_bps=1_000, price_window_ns=10 * MS, action="kill_participant"),
            )
        ),
    ),
    Scenario(
        # 50, 52, 50: both falls and rises of 4 ticks are measured from the latest 50 that is in force, sequence 15.
        "a price move's evidence is the latest fill at the price that it is measured from",
        [
            place(1, 1, SELL, 1, 50),
            place(0, 1, BUY, 1, 50),
            place(1, 2, SELL, 1, 49),
            place(0, 2, BUY, 1, 49),
            place(1, 3, SELL, 1, 50),
            place(0, 3, BUY, 1, 50),
            place(0, 4, BUY, 1, 45),
            place(1, 4, SELL, 1, 45),
        ],
        [
            accepted(10, 1, 1, SELL, 50, 1),
            accepted(11, 0, 1, BUY, 50, 1),
            filled(11, (0, 1, BUY), 50, 1, 0, (1, 1), 0),
            accepted(12, 1, 2, SELL, 49, 1),
            accepted(13, 0, 2, BUY, 49, 1),
            filled(13, (0, 2, BUY), 49, 1, 0, (1, 2), 0),
            accepted(14, 1, 3, SELL, 50, 1),
            accepted(15, 0, 3, BUY, 50, 1),
            filled(15, (0, 3, BUY), 50, 1, 0, (1, 3), 0),
            accepted(16, 0, 4, BUY, 45, 1),
            accepted(17, 1, 4, SELL, 45, 1),
            halted(17, (1, 4, SELL), 45, 1, 1, Trigger.PRICE_MOVE, 1_000, 1_000, 100, 15),
            phase(17, Phase.HALTED),
            cancelled(17, (1, 4, SELL), 45, 1, Reason.BREAKER),
        ],
        exchange(market(breaker=Breaker(price_move_bps=1_000, price_window_ns=100))),
    ),
    Scenario(
        # The first trip kills its participant; the second halts the market beside that, since two are halted. What was
        # collected of an auction stays, the expiring order too.
        "a participant is killed, and beside that the market halts when two instruments have",
        [
            log_on(1, 0, 1),
            place(1, 1, BUY, 3, 7, instrument=2),
            place(2, 1, BUY, 1, 6, IOC, instrument=2),
            place(0, 1, BUY, 9, 50),
            place(1, 2, BUY, 1, 40),
            place(1, 3, SELL, 5, 50),
            place(1, 4, BUY, 1, 0, instrument=9),
            operator(CommandKind.LOG_ON, 1, -1, 1),
            operator(CommandKind.LOG_ON, 1, -1, 6),
            operator(CommandKind.DEPOSIT_POSITION, 2, 1, 20),
            place(0, 2, BUY, 9, 30, instrument=1),
            place(2, 2, SELL, 7, 30, instrument=1),
            operator(CommandKind.KILL, 1),
            operator(CommandKind.HALT, 0, 2, 9),
        ],
        [
            Event(10, EventKind.LOGGED_ON, 0, account=1, value=1),
            accepted(11, 1, 1, BUY, 7, 3, instrument=2),
            accepted(12, 2, 1, BUY, 6, 1, instrument=2),
            accepted(13, 0, 1, BUY, 50, 9),
            accepted(14, 1, 2, BUY, 40, 1),
            accepted(15, 1, 3, SELL, 50, 5),
            halted(
                *(15, (1, 3, SELL), 50, 5, 5, Trigger.SELL_VOLUME, 5, 5, 100, 15),
                action=BreakerAction.KILL_PARTICIPANT,
            ),
            phase(15, Phase.HALTED),
            cancelled(15, (1, 1, BUY), 7, 3, Reason.KILLED, instrument=2),
            cancelled(15, (1, 2, BUY), 40, 1, Reason.KILLED),
            Event(
                *(15, EventKind.PARTICIPANTS_KILLED, 0, -1, 1),
                quantity_lots=1,
                reason=Trigger.SELL_VOLUME,
                value=1,
                threshold=2,
            ),
            cancelled(15, (1, 3, SELL), 50, 5, Reason.BREAKER),
            rejected(16, 1, 4, BUY, 0, 1, Reason.IS_KILLED, instrument=9),
            Event(17, EventKind.ORDER_REJECTED, 0, account=1, quantity_lots=1, reason=Reason.IS_KILLED),
            Event(18, EventKind.ORDER_REJECTED, 0, account=1, quantity_lots=6, reason=Reason.MALFORMED),
            Event(19, EventKind.POSITION_DEPOSITED, 0, 1, 2, quantity_lots=20),
            accepted(20, 0, 2, BUY, 30, 9, instrument=1),
            accepted(21, 2, 2, SELL, 30, 7, instrument=1),
            halted(
                *(21, (2, 2, SELL), 30, 7, 7, Trigger.SELL_VOLUME, 7, 5, 100, 21),
                action=BreakerAction.KILL_PARTICIPANT,
            )._replace(instrument=1),
            phase(21, Phase.HALTED, instrument=1),
            Event(21, EventKind.INSTRUMENT_HALTED, 0, 2, -1, reason=Trigger.MARKET, value=1),
            phase(21, Phase.HALTED, instrument=2),
            cancelled(21, (2, 1, BUY), 6, 1, Reason.KILLED, instrument=2),
            Event(
                *(21, EventKind.PARTICIPANTS_KILLED, 0, -1, 2),
                quantity_lots=1,
                reason=Trigger.SELL_VOLUME,
                value=2,
                threshold=1,
            ),
            cancelled(21, (2, 2, SELL), 30, 7, Reason.BREAKER, instrument=1),
            Event(22, EventKind.ORDER_REJECTED, 0, 0, 1, reason=Reason.IS_KILLED),
            Event(23, EventKind.ORDER_REJECTED, 0, 2, 0, quantity_lots=9, reason=Reason.HALTED),
        ],
        exchange(
            *[market(breaker=Breaker(sell_volume_lots=5, sell_window_ns=100, action="kill_participant"))] * 2,
            market(opening_auction_ns=1_000),
            market_breaker=MarketBreakerConfig(halted_instruments=2),
        ),
    ),
]
