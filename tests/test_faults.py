"""What goes wrong: kill -9 under load, a full disk, a clock that begins anew, clients that never read or never stop."""

import random

import numpy as np
import pytest
import zmq

from exchange import clock, journal, wire
from exchange.config import InstrumentConfig
from exchange.server import EndowmentConfig
from exchange.session import Session
from exchange.types import COMMAND, CommandKind, EventKind, OrderType, Reason, Side
from tests.frame_fuzz import fuzz
from tests.venues import (
    Connection,
    check_replay,
    engine,
    expected_reports,
    free_ports,
    log_on_again,
    running_venue,
    wait_for_status,
)

BUY, SELL = Side.BUY, Side.SELL
RICH = EndowmentConfig(cash=10**13, lots=10**7)
LIMITED = (
    "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}));"
)
pytestmark = pytest.mark.usefixtures("nothing_left")


def kill_rounds(directory, rounds: int, seed: int, sync: str = "never") -> None:
    """Four sessions place and cancel; the venue is killed at any moment and started again; nothing is lost or doubled.

    Ports below those of connecting sockets, so that nobody else gets them meanwhile.
    """
    chance = random.Random(seed)
    accounts = range(4)
    with running_venue(
        directory,
        engine=engine((InstrumentConfig(price_levels=64),), max_orders=1 << 16),
        endowment=RICH,
        open_at_start=True,
        port=free_ports(),
        segment_records=1 << 12,
        max_sessions=16,
        sync=sync,
    ) as venue:
        sessions = [Session(venue.endpoints, account, context=venue.context) for account in accounts]
        reports: list = [[] for _ in accounts]

        def hear() -> None:
            for session, heard in zip(sessions, reports, strict=True):
                heard += [message for message in session.messages() if isinstance(message, wire.Report)]

        def act() -> None:
            session = chance.choice(sessions)
            live = session.open_orders()
            if live and chance.random() < 0.3:
                session.cancel(chance.choice(live).order_id, chance.randrange(3))
            elif live and chance.random() < 0.1:
                session.replace(chance.choice(live).order_id, chance.randint(20, 30), chance.randint(1, 9))
            else:
                session.place(0, chance.randrange(2), chance.randint(20, 30), chance.randint(1, 9))

        try:
            for _ in range(rounds):
                for _ in range(chance.randrange(10, 300)):
                    act()
                    if chance.random() < 0.1:
                        hear()
                clock.sleep(chance.random() * 0.01)
                venue.kill()
                for _ in range(chance.randrange(20)):
                    act()  # while there is no venue
                venue.start()
                assert venue.said.get("ready"), venue.said
            for session in sessions:
                session.wait_until(lambda session=session: session.ready or None, 30)
                for order in session.open_orders():
                    session.wait_for(order.order_id, 30)
                session.request_depth(0)
            barrier = venue.connection()
            for _ in range(3):  # what was sent again, and its outcomes
                for session in sessions:
                    session.poll(0.2)
                barrier.catch_up()
                hear()
            last = venue.status().sequence
            resting = [{order.order_id: order.leaves_lots for order in session.open_orders()} for session in sessions]
        finally:
            for session in sessions:
                session.close()
        wait_for_status(venue, lambda status: status.logged_on == 0, "everybody gone")
        said = venue.stop()
        replayed = check_replay(venue, said)
        assert said["commands"] >= last
        events = replayed.events
        for account in accounts:
            told = expected_reports(events, account)
            assert reports[account] == told
            mine = events[events["account"] == account]
            kinds = mine["kind"]
            first = mine[(kinds == EventKind.ORDER_ACCEPTED) | (kinds == EventKind.ORDER_REJECTED)]
            placed = first["order_id"][first["order_id"] > 0]
            assert len(np.unique(placed)) == len(placed)  # none doubled
            state = sessions[account].state
            replaced = mine["order_id"][kinds == EventKind.ORDER_REPLACED]
            gone = mine[(kinds == EventKind.ORDER_CANCELLED) & (mine["reason"] == Reason.REPLACED)]
            answered = {*placed.tolist(), *replaced.tolist()}
            highest = max(state.orders)
            assert len(answered) >= highest - len(gone)  # none lost: each has its outcome
            rests = replayed.engine.state.orders
            rests = rests[(rests["account"] == account) & (rests["leaves_lots"] > 0)]
            assert {int(row["order_id"]): int(row["leaves_lots"]) for row in rests} == resting[account]
        starts = (events["kind"] == EventKind.VENUE_STARTED).sum()
        assert starts == rounds + 1
        assert (events["kind"] == EventKind.ORDER_FILLED).sum() > 10 * rounds


