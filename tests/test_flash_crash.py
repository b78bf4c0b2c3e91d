"""The flash crash's measures on sessions of a few trades, whose answers are computed on paper."""

import numpy as np
import pytest

from aar_swarm.analysis.flash_crash import CLASSES, VOLUME_SHARES, scenario_measures
from aar_swarm.analysis.measures import Session
from aar_swarm.analysis.tables import TOP
from aar_swarm.scenario import load_scenario
from exchange.clock import MS
from exchange.types import COMMAND, EVENT, NOBODY, EventKind, Phase, Side
from tests.hand_made import board

SCENARIO = load_scenario("flash-crash-2010")  # a scaled minute is a second
GROUPS = ["program", "high_frequency", "high_frequency", "intermediaries", "fundamental_buyers", "trend_followers"]
PROGRAM, FAST, FASTER, MAKER, BUYER, FOLLOWER = range(6)
SIGNAL_MS = 2000


class Tape:
    """What happened, one event a command, and the top of the book after each."""

    def __init__(self) -> None:
        self.events: list[dict[str, int]] = []
        self.tops: list[tuple[int, int, int]] = []
        self.bid, self.ask, self.depth = 4659, 4661, 1000
        self.happen(EventKind.SESSION_OPENED, 0)

    def happen(self, kind: EventKind, at_ms: float, **fields: int) -> None:
        self.events.append({"kind": int(kind), "time_ns": int(at_ms * MS), **fields})
        self.tops.append((self.bid, self.ask, self.depth))

    def signal(self, at_ms: float = SIGNAL_MS) -> None:
        self.happen(EventKind.SIGNAL_PUBLISHED, at_ms, account=NOBODY)

    def trade(
        self, after_ms: float, seller: int, buyer: int, lots: int, price: int = 4660, selling: bool = True
    ) -> None:
        """after_ms: of the signal. selling: the seller is the taker."""
        taker, maker = (seller, buyer) if selling else (buyer, seller)
        side = int(Side.SELL if selling else Side.BUY)
        fields = {"account": taker, "maker_account": maker, "side": side, "price_ticks": price, "quantity_lots": lots}
        self.happen(EventKind.ORDER_FILLED, SIGNAL_MS + after_ms, **fields)

    def halt(self, after_ms: float, resumes_ms: float | None = None) -> None:
        self.happen(EventKind.INSTRUMENT_HALTED, SIGNAL_MS + after_ms, account=NOBODY)
        self.happen(EventKind.PHASE_CHANGED, SIGNAL_MS + after_ms, account=NOBODY, value=int(Phase.HALTED))
        if resumes_ms is not None:
            self.happen(EventKind.PHASE_CHANGED, SIGNAL_MS + resumes_ms, account=NOBODY, value=int(Phase.CONTINUOUS))

    def session(self, groups: list[str] = GROUPS) -> Session:
        count = len(self.events)
        commands, events, tops = np.zeros(count, COMMAND), np.zeros(count, EVENT), np.zeros(count, TOP)
        for at, fields in enumerate(self.events):
            events[at]["sequence"] = commands[at]["sequence"] = tops[at]["sequence"] = at + 1
            commands[at]["received_ns"] = tops[at]["time_ns"] = fields["time_ns"]
            for name, value in fields.items():
                events[at][name] = value
            bid, ask, depth = self.tops[at]
            tops[at]["bid_ticks"], tops[at]["ask_ticks"], tops[at]["bid_depth_lots"] = bid, ask, depth
            tops[at]["bid_lots"] = tops[at]["ask_lots"] = 1
        return Session(SCENARIO, groups, commands, events, tops)

    def measures(self) -> dict:
        return scenario_measures(self.session(), board({}, len(GROUPS)))


def begun() -> Tape:
    tape = Tape()
    tape.signal()
    return tape


def test_the_seller_s_share_counts_its_lots_of_twenty_scaled_minutes_on_either_side_of_a_trade():
    tape = Tape()
    tape.happen(EventKind.ORDER_FILLED, 1000, account=PROGRAM, side=1, price_ticks=4660, quantity_lots=99)
    tape.signal()
    tape.trade(1000, PROGRAM, MAKER, 6)
    tape.trade(4000, PROGRAM, BUYER, 3, selling=False)
    tape.trade(3000 + 1500, FOLLOWER, BUYER, 91)
    tape.trade(20_000, MAKER, BUYER, 20)  # the last of the 20 minutes
    tape.trade(20_001, PROGRAM, BUYER, 500)
    found = tape.measures()
    assert found["scaled_minute_ms"] == 1000 and found["volume_lots"] == 120
    assert found["participation"] == 9 / 120
    assert found["participation_active"] == 1.0  # until it was done only it sold
    assert found["program_minutes"] == 4.0
    assert found["program_sold_share"] == round(9 / 4860, 4)
    assert found["participation_target"] == pytest.approx(0.0888, abs=1e-4)


