"""What a client must remember so that nothing is lost or doubled, whatever its connection does. No input or output.

Owns the rules of docs/wire.md, "When the connection is lost": which reports were heard, which commands have no answer
yet, what to send again. session.py moves the bytes.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from exchange import clock, wire
from exchange.errors import VenueError
from exchange.types import BOTH_SIDES, NOBODY, CommandKind, EventKind, OrderType, Reason

KEPT_ENDED = 4096
"""Orders that have ended, of which the state is still known."""
UNKNOWN_TYPE = -1
_AGAIN_NS = clock.SECOND // 2
"""After a refusal that time may cure."""
_BARRIER_INSTRUMENT = 0  # there is always one
_CURABLE = {Reason.SESSION_IN_USE, Reason.TOO_MANY_SESSIONS, Reason.TOO_FAST, Reason.NOT_LOGGED_ON}
_IN_WORDS = {
    Reason.MALFORMED: "it was no message of this protocol",
    Reason.UNKNOWN_ACCOUNT: "there is no such account",
    Reason.NOT_LOGGED_ON: "the connection has no session",
    Reason.SESSION_IN_USE: "the account's session is connected elsewhere",
    Reason.TOO_MANY_SESSIONS: "it has as many sessions as it may have",
    Reason.WRONG_KEY: "the key is not that account's",
    Reason.OVERSIZED: "the message was too long",
    Reason.UNKNOWN_VERSION: f"it does not speak version {wire.PROTOCOL_VERSION} of the protocol",
    Reason.TOO_FAST: "messages came faster than it takes them",
}


def in_words(reason: int) -> str:
    """A Reason as text."""
    try:
        known = Reason(reason)
    except ValueError:
        return f"reason {reason}"
    return _IN_WORDS.get(known, known.name.lower().replace("_", " "))


class SessionRefused(VenueError):
    """The venue gives this account no session here; `reason` says why."""

    def __init__(self, account: int, reason: int) -> None:
        super().__init__(f"the venue refuses account {account} a session: {in_words(reason)}")
        self.reason = reason


class OrderStatus(Enum):
    SENT = "sent"
    """No answer yet."""
    OPEN = "open"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    """By the engine or the gateway."""
    REPLACED = "replaced"
    """It lives under the name `replaced_by`."""
    GONE = "gone"
    """It has ended; how was in reports that the venue no longer had."""
    UNKNOWN = "unknown"
    """It may rest: what became of it was in reports that the venue no longer had."""


_LIVE = (OrderStatus.SENT, OrderStatus.OPEN, OrderStatus.UNKNOWN)


@dataclass
class Order:
    """What is known of one order name."""

    order_id: int
    instrument: int
    side: int
    order_type: int  # UNKNOWN_TYPE: placed by an earlier client, known from its reports
    price_ticks: int
    quantity_lots: int
    leaves_lots: int
    filled_lots: int = 0
    status: OrderStatus = OrderStatus.SENT
    reason: int = 0  # why it was rejected or cancelled
    sequence: int = 0  # of the latest report
    replaces: int = 0
    replaced_by: int = 0
    certain: bool = True
    """False: reports are lost, so filled_lots may be too small."""

    @property
    def answered(self) -> bool:
        return self.status is not OrderStatus.SENT

    @property
    def ended(self) -> bool:
        return self.status not in _LIVE


class Phase(Enum):
    OFFLINE = "offline"
    LOGGING_ON = "logging on"
    CATCHING_UP = "catching up"
    """Logged on; the reports that were missed are coming."""
    READY = "ready"


class Actions(NamedTuple):
    """What a message leads to."""

    send: list[bytes] = []  # noqa: RUF012  # never changed
    deliver: Any = None
    """The message, if its user should see it: it is new and not the session's own."""
    reconnect: bool = False
    """Give up this connection; when `retry_ns` has come, connect again."""


_NOTHING = Actions()


@dataclass
class _Pending:
    """A command without an answer."""

    serial: int
    frame: bytes
    order_id: int  # of a cancel: its target; of a mass cancel 0
    target: int = 0  # of a replace
    partial: bool = False  # sent twice it would take twice
    again: bool = False  # it was sent more than once
    late: bool = False  # refused for its speed; to be sent again
    instrument: int = NOBODY
    side: int = BOTH_SIDES


