"""Many sessions over one connection, each named in a frame of its own before every message."""

import os

import pytest
import zmq

from exchange import keys, wire
from exchange.types import CommandKind, EventKind, OrderType, Reason, Side
from tests.venues import Connection, check_replay, engine, running_venue, wait_for_status

BUY, SELL = Side.BUY, Side.SELL
pytestmark = pytest.mark.usefixtures("nothing_left")


class Trunk:
    """A connection that several accounts share, and what each of them heard (None: all of them)."""

    def __init__(self, venue, own_keys=None):
        self.connection = Connection(venue, own_keys)
        self.heard = {}

    def send(self, account, *values):
        self.connection.socket.send_multipart([wire.account_frame(account), wire.pack(*map(int, values))])

    def log_on(self, account, named=None, flags=0):
        self.send(
            account if named is None else named, CommandKind.LOG_ON, wire.PROTOCOL_VERSION, account, flags, *[0] * 6
        )

    def place(self, account, order_id, side, price_ticks, lots):
        self.send(account, CommandKind.PLACE_ORDER, order_id, 0, side, OrderType.LIMIT, price_ticks, lots, 0, 0, 0, 0)

    def next(self, timeout_s=10.0):
        """(account, message); account None: without a frame of its own."""
        assert self.connection.socket.poll(int(timeout_s * 1000)), f"nothing heard; before: {self.heard}"
        *frame, payload = self.connection.socket.recv_multipart()
        account = wire.account_in(frame[0]) if frame else None
        message = wire.unpack(payload)
        self.heard.setdefault(account, []).append(message)
        return account, message

    def hear(self, account, kind):
        while True:
            whose, message = self.next()
            if whose == account and message.kind == kind:
                return message


@pytest.fixture
def venue(tmp_path):
    with running_venue(tmp_path) as running:
        for account in range(8):
            running.endow(account)
        yield running


def test_each_account_has_its_own_session_and_hears_its_own_reports(venue):
    trunk, alone = Trunk(venue), venue.session(5)
    for account in range(4):
        trunk.log_on(account)
        assert trunk.next()[1].kind == wire.MessageKind.LOGGED_ON
    venue.open()
    trunk.place(0, 1, BUY, 100, 5)
    trunk.place(1, 1, BUY, 101, 5)
    trunk.place(2, 1, SELL, 100, 8)
    first = trunk.hear(2, EventKind.ORDER_FILLED)
    assert (first.price_ticks, first.quantity_lots) == (101, 5)
    assert trunk.hear(1, EventKind.ORDER_FILLED).quantity_lots == 5
    assert trunk.hear(0, EventKind.ORDER_FILLED).quantity_lots == 3
    alone.place(1, SELL, 100, 2)
    assert alone.hear(EventKind.ORDER_FILLED).quantity_lots == 2
    assert trunk.hear(0, EventKind.ORDER_FILLED).leaves_lots == 0
    trunk.send(3, wire.MessageKind.DEPTH_REQUEST, 0)
    assert trunk.hear(3, wire.MessageKind.DEPTH).trade_number == 3
    assert venue.status().logged_on == 5
    said = venue.stop()
    assert said["sessions_logged_on"] == 5 and said["refused"] == 0
    check_replay(venue, said)


def test_who_has_no_session_over_the_connection_is_refused_by_name(venue):
    trunk, other, alone = Trunk(venue), Trunk(venue), venue.session(5)
    trunk.log_on(0)
    assert trunk.next()[1].kind == wire.MessageKind.LOGGED_ON
    venue.open()
    for account in (1, 5, 8, 1 << 31, (1 << 32) - 1):
        trunk.place(account, 1, BUY, 100, 1)
        whose, refused = trunk.next()
        assert (whose, refused.reason) == (account, Reason.NOT_LOGGED_ON)
    for account, named, reason in (
        (5, 5, Reason.SESSION_IN_USE),
        (2, 3, Reason.MALFORMED),
        (8, 8, Reason.UNKNOWN_ACCOUNT),
    ):
        trunk.log_on(account, named)
        whose, refused = trunk.next()
        assert (whose, refused.reason) == (named, reason)
    other.log_on(0)
    assert other.next()[1].reason == Reason.SESSION_IN_USE
    # A connection is either shared or somebody's own.
    assert trunk.connection.log_on(3).reason == Reason.SESSION_IN_USE
    alone.socket.send_multipart([wire.account_frame(3), wire.log_on(3, 0, (0, 0), 0)])
    assert wire.unpack(alone.socket.recv_multipart()[1]).reason == Reason.SESSION_IN_USE
    alone.socket.send_multipart([wire.account_frame(5), wire.pack(7, 0)])
    assert wire.unpack(alone.socket.recv_multipart()[1]).kind == wire.MessageKind.DEPTH  # public, for any connection
    trunk.connection.socket.send_multipart([b"12345", wire.pack(7, 0)])
    assert trunk.next()[1].reason == Reason.MALFORMED
    trunk.connection.socket.send_multipart([wire.account_frame(0), b"", b""])
    assert trunk.next()[1].reason == Reason.MALFORMED
    trunk.place(0, 1, BUY, 100, 1)
    assert trunk.hear(0, EventKind.ORDER_ACCEPTED)
    check_replay(venue, venue.stop())


