"""A halt is told by shared memory and by subscription: once, in its place, before the next order, relay or no relay."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import zmq

from aar_swarm.agent_process import ROW_FIELDS, TARGET, AgentProcess
from aar_swarm.agents.base import SIGNAL, Action, Event, Market, Rule, Strategy, Wake
from cluster import notice_board
from cluster.host import AgentHost
from cluster.notice_board import NoticeReader, NoticeWriter
from exchange import wire
from exchange.config import Config
from exchange.types import CommandKind, EventKind, OrderType, Phase, Reason
from tests.processes import ROOT, wait_until
from tests.test_agent_process import Venue
from tests.test_kill_switch import Notices

pytestmark = pytest.mark.usefixtures("nothing_left")
COIN = 1
MARKET = Market(
    instrument=0, opening_ticks=10_000, price_levels=16_384, stablecoin=COIN, par_ticks=100, coin_levels=256
)
HALT, OPENED, PHASE = EventKind.INSTRUMENT_HALTED, EventKind.SESSION_OPENED, EventKind.PHASE_CHANGED


def notice(kind: int, sequence: int, instrument: int = 0, value: int = 0) -> wire.Notice:
    return wire.Notice(int(kind), sequence, 0, instrument, 0, value, 0, 0, 0, 0, 0, 0)


@pytest.fixture
def words() -> "memoryview[int]":
    return memoryview(bytearray(notice_board.BYTES)).cast("q")


@pytest.fixture
def writer(words: "memoryview[int]") -> NoticeWriter:
    return NoticeWriter(words)


class Trader(Strategy):
    """Sells a share and a coin at the signal and at each timer, and remembers what it heard."""

    during: ClassVar[Any] = None
    """What happens elsewhere while it decides."""

    def setup(self, params: Config) -> None:
        self.heard: list[Event] = []

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        self.heard.append(event)
        if event.kind != SIGNAL:
            return []
        orders = [
            self.sell(OrderType.LIMIT, 9_990, 1, Rule.QUOTE),
            self.sell(OrderType.LIMIT, 100, 1, Rule.SELL_COIN, COIN),
        ]
        if self.during is not None:
            self.during()
        return [*orders, Wake(1, 0)]


class Late(Strategy):
    """Hears the signal and computes for ever."""

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        while event.kind == SIGNAL:
            pass
        return []


def spec(endpoints: dict[str, str], strategy: str, **more: Any) -> dict[str, Any]:
    return {
        "keys": None,
        "strategy": f"{__name__}:{strategy}",
        "params": {},
        "endowment": [0, 60, 40, 1.0],
        "rehearse": False,
        "endpoints": endpoints,
        "seed": 1,
        "lease_ns": 60 * 10**9,
        "market": MARKET._asdict(),
        "models": [{"declaration": (0, 0, 0), "endpoint": None}],
        "explains": False,
        **more,
    }


def test_only_a_halt_makes_an_agent_read_and_then_it_hears_all_before_in_order(words, writer):
    reader = NoticeReader(words)
    before = [notice(OPENED, 1), notice(SIGNAL, 2)]
    for one in before:
        writer.post(one)
    assert not reader.is_behind()
    writer.post(notice(HALT, 3))
    assert reader.is_behind()
    writer.post(notice(PHASE, 4, value=Phase.CONTINUOUS))  # after the halt: by subscription
    assert reader.take() == [*before, notice(HALT, 3)]
    assert not reader.is_behind() and reader.take() == []
    assert [reader.is_new(one) for one in (*before, notice(HALT, 3))] == [False] * 3
    assert reader.is_new(notice(PHASE, 4, value=Phase.CONTINUOUS))


@pytest.mark.parametrize("heard", range(4))
def test_each_of_two_halts_is_heard_once_however_much_the_subscription_has_brought(words, writer, heard):
    reader = NoticeReader(words)
    notices = [notice(HALT, 3), notice(HALT, 3, instrument=COIN), notice(PHASE, 5, value=1), notice(HALT, 9)]
    found = []
    for one in notices[:heard]:
        assert reader.is_new(one)
        found.append(one)
    for one in notices[:2]:
        writer.post(one)
    found += reader.take()
    for one in notices[2:]:
        writer.post(one)
    found += reader.take()
    found += [one for one in notices[heard:] if reader.is_new(one)]
    assert found == notices


def test_what_is_half_written_or_overwritten_is_not_taken(words, writer):
    reader, quick = NoticeReader(words), NoticeReader(words)
    for sequence in range(1, notice_board.SLOTS + 10):
        writer.post(notice(HALT, sequence))
        assert [one.sequence for one in quick.take()] == [sequence]
    assert [one.sequence for one in reader.take()] == list(range(10, notice_board.SLOTS + 10))
    writer.post(notice(HALT, 100))
    at = notice_board._HEAD + (notice_board.SLOTS + 9) % notice_board.SLOTS * notice_board._SLOT_WORDS
    words[at + 3] += 1
    assert quick.take() == []


def test_an_agent_is_not_told_of_what_was_before_it(words, writer):
    writer.post(notice(HALT, 1))
    reader = NoticeReader(words)
    assert not reader.is_behind()
    writer.post(notice(HALT, 2))
    assert [one.sequence for one in reader.take()] == [2]


@pytest.fixture
def trader(tmp_path, words):
    venue = Venue(tmp_path)
    handler = signal.getsignal(signal.SIGURG)
    found = AgentProcess(3, spec(venue.endpoints, "Trader", notice_board=words), np.zeros(1, ROW_FIELDS))
    found.agents[0].admitted = True
    yield found, venue
    Trader.during = None
    signal.signal(signal.SIGURG, handler)
    found.venue.close()
    found.context.destroy(linger=0)
    venue.context.destroy(linger=0)


def test_no_order_of_a_halted_instrument_leaves_once_its_halt_is_on_the_board(trader, writer):
    process, venue = trader
    (agent,) = process.agents
    Trader.during = staticmethod(lambda: writer.post(notice(HALT, 9)))  # decided before, not yet sent
    process._hand_out(notice(SIGNAL, 2), 1000)
    _, coin = venue.heard(2)  # the first is the logon
    assert coin[:4] == (CommandKind.PLACE_ORDER, 2, COIN, 1)
    assert not venue.sockets["orders"].poll(100)
    _, halt, rejected = agent.strategy.heard
    assert halt == notice(HALT, 9) and agent.strategy.halted and agent.row["halt_heard_ns"] > 0
    assert (rejected.kind, rejected.order_id, rejected.reason) == (EventKind.ORDER_REJECTED, 1, Reason.HALTED)
    assert set(agent.strategy.open_orders) == {2} and agent.row["orders_sent"] == 1


def test_a_signal_notes_the_halt_and_the_strategy_hears_it_at_the_next_turn(trader, writer):
    process, _ = trader
    (agent,) = process.agents
    signal.raise_signal(signal.SIGURG)  # nothing is there: nothing is noted
    assert not agent.row["halt_heard_ns"]
    writer.post(notice(HALT, 9))
    signal.raise_signal(signal.SIGURG)
    noted_ns = int(agent.row["halt_heard_ns"])
    assert noted_ns and not agent.strategy.heard and os.sched_getscheduler(0) == os.SCHED_OTHER
    process._wait(60_000)  # returns at once
    process._take_told()
    process._take_told()
    assert agent.strategy.heard == [notice(HALT, 9)] and agent.row["halt_heard_ns"] == noted_ns
    writer.post(notice(HALT, 12))
    process._take_told()
    assert agent.strategy.heard == [notice(HALT, 9), notice(HALT, 12)]


def test_a_signal_ends_an_agent_s_wait(trader, writer):
    process, _ = trader
    (agent,) = process.agents

    def tell() -> None:
        writer.post(notice(HALT, 9))
        os.kill(os.getpid(), signal.SIGURG)

    telling = threading.Timer(0.2, tell)
    telling.start()
    process._wait(60_000)
    telling.join()
    assert agent.row["halt_heard_ns"] and not process.waiting


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AgentHost]:
    host = AgentHost(TARGET, [__name__], ROW_FIELDS, capacity=64, log_path=str(tmp_path / "log"))
    yield host
    host.stop()


class Told:
    """A host's agents that hear a stand-in venue, and their kill switch another: what one says the other does not."""

    def __init__(self, host: AgentHost, place: Path, strategy: str, count: int = 10) -> None:
        (place / "agents").mkdir()
        self.host, self.relayed, self.agents = host, Notices(f"ipc://{place}/relay"), Venue(place / "agents")
        self.agents.sockets["notices"].setsockopt(zmq.XPUB_VERBOSE, 1)  # each agent's, not the first's
        host.spawn([(agent, {}) for agent in range(count)], spec(self.agents.endpoints, strategy))
        for _ in range(count * len(notice_board.POSTED_KINDS) + count):  # and the heartbeat's
            assert self.agents.sockets["notices"].recv()[0] == 1
        telling = threading.Thread(target=self.relayed.tell_when_heard)
        telling.start()
        host.arm_kill_switch(self.relayed.endpoint, range(count))
        telling.join()

    def by_subscription(self, one: wire.Notice) -> None:
        self.agents.sockets["notices"].send(wire.pack(*one))

    def relay(self, one: wire.Notice) -> None:
        self.relayed.socket.send(wire.pack(*one))

    def wait_for(self, field: str) -> None:
        wait_until(lambda: bool((self.host.rows()[field] > 0).all()), field)

    def close(self) -> None:
        self.relayed.close()
        self.agents.context.destroy(linger=0)


