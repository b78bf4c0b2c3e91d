"""The oracle against sessions worked out by hand, so that an agreement of engine and oracle means something."""

import hashlib
import struct
from collections import deque

import numpy as np
import pytest

from exchange.types import COMMAND, CommandKind, EventKind, Phase, Reason, Side
from tests.comparison import random_case
from tests.oracle import Oracle
from tests.oracle_records import NEVER, Command, Event, Instrument, Order, clearing_of
from tests.scenario_parts import MS, Scenario, exchange, market
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
    by_tuple, by_record = Oracle(exchange()), Oracle(exchange())
    for command, record in zip(commands, np.array([tuple(each) for each in commands], COMMAND), strict=True):
        events = by_record.apply(record)
        assert events == by_tuple.apply(command)
        assert all(type(value) is int for event in events for value in event)
    assert by_tuple.state_hash() == by_record.state_hash()


def test_orders_before_the_opening_are_rejected() -> None:
    oracle = Oracle(exchange())
    [placed] = oracle.apply(Command(1, CommandKind.PLACE_ORDER, order_id=1, quantity_lots=1, price_ticks=1))
    [cancelled] = oracle.apply(Command(2, CommandKind.CANCEL_ORDER, target_order_id=1))
    [all_cancelled] = oracle.apply(Command(3, CommandKind.MASS_CANCEL, side=1))
    assert placed == (1, 2, 0, 0, 0, 1, 0, 1, 1, 0, -1, 0, 0, 401, 0, 0, 0)
    assert cancelled == (2, 5, 0, 0, 0, 1, 0, 0, 0, 0, -1, 0, 0, 401, 0, 0, 0)
    assert all_cancelled == (3, 5, 0, 0, 0, 0, 1, 0, 0, 0, -1, 0, 0, 401, 0, 0, 0)


def test_each_instrument_opens_in_its_own_phase() -> None:
    oracle = Oracle(exchange(market(), market(opening_auction_ns=7), market(batch_interval_ns=MS)))
    events = oracle.apply(Command(1, CommandKind.OPEN_SESSION, received_ns=5))
    changed = EventKind.PHASE_CHANGED
    assert events == [
        Event(1, changed, 5, 0, -1, value=Phase.CONTINUOUS),
        Event(1, changed, 5, 1, -1, value=Phase.AUCTION, threshold=12),
        Event(1, changed, 5, 2, -1, value=Phase.BATCH),
        Event(1, EventKind.SESSION_OPENED, 5, account=-1),
    ]
    assert oracle.apply(Command(2, CommandKind.OPEN_SESSION, received_ns=5)) == [
        Event(2, EventKind.SESSION_OPENED, 5, account=-1)
    ]


def test_state_hash_covers_the_words_in_their_order() -> None:
    oracle = Oracle(exchange())
    # 5 @ 50 and 5 @ 50 offered, 5 @ 49 too; 12 bought: 5 @ 49, 5 @ 50 and 2 @ 50 (595), so 3 @ 50 still rest.
    commands = MATCHING[0].all_commands()
    commands += [
        Command(14, CommandKind.LOG_ON, 2, quantity_lots=5, target_order_id=7, order_type=8, price_ticks=9),
        Command(15, CommandKind.SET_LIMIT, 2, 5, quantity_lots=1_000),
        Command(16, CommandKind.START),
        Command(17, CommandKind.PLACE_ORDER, 2, 0, 9, price_ticks=10, quantity_lots=4, received_ns=50),
        Command(18, CommandKind.EXPLAIN, 2, order_id=10, rule=-3, received_ns=50),
        Command(19, CommandKind.EXPLAIN, 4, order_id=11, rule=-4, received_ns=50),
    ]
    for command in commands:
        oracle.apply(command)
    words = [
        *(19, 2, 1),  # sequence, resting orders, starts
        *(1, 50, 12, 0, NEVER, 0),  # continuous, last price, volume, no trigger, no timer, no batches
        *(0, 0, 0, 0),  # neither an index price nor an oracle; its reopening was not extended
        *(2, 9, 0, 10, 4, 0, 0),  # what still rests
        *(2, 1, 1, 50, 3, 2, 0),
        # cash, reserved, last order id, open orders, session, rate, killed, margin, model, latest EXPLAIN, limits
        *(9_405, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, *[0] * 5, *[0] * 5),
        *(10_250, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, *[0] * 5, *[0] * 5),
        *(10_100, 40, 9, 2, 2, 1, 1, 1_000_050, 0, 0, 0, 7, 8, 9, 10, -3, 0, 0, 0, 0, 1_000),
        *(10_245, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, *[0] * 5, *[0] * 5),
        *(112, 0, 0, 0),  # position, reserved, resting buys, what it cost
        *(95, 0, 0, 0),
        *(98, 3, 4, 0),
        *(95, 0, 0, 0),
        *(1, 13, 12, 0),  # order id, sequence, quantity, reason
        *(1, 10, 5, 0),
        *(1, 11, 5, 0),
        *(9, 17, 4, 0),
        *(1, 12, 5, 0),
    ]
    packed = struct.pack(f"<{len(words)}q", *words)
    assert oracle.state_hash() == hashlib.blake2b(packed, digest_size=16).hexdigest()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda oracle: setattr(oracle.accounts[0], "cash", 0), None),
        (lambda oracle: setattr(oracle.accounts[2].positions[0], "reserved_lots", 2), None),
        (lambda oracle: setattr(oracle.orders[1], "leaves_lots", 2), None),
        (lambda oracle: setattr(oracle.orders[1], "expiring", True), None),
        (lambda oracle: setattr(oracle.instruments[0], "timer_ns", 5), None),
        (lambda oracle: oracle.instruments[0].queues[1].clear(), None),
    ],
)
def test_invariants_notice_damage(damage: object, message: str | None) -> None:
    oracle = Oracle(exchange())
    for command in MATCHING[0].all_commands():
        oracle.apply(command)
    oracle.check_invariants()
    assert callable(damage)
    damage(oracle)
    with pytest.raises(AssertionError, match=message):
        oracle.check_invariants()


