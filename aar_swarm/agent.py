"""One agent without a process: an account's admission, decisions and books of itself around one strategy.

Owns the agent's row of the scoreboard and its random stream. Touches no socket and waits for nothing: what it hears is
handed to it, what it says goes out by a Voice, and the process around it (agent_process.py) keeps its timers, its
vendor's connection and the notice board. How many of them a process holds makes no difference to it.
"""

from typing import Any, Protocol

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
    Wake,
)
from aar_swarm.names import agent_stream, strategy_class
from aar_swarm.starvation import FIELDS, StampedeWaits
from aar_swarm.vendors.client import VendorClient
from cluster.scoreboard import BASE_FIELDS, AgentState
from exchange import clock, wire
from exchange.client import Voice
from exchange.types import EventKind, Reason

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
            "killed_ns",  # heard that this account was killed, in a process with others that were not
        )
    ),
]
"""An agent's row: who and how (cluster), and what it did. Times in ns of CLOCK_MONOTONIC; 0: has not happened."""

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


class Around(Protocol):
    """The process of an agent, as the agent knows it."""

    def wake(self, agent: "Agent", at_ns: int, tag: int) -> None:
        """Hand it a Timer at that time."""

    def vendor_at(self, agent: "Agent", endpoint: str) -> VendorClient:
        """Its connection to this vendor; another that it had is closed."""

    def halt_ahead(self, agent: "Agent", instrument: int) -> wire.Notice | None:
        """A halt of this instrument that reached the host and not yet this agent."""

    def take_told(self, agent: "Agent") -> None:
        """Hand to this agent at least what is on the notice board up to the latest halt."""


def strategy_of(agent_id: int, spec: dict[str, Any]) -> Strategy:
    """A new one, as at the beginning of the run."""
    kind = strategy_class(spec["strategy"])
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


