"""The venue as a process, over real sockets: what participants are told, what is refused, how it ends."""

import json
import os
import re
import signal
import subprocess
import sys

import msgpack
import numpy as np
import pytest
import zmq

from exchange import journal, wire
from exchange.errors import TornJournalError
from exchange.replay import replay
from exchange.server import TIMINGS_FILE, VenueConfig
from exchange.types import CommandKind, EventKind, OrderType, Reason, Side, Trigger
from tests.venues import RunningVenue, hear, running_venue

BUY, SELL = Side.BUY, Side.SELL


@pytest.fixture
def venue(tmp_path):
    with running_venue(tmp_path) as running:
        yield running


def place(participant, order_id, side, price, quantity, order_type=OrderType.LIMIT, instrument=0):
    participant.place(order_id, instrument, side, order_type, price, quantity, 11, 12, 13, 14)


def check_replay(venue: RunningVenue, said: dict) -> None:
    """The journal gives the state and the events that the venue had."""
    replayed = replay(*journal.read(venue.config.directory))
    assert replayed.engine.state_hash() == said["state_hash"]
    assert replayed.events_digest == said["events_digest"]
    assert len(replayed.events) == said["events"]


def test_two_participants_trade_and_the_journal_replays(venue):
    for account in (0, 1):
        venue.endow(account)
    buyer, seller = venue.participant(0), venue.participant(1)
    venue.open()
    hear(buyer, EventKind.SESSION_OPENED)
    place(buyer, 1, BUY, 100, 10)
    accepted = hear(buyer, EventKind.ORDER_ACCEPTED)
    assert (accepted.order_id, accepted.leaves_lots, accepted.reason) == (1, 10, 0)
    place(seller, 7, SELL, 99, 4)
    taker, maker = hear(seller, EventKind.ORDER_FILLED), hear(buyer, EventKind.ORDER_FILLED)
    assert (taker.order_id, taker.side, taker.price_ticks, taker.quantity_lots, taker.leaves_lots, taker.liquidity) == (
        7,
        SELL,
        100,
        4,
        0,
        1,
    )
    assert (maker.order_id, maker.side, maker.leaves_lots, maker.liquidity) == (1, BUY, 6, 2)
    assert maker.sequence == taker.sequence
    buyer.cancel(1, 0, 0, 21, 22)
    cancelled = hear(buyer, EventKind.ORDER_CANCELLED)
    assert (cancelled.quantity_lots, cancelled.reason) == (6, Reason.BY_OWNER)
    said = venue.stop()
    assert said["sessions_logged_on"] == 2 and said["reports_unsent"] == 0 and said["malformed"] == 0
    check_replay(venue, said)
    commands = journal.read(venue.config.directory).commands
    first = commands[commands["kind"] == CommandKind.PLACE_ORDER][0]
    assert first[["heard_ns", "sent_ns", "cause_sequence", "rule"]].tolist() == (11, 12, 13, 14)
    assert (np.diff(commands["received_ns"]) >= 0).all()
    timings = np.load(venue.config.directory / TIMINGS_FILE)
    assert len(timings) == len(commands)
    assert (timings["matched_ns"] >= commands["received_ns"]).all()
    assert (timings["acknowledged_ns"] >= timings["matched_ns"]).all()


def test_market_data_shows_the_book_and_its_depth(venue):
    venue.endow(0)
    trader = venue.participant(0)
    venue.open()
    place(trader, 1, BUY, 10000, 5)
    place(trader, 2, BUY, 9950, 3)  # within 1 % of the mid
    place(trader, 3, BUY, 9000, 2)  # not
    place(trader, 4, SELL, 10010, 8)
    for _ in range(50):
        top = hear(trader, wire.MessageKind.SLOW_TOP_OF_BOOK)
        if top.instrument == 0 and top.ask_lots:
            break
    assert (top.bid_ticks, top.bid_lots, top.ask_ticks, top.ask_lots) == (10000, 5, 10010, 8)
    assert (top.bid_depth_lots, top.ask_depth_lots) == (8, 8)


def test_a_trip_halts_at_that_command_and_says_why(venue):
    for account in (0, 1):
        venue.endow(account)
    maker, taker = venue.participant(0), venue.participant(1)
    venue.open()
    for order_id, price in enumerate((1000, 960, 940), 1):
        place(maker, order_id, BUY, price, 10)
        hear(maker, EventKind.ORDER_ACCEPTED)  # before the other session's order, which no wire orders after these
    place(taker, 1, SELL, 0, 30, OrderType.MARKET)
    notice = hear(maker, EventKind.INSTRUMENT_HALTED)
    assert (notice.instrument, notice.reason, notice.value, notice.threshold) == (0, Trigger.PRICE_MOVE, 600, 500)
    assert notice.window_ns == 10**10 and notice.price_ticks == 940
    cancelled = hear(taker, EventKind.ORDER_CANCELLED)
    assert (cancelled.quantity_lots, cancelled.reason, cancelled.sequence) == (10, Reason.BREAKER, notice.sequence)
    place(taker, 2, SELL, 940, 1)
    assert hear(taker, EventKind.ORDER_REJECTED).reason == Reason.HALTED
    maker.cancel(3, 0, 0, 0, 0)
    assert hear(maker, EventKind.CANCEL_REJECTED).reason == Reason.HALTED
    place(taker, 3, BUY, 10, 1, instrument=1)
    assert hear(taker, EventKind.ORDER_ACCEPTED).instrument == 1  # the other instrument goes on
    assert venue.operator.request(CommandKind.CLOSE_SESSION).reason == 0
    assert hear(maker, EventKind.ORDER_CANCELLED).reason == Reason.SESSION_CLOSED
    check_replay(venue, venue.stop())