def test_what_the_seller_buys_is_not_what_it_sold():
    tape = begun()
    tape.trade(1000, MAKER, PROGRAM, 50)
    tape.trade(2000, PROGRAM, MAKER, 50)
    assert tape.measures()["participation"] == 0.5


def test_the_busiest_fourteen_scaled_seconds_are_found_among_all():
    tape = begun()
    for after_ms, lots in ((100, 10), (300, 10), (333, 5), (500, 12), (9000, 26)):
        tape.trade(after_ms, PROGRAM, FAST if after_ms == 300 else MAKER, lots)
    found = tape.measures()
    # 27 lots in (266.7, 500]; not 37 of all the first 400 ms, nor the 26 of the single largest trade.
    assert found["volume_busiest_over_mean"] == pytest.approx(27 / (63 * (14 / 60) / 20), abs=0.01)
    assert found["hft_share_busiest"] == round(10 / (2 * 27), 4)


def test_who_passes_lots_to_its_own_kind_has_a_large_share_and_holds_nothing():
    tape = begun()
    for at in range(5):
        tape.trade(100 + at, *((FAST, FASTER) if at % 2 else (FASTER, FAST)), 10)
    found = tape.measures()
    assert found["hft_share_busiest"] == 1.0 and found["hft_net_over_gross_busiest"] == 0.0


def test_the_crash_ends_at_the_lowest_trade():
    tape = begun()
    tape.trade(1000, PROGRAM, FAST, 10, 4650)
    tape.trade(2500, FASTER, MAKER, 6, 4600)  # the lowest
    tape.trade(3000, FAST, MAKER, 1000, 4640)
    found = tape.measures()
    assert found["low_minutes"] == 2.5
    assert found["hft_share_crash"] == (10 + 6) / (2 * 16)
    assert found["hft_net_over_gross_crash"] == (10 - 6) / (10 + 6)


def test_where_no_fast_trader_traded_there_is_no_ratio_of_its_lots():
    tape = begun()
    tape.trade(1000, PROGRAM, MAKER, 10)
    found = tape.measures()
    assert found["hft_share_busiest"] == 0 and found["hft_net_over_gross_busiest"] is None


def test_the_drop_is_the_largest_fall_within_five_scaled_minutes():
    tape = begun()
    for after_ms, price in ((0, 4660), (5001, 4500), (9000, 4400), (9500, 4450), (14_400, 4390)):
        tape.trade(after_ms, PROGRAM, MAKER, 1, price)
    # 4660 → 4500 and 4500 → 4390 lie more than five seconds apart; 4500 → 4400 is larger than 4450 → 4390.
    assert tape.measures()["drop_bps"] == pytest.approx((1 - 4400 / 4500) * 10_000, abs=0.1)


def test_a_rise_is_no_drop():
    tape = begun()
    for after_ms, price in ((0, 4600), (1000, 4650), (2000, 4700)):
        tape.trade(after_ms, PROGRAM, MAKER, 1, price)
    assert tape.measures()["drop_bps"] == 0


def test_depth_is_compared_with_that_of_the_second_before_the_signal():
    tape = Tape()
    tape.depth = 9000
    tape.happen(EventKind.ORDER_ACCEPTED, SIGNAL_MS - 1001, account=MAKER)
    for depth in (500, 1500):
        tape.depth = depth
        tape.happen(EventKind.ORDER_ACCEPTED, SIGNAL_MS - 500, account=MAKER)
    tape.depth = 1
    tape.signal()  # the signal itself is not before it
    tape.depth = 40
    tape.trade(100, PROGRAM, MAKER, 1)
    tape.depth = 700
    tape.trade(200, PROGRAM, MAKER, 1)
    tape.happen(EventKind.SESSION_CLOSED, SIGNAL_MS + 300, account=NOBODY)
    tape.depth = 0
    tape.happen(EventKind.ORDER_CANCELLED, SIGNAL_MS + 400, account=MAKER)  # after the close nothing counts
    found = tape.measures()
    assert (found["depth_before_lots"], found["depth_low_lots"], found["depth_low_share"]) == (1000, 40, 0.04)


