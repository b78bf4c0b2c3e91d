"""The rules of docs/breaker.md, each in a session worked out by hand: triggers, actions, halts, collars, refusals."""

import numpy as np
import pytest
from pydantic import ValidationError

from exchange.clock import MS
from exchange.config import BreakerConfig, EngineConfig, InstrumentConfig, MarginConfig, MarketBreakerConfig
from exchange.engine import Engine
from exchange.types import NOBODY, BreakerAction, CommandKind, EventKind, OrderType, Phase, Reason, Side, Trigger
from tests.hand_made import MARKET, command, order, records_of

BUY, SELL = Side.BUY, Side.SELL


def venue(*breakers: BreakerConfig, **settings: object) -> EngineConfig:
    instruments = tuple(InstrumentConfig(price_levels=2048, breaker=breaker) for breaker in breakers)
    return EngineConfig.model_validate(
        {"instruments": [each.model_dump() for each in instruments], "accounts": 6, "max_orders": 64, **settings}
    )


def played(config: EngineConfig, *commands: dict[str, int]) -> tuple[Engine, np.ndarray]:
    """Six accounts with a million in cash and 1,000 lots of each instrument; the session opens with sequence 6 (1 + I)
    + 1. Commands are at 10 ms and later."""
    opening = [command(CommandKind.DEPOSIT_CASH, 0, account=account, quantity_lots=10**6) for account in range(6)]
    for number in range(len(config.instruments)):
        opening += [
            command(CommandKind.DEPOSIT_POSITION, 0, account=account, instrument=number, quantity_lots=1000)
            for account in range(6)
        ]
    opening.append(command(CommandKind.OPEN_SESSION, 1))
    engine = Engine(config)
    events = engine.apply(records_of([*opening, *commands]))
    return engine, events[events["sequence"] > len(opening)]


def kinds(events: np.ndarray) -> list[EventKind]:
    return [EventKind(int(kind)) for kind in events["kind"]]


def halts(events: np.ndarray) -> np.ndarray:
    return events[events["kind"] == EventKind.INSTRUMENT_HALTED]


def quotes(instrument: int = 0, at_ms: float = 10) -> list[dict[str, int]]:
    """Account 0 bids 100 lots at each of 100, 99 and 98, and offers as much at 101, 102 and 103."""
    return [
        order(0, 6 * instrument + 1 + number, side, price, 100, at_ms, instrument=instrument)
        for number, (side, price) in enumerate(
            [(BUY, 100), (BUY, 99), (BUY, 98), (SELL, 101), (SELL, 102), (SELL, 103)]
        )
    ]


FIRST = 6 * 2 + 1 + 1
"""The sequence of the first command of a session with one instrument."""


