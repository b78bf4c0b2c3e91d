"""Latency races: what of a journal is a take or a cancel, which of them race, and what a race was worth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from aar_swarm.analysis.host_clocks import HostClocks
from aar_swarm.analysis.price import mids, two_sided_mids
from aar_swarm.analysis.tables import from_records, trace_tops
from aar_swarm.races.detection import RACE, Detection, detect
from aar_swarm.races.measures import (
    _profit,
    _sending,
    _undecidable,
    displayed,
    expected_clusters,
    per_share,
    race_table,
    raced_lots,
    with_sending,
)
from aar_swarm.races.messages import CANCEL, MESSAGE, NOTHING, TAKE, TOTALS, Stream, read
from exchange.clock import MS
from exchange.config import EngineConfig, InstrumentConfig
from exchange.journal import Journal
from exchange.replay import replay
from exchange.types import CommandKind, OrderType, SelfTrade, Side
from tests.hand_made import MARKET, command, order, records_of

BUY, SELL, IOC = Side.BUY, Side.SELL, OrderType.IOC
LEVELS = 16384
US = 1_000


def cancel(account: int, target: int, at_ms: float) -> dict[str, int]:
    return command(CommandKind.CANCEL_ORDER, at_ms, account=account, target_order_id=target)


def replace(account: int, order_id: int, target: int, price: int, lots: int, at_ms: float, kind: OrderType) -> Any:
    fields = {"order_id": order_id, "target_order_id": target, "price_ticks": price, "quantity_lots": lots}
    return command(CommandKind.REPLACE_ORDER, at_ms, account=account, order_type=kind, **fields)


def journal_of(*commands: dict[str, int], accounts: int = 4, opening_ms: float = 1) -> Journal:
    opening = [
        *(command(CommandKind.DEPOSIT_CASH, 0, account=account, quantity_lots=10**9) for account in range(accounts)),
        *(command(CommandKind.DEPOSIT_POSITION, 0, account=account, quantity_lots=1000) for account in range(accounts)),
        command(CommandKind.OPEN_SESSION, opening_ms),
    ]
    config = EngineConfig(instruments=(InstrumentConfig(price_levels=LEVELS),), accounts=accounts, max_orders=64)
    return Journal(config, records_of([*opening, *commands]))


def messages_of(recorded: Journal) -> list[dict[str, int]]:
    stream = read(recorded, np.zeros(len(recorded.commands), np.int64))
    return [dict(zip(MESSAGE.names or (), map(int, row), strict=True)) for row in stream.messages]


def shown(messages: list[dict[str, int]], *fields: str) -> list[tuple[int, ...]]:
    return [tuple(message[field] for field in fields) for message in messages]


def test_takes_and_cancels_have_their_price_and_what_became_of_them():
    recorded = journal_of(
        order(0, 1, SELL, 1010, 50, 10),  # rests: a take of bids down to 1,010 that met none
        order(0, 2, SELL, 1020, 50, 11),
        order(1, 1, BUY, 1015, 50, 12, IOC),  # takes all at 1,010
        order(2, 1, BUY, 1015, 5, 13, IOC),  # too late: expires
        cancel(0, 1, 14),  # too late
        cancel(0, 2, 15),
        cancel(0, 77, 16),  # of an order that never was
    )
    found = messages_of(recorded)
    fields = ("kind", "account", "book", "price_ticks", "lots", "best_ticks", "marketable", "expired")
    assert shown(found, *fields) == [
        (TAKE, 0, BUY, 1010, 0, NOTHING, 0, 0),
        (TAKE, 0, BUY, 1020, 0, NOTHING, 0, 0),
        (TAKE, 1, SELL, 1015, 50, 1010, 1, 0),
        (TAKE, 2, SELL, 1015, 0, NOTHING, 0, 1),
        (CANCEL, 0, SELL, 1010, 0, NOTHING, 0, 0),
        (CANCEL, 0, SELL, 1020, 50, NOTHING, 0, 0),
    ]
    stream = read(recorded, np.zeros(len(recorded.commands), np.int64))
    assert stream.left_out == 1
    totals = stream.totals[0]
    assert (totals["filled_lots"], totals["filled_value"]) == (50, 50 * 1010)
    assert totals["open_ns"] == 15 * MS  # to the last command


def test_replaces_mass_cancels_and_orders_that_only_rest():
    found = messages_of(
        journal_of(
            order(0, 1, SELL, 1010, 50, 10),
            replace(0, 2, 1, 1010, 30, 11, OrderType.LIMIT),  # in place: takes 20 off
            replace(0, 3, 2, 1012, 30, 12, OrderType.LIMIT),  # elsewhere: cancels 30 and enters anew
            replace(0, 4, 3, 1013, 30, 13, OrderType.POST_ONLY),  # cancels, and could not take
            replace(0, 5, 3, 1013, 30, 14, OrderType.LIMIT),  # the old name is gone
            order(1, 1, BUY, 900, 5, 15, OrderType.POST_ONLY),
            order(1, 2, BUY, 901, 5, 16),
            command(CommandKind.MASS_CANCEL, 17, account=1, instrument=-1, side=2),
            order(2, 1, BUY, 0, 40, 18, MARKET),
            order(3, 1, BUY, 0, 40, 19, MARKET),  # nothing left
            order(3, 2, BUY, 950, 0, 20),  # refused: no message of a race
        )
    )
    fields = ("kind", "account", "book", "price_ticks", "lots", "worst_ticks", "expired")
    assert shown(found, *fields) == [
        (TAKE, 0, BUY, 1010, 0, NOTHING, 0),
        (CANCEL, 0, SELL, 1010, 20, NOTHING, 0),
        (CANCEL, 0, SELL, 1010, 30, NOTHING, 0),
        (TAKE, 0, BUY, 1012, 0, NOTHING, 0),
        (CANCEL, 0, SELL, 1012, 30, NOTHING, 0),
        (TAKE, 1, SELL, 901, 0, NOTHING, 0),
        (CANCEL, 1, BUY, 900, 5, NOTHING, 0),
        (CANCEL, 1, BUY, 901, 5, NOTHING, 0),
        (TAKE, 2, SELL, LEVELS, 30, 1013, 0),
        (TAKE, 3, SELL, LEVELS, 0, NOTHING, 1),
    ]


def test_a_cancel_fails_only_if_a_fill_was_first():
    recorded = journal_of(
        order(0, 1, SELL, 1010, 50, 10),
        cancel(0, 1, 11),
        cancel(0, 1, 12),  # withdrawn before: nobody was faster
        cancel(0, 2, 13),  # not placed yet
        order(0, 2, SELL, 1010, 50, 14),
        order(1, 1, BUY, 1010, 20, 15, IOC),
        replace(0, 3, 2, 1010, 80, 16, OrderType.LIMIT),  # larger at the same price: behind, and not withdrawn
        order(1, 2, BUY, 1010, 60, 17, IOC),
        cancel(0, 2, 18),  # a name that it has no longer
        cancel(0, 3, 19),  # too late
        replace(0, 4, 3, 1011, 90, 20, OrderType.LIMIT),  # too late
    )
    stream = read(recorded, np.zeros(len(recorded.commands), np.int64))
    cancels = [(int(row["price_ticks"]), int(row["lots"])) for row in stream.messages if row["kind"] == CANCEL]
    assert cancels == [(1010, 50), (1010, 0), (1010, 0)] and stream.left_out == 3


def test_who_meets_only_itself_has_lost_to_nobody():
    recorded = journal_of(
        command(CommandKind.LOG_ON, 5, account=0, quantity_lots=SelfTrade.CANCEL_RESTING << 1),
        order(0, 1, SELL, 1010, 50, 10),
        order(0, 2, BUY, 1010, 20, 11, IOC),
    )
    assert shown(messages_of(recorded), "kind", "book") == [(TAKE, BUY)]  # the one that rested


def test_messages_at_the_best_price_count_on_either_side():
    for side, best, worse, better in ((SELL, 1010, 1011, 1009), (BUY, 1010, 1009, 1011)):
        recorded = journal_of(
            order(0, 1, side, best, 10, 10),  # an empty book: it is the best
            order(0, 2, side, worse, 10, 11),
            order(0, 3, side, better, 10, 12),
            cancel(0, 2, 13),
            cancel(0, 3, 14),
        )
        assert read(recorded, np.zeros(len(recorded.commands), np.int64)).at_best() == 3


def test_what_is_not_continuous_is_no_race():
    quote, close = order(0, 1, SELL, 1010, 50, 0.5), command(CommandKind.CLOSE_SESSION, 30)
    recorded = journal_of(order(0, 1, SELL, 1010, 50, 10), close, cancel(0, 1, 31))
    assert len(messages_of(recorded)) == 1
    before_opening = Journal(recorded.config, records_of([quote]))
    assert messages_of(before_opening) == []


# ── detection ────────────────────────────────────────────────────────────────────────────────────────────────────────


def message(time_us: float, account: int, kind: int, price: int, **fields: int) -> dict[str, int]:
    standard = {"book": int(SELL), "lots": 0, "best_ticks": NOTHING, "worst_ticks": NOTHING, "bid_ticks": NOTHING}
    standard |= {"ask_ticks": 100, "sequence": 0, "outbound_ns": 0, "marketable": 0, "expired": 0}
    return standard | {"time_ns": round(time_us * US), "account": account, "kind": kind, "price_ticks": price} | fields


def won(time_us: float, account: int, price: int, at: int = 100, **fields: int) -> dict[str, int]:
    got = {"lots": 1, "best_ticks": at, "worst_ticks": at, "marketable": 1}
    return message(time_us, account, TAKE, price, **(got | fields))


def missed(time_us: float, account: int, price: int, **fields: int) -> dict[str, int]:
    return message(time_us, account, TAKE, price, **({"expired": 1} | fields))


def stream_of(rows: Sequence[dict[str, int]], levels: int = 200) -> Stream:
    messages = np.zeros(len(rows), MESSAGE)
    for number, row in enumerate(rows):
        for name, value in row.items():
            messages[number][name] = value
    return Stream(messages, levels, 0, np.zeros(1, TOTALS))


def races_of(*rows: dict[str, int], **rule: Any) -> list[tuple[int, int, int]]:
    found = detect(stream_of(rows), Detection(**rule))
    return [(int(race["price_ticks"]), int(race["first_success"]), int(race["first_failure"])) for race in found]


def test_two_takers_and_one_quote_race():
    assert races_of(won(0, 1, 100), missed(40, 2, 100)) == [(100, 0, 1)]
    assert races_of(won(0, 1, 100), missed(40, 1, 100)) == []  # one participant alone
    assert races_of(won(0, 1, 100), won(40, 2, 101, at=101)) == [(100, 0, 1)]  # a fill at 101 is a failure at 100
    assert races_of(won(0, 1, 100), missed(40, 2, 99)) == []  # not for this price


def test_a_cancel_may_start_a_race_and_lose_it():
    late = message(60, 3, CANCEL, 100)
    assert races_of(won(0, 1, 100), late) == [(100, 0, 1)]
    in_time = message(0, 3, CANCEL, 100, lots=5)
    assert races_of(in_time, missed(30, 1, 100)) == [(100, 0, 1)]
    assert races_of(in_time, message(30, 1, CANCEL, 100)) == []  # nobody takes
    assert races_of(message(0, 3, CANCEL, 100), won(10, 1, 100)) == [(100, 1, 0)]  # the wrong one was first
    assert races_of(won(0, 1, 101), message(60, 3, CANCEL, 102)) == []


def test_the_horizon_is_of_the_first_answer_and_both_ends_count():
    assert races_of(won(0, 1, 100), missed(500, 2, 100)) == [(100, 0, 1)]
    assert races_of(won(0, 1, 100), missed(500.001, 2, 100)) == []
    answered = won(0, 1, 100, outbound_ns=31 * US)
    assert races_of(answered, missed(60, 2, 100)) == [(100, 0, 1)]
    assert races_of(answered, missed(60.001, 2, 100)) == []
    assert races_of(answered, missed(400, 2, 100), horizon_us=400, fixed_horizon=True) == [(100, 0, 1)]


def test_one_race_at_a_time_for_a_price():
    rows = [won(0, 1, 100), missed(10, 2, 100), won(20, 1, 100), missed(510, 2, 100), won(600, 1, 100)]
    assert races_of(*rows) == [(100, 0, 1)]
    assert races_of(*rows, missed(610, 2, 100)) == [(100, 0, 1), (100, 4, 5)]


def test_every_price_to_the_limit_is_raced_for():
    assert races_of(won(0, 1, 102), missed(10, 2, 103)) == [(price, 0, 1) for price in (100, 101, 102)]
    unpriced = won(0, 1, 200, at=100, worst_ticks=101)
    assert races_of(unpriced, missed(10, 2, 200)) == [(price, 0, 1) for price in (100, 101)]
    falling = {"book": int(BUY), "bid_ticks": 90, "ask_ticks": NOTHING}
    assert races_of(won(0, 1, 89, at=90, **falling), missed(10, 2, 88, **falling)) == [(90, 0, 1), (89, 0, 1)]


def test_variants_ask_for_more():
    rested = missed(10, 2, 100, expired=0)
    assert races_of(won(0, 1, 100), rested) and not races_of(won(0, 1, 100), rested, strict_failures=True)
    three = [won(0, 1, 100), missed(10, 2, 101), missed(20, 3, 101)]
    assert races_of(*three, participants=3) and not races_of(*three, participants=4)
    assert races_of(*three, takes=3) and not races_of(*three, takes=4)
    assert not races_of(*three, cancels=1)
    assert not races_of(*three, strict_successes=True)
    assert races_of(*three, missed(21, 3, 100), strict_successes=True)


def races_by_the_book(rows: Sequence[dict[str, int]], levels: int, rule: Detection) -> set[tuple[int, ...]]:
    """The definition as it is written, without any thought of speed: (side, price, start, ends)."""
    found, busy = set(), {}
    for start, first in enumerate(rows):
        selling = first["book"] == SELL
        if first["kind"] == CANCEL:
            prices = [first["price_ticks"]]
        elif first["marketable"]:
            best = first["ask_ticks"] if selling else first["bid_ticks"]
            limit = first["price_ticks"]
            if limit in (0, levels):
                limit = best if first["worst_ticks"] == NOTHING else first["worst_ticks"]
            prices = list(range(best, limit + 1)) if selling else list(range(best, limit - 1, -1))
        else:
            continue
        horizon = rule.horizon_us * US
        if first["outbound_ns"] and not rule.fixed_horizon:
            horizon = min(first["outbound_ns"] - first["time_ns"] + rule.reaction_us * US, horizon)
        ends = first["time_ns"] + int(horizon)
        window = [row for row in rows if first["time_ns"] <= row["time_ns"] <= ends and row["book"] == first["book"]]
        for price in prices:
            if busy.get((first["book"], price), -1) >= first["time_ns"]:
                continue
            takes = [
                row
                for row in window
                if row["kind"] == TAKE and (row["price_ticks"] >= price if selling else row["price_ticks"] <= price)
            ]
            cancels = [row for row in window if row["kind"] == CANCEL and row["price_ticks"] == price]

            def got(row: dict[str, int], price: int = price, selling: bool = selling) -> bool:
                best = row["best_ticks"]
                return best != NOTHING and (best <= price if selling else best >= price)

            lost = [row for row in takes if not got(row) and (row["expired"] or not rule.strict_failures)]
            successes = sum(map(got, takes)) + sum(row["lots"] > 0 for row in cancels)
            failures = len(lost) + sum(row["lots"] == 0 for row in cancels)
            if (
                len({row["account"] for row in takes + cancels}) >= rule.participants
                and len(takes) >= rule.takes
                and len(cancels) >= rule.cancels
                and successes
                and failures
                and (not rule.strict_successes or any(row["price_ticks"] == price for row in lost))
            ):
                busy[first["book"], price] = ends
                found.add((first["book"], price, start, ends, len(takes), len(cancels), successes, failures))
    return found


RULES = (
    {},
    {"horizon_us": 100.0},
    {"horizon_us": 50.0, "fixed_horizon": True},
    {"participants": 3},
    {"takes": 2, "cancels": 1},
    {"strict_failures": True},
    {"strict_failures": True, "strict_successes": True},
)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_random_streams_have_the_races_of_the_definition(rule: dict[str, Any]):
    wanted = Detection(**rule)
    count = 0
    for seed in range(40):
        rng = np.random.Generator(np.random.PCG64(seed))
        rows, now = [], 0.0
        for _ in range(120):
            now += float(rng.choice([0.0, rng.exponential(60)]))
            selling = bool(rng.integers(2))
            best = int(rng.integers(48, 53))
            kind = int(rng.choice([TAKE, TAKE, CANCEL]))
            price = int(rng.integers(46, 56))
            fields: dict[str, int] = {"book": int(SELL if selling else BUY), "ask_ticks": NOTHING, "bid_ticks": NOTHING}
            fields["ask_ticks" if selling else "bid_ticks"] = best
            if kind == TAKE:
                if rng.random() < 0.1:
                    price = 100 if selling else 0
                marketable = price >= best if selling else price <= best
                if marketable and rng.random() < 0.6:
                    reach = int(rng.integers(0, 3)) * (1 if selling else -1)
                    worst = best + reach
                    fields |= {"lots": 1, "best_ticks": best, "worst_ticks": worst}
                else:
                    fields["expired"] = int(rng.integers(2))
                fields["marketable"] = int(marketable)
            else:
                fields["lots"] = int(rng.integers(2)) * 3
            if rng.random() < 0.7:
                fields["outbound_ns"] = round((now + float(rng.exponential(100))) * US) + 1
            rows.append(message(now, int(rng.integers(5)), kind, price, **fields))
        names = ("book", "price_ticks", "start", "takes", "cancels", "successes", "failures")
        races = detect(stream_of(rows, levels=100), wanted)
        found = set()
        for race in races:
            side, price, start, takes, cancels, successes, failures = (int(race[name]) for name in names)
            ends = int(race["start_ns"] + race["horizon_ns"])
            found.add((side, price, start, ends, takes, cancels, successes, failures))
        assert found == races_by_the_book(rows, 100, wanted)
        count += len(found)
    assert count > 40


# ── what they were worth ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_race_for_a_stale_quote_is_worth_what_the_price_moved():
    recorded = journal_of(
        order(0, 1, SELL, 1000, 40, 10),
        order(0, 2, SELL, 1010, 50, 10),
        order(3, 1, BUY, 990, 50, 11),
        order(1, 1, BUY, 1000, 30, 20, IOC),  # wins 30 of the 40
        order(2, 1, BUY, 1000, 30, 20.05, IOC),  # gets 10
        cancel(0, 1, 20.1),  # too late
        order(3, 2, BUY, 1004, 5, 25),  # the mid goes to 1,007
        command(CommandKind.CLOSE_SESSION, 60),
    )
    stream = read(recorded, np.zeros(len(recorded.commands), np.int64))
    races = detect(stream)
    assert len(races) == 1 and (races["takes"][0], races["cancels"][0], races["participants"][0]) == (2, 1, 3)
    lots = displayed(recorded, races, stream)
    assert lots.tolist() == [40]
    assert raced_lots(races, stream, from_records(replay(recorded.config, recorded.commands).events)) == 40
    times_ns, quoted = mids(from_records(trace_tops(recorded)))
    assert per_share(races, times_ns, quoted, 0.01).tolist() == [7.0]
    assert np.isnan(per_share(races, times_ns, quoted, 1.0)).all()  # after the session
    table = race_table(races, stream, lots, ["maker", "fast", "slow", "other"], {0.01: np.array([7.0])})
    row = table.row(0, named=True)
    assert (row["winners"], row["losers"], row["duration_ns"], row["cancel_won"]) == ("fast", "maker", 100 * US, False)


def test_profit_has_the_sign_of_the_side_and_needs_a_mid():
    races = np.zeros(3, RACE)
    races["book"], races["price_ticks"], races["start_ns"] = [SELL, BUY, SELL], [100, 98, 100], [0, 0, 5 * MS]
    times_ns, quoted = np.array([0, 8 * MS, 12 * MS]), np.array([99.0, 103.0, np.nan])
    assert per_share(races[:2], times_ns, quoted, 0.01).tolist() == [3.0, -5.0]
    assert np.isnan(per_share(races[2:], times_ns, quoted, 0.007)).all()  # one side is missing
    found = _profit(np.array([3.0, -5.0, np.nan]), np.array([10, 2, 7]), np.array([1, 1, 1]), 40_000)
    assert found == {"races": 2, "per_share_ticks": -1.0, "per_race": 10.0, "loss_avoided": -2.0, "tax_bps": 5.0}


def test_mids_are_of_books_that_have_two_sides_and_do_not_cross():
    tops = {"time_ns": [1, 2, 3, 4], "bid_ticks": [98, 0, 98, 101], "ask_ticks": [100, 100, LEVELS, 100]}
    tops |= {"bid_lots": [5, 0, 5, 5], "ask_lots": [5, 5, 0, 5]}
    times_ns, quoted = mids(pl.DataFrame(tops))
    assert times_ns.tolist() == [1, 2, 3, 4] and quoted[0] == 99 and np.isnan(quoted[1:]).all()
    assert [column.tolist() for column in two_sided_mids(pl.DataFrame(tops))] == [[1], [99.0]]


def test_a_race_shorter_than_the_clocks_agree_is_undecidable():
    table = pl.DataFrame({"duration_ns": [-400, 100, 900], "clock_bound_ns": [0, 0, 0], "sent_gap_ns": [-5, 0, 90]})
    assert _undecidable(table) == 0
    assert _sending(table) == {"first_won": 1, "first_lost": 1, "unknown": 1}
    known = table.with_columns(clock_bound_ns=pl.Series([500, 0, 500]))  # the second: two agents of one host
    assert _undecidable(known) == 1 and _sending(known) == {"first_won": 0, "first_lost": 0, "unknown": 3}
    unknown = table.with_columns(clock_bound_ns=pl.Series([0, None, 500]))
    assert _undecidable(unknown) is None and _sending(unknown) is None
    assert _undecidable(pl.DataFrame()) == 0


def test_who_sent_first_is_told_on_the_venue_s_clock():
    commands = records_of(
        [order(0, 1, SELL, 1000, 1, 10), order(1, 1, BUY, 1000, 1, 11), order(2, 1, BUY, 1000, 1, 11)]
    )
    commands["sent_ns"] = [0, 10 * MS, 9 * MS]
    clocks = HostClocks(np.array([0, 0, 1]), np.array([0, 0, 2 * MS]), np.array([0, 0, 30]), np.zeros(3, np.int64))
    table = pl.DataFrame({"won_sequence": [2, 1], "lost_sequence": [3, 2]})
    told = with_sending(table, commands, clocks)
    assert told["sent_gap_ns"].to_list() == [MS, 10 * MS]  # the third's host was 2 ms behind: it sent at 11 ms
    assert told["clock_bound_ns"].to_list() == [30, 0]
    unknown = with_sending(table, commands, clocks._replace(bound_ns=np.array([0, 0, -1])))
    assert unknown["clock_bound_ns"].to_list() == [None, 0]


def test_the_poisson_null():
    # λT = 1: P(N ≥ 2) = 1 − 2/e = 0.26424; a minute has 120 windows of half a second.
    assert expected_clusters(2.0, 0.5, 60.0) == pytest.approx(0.2642411 * 120, rel=1e-6)
