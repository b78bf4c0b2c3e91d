"""The indicators of docs/supervision.md, each in a session worked out by hand, and the rules of alerts."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from pydantic import ValidationError

from exchange.clock import MS
from exchange.config import EngineConfig, InstrumentConfig, MarginConfig, SupervisionConfig
from exchange.engine import Engine, events_bound
from exchange.indicators import ALERT, SAMPLES, TAKEN_ENTRIES, Indicator, Watch, follow, new_watch
from exchange.types import EVENT, NOBODY, CommandKind, OrderType, Side
from tests.hand_made import MARKET, command, order, records_of, revalue

BUY, SELL = Side.BUY, Side.SELL
ACCOUNTS = 14
WATCH_ALL = {"window_ns": 100 * MS, "average_ns": SAMPLES * MS, "herd_accounts": 1}


def watched(
    settings: dict[str, int], *commands: dict[str, int], opening: tuple[dict[str, int], ...] = (), **venue: object
) -> tuple[Watch, np.ndarray]:
    """Cash accounts with a million in cash and 1,000 lots each; the session opens with sequence 29 + len(opening), at
    2 ms, and account 0 bids and offers 1,000 lots at 1,000 ± 5."""
    config = EngineConfig.model_validate(
        {"instruments": ({"price_levels": 2048},), "accounts": ACCOUNTS, "max_orders": 256, **venue}
    )
    first = [command(CommandKind.DEPOSIT_CASH, 0, account=account, quantity_lots=10**8) for account in range(ACCOUNTS)]
    first += [
        command(CommandKind.DEPOSIT_POSITION, 0, account=account, quantity_lots=5000) for account in range(ACCOUNTS)
    ]
    quotes = [order(0, 1 + at, side, price, 1000, 2) for at, (side, price) in enumerate([(BUY, 995), (SELL, 1005)])]
    records = records_of([*first, *opening, command(CommandKind.OPEN_SESSION, 2), *quotes, *commands])
    engine = Engine(config)
    watch = new_watch(SupervisionConfig.model_validate({**WATCH_ALL, **settings}), engine.state)
    events = np.zeros(events_bound(engine.state), EVENT)
    at, told = 0, []
    while at < len(records):
        at, alerts = follow(engine.state, watch, records, at, events)
        told.append(watch.alerts[:alerts].copy())
    plain = Engine(config)
    plain.apply(records)
    assert engine.state_hash() == plain.state_hash()  # whoever watches changes nothing
    return watch, np.concatenate(told) if told else np.zeros(0, ALERT)


def value(watch: Watch, indicator: Indicator) -> int | None:
    rule = watch.rules[indicator]
    return int(rule["value"]) if rule["known"] else None


def takes(*trades: tuple[int, Side, int, float]) -> list[dict[str, int]]:
    """Market orders of (account, side, lots, at_ms), each account's first ones."""
    ids: dict[int, int] = {}
    made = []
    for account, side, lots, at_ms in trades:
        ids[account] = ids.get(account, 10) + 1
        made.append(order(account, ids[account], side, 0, lots, at_ms, MARKET))
    return made


FIRST = 2 * ACCOUNTS + 1 + 2 + 1
"""The sequence of the first of `commands`."""


