"""Sessions over real sockets: who is logged on, what ends a session, and that no report is lost or told twice."""

import contextlib
import random
import signal

import pytest
import zmq

from exchange import clock, journal, wire
from exchange.config import InstrumentConfig, LimitsConfig
from exchange.server import EndowmentConfig
from exchange.types import NOBODY, CommandKind, EventKind, OrderType, Reason, SelfTrade, Side
from tests.processes import script
from tests.venues import (
    check_replay,
    engine,
    expected_reports,
    free_ports,
    hear,
    log_on_again,
    running_venue,
    wait_for_status,
)

BUY, SELL = Side.BUY, Side.SELL
CANCEL = wire.log_on_flags(True, SelfTrade.OFF)
RICH = EndowmentConfig(cash=10**12, lots=10**6)
pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def venue(tmp_path):
    with running_venue(tmp_path, endowment=RICH, open_at_start=True) as running:
        yield running


def commands_of(venue, kind):
    commands = journal.read(venue.config.directory).commands
    return commands[commands["kind"] == kind]


def test_without_a_session_only_public_knowledge_is_given(venue):
    stranger = venue.connection()
    stranger.place(1, BUY, 100, 1)
    refused = stranger.next()
    assert (refused.kind, refused.reason, refused.order_id) == (wire.MessageKind.REFUSED, Reason.NOT_LOGGED_ON, 1)
    for values in (
        (CommandKind.CANCEL_ORDER, 1, 0, 0, 0, 0, 0, 0),
        (CommandKind.MASS_CANCEL, -1, 2, 0, 0, 0, 0),
        (wire.MessageKind.LOG_OFF,),
        (wire.MessageKind.TRADES_REQUEST, 0, 1),
    ):
        stranger.send(*values)
        assert stranger.next().reason == Reason.NOT_LOGGED_ON
    stranger.send(CommandKind.REPLACE_ORDER, 9, 1, 0, 0, 100, 1, 0, 0, 0, 0)
    refused = stranger.next()
    assert (refused.reason, refused.order_id) == (Reason.NOT_LOGGED_ON, 9)
    stranger.send(wire.MessageKind.DEPTH_REQUEST, 1)
    assert stranger.next().instrument == 1
    said = venue.stop()
    assert said["refused"] == 6 and said["sessions_logged_on"] == 0
    check_replay(venue, said)


def test_an_account_has_one_session_until_its_connection_ends(venue):
    first, second = venue.session(0), venue.connection()
    assert second.log_on(0).reason == Reason.SESSION_IN_USE
    assert second.log_on(1).account == 1
    assert second.log_on(2).reason == Reason.SESSION_IN_USE  # this connection has another account's
    assert first.log_on(0, CANCEL).flags == CANCEL  # again on its own connection: it chooses anew
    first.place(1, BUY, 10, 1)
    assert first.next().kind == EventKind.ORDER_ACCEPTED
    first.close()
    third = log_on_again(venue, 0)
    assert third.heard[-1].last_order_id == 1
    assert wait_for_status(venue, lambda status: status.logged_on == 2, "two sessions").commands > 0
    off = commands_of(venue, CommandKind.LOG_OFF)
    assert off["account"].tolist() == [0]
    check_replay(venue, venue.stop())


@pytest.mark.parametrize("flags", [0, CANCEL], ids=["keep", "cancel"])
@pytest.mark.parametrize("how", ["closed", "killed", "logged off"])
def test_orders_are_cancelled_with_the_connection_if_that_was_chosen(venue, how, flags):
    watcher = venue.participant(7)
    with contextlib.ExitStack() as stack:
        if how == "killed":
            code = (
                "import sys, zmq, exchange.wire as w; s = zmq.Context().socket(zmq.DEALER); s.connect(sys.argv[1]);"
                "s.send(w.log_on(0, int(sys.argv[2]), (0, 0), 0)); s.recv();"
                "[s.send(w.pack(1, i, i - 1, 0, 0, 10, 5, 0, 0, 0, 0)) for i in (1, 2)]; s.recv(); s.recv();"
                "print(1, flush=True); sys.stdin.read()"
            )
            process, _ = stack.enter_context(script("-c", code, venue.endpoints.orders, flags))
            process.kill()
        else:
            session = venue.session(0, flags)
            session.place(1, BUY, 10, 5)
            session.place(2, BUY, 10, 5, instrument=1)
            assert [session.next().kind, session.next().kind] == [EventKind.ORDER_ACCEPTED] * 2
            if how == "closed":
                session.close()
            else:
                session.log_off()
        wait_for_status(venue, lambda status: status.logged_on == 1, "only the watcher logged on")
    if how == "logged off":
        session.place(3, BUY, 10, 5)
        refused = session.hear(wire.MessageKind.REFUSED)
        assert refused.reason == Reason.NOT_LOGGED_ON
    replayed = check_replay(venue, venue.stop())
    cancelled = replayed.events[replayed.events["kind"] == EventKind.ORDER_CANCELLED]
    assert cancelled["order_id"].tolist() == ([1, 2] if flags else [])
    assert set(cancelled["reason"].tolist()) <= {Reason.DISCONNECTED}
    off = replayed.events[replayed.events["kind"] == EventKind.LOGGED_OFF]
    assert off["account"].tolist() == [0]
    assert off["quantity_lots"].tolist() == [2 if flags else 0]
    watcher.close()