class TestTriggers:
    def test_depth_counts_what_a_match_would_leave_within_reach_of_its_price(self):
        # Bids within 1 % of 100: 100 at 100 and 100 at 99. A sale of 50 leaves 150, of 51 would leave 149.
        breaker = BreakerConfig(depth_lots=150, depth_bps=100)
        _, events = played(venue(breaker), *quotes(), order(1, 1, SELL, 0, 50, 11, MARKET))
        assert not len(halts(events))
        _, events = played(venue(breaker), *quotes(), order(1, 1, SELL, 0, 51, 11, MARKET))
        (halt,) = halts(events)
        assert (halt["reason"], halt["value"], halt["threshold"], halt["window_ns"]) == (Trigger.DEPTH, 149, 150, 0)
        assert (halt["account"], halt["order_id"], halt["quantity_lots"]) == (1, 1, 51)
        assert halt["maker_order_id"] == halt["sequence"] == FIRST + 6
        assert not (events["kind"] == EventKind.ORDER_FILLED).any()
        last = events[-1]
        assert (last["kind"], last["reason"], last["quantity_lots"]) == (EventKind.ORDER_CANCELLED, Reason.BREAKER, 51)

    def test_depth_looks_at_the_side_that_is_taken(self):
        breaker = BreakerConfig(depth_lots=150, depth_bps=100)
        _, events = played(venue(breaker), *quotes(), order(1, 1, BUY, 101, 51, 11))
        (halt,) = halts(events)
        assert (halt["side"], halt["value"]) == (BUY, 149)  # 101 and 102 are within 101 + 1

    @pytest.mark.parametrize("first, second", [(SELL, BUY), (BUY, SELL)])
    def test_imbalance_is_of_both_sides_and_waits_for_enough(self, first, second):
        breaker = BreakerConfig(imbalance_bps=5000, imbalance_lots=40, imbalance_window_ns=10 * MS)
        price = {SELL: 100, BUY: 101}
        calm = [
            *quotes(),
            order(1, 1, first, price[first], 30, 11),  # all on one side, but only 30
            order(2, 1, second, price[second], 10, 12),  # 30 : 10 is 5,000 bps of 40
        ]
        _, events = played(venue(breaker), *calm)
        (halt,) = halts(events)
        assert (halt["reason"], halt["value"], halt["sequence"]) == (Trigger.IMBALANCE, 5000, FIRST + 7)
        assert halt["maker_order_id"] == FIRST + 6  # the oldest of the heavier side
        calm[-1] = order(2, 1, second, price[second], 11, 12)
        assert not len(halts(played(venue(breaker), *calm)[1]))
        # 10 ms after them the 30 are out of the window.
        calm[-1] = order(2, 1, second, price[second], 35, 21)
        assert not len(halts(played(venue(breaker), *calm)[1]))

    def test_the_evidence_begins_with_the_window(self):
        breaker = BreakerConfig(sell_volume_lots=30, sell_window_ns=10 * MS)
        sales = [order(1, number, SELL, 98, 10, at_ms) for number, at_ms in ((1, 11), (2, 21), (3, 22), (4, 23))]
        _, events = played(venue(breaker), *quotes(), *sales)
        (halt,) = halts(events)
        assert (halt["sequence"], halt["maker_order_id"], halt["value"]) == (FIRST + 9, FIRST + 7, 30)

    def test_a_price_move_s_evidence_is_the_extreme_that_it_is_measured_from(self):
        breaker = BreakerConfig(price_move_bps=200, price_window_ns=100 * MS)
        _, events = played(
            venue(breaker),
            *quotes(),
            order(1, 1, BUY, 101, 5, 11),
            order(1, 2, SELL, 100, 5, 12),
            order(2, 1, SELL, 0, 250, 13, MARKET),
        )
        (halt,) = halts(events)  # 101 → 99 is 198 bps, 101 → 98 is 297
        assert (halt["price_ticks"], halt["value"], halt["maker_order_id"]) == (98, 297, FIRST + 6)