class TestFlow:
    def test_imbalance_is_the_share_of_lots_taken_that_do_not_cancel_out(self):
        watch, alerts = watched({"imbalance_bps": 6000}, *takes((1, SELL, 80, 10), (2, BUY, 20, 11)))
        assert value(watch, Indicator.IMBALANCE) == 6000  # 60 of 100
        (alert,) = alerts  # at the first trade already: 80 of 80
        assert (alert["sequence"], alert["observed"], alert["threshold"]) == (FIRST, 10_000, 6000)
        assert (alert["indicator"], alert["instrument"], alert["received_ns"]) == (Indicator.IMBALANCE, 0, 10 * MS)

    def test_imbalance_counts_from_so_many_lots_on(self):
        settings = {"imbalance_bps": 5999, "imbalance_lots": 100}
        _, alerts = watched(settings, *takes((1, SELL, 79, 10), (2, BUY, 20, 11)))
        assert not len(alerts)
        _, alerts = watched(settings, *takes((1, SELL, 80, 10), (2, BUY, 20, 11)))
        assert alerts["sequence"].tolist() == [FIRST + 1]

    def test_a_fill_leaves_the_window_when_it_is_as_old_as_the_window(self):
        late = [takes((1, SELL, 80, 10), (2, BUY, 20, 60))[at] for at in range(2)]
        watch, _ = watched({"imbalance_bps": 1}, *late, order(3, 1, BUY, 900, 1, 109.999))
        assert value(watch, Indicator.IMBALANCE) == 6000
        watch, _ = watched({"imbalance_bps": 1}, *late, order(3, 1, BUY, 900, 1, 110))
        assert value(watch, Indicator.IMBALANCE) == 10_000  # only the purchase is left
        assert (watch.watched[0]["buyers"], watch.watched[0]["sellers"]) == (1, 0)
        watch, _ = watched({"imbalance_bps": 1}, *late, order(3, 1, BUY, 900, 1, 160))
        assert value(watch, Indicator.IMBALANCE) is None
        assert not watch.net.any()

    def test_herding_is_the_statistic_of_lakonishok_shleifer_and_vishny(self):
        # Nine sell and one buys: 0.276953 (FACTS.md, section 5).
        trades = [(account, SELL, 10, 10) for account in range(1, 10)] + [(10, BUY, 10, 10)]
        watch, alerts = watched({"herding_bps": 2770, "herd_accounts": 10}, *takes(*trades))
        assert value(watch, Indicator.HERDING) == 4000 - 1230 == 2770
        assert alerts["sequence"].tolist() == [FIRST + 9]
        assert value(watch, Indicator.SIMILARITY) == 9000

    def test_an_account_counts_by_its_net_side_and_not_at_all_if_that_is_none(self):
        trades = takes((1, SELL, 10, 10), (1, BUY, 30, 11), (2, SELL, 5, 12), (3, BUY, 7, 13), (3, SELL, 7, 14))
        watch, _ = watched({"similarity_bps": 1}, *trades)
        assert (watch.watched[0]["buyers"], watch.watched[0]["sellers"]) == (1, 1)
        assert value(watch, Indicator.SIMILARITY) == 5000
        assert value(watch, Indicator.HERDING) == 0 - 2500  # two, of whom chance alone would have one on each side

    def test_what_chance_does_is_exact(self):
        watch, _ = watched({"herding_bps": 1})
        for count in (1, 2, 3, 10, 11, 100, 999, 4096):
            exact = Fraction(sum(comb(count, k) * abs(2 * k - count) for k in range(count + 1)), 2 * count * 2**count)
            assert abs(watch.by_chance[count] - exact * 10_000) <= Fraction(1, 2) + Fraction(1, 10**6)

    def test_a_maker_is_no_part_of_the_herd(self):
        watch, _ = watched({"herding_bps": 1}, *takes((1, SELL, 10, 10)))
        assert (watch.watched[0]["buyers"], watch.watched[0]["sellers"]) == (0, 1)

    def test_a_full_window_reaches_less_far_back(self):
        watch, _ = watched({"imbalance_bps": 1})
        row = watch.watched[0]
        row["count"], row["bought_lots"] = TAKEN_ENTRIES, TAKEN_ENTRIES
        watch.taken["time_ns"], watch.taken["lots"], watch.taken["account"] = 5 * MS, 1, 3
        watch.taken["time_ns"][7] = 6 * MS  # the eighth is younger; the ones before it, of one moment, go
        watch.net[3], row["buyers"] = TAKEN_ENTRIES, 1
        from exchange.indicators import _take

        event = np.zeros(1, EVENT)
        event["time_ns"], event["account"], event["side"], event["quantity_lots"] = 7 * MS, 4, SELL, 2
        _take(watch, ACCOUNTS, event[0])
        assert row["count"] == TAKEN_ENTRIES - 7 + 1
        assert (row["bought_lots"], row["sold_lots"], watch.net[3], watch.net[4]) == (
            TAKEN_ENTRIES - 7,
            2,
            TAKEN_ENTRIES - 7,
            -2,
        )