@pytest.fixture
def make_told(host: AgentHost, tmp_path: Path) -> Iterator[Any]:
    made: list[Told] = []

    def make(strategy: str) -> Told:
        made.append(Told(host, tmp_path, strategy))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("strategy", ["Trader", "Late"])
def test_agents_that_sleep_or_compute_know_from_the_relay_alone_and_are_ordinary_again(make_told, strategy):
    told = make_told(strategy)
    told.by_subscription(notice(SIGNAL, 2))
    told.wait_for("signal_heard_ns")
    told.relay(notice(HALT, 3))
    told.wait_for("halt_heard_ns")
    pids = told.host.rows()["pid"].tolist()
    wait_until(lambda: {os.sched_getscheduler(pid) for pid in pids} == {os.SCHED_OTHER}, "ordinary priority")
    assert told.host.status()["alive"] == 10


def test_when_the_relay_is_dead_agents_hear_by_subscription(make_told):
    told = make_told("Trader")
    switch = told.host._kill_switch._process
    os.kill(switch.pid, signal.SIGKILL)
    switch.wait()
    told.relay(notice(HALT, 3))
    told.by_subscription(notice(HALT, 3))
    told.wait_for("halt_heard_ns")


def test_an_agent_that_is_stopped_does_not_keep_what_it_was_lent(make_told):
    told = make_told("Trader")
    pid = int(told.host.rows()["pid"][0])
    os.kill(pid, signal.SIGSTOP)
    told.relay(notice(HALT, 3))
    wait_until(lambda: int((told.host.rows()["halt_heard_ns"] > 0).sum()) == 9, "the others know")
    wait_until(lambda: os.sched_getscheduler(pid) == os.SCHED_OTHER, "ordinary priority")
    os.kill(pid, signal.SIGCONT)
    told.wait_for("halt_heard_ns")


def test_a_kill_goes_before_telling(make_told):
    told = make_told("Late")
    told.relay(notice(HALT, 3))
    told.relayed.kill(-1, sequence=3)
    wait_until(lambda: bool(told.host.kills()), "the kill is told")
    assert len(told.host.kills()[0]["deaths"]) == 10


def test_bench_notify_measures_each_way():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/bench_notify.py", "--agents", "20", "--busy", "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["notice_to_knowing"]) == {"subscription", "ordinary", "told"}
    assert all(0 < run["p50_ms"] <= run["max_ms"] for runs in found["notice_to_knowing"].values() for run in runs)
