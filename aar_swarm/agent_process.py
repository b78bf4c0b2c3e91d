"""Agents as an operating-system process: its connection to the venue, its clock and its loop around one agent or many.

The target that the zygote forks into, and of this package the only module that touches the venue's sockets. Decides
nothing: the strategies do. Most processes hold one agent, over a connection of its own. A packed process holds many:
each with its session, its order ids, its random stream and its row, over one connection to the host's relay.

Between the agents of one process there is no race: they are handed a public message one after the other, from one that
is drawn anew for each message, so that over many messages nobody is first more often.
"""

import heapq
import os
import signal
from collections import deque
from collections.abc import Iterator
from typing import Any

import zmq

from aar_swarm.agent import ROW_FIELDS, Agent, strategy_of
from aar_swarm.agents.base import CLOSED, HALTED, Market, Strategy, Timer
from aar_swarm.lease import Lease
from aar_swarm.names import order_stream, strategy_class
from aar_swarm.rehearsal import rehearse
from aar_swarm.starvation import ProcessWaits, StampedeWaits
from aar_swarm.vendors import process as vendor_process
from aar_swarm.vendors.client import VendorClient
from cluster.notice_board import POSTED_KINDS, NoticeReader
from cluster.relay import name_of_process
from exchange import clock, wire
from exchange.client import Endpoints, Participant, SharedConnection, Voice
from exchange.keys import ClientKeys
from exchange.types import NOBODY, BreakerAction, EventKind

__all__ = ["ROW_FIELDS", "TARGET", "AgentProcess", "main"]
TARGET = "aar_swarm.agent_process:main"
LOGONS_AT_ONCE = 64
"""Of one process, not answered yet: what all processes together ask for must not be a storm at the venue."""
_POSTED = frozenset(map(int, POSTED_KINDS))
_NOTICES = (*POSTED_KINDS, wire.MessageKind.HEARTBEAT)
_KILLED = EventKind.PARTICIPANTS_KILLED
_Topic = tuple[int, int | None]
"""A public message's kind and, of market data, its instrument."""


class _Told(Exception):
    """Of a halt, while there was nothing to do but wait."""


def _topics(kind: type[Strategy], market: Market) -> list[_Topic]:
    """What such an agent listens to, beside the notices that all do."""
    # A notice's instrument is not among its first bytes.
    of_main: list[_Topic] = [
        (int(topic), None if wire.FIELDS[topic] is wire.Notice else market.instrument) for topic in kind.listens_to
    ]
    coin = market.stablecoin
    return list(dict.fromkeys([*of_main, *((int(topic), coin) for topic in kind.listens_to_coin if coin != NOBODY)]))


