"""With keys: who may connect, and for whom. Without: only this machine."""

import contextlib

import pytest
import zmq
from pydantic import ValidationError

from exchange import wire
from exchange.client import Operator
from exchange.errors import VenueError
from exchange.keys import generate
from exchange.server import EndowmentConfig, VenueConfig
from exchange.types import CommandKind, EventKind, Reason, Side
from tests.venues import Connection, check_replay, engine, hear, running_venue

RICH = EndowmentConfig(cash=10**9, lots=10**6)
QUIET_MS = 700
KEYS = generate(range(4), ["alice", "bob"])
OTHERS = generate(range(4), ["mallory"])
pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def venue(tmp_path):
    with running_venue(tmp_path, keys=KEYS, endowment=RICH, open_at_start=True) as running:
        yield running


def is_unanswered(connection: Connection) -> bool:
    with contextlib.suppress(zmq.Again):  # its handshake has failed already
        connection.send(wire.MessageKind.DEPTH_REQUEST, 0)
    return connection.is_quiet(QUIET_MS)


def test_with_its_key_an_account_trades_and_hears_what_is_public(venue):
    listener = venue.participant(3)
    for account in (0, 1):
        venue.session(account).place(1, Side.BUY if account else Side.SELL, 100, 5)
    assert hear(listener, wire.MessageKind.TRADE).quantity_lots == 5
    said = venue.stop()
    assert said["handshakes_failed"] == said["refused"] == 0
    check_replay(venue, said)


def test_who_has_no_key_of_this_venue_is_not_answered_at_all(venue):
    known = KEYS.accounts[0]
    strangers = {
        "no key": None,
        "a key nobody knows": OTHERS.accounts[0]._replace(venue_public=known.venue_public),
        "another venue's": known._replace(venue_public=OTHERS.accounts[0].venue_public),
        "a public key without its secret": known._replace(secret=OTHERS.accounts[0].secret),
        "an operator's": KEYS.operators["alice"],
    }
    connections = {name: venue.connection(keys) for name, keys in strangers.items()}
    for name, connection in connections.items():
        with contextlib.suppress(zmq.Again):  # its handshake has failed already
            connection.ask_log_on(0)
            connection.place(1, Side.BUY, 100, 1)
        assert is_unanswered(connection), name
        connection.close()
    assert venue.session(0).is_quiet(1)
    said = venue.stop()
    assert said["handshakes_failed"] >= len(strangers)
    assert said["sessions_logged_on"] == 1 and said["refused"] == 0
    check_replay(venue, said)


def test_a_plain_subscriber_hears_nothing_and_a_known_one_does(venue):
    for endpoint in (venue.endpoints.notices, venue.endpoints.market_data):
        for keys, expected in ((None, 0), (OTHERS.accounts[0], 0), (KEYS.accounts[2], 1), (KEYS.operators["bob"], 1)):
            with venue.context.socket(zmq.SUB) as listener:
                listener.setsockopt(zmq.SUBSCRIBE, b"")
                listener.setsockopt(zmq.LINGER, 0)
                if keys is not None:
                    keys.apply(listener)
                listener.connect(endpoint)
                assert bool(listener.poll(5000 if expected else 1200)) == bool(expected)


def test_a_key_is_one_account_s_alone(venue):
    thief = venue.connection(KEYS.accounts[1])
    assert thief.log_on(0).reason == Reason.WRONG_KEY
    thief.place(1, Side.BUY, 100, 1)
    assert thief.next().reason == Reason.NOT_LOGGED_ON
    assert thief.log_on(1).account == 1
    owner = venue.session(0)
    assert thief.log_on(0).reason == Reason.WRONG_KEY
    said = venue.stop()
    assert said["refused"] == 3
    assert owner.heard[0].account == 0
    check_replay(venue, said)