def test_after_a_log_off_the_connection_may_take_another_account(venue):
    connection = venue.session(0)
    connection.log_off()
    assert connection.log_on(1).account == 1
    connection.place(1, BUY, 10, 1)
    assert connection.next().kind == EventKind.ORDER_ACCEPTED
    assert commands_of(venue, CommandKind.PLACE_ORDER)["account"].tolist() == [1]


def test_a_session_acts_for_its_own_account_alone(venue):
    mine, yours = venue.session(0), venue.session(1)
    for session in (mine, yours):
        session.place(5, BUY, 10, 3)
        assert session.next().kind == EventKind.ORDER_ACCEPTED
    mine.cancel(5)
    assert mine.next().kind == EventKind.ORDER_CANCELLED
    mine.cancel(5)
    assert mine.next().reason == Reason.UNKNOWN_ORDER
    mine.send(CommandKind.REPLACE_ORDER, 6, 5, 0, 0, 11, 3, 0, 0, 0, 0)
    assert mine.next().reason == Reason.UNKNOWN_ORDER
    mine.send(CommandKind.MASS_CANCEL, NOBODY, 2, 0, 0, 0, 0)
    assert mine.next().quantity_lots == 0
    assert yours.catch_up() == []
    yours.cancel(5)
    assert yours.next().quantity_lots == 3


def test_a_routing_id_of_one_s_own_choice_gets_no_session(venue):
    owner = venue.session(0)
    for number, routing_id in enumerate((b"A0000", b"x", b"y" * 255, b"12345")):
        with_name = venue.connection(routing_id=routing_id)
        assert with_name.log_on(number).reason == Reason.MALFORMED
        with_name.place(1, BUY, 10, 1)
        assert with_name.next().reason == Reason.NOT_LOGGED_ON
    owner.place(1, BUY, 10, 1)
    assert owner.next().kind == EventKind.ORDER_ACCEPTED


def test_there_are_as_many_sessions_as_the_venue_may_have(tmp_path):
    with running_venue(tmp_path, max_sessions=2) as venue:
        sessions = [venue.session(account) for account in (0, 1)]
        third = venue.connection()
        assert third.log_on(2).reason == Reason.TOO_MANY_SESSIONS
        sessions[0].log_off()
        wait_for_status(venue, lambda status: status.logged_on == 1, "one has left")
        assert third.log_on(2).account == 2
        assert sessions[0].log_on(0).reason == Reason.TOO_MANY_SESSIONS
        assert venue.status().logged_on == 2


def test_a_session_that_is_too_fast_is_refused_ahead_of_the_journal(tmp_path):
    with running_venue(tmp_path, endowment=RICH, open_at_start=True, session_messages_per_s=3) as venue:
        session, other = venue.session(0), venue.session(1)
        count = 200
        for order_id in range(1, count + 1):
            session.place(order_id, BUY, 10, 1)
        answers = [session.next() for _ in range(count)]
        accepted = [answer.order_id for answer in answers if answer.kind == EventKind.ORDER_ACCEPTED]
        refused = [answer for answer in answers if answer.kind == wire.MessageKind.REFUSED]
        assert len(accepted) + len(refused) == count
        assert accepted[:2] == [1, 2] and refused  # a logon may count too
        assert {answer.reason for answer in refused} == {Reason.TOO_FAST}
        assert not {answer.order_id for answer in refused} & set(accepted)
        other.place(1, BUY, 10, 1)  # the limit is each session's own
        assert other.next().kind == EventKind.ORDER_ACCEPTED
        said = venue.stop()
        assert said["refused"] == len(refused)
        orders = commands_of(venue, CommandKind.PLACE_ORDER)
        assert orders["order_id"][orders["account"] == 0].tolist() == accepted


