"""An agent's process as the venue hears it: what it subscribes to, what it sends, what its strategy is told."""

from typing import Any, ClassVar

import msgpack
import numpy as np
import pytest
import zmq

from aar_swarm.agent_process import ROW_FIELDS, AgentProcess
from aar_swarm.agents.base import ORACLE_UPDATED, SIGNAL, Action, Endowment, Event, Market, Rule, Strategy, Wake
from aar_swarm.names import agent_stream
from aar_swarm.rehearsal import rehearse
from exchange import wire
from exchange.config import Config
from exchange.types import CommandKind, EventKind, OrderType, Reason
from exchange.wire import Loan, MessageKind, Notice, Report, TopOfBook
from tests.test_agents import make

COIN = 1
MARKET = Market(
    instrument=0, opening_ticks=10_000, price_levels=16_384, stablecoin=COIN, par_ticks=100, coin_levels=256
)
LISTENER = f"{__name__}:Listener"


class Listener(Strategy):
    """Remembers all that it hears, and does one of everything at the signal."""

    listens_to: ClassVar = (MessageKind.TOP_OF_BOOK, MessageKind.LOAN, EventKind.ORACLE_UPDATED)
    listens_to_coin: ClassVar = (MessageKind.SLOW_TOP_OF_BOOK,)

    def setup(self, params: Config) -> None:
        self.heard: list[Event] = []

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        self.heard.append(event)
        if event.kind != SIGNAL:
            return []
        share = self.buy(OrderType.LIMIT, 9_990, 7, Rule.QUOTE)
        coin = self.sell(OrderType.LIMIT, 101, 5, Rule.SELL_COIN, COIN)
        return [
            share,
            coin,
            self.cancel(coin.order_id, Rule.WITHDRAW),
            self.request(CommandKind.REDEEM, 3, Rule.REDEEM),
            self.request(CommandKind.LIQUIDATE, 4, Rule.LIQUIDATE, target=9),
            Wake(1, 0),
        ]


class Venue:
    """A ROUTER that collects what one agent sends, and the sockets that it subscribes at."""

    def __init__(self, place: Any) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.sockets = {
            name: self.context.socket(kind)
            for name, kind in (("orders", zmq.ROUTER), ("market_data", zmq.XPUB), ("notices", zmq.XPUB))
        }
        self.endpoints = {name: f"ipc://{place}/{name}" for name in self.sockets}
        for name, socket in self.sockets.items():
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, 10_000)
            socket.bind(self.endpoints[name])

    def heard(self, count: int) -> list[tuple[int, ...]]:
        return [tuple(msgpack.unpackb(self.sockets["orders"].recv_multipart()[-1])) for _ in range(count)]

    def subscriptions(self, count: int) -> set[bytes]:
        return {self.sockets["market_data"].recv()[1:] for _ in range(count)}


@pytest.fixture
def venue(tmp_path):
    found = Venue(tmp_path)
    yield found
    found.context.destroy(linger=0)


@pytest.fixture
def agent(venue):
    spec = {
        "keys": None,
        "strategy": LISTENER,
        "params": {},
        "endowment": [-500, 60, 40, 4.0],
        "rehearse": False,
        "endpoints": venue.endpoints,
        "seed": 1,
        "lease_ns": 10**10,
        "market": MARKET._asdict(),
        "models": [{"declaration": (2, 1, 1), "endpoint": None}, {"declaration": (3, 1, 1), "endpoint": None}],
        "explains": True,
    }
    process = AgentProcess(3, spec, np.zeros(1, ROW_FIELDS))
    (found,) = process.agents
    found.admitted = True
    yield found
    process.venue.close()
    process.context.destroy(linger=0)


def told(kind: int, value: int = 0) -> Notice:
    return Notice(int(kind), 17, 0, 0, 0, value, 0, 0, 0, 0, 0, 0)


def test_an_agent_begins_with_what_the_scenario_gave_it(agent):
    assert (agent.strategy.cash, agent.strategy.shares, agent.strategy.coins) == (-500, 60, 40)
    assert agent.strategy.endowment.leverage == 4.0 and agent.strategy.market == MARKET


def test_an_agent_subscribes_to_notices_and_to_what_its_strategy_listens_to(venue, agent):
    wanted = {
        wire.subscription(EventKind.PHASE_CHANGED),
        wire.subscription(EventKind.INSTRUMENT_HALTED),
        wire.subscription(EventKind.ORACLE_UPDATED),
        wire.subscription(MessageKind.TOP_OF_BOOK, 0),
        wire.subscription(MessageKind.LOAN, 0),
        wire.subscription(MessageKind.SLOW_TOP_OF_BOOK, COIN),
    }
    found = venue.subscriptions(len(wanted) + 4)  # and the opening, the signal, the close, the heartbeat
    assert wanted <= found
    assert wire.subscription(MessageKind.TOP_OF_BOOK, COIN) not in found


