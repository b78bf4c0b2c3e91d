"""Many agents in one process, at the relay's sockets: each with its own session, random stream, row and end."""

from collections.abc import Iterator
from typing import Any, ClassVar

import msgpack
import numpy as np
import pytest

from aar_swarm.agent_process import LOGONS_AT_ONCE, ROW_FIELDS, AgentProcess
from aar_swarm.agents.base import CLOSED, SIGNAL, Action, Event, Rule, Strategy, Timer, Wake
from aar_swarm.names import agent_stream
from aar_swarm.packing import packs
from cluster.notice_board import BYTES, NoticeWriter
from cluster.scoreboard import AgentState
from exchange import wire
from exchange.client import _conflated
from exchange.config import Config
from exchange.types import NOBODY, BreakerAction, CommandKind, EventKind, OrderType, Reason
from exchange.wire import MessageKind, Notice
from tests.test_agent_process import MARKET, Venue

FIRST, COUNT = 100, LOGONS_AT_ONCE + 6
HEARD: list[int] = []
"""Agents (by their cash), in the order in which they heard the signal."""


class Crowd(Strategy):
    """Sells one lot at the signal, at a price of its own."""

    listens_to: ClassVar = (MessageKind.TOP_OF_BOOK,)

    def setup(self, params: Config) -> None:
        self.price_ticks = 9_000 + int(self.rng.integers(900))
        self.heard: list[Event] = []

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        self.heard.append(event)
        if event.kind == SIGNAL:
            HEARD.append(self.cash)
            return [self.sell(OrderType.LIMIT, self.price_ticks, 1, Rule.EXIT), Wake(now_ns, 7)]
        return []


class Listener(Crowd):
    """Hears no market data."""

    listens_to: ClassVar = ()


def member(strategy: type[Strategy], cash: int) -> dict[str, Any]:
    return {
        "keys": None,
        "strategy": f"{__name__}:{strategy.__name__}",
        "params": {},
        "endowment": [cash, 60, 0, 0.0],
        "rehearse": True,
        "models": [{"declaration": (cash % 3, 1, 1), "endpoint": None}],
        "explains": True,
    }


@pytest.fixture
def venue(tmp_path: Any) -> Iterator[Venue]:
    found = Venue(tmp_path)
    yield found
    found.context.destroy(linger=0)


@pytest.fixture
def board() -> "memoryview[int]":
    return memoryview(bytearray(BYTES)).cast("q")


@pytest.fixture
def process(venue: Venue, board: Any) -> Iterator[AgentProcess]:
    members = [member(Listener if at < 2 else Crowd, FIRST + at) for at in range(COUNT)]
    spec = {
        "members": members,
        "endpoints": venue.endpoints,
        "relayed": True,
        "seed": 1,
        "lease_ns": 10**10,
        "market": MARKET._asdict(),
        "notice_board": board,
    }
    made = AgentProcess(FIRST, spec, np.zeros(COUNT, ROW_FIELDS))
    HEARD.clear()  # of what was rehearsed
    yield made
    made.venue.close()
    made.context.destroy(linger=0)


def hear(venue: Venue, count: int) -> list[tuple[int, tuple[int, ...]]]:
    """(account, message) of that many."""
    found = []
    for _ in range(count):
        _, account, message = venue.sockets["orders"].recv_multipart()
        found.append((wire.account_in(account), tuple(msgpack.unpackb(message))))
    return found


def notice(kind: int, sequence: int = 17, value: int = 0, action: int = 0) -> Notice:
    return Notice(int(kind), sequence, 0, 0, 0, value, 0, 0, 0, 0, 0, action)


def admit(process: AgentProcess) -> None:
    for agent in process.agents:
        agent.take(wire.LoggedOn(int(MessageKind.LOGGED_ON), 1, 0, 1, agent.agent_id, 0, 0, 1, 0), 50)
    process._log_on_some(60)


def test_agents_log_on_one_after_the_other_as_answers_come(venue, process):
    first = hear(venue, LOGONS_AT_ONCE)
    assert [account for account, _ in first] == [FIRST + at for at in range(LOGONS_AT_ONCE)]
    assert all(message[0] == CommandKind.LOG_ON and message[2] == account for account, message in first)
    assert not venue.sockets["orders"].poll(50)  # the others wait
    admit(process)
    assert [account for account, _ in hear(venue, 6)] == [FIRST + LOGONS_AT_ONCE + at for at in range(6)]
    assert set(process.rows["state"]) == {AgentState.READY} and (process.rows["ready_ns"] == 50).all()


def test_each_agent_decides_by_its_own_stream_and_says_so_in_its_own_name(venue, process):
    hear(venue, LOGONS_AT_ONCE)
    admit(process)
    hear(venue, 6)
    process._hand_out(notice(SIGNAL), 1000)
    orders = dict(hear(venue, COUNT))
    assert sorted(orders) == [FIRST + at for at in range(COUNT)]
    for account, order in orders.items():
        price_ticks = 9_000 + int(agent_stream(1, account).integers(900))  # as in a process of its own
        assert order[:2] == (CommandKind.PLACE_ORDER, 1) and order[5] == price_ticks
        heard_ns, sent_ns, cause, rule = order[7:11]
        assert heard_ns < sent_ns and cause == 17 and rule == Rule.EXIT
    assert (process.rows["signal_heard_ns"] > 0).all() and len(set(process.rows["signal_heard_ns"])) > 1
    assert (process.rows["orders_sent"] == 1).all()


