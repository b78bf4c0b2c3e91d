"""The venue as a process, over real sockets: what participants are told, what is refused, how it starts and ends."""

import json
import os
import re
import signal
import stat
import subprocess
import sys

import msgpack
import numpy as np
import pytest
import zmq

from exchange import clock, journal, wire
from exchange.config import BreakerConfig, InstrumentConfig
from exchange.replay import replay
from exchange.server import TIMINGS_FILE, EndowmentConfig, VenueConfig
from exchange.types import CommandKind, EventKind, Limit, OrderType, Phase, Reason, Side, Trigger
from tests.venues import check_replay, engine, free_ports, hear, running_venue

BUY, SELL = Side.BUY, Side.SELL
pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def venue(tmp_path):
    with running_venue(tmp_path) as running:
        yield running


def place(participant, order_id, side, price, quantity, order_type=OrderType.LIMIT, instrument=0):
    participant.place(order_id, instrument, side, order_type, price, quantity, 11, 12, 13, 14)


def test_two_participants_trade_and_the_journal_replays(tmp_path):
    with running_venue(tmp_path, max_timings=1000) as venue:
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
        assert taker[4:] == (7, SELL, 100, 4, 0, 0, 1, 0)
        assert maker[4:] == (1, BUY, 100, 4, 6, 0, 2, 0)
        assert maker.sequence == taker.sequence
        buyer.replace(2, 1, 0, OrderType.LIMIT, 101, 9, 15, 16, 17, 18)
        replaced = hear(buyer, EventKind.ORDER_REPLACED)
        assert replaced[4:] == (2, BUY, 101, 9, 5, Reason.LOST_PRIORITY, 0, 1)
        buyer.cancel(2, 0, 2, 21, 22)
        cancelled = hear(buyer, EventKind.ORDER_CANCELLED)
        assert (cancelled.quantity_lots, cancelled.leaves_lots, cancelled.reason) == (2, 3, Reason.BY_OWNER)
        buyer.mass_cancel(23, 24)
        cancelled = hear(buyer, EventKind.ORDER_CANCELLED)
        assert (cancelled.order_id, cancelled.quantity_lots, cancelled.reason) == (2, 3, Reason.MASS_CANCEL)
        assert hear(buyer, EventKind.MASS_CANCELLED).quantity_lots == 1
        said = venue.stop()
        assert said["sessions_logged_on"] == 2
        assert said["reports_unsent"] == said["refused"] == said["handshakes_failed"] == 0
        check_replay(venue, said)
        commands = journal.read(venue.config.directory).commands
        times = {int(row["kind"]): row[["heard_ns", "sent_ns", "cause_sequence", "rule"]].tolist() for row in commands}
        assert times[CommandKind.PLACE_ORDER] == (11, 12, 13, 14)
        assert times[CommandKind.REPLACE_ORDER] == (15, 16, 17, 18)
        assert times[CommandKind.CANCEL_ORDER] == (21, 22, 0, 0)
        assert times[CommandKind.MASS_CANCEL] == (23, 24, 0, 0)
        assert (np.diff(commands["received_ns"]) >= 0).all()
        timings = np.load(venue.config.directory / TIMINGS_FILE)
        assert len(timings) == len(commands)
        assert (timings["matched_ns"] >= commands["received_ns"]).all()
        assert (timings["acknowledged_ns"] >= timings["matched_ns"]).all()


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
    said = venue.stop()
    assert said["phases"] == ["CLOSED", "CLOSED"]
    check_replay(venue, said)