def test_a_routing_id_of_one_s_own_choice_gets_nobody_s_session(venue):
    for routing_id in (b"\1\0\0\0\1", b"abcde", b"x"):
        thief = venue.connection(KEYS.accounts[1], routing_id=routing_id)
        assert thief.log_on(1).reason == Reason.MALFORMED
        thief.cancel(1)
        assert thief.next().reason == Reason.NOT_LOGGED_ON
    owner = venue.connection(KEYS.accounts[0], routing_id=b"\0\0\0\0\1")  # as a ROUTER names connections itself
    assert owner.log_on(0).account == 0
    thief = venue.connection(KEYS.accounts[1], routing_id=b"\0\0\0\0\1")
    thief.place(5, Side.BUY, 100, 1)
    assert is_unanswered(thief)
    owner.place(1, Side.BUY, 100, 1)
    assert owner.next().kind == EventKind.ORDER_ACCEPTED
    thief.close()
    other = venue.connection(KEYS.accounts[1], routing_id=b"\0\0\0\0\2")
    assert other.log_on(0).reason == Reason.WRONG_KEY
    replayed = check_replay(venue, venue.stop())
    accepted = replayed.events[replayed.events["kind"] == EventKind.ORDER_ACCEPTED]
    assert accepted["order_id"].tolist() == [1]


def test_the_control_channel_takes_operators_keys_alone(venue):
    for name in ("alice", "bob"):
        operator = Operator(venue.context, venue.config.control_address, keys=KEYS.operators[name])
        assert operator.request(wire.MessageKind.STATUS).reason == 0
        operator.close()
    for keys in (KEYS.accounts[0], OTHERS.operators["mallory"], None):
        operator = Operator(venue.context, venue.config.control_address, QUIET_MS, keys)
        with pytest.raises(VenueError):
            operator.request(CommandKind.DEPOSIT_CASH, 0, 0, 1)
        operator.close()
    replayed = check_replay(venue, venue.stop())
    assert (replayed.events["kind"] == EventKind.CASH_DEPOSITED).sum() == 8  # the endowment's


def test_an_operator_s_messages_are_nothing_on_the_orders_channel_and_a_participant_s_nothing_on_control(venue):
    session = venue.session(0)
    for kind in (CommandKind.DEPOSIT_CASH, CommandKind.CLOSE_SESSION, CommandKind.SET_LIMIT, wire.MessageKind.STOP):
        session.send(kind, 0, 0, 10**6)
        assert session.next().reason == Reason.MALFORMED
    for values in ((3, 2, 0, 0, 0, 0, 0), (1, 1, 0, 0, 0, 100, 1, 0, 0, 0, 0), (7, 0), (6,)):
        venue.operator.socket.send(wire.pack(*values))
        assert venue.operator.answer().reason == Reason.MALFORMED
    assert venue.status().logged_on == 1


def test_an_account_without_a_key_has_no_session(tmp_path):
    with running_venue(tmp_path, keys=KEYS, engine=engine(accounts=8)) as venue:
        other = venue.connection(KEYS.accounts[0])
        assert other.log_on(7).reason == Reason.WRONG_KEY  # not "no key" = "no key"
        assert other.log_on(0).account == 0


@pytest.mark.parametrize(
    ("settings", "fine"),
    [
        ({"host": "127.0.0.1"}, True),
        ({"host": "127.9.9.9"}, True),
        ({"host": "localhost"}, True),
        ({"control": "tcp://127.0.0.1:5"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "192.0.2.1"}, False),
        ({"host": "*"}, False),
        ({"control": "tcp://*:5"}, False),
        ({"control": "tcp://192.0.2.1:5"}, False),
        pytest.param({"host": "192.0.2.1", "keys": KEYS.venue}, True, id="with keys"),  # each process has its own
    ],
    ids=str,
)
def test_without_keys_only_this_machine_is_listened_to(tmp_path, settings, fine):
    values = {"engine": engine(), "directory": tmp_path, **settings}
    if fine:
        assert VenueConfig(**values).host
    else:
        with pytest.raises(ValidationError, match="without keys the venue listens on loopback only") as refused:
            VenueConfig(**values)
        assert len(refused.value.errors()) == 1 and "\n" not in refused.value.errors()[0]["msg"]