def test_nobody_is_always_first(process):
    admit(process)
    for sequence in range(40):
        process._hand_out(notice(SIGNAL, sequence), 0)
    first = HEARD[::COUNT]
    assert len(HEARD) == 40 * COUNT and len(set(first)) > 20
    for at in range(40):
        turn = HEARD[at * COUNT : (at + 1) * COUNT]
        assert sorted(turn) == list(range(FIRST, FIRST + COUNT))
        assert turn == [FIRST + (turn[0] - FIRST + step) % COUNT for step in range(COUNT)]


def test_market_data_goes_to_those_who_listen_to_it(process):
    top = wire.TopOfBook(int(MessageKind.TOP_OF_BOOK), 0, 1, 1, 0, 1, 9_999, 10, 10_001, 10, 10_000, 0, 1000, 1000)
    process._hand_out(top, 0)
    heard = [bool(agent.strategy.heard) for agent in process.agents]
    assert heard == [False, False] + [True] * (COUNT - 2)


def test_a_report_goes_to_its_account_and_timers_to_who_set_them(venue, process):
    admit(process)
    report = wire.Report(int(EventKind.ORDER_FILLED), 5, 0, 0, 1, 1, 9_500, 1, 0, 0, 1, 0)
    venue.heard(LOGONS_AT_ONCE + 6)
    identity = _identity(venue, process)
    venue.sockets["orders"].send_multipart([identity, wire.account_frame(FIRST + 3), wire.pack(*report)])
    assert process.venue.wait(10_000)
    for account, message in process._messages():
        process._of_account[account].take(message, 5)
    assert process.agents[3].strategy.heard == [report] and process.rows["reports_heard"].sum() == 1
    process.wake(process.agents[4], 10, 7)
    process.wake(process.agents[5], 1 << 62, 8)
    process._wake_due(100)
    assert process.agents[4].strategy.heard == [Timer(7)] and not process.agents[5].strategy.heard


def _identity(venue: Venue, process: AgentProcess) -> bytes:
    process.agents[0].voice.log_off()
    identity: bytes = venue.sockets["orders"].recv_multipart()[0]
    return identity


def test_a_killed_agent_goes_without_its_process(venue, process):
    admit(process)
    venue.heard(COUNT)
    process._hand_out(notice(EventKind.PARTICIPANTS_KILLED, value=FIRST + 2), 77)
    process._hand_out(notice(EventKind.PARTICIPANTS_KILLED, value=1, action=int(BreakerAction.KILL_VENDOR)), 78)
    killed = process.rows["killed_ns"] > 0
    of_vendor = (np.arange(FIRST, FIRST + COUNT) % 3) == 1
    assert list(killed) == list(of_vendor | (np.arange(COUNT) == 2))
    process._hand_out(notice(SIGNAL), 0)
    sent = {account for account, _ in hear(venue, COUNT - int(killed.sum()))}
    assert sent == {FIRST + at for at in range(COUNT) if not killed[at]}
    process.wake(process.agents[2], 0, 1)
    process._wake_due(1)
    assert process.agents[2].strategy.heard == []
    process._hand_out(notice(EventKind.PARTICIPANTS_KILLED, value=NOBODY), 79)
    assert (process.rows["killed_ns"] > 0).all()
    process._hand_out(notice(CLOSED), 80)
    assert process.run() == 0  # with nobody left it ends at the close
    assert AgentState.FINISHED not in process.rows["state"]


def test_no_order_leaves_that_was_decided_without_a_halt_that_is_known(venue, process, board):
    """A halt comes while a message is being handed out: who had the message sees it first, the others after theirs."""
    admit(process)
    venue.heard(COUNT)
    NoticeWriter(board).post(notice(EventKind.INSTRUMENT_HALTED, 18))
    process._hand_out(notice(SIGNAL, 17), 0)
    assert not venue.sockets["orders"].poll(50)
    for agent in process.agents:
        heard = [event.kind for event in agent.strategy.heard]
        assert heard == [SIGNAL, EventKind.INSTRUMENT_HALTED, EventKind.ORDER_REJECTED]
        assert agent.strategy.heard[-1].reason == Reason.HALTED and agent.strategy.halted
    assert process.owed == [] and not any(agent.owed_taken for agent in process.agents)


def test_a_process_holds_one_group_s_agents_in_a_row():
    groups = ["makers"] * 3 + ["crowd"] * 7
    assert packs(groups, range(0, 10), 3) == [range(0, 3), range(3, 6), range(6, 9), range(9, 10)]
    assert packs(groups, range(2, 6), 3) == [range(2, 3), range(3, 6)]
    assert packs(groups, range(0, 10), 1) == [range(at, at + 1) for at in range(10)]
    assert packs(groups, range(4, 4), 3) == []


def test_one_that_is_slow_hears_the_latest_market_data_and_everything_else():
    def top(kind: MessageKind, instrument: int, number: int) -> wire.TopOfBook:
        return wire.TopOfBook(int(kind), instrument, number, *[0] * 11)

    fast, slow = MessageKind.TOP_OF_BOOK, MessageKind.SLOW_TOP_OF_BOOK
    trades = [wire.Trade(int(MessageKind.TRADE), 0, number, 0, 0, 100, 1, 0) for number in (1, 2)]
    notices = [Notice(int(EventKind.SIGNAL_PUBLISHED), number, *[0] * 10) for number in (5, 6)]
    first, other, second, slowly, last = (
        *(top(fast, 0, 1), top(fast, 1, 1), top(fast, 0, 2)),
        *(top(slow, 0, 1), top(fast, 0, 3)),
    )
    sent = [first, trades[0], other, second, notices[0], trades[1], slowly, notices[1], last]
    assert _conflated(sent) == [trades[0], other, notices[0], trades[1], slowly, notices[1], last]