def test_the_engine_s_rate_limit_is_journaled(tmp_path):
    limits = LimitsConfig(messages_per_s=2)
    with running_venue(tmp_path, engine=engine(limits=limits), endowment=RICH, open_at_start=True) as venue:
        session = venue.session(0)
        for order_id in range(1, 101):
            session.place(order_id, BUY, 10, 1)
        reports = [session.next() for _ in range(100)]
        rejected = [report for report in reports if report.kind == EventKind.ORDER_REJECTED]
        assert [report.kind for report in reports[:2]] == [EventKind.ORDER_ACCEPTED] * 2
        assert rejected and {report.reason for report in rejected} == {Reason.MESSAGE_RATE_LIMIT}
        said = venue.stop()
        assert said["refused"] == 0
        check_replay(venue, said)
        assert len(commands_of(venue, CommandKind.PLACE_ORDER)) == 100


def test_a_repeated_order_id_is_told_its_first_outcome_also_after_a_restart(tmp_path):
    with running_venue(tmp_path, endowment=RICH, open_at_start=True, port=free_ports()) as venue:
        session = venue.session(0)
        session.place(1, BUY, 10, 5)
        accepted = session.next()
        session.place(2, BUY, 10, -5)
        rejected = session.next()
        for restarted in (False, True):
            if restarted:
                venue.kill()
                venue.start()
                session = venue.session(0)
            session.place(1, SELL, 99, 77)  # only the id counts
            told = session.next()
            assert (told.kind, told.reference, told.reason) == (EventKind.ORDER_REPEATED, accepted.sequence, 0)
            assert (told.quantity_lots, told.leaves_lots) == (5, 5)
            session.place(2, BUY, 10, 5)
            told = session.next()
            assert (told.kind, told.reference) == (EventKind.ORDER_REPEATED, rejected.sequence)
            assert (told.reason, told.leaves_lots) == (Reason.QUANTITY_OUT_OF_RANGE, 0)
        assert session.heard[0].last_order_id == 2
        check_replay(venue, venue.stop())


@pytest.mark.parametrize("seed", range(2))
def test_reports_that_were_missed_are_told_once_and_in_order_whatever_happens(tmp_path, seed):
    """Two accounts trade with each other and themselves; connections and the venue end at any moment."""
    chance = random.Random(seed)
    engine_config = engine((InstrumentConfig(price_levels=64),), max_orders=4096)
    with running_venue(
        tmp_path, engine=engine_config, endowment=RICH, open_at_start=True, port=free_ports(), reconnect_grace_ns=10**9
    ) as venue:
        sessions = [venue.session(0), venue.session(1)]
        for session in sessions:
            session.place(1, BUY, 1, 1)  # so that there is something to have heard
            session.next()
        told = [[], []]
        next_id = [2, 2]
        for turn in range(40):
            for account in (0, 1):
                for _ in range(chance.randrange(30)):
                    price = chance.randint(20, 30)
                    order_type = chance.choice((OrderType.LIMIT, OrderType.LIMIT, OrderType.IOC))
                    side, lots = chance.randrange(2), chance.randint(1, 9)
                    sessions[account].place(next_id[account], side, price, lots, order_type)
                    next_id[account] += 1
            if turn % 10 == 9:
                for session in sessions:  # else orders would go with their connection, and their ids
                    session.catch_up()
                venue.kill()
                venue.start()
                lost = (0, 1)
            else:
                lost = [account for account in (0, 1) if chance.random() < 0.4]
            for account in lost:
                if chance.random() < 0.5:
                    sessions[account].catch_up()
                else:
                    with contextlib.suppress(zmq.Again):  # some of what is there
                        for _ in range(chance.randrange(20)):
                            sessions[account].heard.append(wire.unpack(sessions[account].socket.recv(zmq.DONTWAIT)))
                told[account] += sessions[account].reports
                at = told[account][-1].sequence
                heard = (at, sum(report.sequence == at for report in told[account]))
                sessions[account].close()
                sessions[account] = log_on_again(venue, account, heard)
                logged_on = sessions[account].heard[-1]
                assert logged_on.resent_from == at
                next_id[account] = logged_on.last_order_id + 1
                sessions[account].heard.clear()
        for account in (0, 1):
            sessions[account].catch_up()
            told[account] += sessions[account].reports
        replayed = check_replay(venue, venue.stop())
        for account in (0, 1):
            assert told[account] == expected_reports(replayed.events, account)
        assert (replayed.events["kind"] == EventKind.ORDER_FILLED).sum() > 100


def test_what_is_no_longer_remembered_is_said_to_be_lost(tmp_path):
    with running_venue(tmp_path, endowment=RICH, open_at_start=True, engine=engine(max_orders=64)) as venue:
        session, busy = venue.session(0), venue.session(1)
        session.place(1, BUY, 10, 1)
        first = session.next()
        session.close()
        busy_count = 33_000  # two reports each: more than are kept
        for order_id in range(1, busy_count + 1):
            busy.place(order_id, BUY, 9, 1, OrderType.IOC)
            if order_id % 4000 == 0:
                busy.catch_up()
        busy.catch_up()
        again = log_on_again(venue, 0, (first.sequence, 0))
        assert again.heard[-1].resent_from > first.sequence
        assert again.catch_up() == []