def test_kill_nine_at_any_moment_loses_and_doubles_nothing(tmp_path):
    kill_rounds(tmp_path, 8, seed=1)


def test_kill_nine_with_every_batch_synced(tmp_path):
    kill_rounds(tmp_path, 3, seed=2, sync="batch")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 14))
def test_kill_nine_fifty_times(tmp_path, seed):
    kill_rounds(tmp_path, 50, seed)


def test_a_full_disk_stops_the_venue_before_it_acknowledges_and_it_goes_on_when_there_is_room(tmp_path):
    """No file may grow beyond 64 KiB (RLIMIT_FSIZE): what the journal did not take was never acknowledged."""
    with running_venue(tmp_path, endowment=RICH, open_at_start=True) as venue:  # compiles, without a limit
        session = venue.session(0)
        venue.stop()
        venue.before = LIMITED.format(65536)
        venue.start()
        session = venue.session(0)
        for order_id in range(1, 2001):
            session.place(order_id, BUY, 10, 1, OrderType.IOC)
        said = venue.last_word()
        assert venue.process.returncode == 1
        assert "the journal could not be written: File too large; nothing unwritten counts" in said["error"]
        assert said["journal_errno"] == 27
        while not session.is_quiet(500):
            session.next()
        accepted = [report.order_id for report in session.reports if report.kind == EventKind.ORDER_ACCEPTED]
        assert 0 < len(accepted) < 2000
        venue.before = ""
        venue.start()
        assert venue.said["ready"]
        again = log_on_again(venue, 0, session.position)
        assert again.heard[0].last_order_id >= accepted[-1]
        again.place(3000, BUY, 10, 1)
        assert again.catch_up()[-1].order_id == 3000
        replayed = check_replay(venue, venue.stop())
        told = session.reports + again.reports
        assert told == expected_reports(replayed.events, 0)


@pytest.mark.slow
def test_a_venue_that_has_no_room_to_start_says_so(tmp_path):
    with running_venue(tmp_path, endowment=RICH) as venue:
        venue.stop()
        path = journal.segments(venue.config.directory)[-1]
        size = path.stat().st_size
        venue.before = LIMITED.format(size)
        venue.start()
        assert "File too large" in venue.said["error"] and "the journal cannot be written" in venue.said["error"]
        assert venue.process.wait(30) == 2
        venue.before = ""
        venue.start()
        check_replay(venue, venue.stop())


def move_into_the_future(directory, by_ns: int) -> None:
    """The journal as a machine left it whose clock was so much further."""
    (path,) = journal.segments(directory)
    segment = journal.read_segment(path, last=True)
    commands = segment.commands.copy()
    commands["received_ns"] += by_ns
    journal.seal(commands.view(np.int64).reshape(len(commands), -1), 0, len(commands), segment.header.previous_check)
    path.write_bytes(path.read_bytes()[: segment.header.start] + commands.view(COMMAND).tobytes())


def test_time_goes_on_where_it_was_when_the_machine_s_clock_begins_anew(tmp_path):
    in_batches = InstrumentConfig(price_levels=64, batch_interval_ns=20 * clock.MS)
    instruments = (InstrumentConfig(price_levels=64), in_batches)
    with running_venue(
        tmp_path, engine=engine(instruments), endowment=RICH, open_at_start=True, port=free_ports()
    ) as venue:
        assert venue.said["clock_offset_ns"] == 0
        session = venue.session(0)
        session.place(1, BUY, 10, 5, instrument=1)
        session.place(2, SELL, 10, 3, instrument=1)
        session.hear(EventKind.ORDER_FILLED)
        session.place(3, BUY, 10, 5, instrument=1)  # its batch's timer is armed when the venue dies
        session.hear(EventKind.ORDER_ACCEPTED)
        venue.kill()
        ahead = 10**15
        move_into_the_future(venue.config.directory, ahead)
        for order_id in (4, 6):
            left = journal.read(venue.config.directory).commands["received_ns"][-1]
            venue.start()
            offset = venue.said["clock_offset_ns"]
            assert ahead - 3600 * clock.SECOND < offset <= ahead
            session = venue.session(0)
            session.place(order_id, BUY, 11, 5, instrument=1)
            assert session.hear(EventKind.ORDER_ACCEPTED).time_ns >= left
            session.place(order_id + 1, SELL, 11, 5, instrument=1)
            fill = session.hear(EventKind.ORDER_FILLED)
            assert fill.liquidity == 3
            assert ahead <= left <= fill.time_ns <= clock.monotonic_ns() + offset
            check_replay(venue, venue.stop())
        assert (np.diff(journal.read(venue.config.directory).commands["received_ns"]) >= 0).all()