class TestActions:
    def test_the_whole_market_halts_with_the_first(self):
        trips = BreakerConfig(sell_volume_lots=10, sell_window_ns=MS, action="halt_market")
        engine, events = played(
            venue(trips, BreakerConfig()),
            *quotes(),
            *quotes(1),
            order(1, 1, SELL, 100, 10, 11),
            order(2, 1, BUY, 101, 5, 12),
        )
        first, second = halts(events)
        assert (first["instrument"], first["reason"]) == (0, Trigger.SELL_VOLUME)
        assert first["maker_leaves_lots"] == BreakerAction.HALT_MARKET
        assert (second["instrument"], second["reason"], second["value"]) == (1, Trigger.MARKET, 0)
        assert first["sequence"] == second["sequence"]
        assert (engine.state.instruments["phase"] == Phase.HALTED).all()
        assert (events[-1]["kind"], events[-1]["reason"]) == (EventKind.ORDER_REJECTED, Reason.HALTED)

    def test_the_market_s_breaker_counts_halted_instruments(self):
        own = BreakerConfig(sell_volume_lots=10, sell_window_ns=MS)
        config = venue(own, own, BreakerConfig(), market_breaker=MarketBreakerConfig(halted_instruments=2).model_dump())
        sales = [order(1, 1, SELL, 100, 10, 11), order(1, 2, SELL, 100, 10, 12, instrument=1)]
        _, events = played(config, *quotes(), *quotes(1), *quotes(2), *sales)
        assert [(int(halt["instrument"]), int(halt["reason"])) for halt in halts(events)] == [
            (0, Trigger.SELL_VOLUME),
            (1, Trigger.SELL_VOLUME),
            (2, Trigger.MARKET),
        ]
        assert [int(halt["maker_leaves_lots"]) for halt in halts(events)[:2]] == [0, BreakerAction.HALT_MARKET]

    def test_a_kill_cancels_all_that_rests_and_lets_nobody_do_anything_more(self):
        trips = BreakerConfig(sell_volume_lots=10, sell_window_ns=MS, action="kill_all")
        engine, events = played(
            venue(trips),
            command(CommandKind.LOG_ON, 9, account=0),
            *quotes(),
            order(1, 1, BUY, 90, 7, 10),
            order(1, 2, SELL, 100, 10, 11),
            order(2, 1, BUY, 101, 5, 12),
            command(CommandKind.LOG_ON, 12, account=2),
            command(CommandKind.REDEEM, 12, account=2, quantity_lots=1),
        )
        killed = events[events["kind"] == EventKind.PARTICIPANTS_KILLED]
        assert len(killed) == 1 and killed[0]["account"] == killed[0]["value"] == NOBODY
        assert (killed[0]["quantity_lots"], killed[0]["threshold"], killed[0]["reason"]) == (6, 7, Trigger.SELL_VOLUME)
        taken_off = events[(events["kind"] == EventKind.ORDER_CANCELLED) & (events["reason"] == Reason.KILLED)]
        assert len(taken_off) == 7 and engine.state.counters["resting_orders"][0] == 0
        assert (engine.state.accounts["killed"][:6] == 1).all() and not engine.state.accounts["logged_on"].any()
        assert not engine.state.accounts["reserved_cash"].any() and not engine.state.positions["reserved_lots"].any()
        assert [int(reason) for reason in events["reason"][-3:]] == [Reason.IS_KILLED] * 3
        assert not (events["kind"] == EventKind.ORDER_FILLED).any()

    def test_only_the_participant_whose_match_it_was(self):
        trips = BreakerConfig(
            sell_volume_lots=10, sell_window_ns=MS, action="kill_participant", halt_ns=MS, reopening_auction_ns=MS
        )
        engine, events = played(
            venue(trips),
            *quotes(),
            order(1, 1, BUY, 90, 7, 10),
            order(1, 2, SELL, 100, 10, 11),
            command(CommandKind.TIMER, 12, account=NOBODY),
            command(CommandKind.TIMER, 13, account=NOBODY),
            order(1, 3, SELL, 100, 1, 14),
            order(2, 1, SELL, 100, 1, 14),
        )
        killed = events[events["kind"] == EventKind.PARTICIPANTS_KILLED]
        assert [tuple(map(int, (each["account"], each["quantity_lots"], each["threshold"]))) for each in killed] == [
            (1, 1, 1)
        ]
        assert engine.state.accounts["killed"].tolist() == [0, 1, 0, 0, 0, 0]
        assert events[events["account"] == 1][-1]["reason"] == Reason.IS_KILLED
        assert events[-1]["kind"] == EventKind.ORDER_FILLED


class TestSupervisor:
    def test_it_halts_one_or_all_and_what_it_saw_is_the_evidence(self):
        config = venue(BreakerConfig(), BreakerConfig(halt_ns=5 * MS, reopening_auction_ns=MS))
        engine, events = played(
            config,
            command(CommandKind.HALT, 11, instrument=1, quantity_lots=7),
            command(CommandKind.HALT, 12, instrument=1, quantity_lots=8),
            command(CommandKind.HALT, 13, instrument=NOBODY, quantity_lots=9),
        )
        first, second = halts(events)
        assert (first["instrument"], first["reason"], first["maker_order_id"]) == (1, Trigger.SUPERVISOR, 7)
        assert (second["instrument"], second["maker_order_id"]) == (0, 9)
        refused = events[events["kind"] == EventKind.ORDER_REJECTED]
        assert refused["reason"].tolist() == [Reason.HALTED]
        assert engine.state.instruments["timer_ns"][1] == 16 * MS  # its own halt_ns

    def test_it_kills_one_or_all_once(self):
        _, events = played(
            venue(BreakerConfig()),
            *quotes(),
            command(CommandKind.KILL, 11, account=0, quantity_lots=5),
            command(CommandKind.KILL, 12, account=0),
            command(CommandKind.KILL, 13, account=NOBODY),
            command(CommandKind.KILL, 14, account=6),
        )
        killed = events[events["kind"] == EventKind.PARTICIPANTS_KILLED]
        assert [(int(each["account"]), int(each["quantity_lots"]), int(each["threshold"])) for each in killed] == [
            (0, 1, 6),
            (NOBODY, 5, 0),
        ]
        assert (killed["reason"] == Trigger.SUPERVISOR).all()
        refused = events[events["kind"] == EventKind.ORDER_REJECTED]
        assert refused["reason"].tolist() == [Reason.IS_KILLED, Reason.UNKNOWN_ACCOUNT]


