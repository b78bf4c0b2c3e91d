"""The oracle of docs/money.md on its own: what its random sessions reach, and what is always true in them."""

from collections import Counter

import pytest

from exchange.types import EventKind, MarginState, OracleSource, Phase, Reason, Trigger
from tests.comparison import random_money_case, session_of
from tests.oracle import Oracle
from tests.oracle_margin import MOST_PPM, ceil_div, ppm, share
from tests.oracle_records import Event
from tests.workload_money import has_money

SEEDS = range(60)
COMMANDS = 600
MONEY_KINDS = [kind for kind in EventKind if 21 <= kind <= 24 or kind >= 60]
MONEY_REASONS = [reason for reason in Reason if 310 <= reason <= 320 or reason in (513, 603, 604)]


def test_rounding_is_as_the_document_says() -> None:
    assert [share(19_999, 5_000), share(1, 9_999), share(10_001, 9_999)] == [9_999, 0, 9_999]
    assert [ceil_div(7, 2), ceil_div(-7, 2), ceil_div(8, 2)] == [4, -3, 4]
    assert [ppm(1, 2), ppm(5, 0), ppm(5, -1), ppm(2**40, 1)] == [500_000, MOST_PPM, MOST_PPM, MOST_PPM]
    # Halved twice: 2^43 // 4 and (2^43 + 6) // 4.
    assert ppm(2**43, 2**43 + 6) == 2**41 * 10**6 // (2**41 + 1)


def test_venues_have_every_mark_rule_and_oracle_source_with_and_without_breakers() -> None:
    configs = [random_money_case(seed)[0] for seed in SEEDS]
    assert all(has_money(config) for config in configs)
    assert {config.margin.mark for config in configs if config.margin} == {"last", "mid", "index"}
    oracles = [each.oracle for config in configs for each in config.instruments if each.oracle]
    assert {each.source for each in oracles} == {source.name.lower() for source in OracleSource}
    facilities = {(bool(each.margin), bool(each.lending), bool(each.stablecoin)) for each in configs}
    assert len(facilities) >= 7
    armed = {any(each.breaker.armed for each in config.instruments) for config in configs if config.margin}
    assert armed == {False, True}


def test_sessions_reach_every_event_and_reason_of_the_money_rules_often() -> None:
    kinds: Counter[int] = Counter()
    reasons: Counter[int] = Counter()
    reached: Counter[str] = Counter()
    for seed in SEEDS:
        session = session_of(seed, COMMANDS, money=True)
        oracle = session.oracle
        events = list(map(Event._make, session.events))
        kinds.update(event.kind for event in events)
        reasons.update(event.reason for event in events if event.kind != EventKind.INSTRUMENT_HALTED)
        reached["revaluations"] += oracle.margin.revaluations
        reached["short accounts liquidated"] += sum(
            event.kind in (EventKind.POSITION_TAKEN_OVER, EventKind.DELEVERAGED) and event.side == 0 for event in events
        )
        reached["long accounts liquidated"] += sum(
            event.kind in (EventKind.POSITION_TAKEN_OVER, EventKind.DELEVERAGED) and event.side == 1 for event in events
        )
        reached["halts within a liquidation"] += sum(
            event.kind == EventKind.INSTRUMENT_HALTED
            and event.order_id == 0
            and event.account != -1
            and event.reason in set(Trigger)
            for event in events
        )
        reached["halts that ended"] += sum(
            event.kind == EventKind.PHASE_CHANGED and event.value == Phase.AUCTION for event in events
        )
        reached["debt of the pool written off"] += oracle.lending.written_off_lots > 0
        reached["margin debt"] += any(
            account.margin and account.cash < 0 and account.margin_state == MarginState.NORMAL
            for account in oracle.accounts
        )
        reached["bad debt"] += oracle.margin.bad_debt > 0
    missing = [kind.name for kind in MONEY_KINDS if kinds[kind] < 3]
    missing += [reason.name for reason in MONEY_REASONS if reasons[reason] < 3]
    assert not missing, (missing, kinds, reasons)
    assert len(reached) == 8 and all(count >= 3 for count in reached.values()), reached


@pytest.mark.parametrize("seed", range(100, 112))
def test_nothing_is_lost_at_any_moment(seed: int) -> None:
    given = session_of(seed, COMMANDS, money=True).commands
    oracle = Oracle(random_money_case(seed)[0])
    for number, command in enumerate(given):
        oracle.apply(command)
        if number % 4 == 0 or oracle.event_count() > 3:
            oracle.check_invariants()