class SessionState:
    """One account's session, across connections. Call on_connect, on_message, on_public, on_disconnect and on_timer as
    things happen, and send what they return on the orders socket.

    Args: heard: the (sequence, how many of it) of the latest report that an earlier client of this account heard; what
    came after is resent. (1, 0) asks for all that the venue remembers, (0, 0) for nothing.
    """

    def __init__(
        self,
        account: int,
        flags: int = 0,
        heard: tuple[int, int] = (0, 0),
        declaration: wire.Declaration = wire.NO_VENDOR,
    ) -> None:
        self.account = account
        self.declaration = declaration
        self.flags = flags
        self.heard = heard
        self.phase = Phase.OFFLINE
        self.retry_ns = 0
        """When to connect, while OFFLINE."""
        self.logged_on: wire.LoggedOn | None = None
        """The latest answer to a logon."""
        self.refusal = 0
        """The Reason of the latest refused logon, 0 after one that was not."""
        self.logons = 0
        self.duplicates = 0
        """Reports that had been heard before."""
        self.reports_lost = False
        """At some logon the venue no longer had all that was missed; orders have `certain` False since."""
        self.orders: dict[int, Order] = {}
        self._ended: deque[int] = deque()
        self._next_id = 1
        self._serial = 0
        self._named: dict[int, _Pending] = {}  # places and replaces, by their order id
        self._unnamed: list[_Pending] = []  # cancels and mass cancels
        self._asked = (0, 0)  # what the LOG_ON at hand said was heard
        self._at = (0, 0)  # the position of the latest report on this connection
        self._gap = False  # the reports of this logon are not all of those missed
        self._depths: deque[bool] = deque()  # DEPTH_REQUESTs on their way; True: the barrier
        self._late_ns = 0

    # --- what happens -----------------------------------------------------------------------------------------------

    def on_connect(self, now_ns: int) -> list[bytes]:
        """A new connection is made; returns the logon to send on it."""
        self.phase = Phase.LOGGING_ON
        self._asked = self.heard
        self._depths.clear()
        return [wire.log_on(self.account, self.flags, self.heard, now_ns, self.declaration)]

    def on_disconnect(self, now_ns: int, wait_ns: int = 0) -> None:
        """The connection is lost, or given up."""
        self.phase = Phase.OFFLINE
        self.retry_ns = now_ns + wait_ns

    def on_message(self, message: Any, now_ns: int) -> Actions:
        """A message on the orders socket.

        Raises: SessionRefused: this account will have no session here; VenueError: this is another venue.
        """
        if isinstance(message, wire.Report):
            return self._on_report(message)
        if isinstance(message, wire.LoggedOn):
            return self._on_logged_on(message)
        if isinstance(message, wire.Refused):
            return self._on_refused(message, now_ns)
        if isinstance(message, wire.Depth) and self._depths and self._depths.popleft():
            return self._caught_up()
        return Actions(deliver=message)

    def on_public(self, message: Any, now_ns: int) -> Actions:
        """A message that everyone hears; one that tells of a restart ends the connection."""
        if message.kind in (wire.MessageKind.HEARTBEAT, EventKind.VENUE_STARTED):
            restarted = self.logged_on is not None and message.value > self.logged_on.starts
            deliver = message if message.kind == EventKind.VENUE_STARTED else None
            if restarted and self.phase in (Phase.READY, Phase.CATCHING_UP):
                self.on_disconnect(now_ns)
                return Actions(deliver=deliver, reconnect=True)
            return Actions(deliver=deliver)
        return Actions(deliver=message)

    def on_timer(self, now_ns: int) -> list[bytes]:
        """Returns what is to be sent again now."""
        if self.phase is not Phase.READY or not self._late_ns or now_ns < self._late_ns:
            return []
        self._late_ns = 0
        late = [pending for pending in self._named.values() if pending.late]
        for pending in late:
            pending.late = False
        return [pending.frame for pending in late]

    def due_ns(self) -> int | None:
        """When on_timer has something to do."""
        return self._late_ns or None

    # --- what its user wants ----------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY

    def open_orders(self) -> list[Order]:
        """Orders that rest or may rest, by their ids."""
        return [order for _, order in sorted(self.orders.items()) if not order.ended]

    def place(
        self,
        instrument: int,
        side: int,
        price_ticks: int,
        quantity_lots: int,
        order_type: int,
        heard_ns: int,
        sent_ns: int,
        cause_sequence: int,
        rule: int,
    ) -> tuple[int, list[bytes]]:
        """Returns: the order's id, and what to send now. While there is no session it is kept and sent later."""
        order_id = self._new_id()
        frame = wire.pack(
            CommandKind.PLACE_ORDER,
            order_id,
            instrument,
            side,
            order_type,
            price_ticks,
            quantity_lots,
            heard_ns,
            sent_ns,
            cause_sequence,
            rule,
        )
        self.orders[order_id] = Order(order_id, instrument, side, order_type, price_ticks, quantity_lots, quantity_lots)
        self._named[order_id] = _Pending(self._new_serial(), frame, order_id)
        return order_id, self._now(frame)

    def replace(
        self,
        target: int,
        price_ticks: int,
        quantity_lots: int,
        order_type: int,
        heard_ns: int,
        sent_ns: int,
        cause_sequence: int,
        rule: int,
    ) -> tuple[int, list[bytes]]:
        """As place. Raises: VenueError: the target is not known."""
        old = self.order(target)
        order_id = self._new_id()
        frame = wire.pack(
            CommandKind.REPLACE_ORDER,
            order_id,
            target,
            old.instrument,
            order_type,
            price_ticks,
            quantity_lots,
            heard_ns,
            sent_ns,
            cause_sequence,
            rule,
        )
        self.orders[order_id] = Order(
            order_id, old.instrument, old.side, order_type, price_ticks, quantity_lots, quantity_lots, replaces=target
        )
        self._named[order_id] = _Pending(self._new_serial(), frame, order_id, target)
        return order_id, self._now(frame)

    def cancel(
        self, order_id: int, quantity_lots: int, heard_ns: int, sent_ns: int, cause_sequence: int, rule: int
    ) -> list[bytes]:
        """As place. Raises: VenueError: the order is not known."""
        instrument = self.order(order_id).instrument
        frame = wire.pack(
            CommandKind.CANCEL_ORDER, order_id, instrument, quantity_lots, heard_ns, sent_ns, cause_sequence, rule
        )
        self._unnamed.append(_Pending(self._new_serial(), frame, order_id, partial=quantity_lots != 0))
        return self._now(frame)

    def mass_cancel(
        self, instrument: int, side: int, heard_ns: int, sent_ns: int, cause_sequence: int, rule: int
    ) -> list[bytes]:
        frame = wire.pack(CommandKind.MASS_CANCEL, instrument, side, heard_ns, sent_ns, cause_sequence, rule)
        self._unnamed.append(_Pending(self._new_serial(), frame, 0, partial=True, instrument=instrument, side=side))
        return self._now(frame)

    def request_depth(self, instrument: int) -> list[bytes]:
        """Not kept: without a connection there is nothing to send."""
        if self.phase not in (Phase.READY, Phase.CATCHING_UP):
            return []
        self._depths.append(False)
        return [wire.pack(wire.MessageKind.DEPTH_REQUEST, instrument)]

    def order(self, order_id: int) -> Order:
        """Raises: VenueError: this session knows no such order, or it ended long ago."""
        try:
            return self.orders[order_id]
        except KeyError:
            raise VenueError(f"account {self.account} has no order {order_id} that this session knows") from None

    def _new_id(self) -> int:
        if self.logged_on is None:
            raise VenueError("there was no session yet: wait until the venue has answered the logon")
        order_id = self._next_id
        self._next_id += 1
        return order_id

    def _new_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _now(self, frame: bytes) -> list[bytes]:
        return [frame] if self.ready else []

    # --- logon ------------------------------------------------------------------------------------------------------

    def _on_logged_on(self, message: wire.LoggedOn) -> Actions:
        if message.sequence < self.heard[0]:
            raise VenueError(
                f"this venue is at command {message.sequence}, but command {self.heard[0]} was heard before: "
                "it is not the same venue, or it lost its journal"
            )
        self.logged_on = message
        self.logons += 1
        self.refusal = 0
        self._next_id = max(self._next_id, message.last_order_id + 1)
        self._at = self._asked
        if self._asked == (0, 0):  # nothing was missed, and from here on something can be
            self.heard = (message.sequence, 0)
            self._gap = False
            return Actions(self._ready(), message)
        self._gap = message.resent_from > self._asked[0]
        self.phase = Phase.CATCHING_UP
        # Its answer comes behind the reports that were missed; only then is it known what has no outcome.
        self._depths.append(True)
        return Actions([wire.pack(wire.MessageKind.DEPTH_REQUEST, _BARRIER_INSTRUMENT)], message)

    def _caught_up(self) -> Actions:
        return Actions(self._ready()) if self.phase is Phase.CATCHING_UP else _NOTHING

    def _ready(self) -> list[bytes]:
        """All reports are heard that the venue has: what has no outcome now is sent again, in the order it was sent."""
        self.phase = Phase.READY
        self._late_ns = 0
        if self._gap:
            self.reports_lost = True
            self._ask_what_became_of_orders()
        again = sorted([*self._named.values(), *self._unnamed], key=lambda pending: pending.serial)
        for pending in again:
            pending.again, pending.late = True, False
        return [pending.frame for pending in again]

    def _ask_what_became_of_orders(self) -> None:
        """Reports are lost: a repeated order id is answered with what rests of it. What would take twice if sent twice
        is not sent again."""
        assert self.logged_on is not None
        self._unnamed = [pending for pending in self._unnamed if not pending.partial]
        for order in self.orders.values():
            if order.order_id > self.logged_on.last_order_id or order.ended:
                continue
            order.certain = False
            if order.order_id not in self._named:
                # Only its id counts: an id that the venue has counted is never an order again.
                values = (order.order_id, order.instrument, order.side, OrderType.LIMIT, order.price_ticks)
                frame = wire.pack(CommandKind.PLACE_ORDER, *values, order.quantity_lots, 0, 0, 0, 0)
                self._named[order.order_id] = _Pending(self._new_serial(), frame, order.order_id)

    def _on_refused(self, message: wire.Refused, now_ns: int) -> Actions:
        if self.phase is Phase.LOGGING_ON:
            self.refusal = message.reason
            if message.reason not in _CURABLE:
                raise SessionRefused(self.account, message.reason)
            self.on_disconnect(now_ns, _AGAIN_NS)
            return Actions(reconnect=True)
        if message.reason == Reason.NOT_LOGGED_ON:
            self.on_disconnect(now_ns)
            return Actions(reconnect=True)
        if self.phase is Phase.CATCHING_UP and message.order_id == 0 and True in self._depths:
            self._depths.clear()
            return self._caught_up()
        pending = self._named.get(message.order_id)
        if pending is None:
            # It may have been any cancel. The user hears of it; none is sent again behind its back.
            self._unnamed.clear()
            return Actions(deliver=message)
        assert self.logged_on is not None
        if message.reason == Reason.TOO_FAST and message.order_id <= self.logged_on.last_order_id:
            pending.late = True  # it asked what had become of it
            self._late_ns = now_ns + _AGAIN_NS
            return _NOTHING
        del self._named[message.order_id]
        self._end(self.orders[message.order_id], OrderStatus.REJECTED, message.reason)
        return Actions(deliver=message)

    # --- reports ----------------------------------------------------------------------------------------------------

    def _on_report(self, report: wire.Report) -> Actions:
        if self.phase is Phase.LOGGING_ON:
            if report.kind == EventKind.ORDER_REJECTED and report.order_id == 0:
                raise SessionRefused(self.account, report.reason)
            return _NOTHING  # of a session before this one: it is resent
        count = self._at[1] + 1 if report.sequence == self._at[0] else 1
        self._at = (report.sequence, count)
        if self._at <= self.heard:
            self.duplicates += 1
            return _NOTHING
        self.heard = self._at
        # Margin, loans and the liquidation engine's own trades (which have no order) change nothing that is kept here.
        if report.kind in _ON_REPORT and (report.kind != EventKind.ORDER_FILLED or report.order_id != 0):
            _ON_REPORT[report.kind](self, report)
        return Actions(deliver=report)

    def _known(self, report: wire.Report) -> Order:
        """The order of a report, made up from it if an earlier client placed it."""
        order = self.orders.get(report.order_id)
        if order is None:
            order = Order(
                report.order_id,
                report.instrument,
                report.side,
                UNKNOWN_TYPE,
                report.price_ticks,
                report.quantity_lots,
                report.leaves_lots,
                certain=report.kind == EventKind.ORDER_ACCEPTED,
            )
            self.orders[report.order_id] = order
            self._next_id = max(self._next_id, report.order_id + 1)
        order.sequence = report.sequence
        return order

    def _end(self, order: Order, status: OrderStatus, reason: int = 0) -> None:
        if not order.ended:
            self._ended.append(order.order_id)
        order.status, order.reason = status, reason
        order.leaves_lots = 0
        while len(self._ended) > KEPT_ENDED:
            self.orders.pop(self._ended.popleft(), None)

    def _accepted(self, report: wire.Report) -> None:
        self._named.pop(report.order_id, None)
        order = self._known(report)
        order.status = OrderStatus.OPEN
        order.quantity_lots, order.leaves_lots = report.quantity_lots, report.leaves_lots

    def _rejected(self, report: wire.Report) -> None:
        pending = self._named.pop(report.order_id, None)
        if pending is None:
            return
        order = self._known(report)
        if pending.again and report.reason == Reason.ORDER_ID_NOT_INCREASING:
            order.status, order.certain = OrderStatus.UNKNOWN, False  # counted, but too long ago to be told
        else:
            self._end(order, OrderStatus.REJECTED, report.reason)

    def _filled(self, report: wire.Report) -> None:
        order = self._known(report)
        order.filled_lots += report.quantity_lots
        order.leaves_lots = report.leaves_lots
        order.status = OrderStatus.OPEN
        if report.leaves_lots == 0:
            self._end(order, OrderStatus.FILLED)

    def _cancelled(self, report: wire.Report) -> None:
        order = self._known(report)
        order.leaves_lots = report.leaves_lots
        order.status = OrderStatus.OPEN
        if report.leaves_lots == 0:
            self._end(order, OrderStatus.CANCELLED, report.reason)
        if report.reason == Reason.BY_OWNER:
            self._forget_cancel(report.order_id)
        elif report.reason == Reason.REPLACED:
            replacing = next((one for one in self._named.values() if one.target == report.order_id), None)
            if replacing is not None:
                del self._named[replacing.order_id]
                self._end(self.orders[replacing.order_id], OrderStatus.CANCELLED, report.reason)

    def _replaced(self, report: wire.Report) -> None:
        self._named.pop(report.order_id, None)
        order = self._known(report)
        order.status, order.replaces = OrderStatus.OPEN, report.reference
        order.side, order.price_ticks = report.side, report.price_ticks
        order.quantity_lots, order.leaves_lots = report.quantity_lots, report.leaves_lots
        order.filled_lots = report.quantity_lots - report.leaves_lots
        order.certain = True
        self._renamed(report.reference, report.order_id)

    def _renamed(self, old_id: int, new_id: int) -> None:
        old = self.orders.get(old_id)
        if old is not None and not old.ended:
            old.replaced_by = new_id
            self._end(old, OrderStatus.REPLACED)

    def _repeated(self, report: wire.Report) -> None:
        self._named.pop(report.order_id, None)
        order = self.orders.get(report.order_id)
        if order is None or order.ended:
            return
        order.sequence = report.sequence
        order.certain = False
        order.leaves_lots = report.leaves_lots
        if report.reason == Reason.REPLACED:
            self._end(order, OrderStatus.CANCELLED, report.reason)
        elif report.reason != Reason.NONE:
            self._end(order, OrderStatus.REJECTED, report.reason)
        else:
            if order.replaces:
                self._renamed(order.replaces, order.order_id)
            order.status = OrderStatus.OPEN
            if report.leaves_lots == 0:
                self._end(order, OrderStatus.GONE)

    def _cancel_rejected(self, report: wire.Report) -> None:
        if report.order_id == 0:
            self._forget_mass_cancel(report)
            return
        self._forget_cancel(report.order_id)
        order = self.orders.get(report.order_id)
        if order is not None and not order.ended and report.reason == Reason.UNKNOWN_ORDER and order.answered:
            self._end(order, OrderStatus.GONE)

    def _mass_cancelled(self, report: wire.Report) -> None:
        self._forget_mass_cancel(report)

    def _forget_cancel(self, order_id: int) -> None:
        for at, pending in enumerate(self._unnamed):
            if pending.order_id == order_id:
                del self._unnamed[at]
                return

    def _forget_mass_cancel(self, report: wire.Report) -> None:
        for at, pending in enumerate(self._unnamed):
            if (pending.order_id, pending.instrument, pending.side) == (0, report.instrument, report.side):
                del self._unnamed[at]
                return


_ON_REPORT: dict[int, Callable[[SessionState, wire.Report], None]] = {
    EventKind.ORDER_ACCEPTED: SessionState._accepted,
    EventKind.ORDER_REJECTED: SessionState._rejected,
    EventKind.ORDER_FILLED: SessionState._filled,
    EventKind.ORDER_CANCELLED: SessionState._cancelled,
    EventKind.CANCEL_REJECTED: SessionState._cancel_rejected,
    EventKind.ORDER_REPEATED: SessionState._repeated,
    EventKind.ORDER_REPLACED: SessionState._replaced,
    EventKind.MASS_CANCELLED: SessionState._mass_cancelled,
}