def test_a_session_that_never_reads_is_ended_and_told_all_when_it_comes_back(tmp_path):
    """Its reports fill its queue; then its session ends, rather than that it misses one unawares."""
    with running_venue(tmp_path, endowment=RICH, open_at_start=True) as venue:
        other = venue.session(1)
        deaf = Connection(venue)
        deaf.socket.close()
        deaf.socket = venue.context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, 0), (zmq.RCVHWM, 1), (zmq.RCVBUF, 4096)):
            deaf.socket.setsockopt(option, value)
        deaf.socket.connect(venue.endpoints.orders)
        began = deaf.log_on(0).sequence
        order_id, turns = 0, 0
        while venue.status().logged_on == 2:
            turns += 1
            assert turns < 400, "its queue does not fill"
            for _ in range(1000):
                order_id += 1
                deaf.place(order_id, BUY, 9, 1, OrderType.IOC)
            other.place(turns, BUY, 8, 1)
            other.hear(EventKind.ORDER_ACCEPTED)  # nobody else is held up
        while not deaf.is_quiet(500):
            deaf.next()
        reports = deaf.reports
        assert isinstance(deaf.heard[0], wire.LoggedOn)
        deaf.close()
        again = log_on_again(venue, 0, deaf.position)
        assert again.heard[0].resent_from == deaf.position[0]
        again.catch_up()
        said = venue.stop()
        assert said["reports_unsent"] > 0
        replayed = check_replay(venue, said)
        told = [report for report in expected_reports(replayed.events, 0) if report.sequence > began]
        assert reports + again.reports == told


def test_one_who_floods_waits_for_himself(tmp_path):
    """While one session has tens of thousands of orders under way, another's thousand are taken in turn with them."""
    with running_venue(tmp_path, endowment=RICH, open_at_start=True) as venue:
        flooder, modest = venue.session(0), venue.session(1)
        flood, few = 150_000, 500
        for order_id in range(1, flood + 1):
            flooder.place(order_id, BUY, 9, 1, OrderType.IOC)
            if order_id == flood // 2:
                for number in range(1, few + 1):
                    modest.place(number, BUY, 8, 1, OrderType.IOC)
            if order_id % 1000 == 0:
                while not flooder.is_quiet(0):  # it reads, or its session would end
                    flooder.socket.recv()
        deadline = clock.monotonic_ns() + 60 * clock.SECOND
        while len(modest.reports) < 2 * few:
            modest.next()
        while venue.status().commands < flood + few:
            while not flooder.is_quiet(0):
                flooder.socket.recv()
            assert clock.monotonic_ns() < deadline
        said = venue.stop()
        assert said["sessions_logged_on"] == 2
        orders = journal.read(venue.config.directory).commands
        orders = orders[orders["kind"] == CommandKind.PLACE_ORDER]
        places = np.flatnonzero(orders["account"] == 1)
        assert len(places) == few and len(orders) == flood + few
        assert places[-1] - places[0] < 40 * few, "they waited for the flood"


def test_three_thousand_connections_at_once(tmp_path):
    resource = pytest.importorskip("resource")
    count = 3000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4 * count:
        pytest.skip(f"at most {hard} open files are allowed here; this needs {4 * count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with running_venue(
            tmp_path, engine=engine(accounts=count, max_orders=1 << 12), endowment=RICH, open_at_start=True
        ) as venue:
            connections = [venue.connection() for _ in range(count)]
            for account, connection in enumerate(connections):
                connection.ask_log_on(account)
                connection.place(1, BUY, 1 + account % 60, 1)
            for account, connection in enumerate(connections):
                assert connection.next(60).account == account
                assert connection.next(60).kind == EventKind.ORDER_ACCEPTED
            assert venue.status().logged_on == count
            for connection in connections:
                connection.close()
            wait_for_status(venue, lambda status: status.logged_on == 0, "all gone")
            said = venue.stop()
            assert said["sessions_logged_on"] == count and said["refused"] == 0
            check_replay(venue, said)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_frames_of_every_kind_of_wrong_are_accounted_for(tmp_path):
    without, with_sessions = fuzz(tmp_path, 50_000, seed=20)
    assert without.sent + with_sessions.sent >= 50_000