class TestHaltAndReopening:
    BREAKER = BreakerConfig(
        sell_volume_lots=10,
        sell_window_ns=MS,
        halt_ns=10 * MS,
        reopening_auction_ns=5 * MS,
        risk_reducing_while_halted=True,
        collar_bps=500,
        collar_widening_bps=500,
        collar_extensions=2,
    )

    def test_only_what_reduces_a_position_is_taken(self):
        engine, events = played(
            venue(self.BREAKER),
            *quotes(),
            order(1, 1, SELL, 100, 9, 11),
            order(1, 2, SELL, 100, 9, 11),
            order(2, 1, SELL, 95, 1000, 12),  # all that it has
            order(2, 2, SELL, 95, 1, 12),  # one more than that
            order(3, 1, BUY, 95, 1, 12),  # it is not short
            order(4, 1, SELL, 95, 5, 12, OrderType.IOC),
            command(CommandKind.CANCEL_ORDER, 12, account=0, target_order_id=1),
        )
        after = events[events["time_ns"] == 12 * MS]
        assert kinds(after) == [
            EventKind.ORDER_ACCEPTED,
            EventKind.ORDER_REJECTED,
            EventKind.ORDER_REJECTED,
            EventKind.ORDER_REJECTED,
            EventKind.ORDER_CANCELLED,
        ]
        assert after["reason"].tolist() == [0, *[Reason.NOT_RISK_REDUCING] * 3, Reason.BY_OWNER]
        assert engine.resting(0)[:, 1].tolist()[:2] == [2, 3]  # collected, not matched, though it crosses

    def test_the_collar_widens_until_the_auction_may_clear(self):
        # The last price is 100. A bid and an offer meet at 88: 1,200 bps away, beyond 500 and 1,000, after two
        # extensions it clears anyway.
        withdrawn = [command(CommandKind.CANCEL_ORDER, 12, account=0, target_order_id=number) for number in range(1, 7)]
        _, events = played(
            venue(self.BREAKER),
            *quotes(),
            order(1, 1, SELL, 100, 9, 11),
            order(1, 2, SELL, 100, 9, 11),
            *withdrawn,
            command(CommandKind.TIMER, 21, account=NOBODY),
            order(2, 1, BUY, 88, 4, 22),
            order(3, 1, SELL, 88, 4, 22),
            command(CommandKind.TIMER, 26, account=NOBODY),
            command(CommandKind.TIMER, 31, account=NOBODY),
            command(CommandKind.TIMER, 36, account=NOBODY),
        )
        extended = events[events["kind"] == EventKind.AUCTION_EXTENDED]
        assert [(int(each["price_ticks"]), int(each["value"]), int(each["threshold"])) for each in extended] == [
            (88, 1000, 100),
            (88, 1500, 100),
        ]
        later = events[events["time_ns"] >= 26 * MS]
        assert kinds(later) == [
            *[EventKind.AUCTION_EXTENDED, EventKind.PHASE_CHANGED] * 2,
            EventKind.AUCTION_ENDED,
            EventKind.ORDER_FILLED,
            EventKind.PHASE_CHANGED,
        ]
        assert later["price_ticks"][-2] == 88 and later["threshold"][1] == 31 * MS

    def test_thresholds_are_told_beforehand_only_where_that_is_set(self):
        silent = BreakerConfig(price_move_bps=300, price_window_ns=MS, depth_lots=5, depth_bps=10)
        public = silent.model_copy(update={"publish_thresholds": True})
        config = venue(silent, public)
        events = Engine(config).apply(records_of([command(CommandKind.OPEN_SESSION, 1)]))
        told = events[events["kind"] == EventKind.THRESHOLD_PUBLISHED]
        assert [
            tuple(map(int, (each["instrument"], each["reason"], each["threshold"], each["window_ns"]))) for each in told
        ] == [
            (1, Trigger.PRICE_MOVE, 300, MS),
            (1, Trigger.DEPTH, 5, 0),
        ]


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"breaker": {"liquidations": 5, "liquidation_window_ns": MS}}, "the venue has no margin accounts"),
        ({"breaker": {"liquidations": 5}}, "give it a window"),
        ({"breaker": {"imbalance_bps": 5000}}, "give it a window"),
        ({"breaker": {"collar_bps": 500}}, "go together"),
        ({"breaker": {"depth_lots": 5}, "batch_interval_ns": MS}, "could never trip by depth_lots: in a batch"),
        ({"market_breaker": {}}, "could never trip: set one"),
        ({"market_breaker": {"halted_instruments": 2}}, "halted_instruments is 2 and there are 1"),
        ({"market_breaker": {"halted_instruments": 1}}, "0 instruments have a breaker of their own"),
        ({"market_breaker": {"liquidations": 2}}, "give the liquidation triggers a window"),
        (
            {"margin": MarginConfig().model_dump(), "breaker": {"liquidations": 65, "liquidation_window_ns": 1000}},
            "at most 64 can be taken up",
        ),
    ],
)
def test_a_breaker_that_could_never_trip_is_refused_with_the_reason(settings, said):
    instrument = {"price_levels": 64} | {
        key: settings.pop(key) for key in ("breaker", "batch_interval_ns") if key in settings
    }
    with pytest.raises(ValidationError, match=said):
        EngineConfig.model_validate({"instruments": [instrument], "accounts": 100, **settings})


