"""One agent as an operating-system process: its connection, its clock, its random stream, around one strategy.

The only module of this package that touches sockets, and the target that the zygote forks into. Owns the agent's row
of the scoreboard. Decides nothing: the strategy does.
"""

import heapq
import os
import signal
from typing import Any

import zmq

from aar_swarm.agents.base import (
    CLOSED,
    HALTED,
    SIGNAL,
    Action,
    AskVendor,
    CancelOrder,
    Endowment,
    Event,
    Market,
    PlaceOrder,
    Request,
    Strategy,
    Timer,
    Wake,
)
from aar_swarm.lease import Lease
from aar_swarm.names import agent_stream, strategy_class
from aar_swarm.rehearsal import rehearse
from aar_swarm.starvation import FIELDS, ProcessWaits, StampedeWaits
from aar_swarm.vendors import process as vendor_process
from aar_swarm.vendors.client import VendorClient
from cluster.notice_board import POSTED_KINDS, NoticeReader
from cluster.scoreboard import BASE_FIELDS, AgentState
from exchange import clock, wire
from exchange.client import Endpoints, Participant
from exchange.keys import ClientKeys
from exchange.types import NOBODY, EventKind, Reason

ROW_FIELDS = [
    *BASE_FIELDS,
    *(
        (name, "i8")
        for name in (
            "ready_ns",
            "signal_heard_ns",
            "decided_ns",  # the first order sent after the signal
            "halt_heard_ns",
            "close_heard_ns",
            "orders_sent",
            "reports_heard",
            "planned_lots",
            "planned_cost",  # minor units, rounded
            "shares",  # at the end, as the agent believes
            "cash",
            "lease_expired",
            "vendor",  # of the model that it logged on with; 0: none
            "refused",  # the Reason why it was not admitted with any model
            "first_value_millis",  # what its vendor first said that the asset is worth, thousandths of a tick
            "last_value_millis",  # the last that it said before it first stood by none
            "withdrawal_heard_ns",
            "valuations",  # heard by an agent, given by a vendor
            "valuation_ns",  # sum over them: of an agent question -> answer, of a vendor the work
            "batches",  # of a vendor: forward passes
            "port",  # of a vendor
            *FIELDS,
        )
    ),
]
"""An agent's row: who and how (cluster), and what it did. Times in ns of CLOCK_MONOTONIC; 0: has not happened."""

TARGET = "aar_swarm.agent_process:main"
_LOGON_RETRY_NS = 2 * clock.SECOND
_LOGON_LOST_NS = 10 * clock.SECOND
"""Unanswered for so long, a logon is taken for lost."""
_SETTLE_NS = clock.SECOND
"""After the close, how long an agent waits for the last reports on its open orders."""
_NOT_ADMITTED = (
    Reason.UNDECLARED,
    Reason.NOT_VALIDATED,
    Reason.VENDOR_AGENTS_CAP,
    Reason.VENDOR_CAPITAL_CAP,
)
_POSTED = frozenset(map(int, POSTED_KINDS))
_NOTICES = tuple(wire.subscription(kind) for kind in (*POSTED_KINDS, wire.MessageKind.HEARTBEAT))


class _Told(Exception):
    """Of a halt, while there was nothing to do but wait."""


def _strategy(kind: type[Strategy], agent_id: int, spec: dict[str, Any]) -> Strategy:
    return kind(
        Market(**spec["market"]),
        Endowment(*spec["endowment"]),
        kind.Params.model_validate(spec["params"]),
        agent_stream(spec["seed"], agent_id),
    )


def _rejected(sequence: int, time_ns: int, instrument: int, order_id: int, reason: int) -> wire.Report:
    """To the strategy an order that the venue did not take is a rejected one, whoever rejected it."""
    kind = int(EventKind.ORDER_REJECTED)
    return wire.Report(kind, sequence, time_ns, instrument, order_id, 0, 0, 0, 0, reason, 0, 0)


def _topics(kind: type[Strategy], market: Market) -> list[bytes]:
    """What such an agent subscribes to. A notice's instrument is not among its first bytes."""
    of_main = [
        wire.subscription(topic, None if wire.FIELDS[topic] is wire.Notice else market.instrument)
        for topic in kind.listens_to
    ]
    coin = market.stablecoin
    of_coin = [wire.subscription(topic, coin) for topic in kind.listens_to_coin if coin != NOBODY]
    return [*_NOTICES, *of_main, *of_coin]