class TestDepth:
    def test_depth_is_compared_with_its_slow_average_once_there_is_one(self):
        # 1,000 lots stand within 1 % of 1,000; after SAMPLES ms, 100 of them are taken off, then 500 more.
        quiet = order(3, 1, BUY, 500, 1, 2 + SAMPLES - 1)
        watch, _ = watched({"depth_bps": 1}, quiet)
        assert value(watch, Indicator.BID_DEPTH) is None
        settled = order(3, 1, BUY, 500, 1, 2 + SAMPLES)
        watch, alerts = watched({"depth_bps": 4100}, settled, *takes((1, SELL, 100, 1030), (1, SELL, 500, 1030.5)))
        assert value(watch, Indicator.BID_DEPTH) == 4000
        assert value(watch, Indicator.ASK_DEPTH) == 10_000
        assert alerts["indicator"].tolist() == [Indicator.BID_DEPTH]
        assert (alerts["sequence"][0], alerts["observed"][0]) == (FIRST + 2, 4000)

    def test_the_average_takes_up_a_new_depth_slowly(self):
        gone = order(0, 5, BUY, 994, 1000, 2 + SAMPLES)  # twice as much
        watch, _ = watched({"depth_bps": 1}, gone, order(3, 1, BUY, 500, 1, 2 + 2 * SAMPLES))
        average = 1000 * (2 - (1 - 1 / SAMPLES) ** SAMPLES)
        assert watch.watched[0]["bid_average"] / (1 << 20) == pytest.approx(average, rel=1e-3)

    def test_only_what_is_within_one_percent_counts(self):
        # Mid 1,000: from 990 up. 989 is beyond.
        far = order(4, 1, BUY, 989, 777, 5)
        near = order(4, 2, BUY, 990, 55, 6)
        watch, _ = watched({"depth_bps": 1}, far, near)
        assert watch.watched[0]["bid_lots"] == 1055


LEVERED = (
    command(CommandKind.SET_MARGIN, 0, account=1, quantity_lots=1),
    command(CommandKind.SET_MARGIN, 0, account=2, quantity_lots=1),
)
ON_MARGIN = {
    "instruments": (InstrumentConfig(price_levels=2048, initial_margin_bps=1000, maintenance_margin_bps=500),),
    "margin": MarginConfig(mark="index"),
}


class TestPressure:
    @staticmethod
    def levered(fall_bps: int, *commands: dict[str, int], threshold: int = 1) -> tuple[Watch, np.ndarray]:
        """Account 13 has 100 lots on margin at a mark of 1,000 and an equity of 10,000: a leverage of ten. So it is
        below its maintenance margin of 5 % when the mark is below 90,000 / 95 = 947.37."""
        config = EngineConfig.model_validate({**ON_MARGIN, "accounts": ACCOUNTS, "max_orders": 256})
        first = [
            command(CommandKind.PUBLISH_INDEX, 0, quantity_lots=1000),
            command(CommandKind.SET_MARGIN, 0, account=13, quantity_lots=1),
            command(CommandKind.DEPOSIT_POSITION, 0, account=13, quantity_lots=100),
            command(CommandKind.WITHDRAW_CASH, 0, account=13, quantity_lots=90_000),
            command(CommandKind.DEPOSIT_CASH, 0, account=0, quantity_lots=10**8),
            command(CommandKind.DEPOSIT_POSITION, 0, account=0, quantity_lots=1000),
            command(CommandKind.OPEN_SESSION, 2),
            order(0, 1, BUY, 995, 500, 2),
            order(0, 2, SELL, 1005, 500, 2),
            order(0, 3, BUY, 500, 1, 2 + SAMPLES + 1),
        ]
        records = records_of([*first, *commands])
        engine = Engine(config)
        settings = {**WATCH_ALL, "pressure_bps": threshold, "fall_bps": fall_bps}
        watch = new_watch(SupervisionConfig.model_validate(settings), engine.state)
        _, alerts = follow(engine.state, watch, records, 0, np.zeros(events_bound(engine.state), EVENT))
        assert engine.state.accounts["cash"][13] == -90_000
        return watch, watch.alerts[:alerts].copy()

    def test_it_counts_the_lots_that_a_fall_of_the_mark_would_have_liquidated(self):
        watch, alerts = self.levered(526)  # 1,000 → 947.4: still 948
        assert (value(watch, Indicator.PRESSURE), len(alerts)) == (0, 0)
        watch, alerts = self.levered(530)  # → 947
        assert watch.watched[0]["lots_at_risk"] == 100
        assert value(watch, Indicator.PRESSURE) == 2000  # 100 over a depth of 500
        assert alerts["indicator"].tolist() == [Indicator.PRESSURE]

    def test_it_alarms_before_the_venue_liquidates(self):
        # At 956 it is sound, with 5,600 over a maintenance margin of 4,780; 1 % lower, at 947, it would not be.
        for index_ticks, expected in ((957, []), (956, [11])):
            index = command(CommandKind.PUBLISH_INDEX, 1100, quantity_lots=index_ticks)
            watch, alerts = self.levered(100, index, revalue(1101.5))
            assert alerts["sequence"].tolist() == expected
        assert watch.rules[Indicator.PRESSURE]["most"] == 2000

    def test_a_threshold_is_over_the_depth_that_is_there(self):
        taken = order(0, 4, BUY, 995, 500, 2 + SAMPLES + 2)  # twice the depth, half the pressure
        _, alerts = self.levered(530, threshold=2001)
        assert not len(alerts)
        watch, _ = self.levered(530, taken)
        assert value(watch, Indicator.PRESSURE) == 1000