def _give_back_priority() -> None:
    """What the host's kill switch lends an agent until it has noted a halt."""
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class AgentProcess:
    def __init__(self, first: int, spec: dict[str, Any], rows: Any) -> None:
        """first: the number of its first agent; the others follow. spec: what all agents have in common, and of a
        packed process "members", what each has of its own. rows: one row of the scoreboard each."""
        self.rows = rows
        specs = [{**spec, **member} for member in spec["members"]] if "members" in spec else [spec]
        self._rehearse(first, specs)
        self.context: zmq.Context[Any] = zmq.Context()
        if any(model["endpoint"] is not None for each in specs for model in each["models"]):
            self.context.set(zmq.MAX_SOCKETS, max(1024, 2 * len(specs)))
        self.listening: dict[_Topic, list[Agent]] = {}
        self.timers: list[tuple[int, int, Agent, int]] = []
        self.timer_count = 0
        now_ns = clock.monotonic_ns()
        self.closed_ns = 0
        self.waiting = False
        self.handing_out = False
        self.owed: list[wire.Notice] = []
        """Taken from the board by an agent to whom a message was just handed, before the others had that message."""
        self.order = order_stream(spec["seed"], first)
        self._connect(first, spec, specs)
        self.agents = [
            Agent(first + at, each, rows[at], self._voice(first + at), self) for at, each in enumerate(specs)
        ]
        self.process_waits = ProcessWaits()
        self.lease = Lease(int(spec["lease_ns"]), now_ns, self.process_waits.longest_ns)
        if len(self.agents) == 1:
            self.agents[0].waits = StampedeWaits(rows[0], self.process_waits)
        self.with_vendors: list[Agent] = []
        for agent in self.agents:
            for topic in _topics(type(agent.strategy), agent.strategy.market):
                self.listening.setdefault(topic, []).append(agent)
        self._of_account = {agent.agent_id: agent for agent in self.agents}
        self.board: NoticeReader | None = None
        if spec.get("notice_board") is not None:
            self.board = NoticeReader(spec["notice_board"])
            signal.signal(signal.SIGURG, self._on_told)
            signal.raise_signal(signal.SIGURG)  # rehearsed: the first time costs page faults
        self.to_log_on = deque(self.agents)
        self.logging_on: list[Agent] = []
        self._log_on_some(now_ns)

    def _rehearse(self, first: int, specs: list[dict[str, Any]]) -> None:
        """Each strategy once: the memory that it touches is the process's, not the agent's."""
        rehearsed = set()
        for at, spec in enumerate(specs):
            if spec["rehearse"] and spec["strategy"] not in rehearsed:
                rehearsed.add(spec["strategy"])
                rehearse(strategy_of(first + at, spec))

    def _connect(self, first: int, spec: dict[str, Any], specs: list[dict[str, Any]]) -> None:
        endpoints = Endpoints(**spec["endpoints"])
        market = Market(**spec["market"])
        strategies = dict.fromkeys(strategy_class(each["strategy"]) for each in specs)
        listened = dict.fromkeys(topic for kind in strategies for topic in _topics(kind, market))
        topics = [*map(wire.subscription, _NOTICES), *(wire.subscription(*topic) for topic in listened)]
        if len(specs) > 1:
            topics.append(wire.subscription(_KILLED))
        self.shared: SharedConnection | None = None
        if spec.get("relayed"):
            # No keys: the relay's sockets can be reached by this user alone, and the venue knows the host's.
            self.shared = SharedConnection(self.context, endpoints, topics, name=name_of_process(os.getpid()))
            self.venue: SharedConnection | Participant = self.shared
        else:
            keys = None if specs[0]["keys"] is None else ClientKeys(*specs[0]["keys"])
            self.venue = Participant(self.context, endpoints, first, topics, keys)

    def _voice(self, account: int) -> Voice:
        if self.shared is not None:
            return self.shared.voice(account)
        assert isinstance(self.venue, Participant)
        return self.venue

    def _messages(self) -> Iterator[tuple[int | None, Any]]:
        if self.shared is not None:
            yield from self.shared.messages()
        else:
            for message in self.venue.messages():
                yield None, message

    def run(self) -> int:
        """Live until the session has closed or the venue has been silent for the lease; returns the exit status."""
        while True:
            now = clock.monotonic_ns()
            if self.closed_ns and all(agent.is_over(now) for agent in self.agents):
                break
            if self.lease.has_run_out(now):
                self.rows["lease_expired"] = 1
                return 3
            wake_ns = min(self.timers[0][0] if self.timers else now + clock.SECOND, now + clock.SECOND)
            if self.closed_ns:
                wake_ns = now + 20 * clock.MS
            if wake_ns > now:
                if not self.agents[0].row["signal_heard_ns"]:
                    self.process_waits.before_rest()
                self._wait(max(1, (wake_ns - now) // clock.MS))
            self._take_told()
            for account, message in self._messages():
                heard = clock.monotonic_ns()
                self.lease.renew(heard)
                if message.kind == wire.MessageKind.HEARTBEAT:
                    if self.board is not None:
                        _give_back_priority()  # lent by a kill switch that died before it could take it back
                elif account is not None:
                    if (found := self._of_account.get(account)) is not None and not found.killed:
                        found.take(message, heard)
                elif self.board is None or message.kind not in _POSTED or self.board.is_new(message):
                    self._hand_out(message, heard)
            for asker in self.with_vendors:
                asker.hear_vendor()
            self._wake_due(clock.monotonic_ns())
            if self.logging_on:
                self._log_on_some(clock.monotonic_ns())
        for each in self.agents:
            each.finish()
            if each.vendor is not None:
                each.vendor.close()
        self.venue.close()
        self.context.destroy(linger=0)
        return 0

    def _hand_out(self, message: Any, heard_ns: int) -> None:
        """Give a public message to each agent that listens to it; each notes when it was its turn."""
        if message.kind == CLOSED:
            self.closed_ns = heard_ns
            self.timers.clear()
        if len(self.agents) == 1:
            self.agents[0].take(message, heard_ns)
            return
        if message.kind == _KILLED:
            self._kill(message, heard_ns)
            return
        topic = message.kind, None if isinstance(message, wire.Notice) else getattr(message, "instrument", None)
        listeners = self.listening.get(topic, self.agents)
        first = int(self.order.integers(len(listeners)))
        self.handing_out = True
        for agent in (*listeners[first:], *listeners[:first]):
            if not agent.killed:
                agent.take(message, clock.monotonic_ns())
        self.handing_out = False
        owed, self.owed = self.owed, []
        for notice in owed:
            for agent in self.agents:
                if agent.owed_taken:
                    agent.owed_taken -= 1
                elif not agent.killed:
                    agent.take(notice, clock.monotonic_ns())

    def _kill(self, notice: wire.Notice, now_ns: int) -> None:
        """An order to kill. If it takes all agents of this process, the host's kill switch ends the process too."""
        for agent in self.agents:
            if notice.action == BreakerAction.KILL_VENDOR:
                chosen = agent.row["vendor"] == notice.value
            else:
                chosen = notice.value in (NOBODY, agent.agent_id)
            if chosen and not agent.killed:
                agent.kill(now_ns)

    def _wake_due(self, now_ns: int) -> None:
        due = []
        while self.timers and self.timers[0][0] <= now_ns:
            due.append(heapq.heappop(self.timers)[2:])
        for agent, tag in due:  # those they set anew wait until the sockets were looked at again
            if not agent.killed:
                agent.decide(Timer(tag), clock.monotonic_ns())

    def _log_on_some(self, now_ns: int) -> None:
        """As many as may be under way; those whose logon was lost or put off, again."""
        self.logging_on = [agent for agent in self.logging_on if not (agent.ready or agent.killed)]
        for agent in self.logging_on:
            agent.log_on_again(now_ns)
        while self.to_log_on and len(self.logging_on) < LOGONS_AT_ONCE:
            agent = self.to_log_on.popleft()
            self.logging_on.append(agent)
            agent.log_on(now_ns)

    def wake(self, agent: Agent, at_ns: int, tag: int) -> None:
        self.timer_count += 1  # two timers of one moment fire in the order in which they were set
        heapq.heappush(self.timers, (at_ns, self.timer_count, agent, tag))

    def vendor_at(self, agent: Agent, endpoint: str) -> VendorClient:
        if agent.vendor is not None:
            self.venue.unwatch(agent.vendor.socket)
            agent.vendor.close()
        else:
            self.with_vendors.append(agent)
        client = VendorClient(self.context, endpoint)
        self.venue.watch(client.socket)
        return client

    def _wait(self, timeout_ms: int) -> None:
        """For a message, or for being told of a halt."""
        try:
            self.waiting = True
            if self.board is None or not self.board.is_behind():
                self.venue.wait(timeout_ms)
            self.waiting = False
        except _Told:
            pass

    def _on_told(self, *_: object) -> None:
        """SIGURG: a halt is on the board. From here on no order leaves that was decided without knowing it."""
        if self.board is not None and self.board.is_behind():
            now_ns = clock.monotonic_ns()
            for agent in self.agents:
                if not agent.row["halt_heard_ns"]:
                    agent.row["halt_heard_ns"] = now_ns
        _give_back_priority()
        if self.waiting:
            self.waiting = False
            raise _Told

    def _take_told(self) -> None:
        """Let the strategies hear what is on the board up to the latest halt."""
        if self.board is not None and self.board.is_behind():
            heard_ns = clock.monotonic_ns()
            for notice in self.board.take():
                self._hand_out(notice, heard_ns)

    def take_told(self, agent: Agent) -> None:
        """All agents, unless a message is just being handed out: then the others hear that one first."""
        if not self.handing_out:
            self._take_told()
            return
        if self.board is not None and self.board.is_behind():
            self.owed += self.board.take()
        while agent.owed_taken < len(self.owed):
            notice = self.owed[agent.owed_taken]
            agent.owed_taken += 1
            agent.take(notice, clock.monotonic_ns())

    def halt_ahead(self, agent: Agent, instrument: int) -> wire.Notice | None:
        ahead = [notice for notice in self.owed[agent.owed_taken :] if notice.kind == HALTED]
        if self.board is not None and self.board.is_behind():
            ahead += self.board.halts_ahead()
        return next((halt for halt in ahead if halt.instrument == instrument), None)


def main(first: int, spec: dict[str, Any], rows: Any) -> int:
    """What the zygote forks into: an agent or many, or a process of a vendor."""
    if spec.get("is_vendor"):
        return vendor_process.main(spec, rows[0])
    return AgentProcess(first, spec, rows).run()