def test_orders_cancels_and_requests_go_out_with_their_instrument_cause_and_rule(venue, agent):
    agent.take(told(SIGNAL), heard_ns=1000)
    _, buy, sell, cancel, redeem, liquidate = venue.heard(6)  # the first is the logon
    sent_ns = [message[-3] for message in (buy, sell, cancel, redeem, liquidate)]
    assert buy[:7] == (CommandKind.PLACE_ORDER, 1, 0, 0, OrderType.LIMIT, 9_990, 7)
    assert sell[:7] == (CommandKind.PLACE_ORDER, 2, COIN, 1, OrderType.LIMIT, 101, 5)
    assert cancel[:4] == (CommandKind.CANCEL_ORDER, 2, COIN, 0)
    assert redeem == (CommandKind.REDEEM, 0, 3, 1000, sent_ns[3], 17, Rule.REDEEM)
    assert liquidate == (CommandKind.LIQUIDATE, 9, 4, 1000, sent_ns[4], 17, Rule.LIQUIDATE)
    assert len(liquidate) == wire.REQUEST_FIELDS and sent_ns == sorted(sent_ns)
    assert agent.row["orders_sent"] == 5 and agent.row["decided_ns"] == sent_ns[0]


def test_who_is_not_admitted_with_one_model_tries_the_next_and_at_last_stays_out(venue, agent):
    agent.admitted = False
    refused = wire.Refused(int(MessageKind.REFUSED), 5, 0, int(Reason.VENDOR_AGENTS_CAP), 0)
    agent.take(refused, 100)
    first, second = venue.heard(2)
    assert (first[0], first[2], first[-3:]) == (CommandKind.LOG_ON, 3, (2, 1, 1))
    assert (second[0], second[2], second[-3:]) == (CommandKind.LOG_ON, 3, (3, 1, 1))
    assert agent.row["vendor"] == 3 and not agent.row["ready_ns"]
    agent.take(refused, 200)
    assert (agent.row["refused"], agent.row["vendor"], agent.row["ready_ns"]) == (Reason.VENDOR_AGENTS_CAP, 0, 200)
    agent.take(told(SIGNAL), 300)  # it hears, and does nothing
    assert agent.strategy.heard and agent.row["orders_sent"] == 0


def test_a_strategy_hears_of_its_requests_of_loans_oracles_and_phases(agent):
    messages = [
        Report(int(EventKind.REDEEMED), 20, 0, COIN, 0, 0, 100, 3, 0, 0, 0, 1200),
        Report(int(EventKind.REQUEST_REJECTED), 21, 0, -1, 9, 0, 0, 4, 0, int(Reason.LOAN_HEALTHY), 0, 64),
        Loan(int(MessageKind.LOAN), 0, 1, 22, 0, 9, 10, 80),
        told(ORACLE_UPDATED, 990),
        told(EventKind.PHASE_CHANGED, 1),
    ]
    for message in messages:
        agent.take(message, 0)
    assert agent.strategy.heard == messages
    assert (agent.strategy.coins, agent.strategy.cash) == (37, -500 + 300)
    assert agent.row["reports_heard"] == 2 and agent.cause_sequence == 17


def test_a_refused_order_of_the_coin_is_told_as_one(venue, agent):
    agent.take(told(SIGNAL), 0)
    agent.take(wire.Refused(int(MessageKind.REFUSED), 30, 0, int(Reason.TOO_FAST), 2), 0)
    report = agent.strategy.heard[-1]
    assert isinstance(report, Report)
    assert (report.kind, report.instrument, report.reason) == (EventKind.ORDER_REJECTED, COIN, Reason.TOO_FAST)
    assert 2 not in agent.strategy.open_orders


def test_a_rehearsal_of_a_strategy_with_coins_goes_through_all_that_it_may_hear_and_do():
    twin = Listener(MARKET, Endowment(0, 100, 100), Config(), agent_stream(1, 1))
    before = twin.coins
    rehearse(twin)
    tops = [event for event in twin.heard if isinstance(event, TopOfBook)]
    assert {(top.kind, top.instrument) for top in tops} == {
        (MessageKind.TOP_OF_BOOK, 0),
        (MessageKind.SLOW_TOP_OF_BOOK, COIN),
    }
    assert all(top.bid_ticks < 110 for top in tops if top.instrument == COIN)
    reports = [event.kind for event in twin.heard if isinstance(event, Report)]
    assert {EventKind.ORDER_FILLED, EventKind.REDEEMED, EventKind.LOAN_LIQUIDATED} <= set(reports)
    assert ORACLE_UPDATED in {event.kind for event in twin.heard} and twin.halted
    assert twin.coins < before


class Quiet(Listener):
    """Hears the same and does nothing."""

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        self.heard.append(event)
        return []


def test_without_a_stablecoin_nobody_hears_of_one():
    twin = make(Quiet, Config())
    rehearse(twin)
    tops = [event for event in twin.heard if isinstance(event, TopOfBook)]
    assert tops and all(top.instrument == 0 for top in tops)