def test_rubbish_is_refused_counted_and_changes_nothing(venue):
    venue.endow(0)
    trader = venue.participant(0)
    venue.open()
    frames = [
        b"",
        b"\xc1",
        b"rubbish",
        msgpack.packb([1, 2, 3]),
        msgpack.packb([1, "x", 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        msgpack.packb([1, 2**63, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        msgpack.packb([int(CommandKind.DEPOSIT_CASH), 0, 0, 10**6]),  # an operator's command on the orders socket
        msgpack.packb([3, 99, 0]),  # a logon of another version
    ]
    for frame in frames:
        trader.orders.send(frame)
        assert hear(trader, EventKind.ORDER_REJECTED).reason == Reason.MALFORMED
    trader.orders.send_multipart([b"a", b"b"])
    assert hear(trader, EventKind.ORDER_REJECTED).reason == Reason.MALFORMED
    with venue.context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.ROUTING_ID, b"stranger")
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(venue.endpoints.orders)
        stranger.send(msgpack.packb([1, 1, 0, 0, 0, 100, 1, 0, 0, 0, 0]))
        assert stranger.poll(5000)
        assert wire.unpack(stranger.recv()).reason == Reason.MALFORMED
    with venue.context.socket(zmq.DEALER) as oversized:
        oversized.setsockopt(zmq.LINGER, 0)
        oversized.connect(venue.endpoints.orders)
        oversized.send(b"x" * 10_000)  # its connection is dropped
        assert not oversized.poll(200)
    place(trader, 1, BUY, 100, 1)
    assert hear(trader, EventKind.ORDER_ACCEPTED).order_id == 1
    said = venue.stop()
    assert said["malformed"] == len(frames) + 2
    assert said["commands"] == 4  # two deposits, the opening, one order
    check_replay(venue, said)


def test_a_session_cannot_take_the_identity_of_a_connected_one(venue):
    venue.endow(0)
    owner = venue.participant(0)
    venue.open()
    with venue.context.socket(zmq.DEALER) as thief:
        thief.setsockopt(zmq.ROUTING_ID, wire.identity(0))
        thief.setsockopt(zmq.LINGER, 0)
        thief.connect(venue.endpoints.orders)
        thief.send(msgpack.packb([1, 1, 0, 0, 0, 100, 1, 0, 0, 0, 0]))
        assert not thief.poll(300)
    place(owner, 1, BUY, 100, 1)
    assert hear(owner, EventKind.ORDER_ACCEPTED).order_id == 1
    assert venue.stop()["commands"] == 4


def test_reports_to_a_session_that_is_gone_are_counted_and_nobody_else_notices(venue):
    for account in (0, 1):
        venue.endow(account)
    maker, taker = venue.participant(0), venue.participant(1)
    venue.open()
    place(maker, 1, BUY, 100, 10)
    hear(maker, EventKind.ORDER_ACCEPTED)
    maker.close()
    venue.participants.remove(maker)
    for order_id in range(1, 6):
        place(taker, order_id, SELL, 100, 1)
        assert hear(taker, EventKind.ORDER_FILLED).order_id == order_id
    said = venue.stop()
    assert 1 <= said["reports_unsent"] <= 5
    check_replay(venue, said)


def test_an_order_of_an_account_that_does_not_exist_is_rejected(venue):
    venue.open()
    with venue.context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.ROUTING_ID, wire.identity(5000))
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(venue.endpoints.orders)
        stranger.send(msgpack.packb([1, 1, 0, 0, 0, 100, 1, 0, 0, 0, 0]))
        assert stranger.poll(5000)
        assert wire.unpack(stranger.recv()).reason == Reason.UNKNOWN_ACCOUNT


def test_rubbish_on_the_control_channel_is_refused_too(venue):
    for frame in (
        b"",
        b"rubbish",
        msgpack.packb([21]) + b"garbage",
        msgpack.packb([21]),
        msgpack.packb([12, 0, 0, "x"]),
    ):
        venue.operator._socket.send(frame)
        assert venue.operator._answer().reason == Reason.MALFORMED
    assert venue.stop()["malformed"] == 5


def test_the_operator_is_told_why_a_command_was_refused(venue):
    assert venue.operator.request(CommandKind.DEPOSIT_CASH, 99, 0, 5).reason == Reason.UNKNOWN_ACCOUNT
    assert venue.operator.request(CommandKind.DEPOSIT_CASH, 0, 0, -5).reason == Reason.AMOUNT_OUT_OF_RANGE
    assert venue.operator.request(CommandKind.PUBLISH_SIGNAL, 0, 99, 5).reason == Reason.UNKNOWN_INSTRUMENT
    assert venue.operator.request(CommandKind.PLACE_ORDER).reason == Reason.MALFORMED
    check_replay(venue, venue.stop())


@pytest.mark.parametrize("how", ["sigterm", "parent"])
def test_it_ends_in_order_when_told_or_left_alone(venue, how):
    venue.endow(0)
    if how == "sigterm":
        venue.process.send_signal(signal.SIGTERM)
    else:
        venue.process.stdin.close()
    check_replay(venue, venue.last_word())
    assert venue.process.returncode == 0


def test_after_kill_nine_the_journal_holds_every_acknowledged_command(venue):
    venue.endow(0)
    trader = venue.participant(0)
    venue.open()
    for order_id in range(1, 200):
        place(trader, order_id, BUY, 10 + order_id, 1)
    for _ in range(1, 200):
        last = hear(trader, EventKind.ORDER_ACCEPTED)
    os.kill(venue.process.pid, signal.SIGKILL)
    venue.process.wait()
    commands = journal.read(venue.config.directory).commands
    assert len(commands) >= last.sequence
    assert (commands["order_id"] == 199).any()


def test_a_full_disk_stops_the_venue_before_it_acknowledges(tmp_path):
    """The journal may grow to 64 KiB (RLIMIT_FSIZE): what it did not take was never acknowledged."""
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); import exchange.server as s; "
    code = limited + "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); raise SystemExit(s.main())"
    with running_venue(tmp_path) as ordinary:  # compiles, so that the cache need not be written under the limit
        config = ordinary.config
    directory = tmp_path / "limited"
    directory.mkdir()
    config = config.model_copy(update={"directory": directory, "control": f"ipc://{directory}/control"})
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(config.model_dump_json().encode() + b"\n")
            process.stdin.flush()
            endpoints = json.loads(process.stdout.readline())["endpoints"]
            context = zmq.Context()
            dealer = context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.ROUTING_ID, wire.identity(0))
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(endpoints["orders"])
            answered = 0
            for order_id in range(1, 2000):
                dealer.send(msgpack.packb([1, order_id, 0, 0, 0, 100, 1, 0, 0, 0, 0]))
                if not dealer.poll(2000):
                    break
                dealer.recv()
                answered = order_id
            context.destroy(linger=0)
            last = json.loads(process.stdout.readline())
            assert process.wait(10) == 1
        finally:
            process.kill()
    assert "journal could not be written" in last["error"]
    assert 0 < answered < 1999
    try:
        sound = len(journal.read(directory).commands)
    except TornJournalError as torn:
        sound = torn.sound
    assert sound >= answered


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"port": 1}, "in use|cannot listen"),
        ({"host": "198.51.100.7"}, "address of this machine"),
        ({"directory": "/nonexistent"}, "No such file"),
        ({"loop": {"market_data_interval_ns": "soon"}}, "integer"),
        ({"unheard_of": 1}, "Extra inputs"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_configuration_is_refused_in_words(tmp_path, change, message):
    with zmq.Context() as context, context.socket(zmq.DEALER) as holder:
        taken = holder.bind_to_random_port("tcp://127.0.0.1")
        if "port" in change:
            change = {"port": taken}
        config = {
            "engine": {"instruments": [{"price_levels": 64}], "accounts": 1},
            "directory": str(tmp_path),
            "control": f"ipc://{tmp_path}/control",
            **change,
        }
        done = subprocess.run(
            [sys.executable, "-m", "exchange.server"],
            input=json.dumps(config) + "\n",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2
    assert re.search(message, json.loads(done.stdout)["error"])


def test_the_event_loop_runs_without_the_jit(tmp_path):
    with running_venue(tmp_path, NUMBA_DISABLE_JIT="1") as venue:
        for account in (0, 1):
            venue.endow(account)
        buyer, seller = venue.participant(0), venue.participant(1)
        venue.open()
        place(buyer, 1, BUY, 100, 10)
        hear(buyer, EventKind.ORDER_ACCEPTED)
        place(seller, 1, SELL, 100, 4)
        assert hear(buyer, EventKind.ORDER_FILLED).leaves_lots == 6
        seller.orders.send(b"rubbish")
        assert hear(seller, EventKind.ORDER_REJECTED).reason == Reason.MALFORMED
        check_replay(venue, venue.stop())
    assert (tmp_path / "stderr").read_text() == ""


def test_the_venue_s_configuration_survives_json():
    config = VenueConfig.model_validate(
        {
            "engine": {"instruments": [{"price_levels": 64}], "accounts": 1},
            "directory": "/x",
            "control": "ipc:///x/control",
        }
    )
    assert VenueConfig.model_validate_json(config.model_dump_json()) == config