def test_an_operator_s_reject_is_no_report_also_after_a_restart(venue):
    assert venue.operator.request(CommandKind.DEPOSIT_CASH, 0, 0, -5).reason == Reason.AMOUNT_OUT_OF_RANGE
    session = venue.session(0)
    session.place(0, BUY, 10, 1)  # a reject without an order id that is a report
    rejected = session.next()
    assert rejected.reason == Reason.ORDER_ID_NOT_INCREASING
    venue.kill()
    venue.start()
    again = venue.session(0, heard=(1, 0))
    assert again.catch_up() == [rejected]


def test_sessions_that_do_not_come_back_after_a_restart_are_ended_when_the_grace_is_over(tmp_path):
    with running_venue(
        tmp_path, endowment=RICH, open_at_start=True, port=free_ports(), reconnect_grace_ns=10**12
    ) as venue:
        for account in (0, 1, 2):
            session = venue.session(account, CANCEL if account else 0)
            session.place(1, BUY, 10 + account, 1)
            assert session.next().kind == EventKind.ORDER_ACCEPTED
        venue.kill()
        venue.start()
        back = venue.session(1, CANCEL)
        assert back.heard[-1].starts == 2
        assert venue.status().logged_on == 1
        assert len(commands_of(venue, CommandKind.LOG_OFF)) == 0  # not yet
        venue.kill()
        venue.start(reconnect_grace_ns=2 * 10**9)
        back = venue.session(1, CANCEL)
        deadline = clock.monotonic_ns() + 20 * clock.SECOND
        while len(off := commands_of(venue, CommandKind.LOG_OFF)) < 2:
            assert clock.monotonic_ns() < deadline
            clock.sleep(0.05)
        assert off["account"].tolist() == [0, 2]
        back.place(2, BUY, 10, 1)
        assert back.next().kind == EventKind.ORDER_ACCEPTED
        replayed = check_replay(venue, venue.stop())
        cancelled = replayed.events[replayed.events["kind"] == EventKind.ORDER_CANCELLED]
        assert cancelled["account"].tolist() == [2]


def test_descriptors_that_are_used_again_end_no_wrong_session(tmp_path):
    accounts = 32
    with running_venue(
        tmp_path, engine=engine(accounts=accounts), endowment=RICH, open_at_start=True, max_sessions=4096
    ) as venue:
        chance = random.Random(5)
        stable = {account: venue.session(account) for account in range(4)}
        live = {}
        for _ in range(600):
            account = chance.randrange(4, accounts)
            if account in live:
                if chance.random() < 0.5:
                    live[account].next()  # else it may end before its logon is read
                live.pop(account).close()
            else:
                live[account] = venue.connection()
                live[account].ask_log_on(account)  # it may be refused: the one before may not have ended yet
            for _ in range(chance.randrange(3)):
                stranger = venue.connection()
                if chance.random() < 0.5:
                    stranger.send(wire.MessageKind.DEPTH_REQUEST, 0)
                stranger.close()
        wanted = dict(stable)
        for account, connection in live.items():
            connection.close()
            wanted[account] = log_on_again(venue, account)
        for account in range(4, accounts):
            if account not in wanted:
                wanted[account] = log_on_again(venue, account)
        wait_for_status(venue, lambda status: status.logged_on == accounts, "everybody logged on")
        for account, session in wanted.items():
            session.place(1000, BUY, 10 + account, 1)
            assert session.next().kind == EventKind.ORDER_ACCEPTED, account
        off = commands_of(venue, CommandKind.LOG_OFF)["account"]
        assert (off >= 4).all() and len(off) > 50
        check_replay(venue, venue.stop())


@pytest.mark.parametrize("reused", [False, True])
def test_a_logon_whose_connection_has_ended_before_it_is_read_leaves_no_session(venue, reused):
    ended = venue.connection()
    ended.catch_up()
    before = venue.participant(1)
    hear(before, wire.MessageKind.HEARTBEAT)
    venue.process.send_signal(signal.SIGSTOP)
    ended.socket.setsockopt(zmq.LINGER, -1)
    ended.ask_log_on(0, CANCEL)
    ended.socket.close()
    clock.sleep(0.2)  # so that its bytes and its end are both there when the venue goes on
    if reused:
        strangers = [venue.connection() for _ in range(20)]
        for stranger in strangers:
            stranger.send(wire.MessageKind.DEPTH_REQUEST, 0)
    venue.process.send_signal(signal.SIGCONT)
    if reused:
        for stranger in strangers:
            stranger.hear(wire.MessageKind.DEPTH)
    log_on_again(venue, 0).place(1, BUY, 10, 1)
    check_replay(venue, venue.stop())
