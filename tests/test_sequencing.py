"""Messages that wait before they are sequenced: speed bumps and hold-and-release, alone and in a venue."""

import heapq
import random

import numpy as np
import pytest

from exchange import clock, journal, sequencing, wire
from exchange.config import InstrumentConfig
from exchange.sequencing import HELD_MESSAGES, SequencingConfig, new_hold
from exchange.server import TIMINGS_FILE, VenueConfig
from exchange.types import COMMAND, NEVER, CommandKind, EventKind, OrderType, Side
from tests.venues import check_replay, engine, running_venue

BUY, SELL = Side.BUY, Side.SELL
BUMP_NS = 50 * clock.MS


def command(kind=CommandKind.PLACE_ORDER, account=0, sent_ns=1, order_type=OrderType.LIMIT):
    made = np.zeros(1, COMMAND)
    made["kind"], made["account"], made["sent_ns"], made["order_type"] = kind, account, sent_ns, order_type
    return made


def due(hold, now, **fields):
    return sequencing.release_time(hold, command(**fields)[0], now)


def test_a_symmetric_bump_delays_all_and_an_asymmetric_one_those_who_could_take():
    everyone = new_hold(SequencingConfig(speed_bump_ns=350), 2, 16)
    assert due(everyone, 1000) == due(everyone, 1000, kind=CommandKind.CANCEL_ORDER) == 1350
    takers = new_hold(SequencingConfig(speed_bump_ns=350, speed_bump_on="takers"), 2, 16)
    assert due(takers, 1000) == due(takers, 1000, order_type=OrderType.IOC) == 1350
    assert due(takers, 1000, kind=CommandKind.REPLACE_ORDER) == 1350
    assert due(takers, 1000, order_type=OrderType.POST_ONLY) == 1000
    assert due(takers, 1000, kind=CommandKind.CANCEL_ORDER) == 1000


def test_hold_and_release_takes_the_sender_s_time_within_its_bound():
    hold = new_hold(SequencingConfig(hold_ns=100, link_delays_ns=(0, 30)), 2, 16)
    assert due(hold, 1000, sent_ns=960) == 1060
    assert due(hold, 1000, account=1, sent_ns=960) == 1090  # its link explains 30 of the 40
    assert due(hold, 1000, account=1, sent_ns=1000) == 1100  # sooner than its link can carry it: as if it came now
    assert due(hold, 1000, sent_ns=5000) == 1100  # from the future: no later than that
    assert hold.rules[0]["late"] == 0
    assert due(hold, 1000, sent_ns=899) == 1000  # late: at once
    assert hold.rules[0]["late"] == 1
    assert due(hold, 1000, sent_ns=0) == 1100  # it does not say when


@pytest.mark.parametrize("seed", range(5))
def test_what_is_held_leaves_in_the_order_in_which_it_is_due_and_a_session_in_its_own(seed):
    rng = random.Random(seed)
    hold = new_hold(SequencingConfig(speed_bump_ns=1), 4, 16)
    words = np.zeros((2, 16), np.int64)
    expected: list[tuple[int, int]] = []
    left, now = [], 0
    released = [0] * 4

    def take_due():
        while hold.rules[0]["next_ns"] <= now:
            left.append(int(hold.words[2 * sequencing.take_first(hold), 0]))
            assert left[-1] == heapq.heappop(expected)[1]
        assert not expected or expected[0][0] > now

    for number in range(600):
        now += rng.randrange(20)
        take_due()
        account = rng.randrange(4)
        released[account] = max(now + rng.randrange(1, 200), released[account])
        words[0, 0] = number
        sequencing.keep(hold, words, 0, 1, account, account, now, released[account])
        heapq.heappush(expected, (released[account], number))
    now += 200
    take_due()
    assert sorted(left) == list(range(600))
    assert hold.rules[0]["next_ns"] == NEVER
    assert hold.rules[0]["waiting"] == 0 and sorted(hold.spare) == list(range(HELD_MESSAGES))