def test_invariants_notice_a_crossed_book() -> None:
    oracle = Oracle(exchange(market(opening_auction_ns=5)))
    commands = [
        Command(1, CommandKind.DEPOSIT_CASH, 0, quantity_lots=99),
        Command(2, CommandKind.DEPOSIT_POSITION, 0, quantity_lots=99),
        Command(3, CommandKind.OPEN_SESSION),
        Command(4, CommandKind.PLACE_ORDER, 0, 0, 1, side=0, price_ticks=60, quantity_lots=1),
        Command(5, CommandKind.PLACE_ORDER, 0, 0, 2, side=1, price_ticks=50, quantity_lots=1),
    ]
    for command in commands:
        oracle.apply(command)
        oracle.check_invariants()
    oracle.instruments[0].phase = Phase.CONTINUOUS
    with pytest.raises(AssertionError, match="crossed"):
        oracle.check_invariants()


def test_workload_is_a_function_of_its_seed() -> None:
    first, again, other = (random_commands(seed, 300, exchange()) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first["sequence"].tolist() == list(range(1, 301))
    assert (np.diff(first["received_ns"]) >= 0).all()


@pytest.mark.parametrize("seed", range(40))
def test_invariants_hold_after_every_command(seed: int) -> None:
    config, mix = random_case(seed)
    oracle = Oracle(config)
    for command in random_commands(seed, 400, config, mix):
        # Only a timer ends an auction; to look at all prices before every command would take twenty seconds a seed.
        timer = command["kind"] == CommandKind.TIMER
        before = [best_of_all_prices(each) for each in oracle.instruments] if timer else []
        events = [Event._make(event) for event in oracle.apply(command)]
        oracle.check_invariants()
        for ended in events:
            if ended.kind == EventKind.AUCTION_ENDED:
                expected = before[ended.instrument] or (0, 0, 0, 0)
                assert (ended.price_ticks, ended.quantity_lots, ended.value, ended.threshold) == expected
                fills = [each for each in events if each.kind == EventKind.ORDER_FILLED]
                assert sum(each.quantity_lots for each in fills) == ended.quantity_lots
                assert all((each.price_ticks, each.reason) == (ended.price_ticks, Reason.AUCTION) for each in fills)


@pytest.mark.parametrize("seed", range(300))
def test_clearing_price_is_the_best_of_all(seed: int) -> None:
    rng = np.random.Generator(np.random.PCG64([seed, 3]))
    instrument = Instrument(market(), last_ticks=int(rng.choice([0, 5, 30, 40, 60])))
    for side in (Side.BUY, Side.SELL):
        for number in range(int(rng.integers(0, 8))):
            price_ticks, lots = int(rng.integers(20, 50)), int(rng.choice([1, 2, 2, 5, 10]))
            order = Order(0, number, 0, side, price_ticks, lots, lots)
            instrument.queues[side].setdefault(price_ticks, deque()).append(order)
    assert clearing_of(instrument) == best_of_all_prices(instrument)


def best_of_all_prices(instrument: Instrument) -> tuple[int, int, int, int] | None:
    """The clearing price by trying every price: price, volume, imbalance, reference. None if nothing meets."""
    found = []
    bids, asks = list(instrument.resting_of(Side.BUY)), list(instrument.resting_of(Side.SELL))
    if not bids or not asks:
        return None
    for price_ticks in range(asks[0].price_ticks, bids[0].price_ticks + 1):
        wanted_lots = sum(order.leaves_lots for order in bids if order.price_ticks >= price_ticks)
        offered_lots = sum(order.leaves_lots for order in asks if order.price_ticks <= price_ticks)
        imbalance_lots = wanted_lots - offered_lots
        found.append((-min(wanted_lots, offered_lots), abs(imbalance_lots), price_ticks, imbalance_lots))
    if not found:
        return None
    best = [each for each in found if each[:2] == min(found)[:2]]
    prices = [each[2] for each in best]
    assert prices == list(range(prices[0], prices[-1] + 1)), "the best prices are not an unbroken range"
    reference_ticks = instrument.last_ticks or (prices[0] + prices[-1]) // 2
    volume_lots, _, price_ticks, imbalance_lots = min(best, key=lambda each: abs(each[2] - reference_ticks))
    return price_ticks, -volume_lots, imbalance_lots, reference_ticks