def test_rubbish_is_refused_with_its_reason_counted_and_changes_nothing(venue):
    venue.endow(0)
    trader = venue.session(0)
    venue.open()
    order = (1, 5, 0, 0, 0, 100, 1, 0, 0, 0, 0)
    before = venue.status()
    frames = [
        (b"", Reason.MALFORMED, 0),
        (b"\xc1", Reason.MALFORMED, 0),
        (b"rubbish", Reason.MALFORMED, 0),
        (msgpack.packb([]), Reason.MALFORMED, 0),
        (msgpack.packb([1, 2, 3]), Reason.MALFORMED, 2),  # its first fields are read all the same
        (msgpack.packb([1, "x", *order[2:]]), Reason.MALFORMED, 0),
        (msgpack.packb([1, 2**63, *order[2:]]), Reason.MALFORMED, 0),
        (msgpack.packb([*order, 0]), Reason.MALFORMED, 5),
        (msgpack.packb(order)[:-1], Reason.MALFORMED, 0),
        (msgpack.packb(order) + b"\0", Reason.MALFORMED, 0),
        (msgpack.packb([int(CommandKind.DEPOSIT_CASH), 0, 0, 10**6]), Reason.MALFORMED, 0),  # an operator's command
        (msgpack.packb([int(CommandKind.TIMER), 0]), Reason.MALFORMED, 0),  # the venue's own
        (msgpack.packb([int(CommandKind.LOG_OFF)]), Reason.MALFORMED, 0),
        (b"x" * 257, Reason.OVERSIZED, 0),
        (b"x" * 4096, Reason.OVERSIZED, 0),
        (msgpack.packb([3, 99, 0, 0, 0, 0, 0, 0, 0, 0]), Reason.UNKNOWN_VERSION, 0),
        (msgpack.packb([3, 3, 8, 0, 0, 0, 0, 0, 0, 0]), Reason.UNKNOWN_ACCOUNT, 0),
        (msgpack.packb([3, 3, -1, 0, 0, 0, 0, 0, 0, 0]), Reason.UNKNOWN_ACCOUNT, 0),
        (msgpack.packb([3, 3, 0, 6, 0, 0, 0, 0, 0, 0]), Reason.MALFORMED, 0),
        (msgpack.packb([3, 3, 0, 0, 0, 0, 0]), Reason.UNKNOWN_VERSION, 0),  # of protocol 2's length
        (msgpack.packb([*order, *range(8)]), Reason.MALFORMED, 5),  # eight of the nine words of a decision
        (b"\xdc\x00\xff" + b"\x01" * 255, Reason.OVERSIZED, 0),
        (b"\xdc\x00\xfd" + b"\x01" * 250, Reason.MALFORMED, 0),
        (b"\xdc\x01\x14" + b"\x01" * 20, Reason.MALFORMED, 0),
        (msgpack.packb([7, 2]), Reason.UNKNOWN_INSTRUMENT, 0),
        (msgpack.packb([8, -1, 1]), Reason.UNKNOWN_INSTRUMENT, 0),
    ]
    for frame, reason, order_id in frames:
        trader.socket.send(frame)
        refused = trader.next()
        assert isinstance(refused, wire.Refused), (frame, refused)
        assert (refused.reason, refused.order_id) == (reason, order_id), frame
        assert refused.sequence == before.sequence
    trader.socket.send_multipart([b"a", b"b"])
    assert trader.next().reason == Reason.MALFORMED
    trader.socket.send_multipart([msgpack.packb(order), b"", msgpack.packb(order)])
    assert trader.next().reason == Reason.MALFORMED
    after = venue.status()
    assert (after.commands, after.logged_on, after.refused) == (before.commands, 1, before.refused + len(frames) + 2)
    trader.place(1, BUY, 100, 1)
    assert trader.hear(EventKind.ORDER_ACCEPTED).order_id == 1
    said = venue.stop()
    assert said["refused"] == len(frames) + 2
    assert said["commands"] == before.commands + 1
    check_replay(venue, said)


def test_a_message_that_is_much_too_long_costs_its_connection_and_the_session(venue):
    venue.endow(0)
    trader = venue.session(0)
    trader.socket.send(b"x" * 4097)
    again = venue.connection()
    for _ in range(1000):  # until the venue has seen that the connection ended
        answer = again.log_on(0)
        if isinstance(answer, wire.LoggedOn):
            break
        assert answer.reason == Reason.SESSION_IN_USE
        clock.sleep(0.005)
    assert isinstance(answer, wire.LoggedOn)
    kinds = replay(*journal.read(venue.config.directory)).events["kind"]
    assert (kinds == EventKind.LOGGED_OFF).sum() == 1


def test_rubbish_on_the_control_channel_is_refused_too(venue):
    frames = [b"", b"rubbish", msgpack.packb([51]) + b"garbage", msgpack.packb([51]), msgpack.packb([12, 0, 0, "x"])]
    frames += [msgpack.packb([kind, 0, 0, 0]) for kind in (0, 1, 3, 19, 20, 21, 22, 23, 60, 66, 52, -1)]
    frames.append(b"x" * 4096)
    for frame in frames:
        venue.operator.socket.send(frame)
        assert venue.operator.answer().reason == Reason.MALFORMED
    assert venue.stop()["refused"] == len(frames)