class TestAlerts:
    def test_one_that_stays_beyond_its_threshold_alarms_once(self):
        trades = takes(*((1, SELL, 1, 10 + at) for at in range(150)))
        _, alerts = watched({"imbalance_bps": 9000}, *trades)
        assert alerts["sequence"].tolist() == [FIRST]

    def test_it_alarms_again_when_it_was_below_for_a_whole_window(self):
        quiet = [order(3, 1, BUY, 500, 1, 111), order(3, 2, BUY, 500, 1, 212)]
        trades = takes((1, SELL, 5, 10), (1, SELL, 5, 213))
        _, alerts = watched({"imbalance_bps": 9000}, trades[0], *quiet, trades[1])
        assert alerts["sequence"].tolist() == [FIRST, FIRST + 3]
        _, alerts = watched({"imbalance_bps": 9000}, trades[0], quiet[0], order(1, 12, SELL, 0, 5, 112, MARKET))
        assert len(alerts) == 2  # it had been out of the window since 110, and 100 ms after 10 it may alarm again

    def test_nothing_is_watched_while_there_is_no_continuous_trading(self):
        trades = takes((1, SELL, 5, 10))
        watch, _ = watched({"imbalance_bps": 9000}, *trades, command(CommandKind.CLOSE_SESSION, 11))
        assert value(watch, Indicator.IMBALANCE) is None
        halt = command(CommandKind.HALT, 9, account=NOBODY, quantity_lots=3)
        _, alerts = watched({"imbalance_bps": 9000}, halt, *trades)
        assert not len(alerts)

    def test_many_alerts_are_taken_in_parts(self):
        trades = []
        for number in range(1500):  # each 250 ms: every one is an alert of two indicators
            trades += [
                order(1, 2 * number + 1, SELL, 0, 1, 250 * number + 10, OrderType.MARKET),
                order(3, 2 * number + 1, BUY, 500, 1, 250 * number + 120),
            ]
            trades.append(
                command(CommandKind.CANCEL_ORDER, 250 * number + 121, account=3, target_order_id=2 * number + 1)
            )
        settings = {"imbalance_bps": 9000, "similarity_bps": 9000, "window_ns": 20 * MS}
        _, alerts = watched(settings, *trades[: 3 * 900])
        assert len(alerts) == 1800
        assert np.unique(alerts["sequence"]).tolist() == [FIRST + 3 * number for number in range(900)]


@pytest.mark.parametrize(
    ("settings", "named"),
    [({}, "never alarm"), ({"imbalance_bps": 1, "window_ns": 0}, "window_ns"), ({"herding_bps": 5001}, "herding_bps")],
)
def test_a_supervisor_that_could_never_alarm_is_refused(settings, named):
    with pytest.raises(ValidationError, match=named):
        SupervisionConfig.model_validate(settings)