def _give_back_priority() -> None:
    """What the host's relay lends an agent until it has noted a halt."""
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class AgentProcess:
    def __init__(self, agent_id: int, spec: dict[str, Any], row: Any) -> None:
        self.row = row
        kind = strategy_class(spec["strategy"])
        if spec["rehearse"]:
            rehearse(_strategy(kind, agent_id, spec))
        self.strategy = _strategy(kind, agent_id, spec)
        self.context: zmq.Context[Any] = zmq.Context()
        topics = _topics(kind, self.strategy.market)
        keys = None if spec["keys"] is None else ClientKeys(*spec["keys"])
        self.venue = Participant(self.context, Endpoints(**spec["endpoints"]), agent_id, topics, keys)
        self.process_waits = ProcessWaits()
        self.waits = StampedeWaits(row, self.process_waits)
        self.vendor: VendorClient | None = None
        self.models = list(spec["models"])
        self.explains = bool(spec["explains"])
        self.admitted = False
        self.logons_under_way = 0
        """Sent and not answered: a refusal is of the model that was asked for last only if there is no other."""
        self.timers: list[tuple[int, int, int]] = []
        self.timer_count = 0
        self.asked_ns = clock.monotonic_ns()
        self.lease = Lease(int(spec["lease_ns"]), self.asked_ns)
        self.closed_ns = 0
        self.cause_sequence = 0
        self.waiting = False
        self.board: NoticeReader | None = None
        if spec.get("notice_board") is not None:
            self.board = NoticeReader(spec["notice_board"])
            signal.signal(signal.SIGURG, self._on_told)
            signal.raise_signal(signal.SIGURG)  # rehearsed: the first time costs page faults
        self._log_on(self.asked_ns)

    def _log_on(self, now_ns: int) -> None:
        """Ask for a session with the first of the models that are left."""
        model = self.models[0]
        declaration = wire.Declaration(*model["declaration"])
        if model["endpoint"] is not None and (self.vendor is None or self.vendor.endpoint != model["endpoint"]):
            if self.vendor is not None:
                self.venue.unwatch(self.vendor.socket)
                self.vendor.close()
            self.vendor = VendorClient(self.context, model["endpoint"])
            self.venue.watch(self.vendor.socket)
        self.row["vendor"] = declaration.vendor
        self.logons_under_way += 1
        self.venue.log_on(now_ns, declaration=declaration)

    def _on_not_admitted(self, reason: int, now_ns: int) -> None:
        """Try the next model; without one it stays out, and only listens."""
        del self.models[0]
        if self.models:
            self.asked_ns = now_ns
            self._log_on(now_ns)
        else:
            self.row["vendor"] = 0
            self.row["refused"] = reason
            self.row["ready_ns"] = now_ns
            self.row["state"] = AgentState.READY

    def run(self) -> int:
        """Live until the session has closed or the venue has been silent for the lease; returns the exit status."""
        while True:
            now = clock.monotonic_ns()
            if self._over(now):
                break
            if self.lease.has_run_out(now):
                self.row["lease_expired"] = 1
                return 3
            wake_ns = min(self.timers[0][0] if self.timers else now + clock.SECOND, now + clock.SECOND)
            if self.closed_ns:
                wake_ns = now + 20 * clock.MS
            if wake_ns > now:
                if not self.row["signal_heard_ns"]:
                    self.process_waits.before_rest()
                self._wait(max(1, (wake_ns - now) // clock.MS))
            self._take_told()
            for message in self.venue.messages():
                heard = clock.monotonic_ns()
                self.lease.renew(heard)
                if self.board is None or message.kind not in _POSTED or self.board.is_new(message):
                    self._take(message, heard)
            if self.vendor is not None:
                self._hear_vendor(self.vendor)
            now = clock.monotonic_ns()
            due = []
            while self.timers and self.timers[0][0] <= now:
                due.append(heapq.heappop(self.timers)[2])
            for tag in due:  # those they set anew wait until the sockets were looked at again
                self._decide(Timer(tag), now)
            if not self.row["ready_ns"] and now - self.asked_ns > _LOGON_RETRY_NS:
                lost = now - self.asked_ns > _LOGON_LOST_NS
                if lost or not self.logons_under_way:
                    self.logons_under_way = 0
                    self.asked_ns = now
                    self._log_on(now)
        self.row["shares"] = self.strategy.shares
        self.row["cash"] = self.strategy.cash
        self.row["state"] = AgentState.FINISHED
        if self.vendor is not None:
            self.vendor.close()
        self.venue.close()
        self.context.destroy(linger=0)
        return 0

    def _over(self, now: int) -> bool:
        return bool(self.closed_ns) and (not self.strategy.open_orders or now - self.closed_ns > _SETTLE_NS)

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
        if self.board is not None and self.board.is_behind() and not self.row["halt_heard_ns"]:
            self.row["halt_heard_ns"] = clock.monotonic_ns()
        _give_back_priority()
        if self.waiting:
            self.waiting = False
            raise _Told

    def _take_told(self) -> None:
        """Let the strategy hear what is on the board up to the latest halt."""
        if self.board is not None and self.board.is_behind():
            heard_ns = clock.monotonic_ns()
            for notice in self.board.take():
                self._take(notice, heard_ns)

    def _take(self, message: Any, heard_ns: int) -> None:
        kind = message.kind
        if kind == wire.MessageKind.HEARTBEAT:
            if self.board is not None:
                _give_back_priority()  # lent by a relay that died before it could take it back
            return
        if kind == wire.MessageKind.LOGGED_ON:
            self.admitted = True
            self.logons_under_way = 0
            if not self.row["ready_ns"]:
                self.row["ready_ns"] = heard_ns
                self.row["state"] = AgentState.READY
            return
        if kind == wire.MessageKind.REFUSED and not self.row["ready_ns"]:
            self.logons_under_way = max(0, self.logons_under_way - 1)
            if message.reason in _NOT_ADMITTED:
                if not self.logons_under_way:
                    self._on_not_admitted(message.reason, heard_ns)
                return
        if kind == wire.MessageKind.REFUSED:  # to the strategy a rejected order, whoever rejected it
            order = self.strategy.open_orders.get(message.order_id)
            instrument = self.strategy.market.instrument if order is None else order.instrument
            message = _rejected(message.sequence, message.time_ns, instrument, message.order_id, message.reason)
        if kind == SIGNAL and not self.row["signal_heard_ns"]:
            self.row["signal_heard_ns"] = heard_ns
        elif kind == HALTED and not self.row["halt_heard_ns"]:
            self.row["halt_heard_ns"] = heard_ns
        elif kind == CLOSED:
            self.row["close_heard_ns"] = self.closed_ns = heard_ns
            self.waits.on_close()
            self.timers.clear()
        if isinstance(message, wire.Report):
            self.row["reports_heard"] += 1
            self.waits.on_answer()
        self.cause_sequence = message.sequence
        self._decide(message, heard_ns)

    def _hear_vendor(self, vendor: VendorClient) -> None:
        for valuation, asked_ns in vendor.answers():
            heard_ns = clock.monotonic_ns()
            self.row["valuations"] += 1
            self.row["valuation_ns"] += heard_ns - asked_ns
            if valuation.withdrawn and not self.row["withdrawal_heard_ns"]:
                self.row["withdrawal_heard_ns"] = heard_ns
            elif not self.row["withdrawal_heard_ns"]:
                self.row["last_value_millis"] = round(valuation.value_ticks * 1000)
                if not self.row["first_value_millis"]:
                    self.row["first_value_millis"] = self.row["last_value_millis"]
            self._decide(valuation, heard_ns)

    def _decide(self, event: Event, heard_ns: int) -> None:
        """Let the strategy decide, and send what it wants. A timer's cause is the last message that was heard."""
        actions = self.strategy.handle(event, heard_ns)
        if self.closed_ns or not self.admitted:
            return
        withheld: list[tuple[PlaceOrder, wire.Notice]] = []
        for action in actions:
            if isinstance(action, PlaceOrder) and (halt := self._halt_ahead(action.instrument)):
                withheld.append((action, halt))
            else:
                self._act(action, heard_ns)
        if self.strategy.plan is not None and not self.row["planned_lots"]:
            self.row["planned_lots"] = self.strategy.plan.lots
            self.row["planned_cost"] = round(self.strategy.plan.expected_cost)
        if withheld:
            self._take_told()
            for order, halt in withheld:
                reason = int(Reason.HALTED)
                self._decide(_rejected(halt.sequence, halt.time_ns, order.instrument, order.order_id, reason), heard_ns)

    def _halt_ahead(self, instrument: int) -> wire.Notice | None:
        """A halt of this instrument that reached the host and not yet the strategy."""
        if self.board is None or not self.board.is_behind():
            return None
        return next((halt for halt in self.board.halts_ahead() if halt.instrument == instrument), None)

    def _act(self, action: Action, heard_ns: int) -> None:
        if isinstance(action, Wake):
            self.timer_count += 1  # two timers of one moment fire in the order in which they were set
            heapq.heappush(self.timers, (action.at_ns, self.timer_count, action.tag))
            return
        sent_ns = clock.monotonic_ns()
        if isinstance(action, AskVendor):
            if self.vendor is not None:
                self.vendor.ask(sent_ns)
            return
        if isinstance(action, PlaceOrder):
            self.venue.place(
                action.order_id,
                action.instrument,
                action.side,
                action.order_type,
                action.price_ticks,
                action.quantity_lots,
                heard_ns,
                sent_ns,
                self.cause_sequence,
                action.rule,
                action.inputs if self.explains else (),
            )
        elif isinstance(action, CancelOrder):
            self.venue.cancel(
                action.order_id,
                action.instrument,
                action.quantity_lots,
                heard_ns,
                sent_ns,
                self.cause_sequence,
                action.rule,
            )
        elif isinstance(action, Request):
            self.venue.request(
                action.kind,
                action.target,
                action.quantity_lots,
                heard_ns,
                sent_ns,
                self.cause_sequence,
                action.rule,
            )
        self.row["orders_sent"] += 1
        if self.row["signal_heard_ns"] and not self.row["decided_ns"]:
            self.row["decided_ns"] = sent_ns
            self.waits.on_first_order()


def main(agent_id: int, spec: dict[str, Any], row: Any) -> int:
    """What the zygote forks into: an agent, or a process of a vendor."""
    if spec.get("is_vendor"):
        return vendor_process.main(spec, row)
    return AgentProcess(agent_id, spec, row).run()