def test_the_operator_is_told_why_a_command_was_refused(venue):
    assert venue.operator.request(CommandKind.DEPOSIT_CASH, 99, 0, 5).reason == Reason.UNKNOWN_ACCOUNT
    assert venue.operator.request(CommandKind.DEPOSIT_CASH, 0, 0, -5).reason == Reason.AMOUNT_OUT_OF_RANGE
    assert venue.operator.request(CommandKind.PUBLISH_SIGNAL, 0, 99, 5).reason == Reason.UNKNOWN_INSTRUMENT
    assert venue.operator.request(CommandKind.SET_LIMIT, 0, 6, 5).reason == Reason.UNKNOWN_LIMIT
    assert venue.operator.request(CommandKind.PLACE_ORDER).reason == Reason.MALFORMED
    assert venue.status().reason == 0
    said = venue.stop()
    assert said["refused"] == 1
    check_replay(venue, said)


def test_a_limit_that_the_operator_sets_is_the_account_s_at_once(venue):
    venue.endow(0)
    venue.open()
    trader = venue.session(0)
    assert venue.operator.request(CommandKind.SET_LIMIT, 0, Limit.ORDER_LOTS, 5).reason == 0
    trader.place(1, BUY, 10, 6)
    assert trader.next().reason == Reason.ORDER_SIZE_LIMIT
    trader.place(2, BUY, 10, 5)
    assert trader.next().kind == EventKind.ORDER_ACCEPTED


def test_notices_reach_everyone_and_a_signal_says_its_size(venue):
    listener = venue.participant(3)
    venue.open()
    assert hear(listener, EventKind.SESSION_OPENED).instrument == -1
    assert venue.operator.request(CommandKind.PUBLISH_SIGNAL, 0, 1, -1000).reason == 0
    signal_heard = hear(listener, EventKind.SIGNAL_PUBLISHED)
    assert (signal_heard.instrument, signal_heard.value) == (1, -1000)
    assert hear(listener, wire.MessageKind.HEARTBEAT).value == 1
    assert venue.operator.request(CommandKind.CLOSE_SESSION).reason == 0
    changed = [hear(listener, EventKind.PHASE_CHANGED) for _ in range(2)]
    assert [(notice.instrument, notice.value) for notice in changed] == [(0, Phase.CLOSED), (1, Phase.CLOSED)]
    hear(listener, EventKind.SESSION_CLOSED)


@pytest.mark.parametrize("how", ["sigterm", "parent"])
def test_it_ends_in_order_when_told_or_left_alone(venue, how):
    venue.endow(0)
    if how == "sigterm":
        venue.process.send_signal(signal.SIGTERM)
    else:
        venue.process.stdin.close()
    check_replay(venue, venue.last_word())
    assert venue.process.returncode == 0
    assert (venue.directory / "stderr").read_text() == ""


def test_it_starts_where_it_stopped(tmp_path):
    endowment = EndowmentConfig(cash=1000, lots=50)
    with running_venue(tmp_path, endowment=endowment, open_at_start=True, port=free_ports()) as venue:
        assert venue.said["starts"] == 1
        trader = venue.session(0)
        trader.place(1, BUY, 10, 100)
        assert trader.next().kind == EventKind.ORDER_ACCEPTED
        trader.place(2, BUY, 1, 1)
        assert trader.next().reason == Reason.INSUFFICIENT_CASH
        trader.place(3, SELL, 60, 50, instrument=1)
        assert trader.next().kind == EventKind.ORDER_ACCEPTED
        said = venue.stop()
        assert said["commands"] == 2 + 8 * 3 + 1 + 3
        endpoints = venue.endpoints
        venue.start()
        assert venue.said["starts"] == 2 and venue.said["warnings"] == []
        assert venue.endpoints == endpoints
        assert venue.status().commands == said["commands"] + 1  # a START; it is neither endowed nor opened again
        other = venue.session(1)
        other.place(1, SELL, 10, 50)
        assert [report.kind for report in (other.next(), other.next())] == [1, 3]
        check_replay(venue, venue.stop())


