"""The supervisor beside a real venue: the twin is the venue's equal, a gap is noticed, an order is obeyed, no harm."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from exchange import clock, journal, wire
from exchange.config import EngineConfig, InstrumentConfig, MarginConfig, SupervisionConfig
from exchange.errors import VenueError
from exchange.keys import generate
from exchange.replay import replay
from exchange.server import EndowmentConfig
from exchange.supervisor import Supervisor, SupervisorConfig
from exchange.types import CommandKind, EventKind, OrderType, Reason, Side, Trigger
from tests.venues import RunningVenue, check_replay, engine, running_venue

BUY, SELL = Side.BUY, Side.SELL
pytestmark = pytest.mark.usefixtures("nothing_left")
RICH = EndowmentConfig(cash=10**9)
WATCH = {"imbalance_bps": 9000, "imbalance_lots": 1000, "depth_bps": 1, "pressure_bps": 1}
ON_MARGIN = EngineConfig(
    instruments=(
        InstrumentConfig(price_levels=1024, initial_margin_bps=1000, maintenance_margin_bps=900),
        InstrumentConfig(price_levels=64),
    ),
    accounts=8,
    max_orders=4096,
    margin=MarginConfig(mark="index"),
)


def feed_of(directory: Path) -> str:
    return f"ipc://{directory}/feed"


@pytest.fixture
def venue(tmp_path):
    """Accounts 0 to 2 have cash and lots, 3 to 5 are on margin with little."""
    with running_venue(tmp_path, engine=ON_MARGIN, endowment=RICH, feed=feed_of(tmp_path)) as running:
        for account in range(6):
            if account < 3:
                request = (CommandKind.DEPOSIT_POSITION, account, 0, 10**6)
            else:
                assert running.operator.request(CommandKind.WITHDRAW_CASH, account, 0, 10**9 - 10_000).reason == 0
                request = (CommandKind.SET_MARGIN, account, 0, 1)
            assert running.operator.request(*request).reason == 0
        running.open()
        yield running


def config_for(venue: RunningVenue, with_journal: bool = True, **settings: Any) -> SupervisorConfig:
    assert venue.config.feed is not None
    return SupervisorConfig(
        engine=venue.config.engine,
        supervision=SupervisionConfig.model_validate({**WATCH, **settings}),
        feed=venue.config.feed,
        control=venue.config.control_address,
        journal=venue.config.directory if with_journal else None,
        alerts=venue.directory / "alerts.jsonl",
        realtime=False,
    )


class Process:
    """A supervisor's process, as its keeper starts it."""

    def __init__(self, config: SupervisorConfig) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "exchange.supervisor"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.ask(config.model_dump_json())
        self.said = self.hear()

    def ask(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def finish(self, until: int) -> dict[str, Any]:
        self.ask(json.dumps({"until": until}))
        said = self.hear()
        assert self.process.wait(30) == 0
        return said


@contextmanager
def supervised(config: SupervisorConfig) -> Iterator[Process]:
    started = Process(config)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        for pipe in (started.process.stdin, started.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass


def alerts_of(venue: RunningVenue) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (venue.directory / "alerts.jsonl").read_text().splitlines()]


def trade_at_random(venue: RunningVenue, seed: int, orders: int) -> None:
    """Three accounts of cash and three on margin, at random, and some of what operators do."""
    numbers = random.Random(seed)
    sessions = {account: venue.session(account) for account in range(6)}
    for at in range(orders):
        session = sessions[numbers.randrange(6)]
        kind = numbers.choice((OrderType.LIMIT, OrderType.LIMIT, OrderType.LIMIT, OrderType.IOC, OrderType.MARKET))
        price = 0 if kind == OrderType.MARKET else numbers.randrange(480, 521)
        session.place(at + 1, numbers.choice((BUY, SELL)), price, numbers.randrange(1, 200), kind)
        if numbers.random() < 0.2:
            session.cancel(numbers.randrange(1, at + 2))
        if at % 100 == 0:
            venue.operator.request(CommandKind.PUBLISH_INDEX, 0, 0, numbers.randrange(400, 600))
    for index in (60, 900):  # whoever is long on margin is liquidated, then whoever is short
        venue.operator.request(CommandKind.PUBLISH_INDEX, 0, 0, index)
        clock.sleep(0.05)
    for session in sessions.values():
        session.catch_up()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_twin_is_the_venue_after_a_random_workload(venue, seed):
    with supervised(config_for(venue)) as supervisor:
        assert supervisor.said["ready"]
        trade_at_random(venue, seed, 1500)
        said = venue.stop()
        figures = supervisor.finish(said["commands"])
    assert (figures["commands"], figures["state_hash"]) == (said["commands"], said["state_hash"])
    assert figures["gaps"] == 0
    assert figures["caught_up"] < 30  # what came before it followed
    assert 0 < figures["lag_ns_p50"] <= figures["lag_ns_p99"] <= figures["lag_ns_max"]
    assert figures["most"]["IMBALANCE"] > 0
    events = check_replay(venue, said).events
    assert {EventKind.ORDER_FILLED, EventKind.ORDER_CANCELLED, EventKind.LIQUIDATION_STARTED} <= set(events["kind"])


def test_one_that_comes_late_catches_up_from_the_journal(venue):
    trade_at_random(venue, 3, 200)
    with supervised(config_for(venue)) as supervisor:
        venue.operator.request(CommandKind.PUBLISH_INDEX, 0, 0, 7)
        said = venue.stop()
        figures = supervisor.finish(said["commands"])
    assert figures["state_hash"] == said["state_hash"]
    assert figures["caught_up"] > 200 and figures["gaps"] == 0


@pytest.mark.parametrize("with_journal", [True, False])
def test_a_gap_is_noticed(venue, with_journal):
    trade_at_random(venue, 5, 300)
    said = venue.stop()
    commands = journal.read(venue.config.directory).commands
    (venue.directory / "replayed").mkdir()
    assert len(commands) > 200
    feed = venue.directory / "replayed"
    config = config_for(venue, with_journal).model_copy(update={"feed": f"ipc://{feed}/feed"})
    context: zmq.Context[Any] = zmq.Context()
    supervisor = None
    try:
        socket = context.socket(zmq.PUB)
        socket.bind(config.feed)
        supervisor = Supervisor(config)
        clock.sleep(0.2)  # until the subscription is known here
        for first, last in ((0, 50), (50, 100), (120, 150), (150, 151), (140, 200)):  # 20 left out; 11 told again
            socket.send(commands[first:last].tobytes())
        if with_journal:
            while supervisor.sequence < 200:
                supervisor.turn(most_ms=10_000)
            assert (supervisor.gaps, supervisor.caught_up) == (1, 20)
            supervisor.finish(len(commands))
            assert supervisor.engine.state_hash() == said["state_hash"]
        else:
            with pytest.raises(VenueError, match="from command 100 to 121 and no journal is within reach"):
                while supervisor.sequence < 200:
                    supervisor.turn(most_ms=10_000)
            assert supervisor.sequence == 100  # nothing was made up
    finally:
        if supervisor is not None:
            supervisor.close()
        context.destroy(linger=0)


def sell_off(venue: RunningVenue) -> None:
    """Bids, and one who takes them all."""
    maker, taker = venue.session(0), venue.session(1)
    for number in range(12):
        maker.place(number + 1, BUY, 500 - number, 100)
    maker.catch_up()
    taker.place(1, SELL, 0, 1200, OrderType.MARKET)
    taker.catch_up()


def test_an_authorised_one_halts_and_names_its_evidence(venue):
    with supervised(config_for(venue, authorised=True)) as supervisor:
        sell_off(venue)
        halted = wait_for_halt(venue)
        late = venue.session(2)
        late.place(1, BUY, 400, 1)
        assert late.next().reason == Reason.HALTED
        said = venue.stop()
        figures = supervisor.finish(said["commands"])
    (halt,) = halted
    (alert, *_) = alerts_of(venue)
    assert (alert["indicator"], alert["observed"], alert["threshold"]) == ("IMBALANCE", 10_000, 9000)
    assert alert["received_ns"] < alert["computed_ns"] < int(halt["time_ns"])
    assert halt["maker_order_id"] == alert["sequence"]
    evidence = journal.read(venue.config.directory).commands[alert["sequence"] - 1]
    assert (evidence["account"], evidence["side"], evidence["quantity_lots"]) == (1, SELL, 1200)
    (order,) = figures["halts"]
    assert (order["evidence"], order["refused"], order["sequence"]) == (alert["sequence"], None, halt["sequence"])
    assert figures["state_hash"] == said["state_hash"]
    check_replay(venue, said)


def wait_for_halt(venue: RunningVenue) -> np.ndarray:
    deadline = clock.monotonic_ns() + 10 * clock.SECOND
    while not len(halted := halts_of(venue)) and clock.monotonic_ns() < deadline:
        clock.sleep(0.02)
    return halted


def halts_of(venue: RunningVenue) -> np.ndarray:
    """The halts by a supervisor, as far as the journal has them now."""
    until = venue.status().commands
    recorded = journal.read(venue.config.directory, until)
    events = replay(*recorded).events
    return events[(events["kind"] == EventKind.INSTRUMENT_HALTED) & (events["reason"] == Trigger.SUPERVISOR)]


def test_it_waits_as_long_as_a_slow_supervisor_would(venue):
    with supervised(config_for(venue, authorised=True, reaction_ns=300 * clock.MS)) as supervisor:
        sell_off(venue)
        halted = wait_for_halt(venue)
        figures = supervisor.finish(venue.stop()["commands"])
    (alert, *_) = alerts_of(venue)
    assert halted["time_ns"][0] - alert["computed_ns"] >= 300 * clock.MS
    assert figures["halts"][0]["evidence"] == alert["sequence"]


def test_one_without_authority_only_tells(venue):
    with supervised(config_for(venue)) as supervisor:
        sell_off(venue)
        clock.sleep(0.3)
        said = venue.stop()
        figures = supervisor.finish(said["commands"])
    assert figures["alerts"] == len(alerts_of(venue)) >= 1 and figures["halts"] == []
    assert not (check_replay(venue, said).events["kind"] == EventKind.INSTRUMENT_HALTED).any()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_venue_does_not_mind_what_becomes_of_its_supervisor(venue, how):
    with supervised(config_for(venue, authorised=True)) as supervisor:
        supervisor.process.send_signal(how)
        trade_at_random(venue, 6, 500)
        check_replay(venue, venue.stop())


def test_it_ends_when_nobody_holds_it(venue):
    with supervised(config_for(venue)) as supervisor:
        assert supervisor.process.stdin is not None
        supervisor.process.stdin.close()
        assert supervisor.process.wait(20) == 0


def test_a_venue_without_a_feed_is_no_place_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr("exchange.supervisor._CONNECT_S", 0.3)
    with running_venue(tmp_path, endowment=RICH) as venue:
        assert venue.said["feed"] is None
        config = SupervisorConfig(
            engine=engine(),
            supervision=SupervisionConfig(imbalance_bps=1),
            feed=feed_of(tmp_path),
            alerts=tmp_path / "alerts.jsonl",
            realtime=False,
        )
        with pytest.raises(VenueError, match="is its setting feed on"):
            Supervisor(config)


def test_with_keys_only_operators_hear_who_sent_what(tmp_path):
    keys = generate(range(2), ["alice"])
    with running_venue(tmp_path, keys=keys, feed="tcp://127.0.0.1:*") as venue:
        context: zmq.Context[Any] = zmq.Context()
        try:
            heard = {}
            sockets = {}
            for name, key in (("operator", keys.operators["alice"]), ("account", keys.accounts[0]), ("nobody", None)):
                sockets[name] = context.socket(zmq.SUB)
                sockets[name].setsockopt(zmq.SUBSCRIBE, b"")
                if key is not None:
                    key.apply(sockets[name])
                sockets[name].connect(venue.said["feed"])
            clock.sleep(0.5)
            venue.operator.request(CommandKind.PUBLISH_INDEX, 0, 0, 7)
            venue.operator.request(wire.MessageKind.STATUS)
            for name, socket in sockets.items():
                heard[name] = bool(socket.poll(500))
            assert heard == {"operator": True, "account": False, "nobody": False}
        finally:
            context.destroy(linger=0)
        check_replay(venue, venue.stop())