def test_a_log_off_ends_one_session_and_the_connection_s_end_all(venue):
    trunk = Trunk(venue)
    for account in range(4):
        trunk.log_on(account, flags=1)  # cancel on disconnect
        trunk.next()
    venue.open()
    for account in range(4):
        trunk.place(account, 1, BUY, 100 + account, 1)
        trunk.hear(account, EventKind.ORDER_ACCEPTED)
    trunk.send(3, wire.MessageKind.LOG_OFF)
    wait_for_status(venue, lambda status: status.logged_on == 3, "three sessions left")
    trunk.place(2, 2, BUY, 90, 1)
    trunk.hear(2, EventKind.ORDER_ACCEPTED)
    trunk.log_on(3)
    trunk.hear(3, wire.MessageKind.LOGGED_ON)
    trunk.connection.close()
    wait_for_status(venue, lambda status: status.logged_on == 0, "all sessions ended")
    again = Trunk(venue)
    for account in range(4):
        again.log_on(account)
        assert again.next()[1].kind == wire.MessageKind.LOGGED_ON
    said = venue.stop()
    replayed = check_replay(venue, said)
    cancelled = replayed.events[replayed.events["kind"] == EventKind.ORDER_CANCELLED]
    assert sorted(cancelled["account"].tolist()) == [0, 1, 2, 2, 3]


def test_a_kill_ends_only_the_session_of_whom_it_means(venue):
    trunk = Trunk(venue)
    for account in range(3):
        trunk.log_on(account)
        trunk.next()
    venue.open()
    assert venue.operator.request(CommandKind.KILL, 1).reason == 0
    account, refused = trunk.next()
    assert (account, refused.reason) == (1, Reason.IS_KILLED)
    trunk.place(1, 1, BUY, 100, 1)
    assert trunk.next()[1].reason == Reason.NOT_LOGGED_ON
    trunk.place(2, 1, BUY, 100, 1)
    assert trunk.hear(2, EventKind.ORDER_ACCEPTED)
    check_replay(venue, venue.stop())


def test_one_who_does_not_read_loses_all_its_sessions_and_is_told_once(tmp_path):
    with running_venue(tmp_path, open_at_start=True) as venue:
        trunk = Trunk(venue)
        trunk.connection.socket.close()
        trunk.connection.socket = venue.context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, 0), (zmq.RCVHWM, 1), (zmq.RCVBUF, 4096)):
            trunk.connection.socket.setsockopt(option, value)
        trunk.connection.socket.connect(venue.endpoints.orders)
        for account in range(3):
            trunk.log_on(account)
            trunk.next()
        sent = 0
        while venue.status().logged_on == 3:
            for _ in range(1000):
                sent += 1
                trunk.place(sent % 3, sent, BUY, 9, 1)  # without cash: a reject each
            assert sent < 400_000, "its queue does not fill"
        wait_for_status(venue, lambda status: status.logged_on == 0, "all its sessions ended")
        while not trunk.connection.is_quiet(500):
            trunk.next()
        assert [refused.reason for refused in trunk.heard[None]] == [Reason.NOT_LOGGED_ON]
        for account in range(3):
            trunk.log_on(account)
            trunk.hear(account, wire.MessageKind.LOGGED_ON)
        said = venue.stop()
        assert said["reports_unsent"] > 0
        check_replay(venue, said)


def test_with_keys_a_shared_connection_acts_for_those_whose_key_it_is(tmp_path):
    made = keys.generate([0, 1, 2], ["operator"])
    accounts = {**made.venue.accounts, 1: made.venue.accounts[0]}
    shared = made._replace(venue=made.venue._replace(accounts=accounts))
    with running_venue(tmp_path, keys=shared) as venue:
        trunk = Trunk(venue, made.accounts[0])
        for account, kind in (
            (0, wire.MessageKind.LOGGED_ON),
            (1, wire.MessageKind.LOGGED_ON),
            (2, wire.MessageKind.REFUSED),
        ):
            trunk.log_on(account)
            assert trunk.next() == (account, trunk.heard[account][-1])
            assert trunk.heard[account][-1].kind == kind
        assert trunk.heard[2][-1].reason == Reason.WRONG_KEY
        venue.open()
        trunk.place(1, 1, BUY, 100, 1)
        assert trunk.hear(1, EventKind.ORDER_REJECTED).reason == Reason.INSUFFICIENT_CASH
        check_replay(venue, venue.stop())


def test_a_thousand_sessions_cost_one_descriptor(tmp_path):
    with running_venue(tmp_path, engine=engine(accounts=1000)) as venue:
        descriptors = len(list_descriptors(venue.process.pid))
        trunk = Trunk(venue)
        for account in range(1000):
            trunk.log_on(account)
        for _ in range(1000):
            assert trunk.next()[1].kind == wire.MessageKind.LOGGED_ON
        assert venue.status().logged_on == 1000
        assert len(list_descriptors(venue.process.pid)) <= descriptors + 3
        check_replay(venue, venue.stop())


def list_descriptors(pid):
    return os.listdir(f"/proc/{pid}/fd")
