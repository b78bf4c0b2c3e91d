"""The oracle against sessions worked out by hand, so that an agreement of engine and oracle means something."""

import hashlib
import struct

import numpy as np
import pytest

from exchange.types import COMMAND, CommandKind
from tests.oracle import Oracle
from tests.oracle_records import Command
from tests.scenario_parts import Exchange, Scenario
from tests.scenarios import MATCHING, SCENARIOS
from tests.workload import random_commands


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario_gives_the_events_worked_out_by_hand(scenario: Scenario) -> None:
    oracle = Oracle(scenario.exchange)
    events = []
    for command in scenario.all_commands():
        events += [event for event in oracle.apply(command) if command.sequence >= 10]
        oracle.check_invariants()
    assert events == list(scenario.expected)


def test_records_and_tuples_are_the_same_command() -> None:
    commands = MATCHING[0].all_commands()
    by_tuple, by_record = Oracle(Exchange()), Oracle(Exchange())
    for command, record in zip(commands, np.array([tuple(each) for each in commands], COMMAND), strict=True):
        events = by_record.apply(record)
        assert events == by_tuple.apply(command)
        assert all(type(value) is int for event in events for value in event)
    assert by_tuple.state_hash() == by_record.state_hash()


def test_orders_before_the_opening_are_rejected() -> None:
    oracle = Oracle(Exchange())
    [placed] = oracle.apply(Command(1, CommandKind.PLACE_ORDER, order_id=1, quantity_lots=1, price_ticks=1))
    [cancelled] = oracle.apply(Command(2, CommandKind.CANCEL_ORDER, target_order_id=1))
    assert placed == (1, 2, 0, 0, 0, 1, 0, 1, 1, 0, -1, 0, 0, 401, 0, 0, 0)
    assert cancelled == (2, 5, 0, 0, 0, 1, 0, 0, 0, 0, -1, 0, 0, 401, 0, 0, 0)


def test_state_hash_covers_the_words_in_their_order() -> None:
    oracle = Oracle(Exchange(accounts=4))
    # 5 @ 50 and 5 @ 50 offered, 5 @ 49 too; 12 bought: 5 @ 49, 5 @ 50 and 2 @ 50 (595), so 3 @ 50 still rest.
    for command in MATCHING[0].all_commands():
        oracle.apply(command)
    words = [
        *(13, 1),  # sequence, resting orders
        *(1, 50, 12, 0),  # continuous, last price, volume, no trigger
        *(2, 1, 1, 50, 3),  # what still rests
        *(9_405, 0, 1),  # cash, reserved, last order id
        *(10_250, 0, 1),
        *(10_100, 0, 1),
        *(10_245, 0, 1),
        *(112, 0),  # position, reserved
        *(95, 0),
        *(98, 3),
        *(95, 0),
    ]
    packed = struct.pack(f"<{len(words)}q", *words)
    assert oracle.state_hash() == hashlib.blake2b(packed, digest_size=16).hexdigest()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda oracle: setattr(oracle.accounts[0], "cash", 0), None),
        (lambda oracle: setattr(oracle.accounts[2].positions[0], "reserved_lots", 2), None),
        (lambda oracle: setattr(oracle.orders[2, 1], "leaves_lots", 2), None),
        (lambda oracle: oracle.instruments[0].queues[0].update({50: oracle.instruments[0].queues[1][50]}), "crossed"),
        (lambda oracle: oracle.instruments[0].queues[1].clear(), None),
    ],
)
def test_invariants_notice_damage(damage: object, message: str | None) -> None:
    oracle = Oracle(Exchange())
    for command in MATCHING[0].all_commands():
        oracle.apply(command)
    oracle.check_invariants()
    assert callable(damage)
    damage(oracle)
    with pytest.raises(AssertionError, match=message):
        oracle.check_invariants()


def test_workload_is_a_function_of_its_seed() -> None:
    first, again, other = (random_commands(seed, 300, Exchange()) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first["sequence"].tolist() == list(range(1, 301))
    assert (np.diff(first["received_ns"]) >= 0).all()


@pytest.mark.parametrize("seed", range(10))
def test_invariants_hold_after_every_command(seed: int) -> None:
    exchange = Exchange()
    oracle = Oracle(exchange)
    for command in random_commands(seed, 400, exchange):
        oracle.apply(command)
        oracle.check_invariants()