def test_many_segments_are_one_journal(tmp_path):
    endowment = EndowmentConfig(cash=10**9)
    with running_venue(tmp_path, segment_records=1 << 16, max_sessions=8, endowment=endowment) as venue:
        config = venue.config
        venue.stop()
        venue.start(segment_records=4 * (3 * 256 + 2 + 8))
        venue.open()
        trader = venue.session(0)
        count = 10_000
        for order_id in range(1, count + 1):
            trader.place(order_id, BUY, 1 + order_id % 100, 1, OrderType.IOC)
        for _ in range(2 * count):
            last = trader.next()
        assert last.order_id == count
        replayed = check_replay(venue, venue.stop())
        assert len(journal.segments(config.directory)) >= 4
        accepted = replayed.events["kind"] == EventKind.ORDER_ACCEPTED
        assert replayed.events["order_id"][accepted].tolist() == list(range(1, count + 1))
        venue.start()
        assert venue.said["warnings"] == []


def test_a_second_venue_over_the_same_directory_is_refused(venue):
    done = subprocess.run(
        [sys.executable, "-m", "exchange.server"],
        input=venue.config.model_dump_json() + "\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "another venue is writing" in json.loads(done.stdout)["error"]
    assert venue.status().reason == 0


def test_the_control_socket_is_this_user_s_alone(venue):
    path = venue.config.control_address.removeprefix("ipc://")
    assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0
    assert stat.S_ISSOCK(os.stat(path).st_mode)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"port": 1}, "in use|cannot listen"),
        ({"host": "198.51.100.7"}, "without keys the venue listens on loopback only"),
        ({"host": "0.0.0.0"}, "without keys the venue listens on loopback only"),
        ({"host": "venue.example"}, "without keys the venue listens on loopback only"),
        ({"control": "tcp://198.51.100.7:9"}, "without keys the venue listens on loopback only"),
        ({"control": f"ipc:///{'x' * 200}"}, "longer than the 107 bytes"),
        ({"directory": "/nonexistent"}, "No such file"),
        ({"loop": {"market_data_interval_ns": "soon"}}, "integer"),
        ({"segment_records": 1024}, "give at least"),
        ({"unheard_of": 1}, "Extra inputs"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_configuration_is_refused_in_words(tmp_path, change, message):
    with zmq.Context() as context, context.socket(zmq.DEALER) as holder:
        taken = holder.bind_to_random_port("tcp://127.0.0.1")
        if "port" in change:
            change = {"port": taken}
        config = {
            "engine": {"instruments": [{"price_levels": 64}], "accounts": 1},
            "directory": str(tmp_path),
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
    assert done.stderr == ""


def test_another_configuration_over_the_same_journal_is_refused_naming_the_setting(venue):
    venue.stop()
    venue.start(engine=engine(accounts=9))
    assert "accounts is 8 there and 9 here" in venue.said["error"]
    assert venue.process.wait(30) == 2


def test_the_event_loop_runs_without_the_jit(tmp_path):
    instruments = (
        InstrumentConfig(price_levels=256, opening_auction_ns=100 * clock.MS),
        InstrumentConfig(price_levels=64, batch_interval_ns=20 * clock.MS),
    )
    settings = {"engine": engine(instruments, max_orders=64), "max_sessions": 4, "segment_records": 1 << 12}
    with running_venue(tmp_path, {"NUMBA_DISABLE_JIT": "1"}, **settings) as venue:
        for account in (0, 1):
            venue.endow(account)
        buyer, seller = venue.participant(0), venue.participant(1)
        venue.open()
        place(buyer, 1, BUY, 100, 10)
        hear(buyer, EventKind.ORDER_ACCEPTED)
        place(seller, 1, SELL, 100, 4)
        assert hear(buyer, EventKind.ORDER_FILLED).leaves_lots == 6
        place(buyer, 2, BUY, 5, 1, instrument=1)
        place(seller, 2, SELL, 5, 1, instrument=1)
        assert hear(seller, EventKind.ORDER_REJECTED).reason == Reason.INSUFFICIENT_POSITION
        seller.orders.send(b"rubbish")
        assert hear(seller, wire.MessageKind.REFUSED).reason == Reason.MALFORMED
        seller.request_depth(0)
        assert hear(seller, wire.MessageKind.DEPTH).bids[0] == (100, 6)
        check_replay(venue, venue.stop())
    assert (tmp_path / "stderr").read_text() == ""


def test_the_venue_s_configuration_survives_json():
    config = VenueConfig.model_validate(
        {
            "engine": {"instruments": [{"price_levels": 64, "breaker": BreakerConfig().model_dump()}], "accounts": 1},
            "directory": "/x",
            "control": "ipc:///x/control",
        }
    )
    assert VenueConfig.model_validate_json(config.model_dump_json()) == config