class Agent:
    def __init__(self, agent_id: int, spec: dict[str, Any], row: Any, voice: Voice, around: Around) -> None:
        self.agent_id = agent_id
        self.row = row
        self.strategy = strategy_of(agent_id, spec)
        self.voice = voice
        self.around = around
        self.waits: StampedeWaits | None = None
        """Of an agent that has its process to itself: of many, none could say whose wait it was."""
        self.vendor: VendorClient | None = None
        self.models = list(spec["models"])
        self.explains = bool(spec["explains"])
        self.admitted = False
        self.ready = False
        self.killed = False
        """The venue has closed its session for good; in a process of its own it would be dead."""
        self.owed_taken = 0
        """How many of the notices that its process owes to its agents it has been handed."""
        self.logons_under_way = 0
        """Sent and not answered: a refusal is of the model that was asked for last only if there is no other."""
        self.asked_ns = 0
        self.closed_ns = 0
        self.cause_sequence = 0

    def log_on(self, now_ns: int) -> None:
        """Ask for a session with the first of the models that are left."""
        self.asked_ns = now_ns
        model = self.models[0]
        declaration = wire.Declaration(*model["declaration"])
        if model["endpoint"] is not None and (self.vendor is None or self.vendor.endpoint != model["endpoint"]):
            self.vendor = self.around.vendor_at(self, model["endpoint"])
        self.row["vendor"] = declaration.vendor
        self.logons_under_way += 1
        self.voice.log_on(now_ns, declaration=declaration)

    def log_on_again(self, now_ns: int) -> None:
        """If the last logon was not answered, or refused for a reason that may pass."""
        waited_ns = now_ns - self.asked_ns
        if waited_ns > _LOGON_RETRY_NS and (waited_ns > _LOGON_LOST_NS or not self.logons_under_way):
            self.logons_under_way = 0
            self.log_on(now_ns)

    def _on_not_admitted(self, reason: int, now_ns: int) -> None:
        """Try the next model; without one it stays out, and only listens."""
        del self.models[0]
        if self.models:
            self.log_on(now_ns)
        else:
            self.row["vendor"] = 0
            self.row["refused"] = reason
            self._is_ready(now_ns)

    def _is_ready(self, now_ns: int) -> None:
        self.ready = True
        self.row["ready_ns"] = now_ns
        self.row["state"] = AgentState.READY

    def kill(self, now_ns: int) -> None:
        """The venue has killed it: it hears, decides and says nothing any more."""
        self.killed = True
        self.row["killed_ns"] = now_ns

    def is_over(self, now_ns: int) -> bool:
        """Whether it has nothing to wait for after the close."""
        return self.killed or not self.strategy.open_orders or now_ns - self.closed_ns > _SETTLE_NS

    def finish(self) -> None:
        """Leave what it believes to hold in its row."""
        self.row["shares"] = self.strategy.shares
        self.row["cash"] = self.strategy.cash
        if not self.killed:
            self.row["state"] = AgentState.FINISHED

    def take(self, message: Any, heard_ns: int) -> None:
        """Hear one message of the venue."""
        kind = message.kind
        if kind == wire.MessageKind.LOGGED_ON:
            self.admitted = True
            self.logons_under_way = 0
            if not self.ready:
                self._is_ready(heard_ns)
            return
        if kind == wire.MessageKind.REFUSED and not self.ready:
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
            if self.waits is not None:
                self.waits.on_close()
        if isinstance(message, wire.Report):
            self.row["reports_heard"] += 1
            if self.waits is not None:
                self.waits.on_answer()
        self.cause_sequence = message.sequence
        self.decide(message, heard_ns)

    def hear_vendor(self) -> None:
        """Take the answers that its vendor has given meanwhile."""
        if self.vendor is None:
            return
        for valuation, asked_ns in self.vendor.answers():
            heard_ns = clock.monotonic_ns()
            self.row["valuations"] += 1
            self.row["valuation_ns"] += heard_ns - asked_ns
            if valuation.withdrawn and not self.row["withdrawal_heard_ns"]:
                self.row["withdrawal_heard_ns"] = heard_ns
            elif not self.row["withdrawal_heard_ns"]:
                self.row["last_value_millis"] = round(valuation.value_ticks * 1000)
                if not self.row["first_value_millis"]:
                    self.row["first_value_millis"] = self.row["last_value_millis"]
            self.decide(valuation, heard_ns)

    def decide(self, event: Event, heard_ns: int) -> None:
        """Let the strategy decide, and send what it wants. A timer's cause is the last message that was heard."""
        actions = self.strategy.handle(event, heard_ns)
        if self.closed_ns or not self.admitted:
            return
        withheld: list[tuple[PlaceOrder, wire.Notice]] = []
        for action in actions:
            if isinstance(action, PlaceOrder) and (halt := self.around.halt_ahead(self, action.instrument)):
                withheld.append((action, halt))
            else:
                self._act(action, heard_ns)
        if self.strategy.plan is not None and not self.row["planned_lots"]:
            self.row["planned_lots"] = self.strategy.plan.lots
            self.row["planned_cost"] = round(self.strategy.plan.expected_cost)
        if withheld:
            self.around.take_told(self)
            for order, halt in withheld:
                reason = int(Reason.HALTED)
                self.decide(_rejected(halt.sequence, halt.time_ns, order.instrument, order.order_id, reason), heard_ns)

    def _act(self, action: Action, heard_ns: int) -> None:
        if isinstance(action, Wake):
            self.around.wake(self, action.at_ns, action.tag)
            return
        sent_ns = clock.monotonic_ns()
        if isinstance(action, AskVendor):
            if self.vendor is not None:
                self.vendor.ask(sent_ns)
            return
        if isinstance(action, PlaceOrder):
            self.voice.place(
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
            self.voice.cancel(
                action.order_id,
                action.instrument,
                action.quantity_lots,
                heard_ns,
                sent_ns,
                self.cause_sequence,
                action.rule,
            )
        elif isinstance(action, Request):
            self.voice.request(
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
            if self.waits is not None:
                self.waits.on_first_order()