def test_a_liquidation_breaker_that_can_just_trip_is_taken():
    breaker = {"liquidations": 64, "liquidation_window_ns": 1000}
    instrument = {"price_levels": 64, "breaker": breaker}
    EngineConfig.model_validate({"instruments": [instrument], "accounts": 100, "margin": MarginConfig().model_dump()})


def test_after_an_empty_reopening_trading_may_begin_anywhere():
    breaker = BreakerConfig(price_move_bps=300, price_window_ns=1000 * MS, halt_ns=MS, reopening_auction_ns=MS)
    engine, events = played(
        venue(breaker),
        order(0, 1, BUY, 1000, 1, 10),
        order(1, 1, SELL, 1000, 1, 10),
        order(0, 2, BUY, 500, 10, 10),
        order(1, 2, SELL, 500, 5, 11),
        command(CommandKind.TIMER, 12, account=NOBODY),
        command(CommandKind.TIMER, 13, account=NOBODY),
        order(1, 3, SELL, 500, 5, 14),
    )
    assert [int(halt["value"]) for halt in halts(events)] == [5000]
    assert engine.state.instruments["last_ticks"][0] == 500


class TestMarginOrders:
    """What an account of leverage may promise is all that rests, at the worst price that it may be filled at."""

    CONFIG = venue(BreakerConfig(), margin=MarginConfig(mark="index").model_dump()).model_copy(
        update={
            "instruments": (InstrumentConfig(price_levels=20_032, initial_margin_bps=1000, maintenance_margin_bps=500),)
        }
    )

    def opened(self, *commands: dict[str, int]) -> tuple[Engine, np.ndarray]:
        opening = [
            command(CommandKind.DEPOSIT_CASH, 0, account=0, quantity_lots=10_000),
            command(CommandKind.SET_MARGIN, 0, account=0, quantity_lots=1),
            command(CommandKind.DEPOSIT_POSITION, 0, account=1, quantity_lots=1000),
            command(CommandKind.PUBLISH_INDEX, 0, quantity_lots=1000),
            command(CommandKind.OPEN_SESSION, 1),
        ]
        engine = Engine(EngineConfig.model_validate(self.CONFIG.model_dump()))
        return engine, engine.apply(records_of([*opening, *commands]))

    def test_a_market_order_is_checked_at_the_worst_price_that_it_needs(self):
        asks = [order(1, 1, SELL, 1000, 1, 10), order(1, 2, SELL, 16_000, 9, 10)]
        engine, events = self.opened(*asks, order(0, 1, BUY, 0, 10, 11, MARKET))
        assert (events[-1]["kind"], events[-1]["reason"]) == (EventKind.ORDER_REJECTED, Reason.INSUFFICIENT_MARGIN)
        assert engine.state.accounts["cash"][0] == 10_000
        _, events = self.opened(*asks, order(0, 1, BUY, 0, 1, 11, MARKET))
        assert events[-1]["kind"] == EventKind.ORDER_FILLED

    def test_orders_that_rest_beyond_the_mark_count_together(self):
        # Equity 10,000; each bid of one lot at 5,000 would lose 4,000 against the mark, and needs 100 of margin.
        bids = [order(0, number, BUY, 5000, 1, 10) for number in range(1, 5)]
        _, events = self.opened(*bids)
        assert events["kind"][-4:].tolist() == [EventKind.ORDER_ACCEPTED] * 2 + [EventKind.ORDER_REJECTED] * 2
        assert (events["reason"][-2:] == Reason.INSUFFICIENT_MARGIN).all()
        _, events = self.opened(
            *bids[:2],
            command(CommandKind.CANCEL_ORDER, 11, account=0, target_order_id=1),
            order(0, 3, BUY, 5000, 1, 12),
        )
        assert events["kind"][-1] == EventKind.ORDER_ACCEPTED