def test_there_is_room_for_so_many():
    hold = new_hold(SequencingConfig(speed_bump_ns=1), 1, 16)
    words = np.zeros((2, 16), np.int64)
    for number in range(HELD_MESSAGES):
        assert sequencing.has_room(hold)
        sequencing.keep(hold, words, 0, 1, 0, 0, 0, number)
    assert not sequencing.has_room(hold)
    sequencing.take_first(hold)
    assert sequencing.has_room(hold)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"speed_bump_ns": 1, "hold_ns": 1}, "one of them"),
        ({"speed_bump_ns": -1}, "greater than or equal to 0"),
        ({"link_delays_ns": [0] * 9, "hold_ns": 1}, "9 delays for 8 accounts"),
        ({"speed_bump_on": "makers"}, "'all' or 'takers'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, settings, word):
    with pytest.raises(ValueError, match=word):
        VenueConfig(engine=engine(), directory=tmp_path, sequencing=settings)


def test_behind_an_asymmetric_bump_a_maker_gets_away_from_a_taker_who_came_first(tmp_path):
    bump = {"speed_bump_ns": BUMP_NS, "speed_bump_on": "takers"}
    with running_venue(tmp_path, sequencing=bump, max_timings=1000) as venue:
        for account in (0, 1):
            venue.endow(account)
        maker, taker = venue.session(0), venue.session(1)
        venue.open()
        maker.place(1, BUY, 100, 5, OrderType.POST_ONLY)
        assert maker.hear(EventKind.ORDER_ACCEPTED).order_id == 1
        taker.place(1, SELL, 100, 5, OrderType.IOC)
        taker.catch_up()  # it has arrived
        maker.cancel(1)
        assert maker.hear(EventKind.ORDER_CANCELLED).quantity_lots == 5
        assert taker.hear(EventKind.ORDER_CANCELLED).quantity_lots == 5
        # A session's own messages do not overtake each other: its cancel waits for its order.
        taker.place(2, SELL, 105, 5)
        taker.cancel(2)
        assert taker.hear(EventKind.ORDER_ACCEPTED).order_id == 2
        assert taker.hear(EventKind.ORDER_CANCELLED).order_id == 2
        said = venue.stop()
        assert said["held"] == 3
        check_replay(venue, said)
        commands = journal.read(venue.config.directory).commands
        waited_ns = commands["received_ns"] - np.load(venue.config.directory / TIMINGS_FILE)["arrived_ns"]
        bumped = (commands["account"] == 1) & (commands["kind"] == CommandKind.PLACE_ORDER)
        assert (waited_ns[bumped] == BUMP_NS).all()
        assert (waited_ns[commands["account"] == 0] == 0).all()
        assert (np.diff(commands["received_ns"]) >= 0).all()


def test_hold_and_release_puts_messages_where_they_would_have_been(tmp_path):
    with running_venue(tmp_path, sequencing={"hold_ns": BUMP_NS}) as venue:
        for account in (0, 1):
            venue.endow(account)
        late, early = venue.session(0), venue.session(1)
        venue.open()
        now = clock.monotonic_ns()
        place = (CommandKind.PLACE_ORDER, 1, 0, BUY, OrderType.LIMIT, 100, 1, now)
        late.send(*place, now, 0, 0)
        late.catch_up()  # it has arrived
        early.send(*place, now - clock.MS, 0, 0)  # it says that it was sent first
        assert early.hear(EventKind.ORDER_ACCEPTED).sequence + 1 == late.hear(EventKind.ORDER_ACCEPTED).sequence
        assert early.heard[-1].time_ns == now - clock.MS + BUMP_NS
        check_replay(venue, venue.stop())


def test_who_leaves_while_its_message_is_held_is_not_heard(tmp_path):
    with running_venue(tmp_path, sequencing={"speed_bump_ns": 4 * BUMP_NS}) as venue:
        venue.endow(0)
        session = venue.session(0)
        venue.open()
        before = venue.status()
        session.place(1, BUY, 100, 1)
        session.catch_up()
        session.log_off()
        clock.sleep(5 * BUMP_NS / clock.SECOND)
        after = venue.status()
        assert (after.commands, after.refused) == (before.commands + 1, before.refused + 1)
        # Nor in a later session over the same connection.
        session.log_on(0)
        session.place(1, BUY, 100, 1)
        session.catch_up()
        session.log_off()
        assert isinstance(session.log_on(0), wire.LoggedOn)
        clock.sleep(5 * BUMP_NS / clock.SECOND)
        assert session.is_quiet()
        session.place(2, BUY, 100, 1)
        assert session.hear(EventKind.ORDER_ACCEPTED).order_id == 2
        check_replay(venue, venue.stop())


def test_orders_held_across_a_batch_s_end_belong_to_the_batch_in_which_they_are_released(tmp_path):
    batches = engine([InstrumentConfig(price_levels=1024, batch_interval_ns=20 * clock.MS)])
    with running_venue(tmp_path, engine=batches, sequencing={"speed_bump_ns": 7 * clock.MS}) as venue:
        for account in (0, 1):
            venue.endow(account)
        one, other = venue.session(0), venue.session(1)
        venue.open()
        for number in range(1, 40):
            one.place(number, BUY, 100, 1)
            other.place(number, SELL, 100, 1)
            clock.sleep(0.002)
        one.hear(EventKind.ORDER_FILLED)
        clock.sleep(0.05)
        said = venue.stop()
        assert said["held"] == 78
        check_replay(venue, said)