def test_a_pause_divides_the_fall_and_the_rebound_counts_from_the_lowest_trade():
    tape = begun()
    tape.trade(1000, PROGRAM, MAKER, 1, 4500)
    tape.halt(1000, resumes_ms=1083)
    tape.trade(1083, PROGRAM, MAKER, 1, 4460)
    tape.trade(3000, PROGRAM, MAKER, 1, 4560)
    tape.trade(6000, PROGRAM, MAKER, 1, 4600)  # five scaled minutes after the pause
    tape.trade(6050, PROGRAM, MAKER, 1, 4630)  # five after the lowest, as this is
    tape.halt(7000)
    found = tape.measures()
    assert found["pauses"] == 2 and found["pause_minutes"] == 1.0 and found["pause_ms"] == 83.0
    assert found["pause_ms_target"] == pytest.approx(83.3, abs=0.1)
    assert found["fall_bps"] == pytest.approx(200 / 4660 * 10_000, abs=0.1)
    assert (found["fall_before_pause"], found["fall_after_pause"]) == (0.8, 0.2)
    assert (found["rebound_after_pause"], found["rebound"]) == (0.7, 0.85)


def test_a_fall_that_the_pause_ended_was_all_before_it():
    tape = begun()
    tape.trade(1000, PROGRAM, MAKER, 1, 4560)
    tape.halt(1000, resumes_ms=1083)
    tape.trade(1100, PROGRAM, MAKER, 1, 4610)
    found = tape.measures()
    assert (found["fall_before_pause"], found["fall_after_pause"], found["rebound_after_pause"]) == (1.0, 0.0, 0.5)


def test_without_a_pause_there_is_a_rebound_and_nothing_about_one():
    tape = Tape()
    tape.happen(EventKind.INSTRUMENT_HALTED, 1000, account=NOBODY)  # before the signal: another story
    tape.signal()
    tape.trade(1000, PROGRAM, MAKER, 1, 4560)
    tape.trade(2000, PROGRAM, MAKER, 1, 4585)
    found = tape.measures()
    assert found["pauses"] == 0 and found["rebound"] == 0.25
    assert not {"pause_minutes", "fall_before_pause", "rebound_after_pause"} & set(found)


def test_a_pause_that_never_ended_has_no_length_and_no_rebound():
    tape = begun()
    tape.trade(1000, PROGRAM, MAKER, 1, 4560)
    tape.halt(1000)
    found = tape.measures()
    assert found["pause_ms"] is None and found["rebound_after_pause"] is None


def test_pauses_are_counted_though_the_price_did_not_fall():
    tape = begun()
    tape.trade(1000, PROGRAM, MAKER, 1, 4800)
    tape.halt(1000, resumes_ms=1083)
    found = tape.measures()
    assert found["fall_bps"] == 0 and found["pauses"] == 1


def test_volume_shares_count_every_trade_for_both_its_sides():
    tape = begun()
    tape.trade(1000, PROGRAM, FAST, 10)
    tape.trade(1100, FAST, MAKER, 10)
    tape.trade(1200, MAKER, BUYER, 10, selling=False)
    tape.trade(1300, FOLLOWER, BUYER, 20)
    found = tape.measures()
    expected = {
        "high_frequency": 20,
        "intermediaries": 20,
        "fundamental_buyers": 30,
        "fundamental_sellers": 10,
        "opportunistic": 20,
        "small": 0,
    }
    assert {name: found[f"volume_share_{name}"] for name in CLASSES} == {n: v / 100 for n, v in expected.items()}
    assert {name: found[f"volume_share_{name}_target"] for name in CLASSES} == VOLUME_SHARES


def test_every_participant_of_the_scenario_is_in_one_class():
    members = [group for groups in CLASSES.values() for group in groups]
    assert sorted(members) == sorted(SCENARIO.participants)


def test_without_a_signal_a_seller_or_trades_there_is_nothing_to_say():
    silent = Tape()
    silent.trade(1000, PROGRAM, MAKER, 10)
    assert silent.measures() == {}
    quiet = begun()
    assert quiet.measures() == {}
    tape = begun()
    tape.trade(1000, FOLLOWER, MAKER, 10)
    nobody = ["small", *GROUPS[1:]]
    assert scenario_measures(tape.session(nobody), board({}, len(GROUPS))) == {}


def test_a_seller_that_did_not_sell_took_no_time():
    tape = begun()
    tape.trade(1000, FOLLOWER, MAKER, 10)
    found = tape.measures()
    assert found["participation"] == 0 and found["program_minutes"] is None
    assert found["participation_active"] is None
