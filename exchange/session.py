"""Clients that keep a session whatever happens to the connection or the venue: Session, and AsyncSession for asyncio.

Owns their sockets and when they are made anew; what to send and what was heard is session_state.py's. Both are used by
one thread (one event loop).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

import zmq
from zmq.utils.monitor import parse_monitor_message

from exchange import clock, wire
from exchange.client import Endpoints
from exchange.errors import VenueError
from exchange.keys import ClientKeys
from exchange.market_data import MarketData
from exchange.session_state import Actions, Order, Phase, SessionRefused, SessionState, in_words
from exchange.types import BOTH_SIDES, NOBODY, EventKind, OrderType, SelfTrade

__all__ = ["AsyncSession", "MarketData", "Order", "Session", "SessionRefused"]

_NOTICES = (
    EventKind.INSTRUMENT_HALTED,
    EventKind.SESSION_OPENED,
    EventKind.SIGNAL_PUBLISHED,
    EventKind.SESSION_CLOSED,
    EventKind.PHASE_CHANGED,
    EventKind.VENUE_STARTED,
    wire.MessageKind.HEARTBEAT,
)
_ATTEMPT_NS = 5 * clock.SECOND
"""How long a logon may go without an answer before a new connection is made."""
_LOST_WAIT_NS = clock.SECOND // 10
_SLICE_MS = 250
_KEPT_MESSAGES = 1 << 16
_HEARTBEAT_MS = 1000
_FAILED_HANDSHAKES = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)
_EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILED_HANDSHAKES
_Answer = TypeVar("_Answer")


class _Link:
    """The sockets of a session and what both kinds of client do with them; never waits."""

    def __init__(
        self,
        endpoints: Endpoints,
        account: int,
        *,
        cancel_on_disconnect: bool = False,
        self_trade: SelfTrade = SelfTrade.OFF,
        topics: Iterable[bytes] = (),
        keys: ClientKeys | None = None,
        heard: tuple[int, int] = (0, 0),
        declaration: wire.Declaration = wire.NO_VENDOR,
        context: "zmq.Context[Any] | None" = None,
    ) -> None:
        flags = wire.log_on_flags(cancel_on_disconnect, self_trade)
        self.state = SessionState(account, flags, heard, declaration)
        self.market = MarketData()
        self.inbox: deque[Any] = deque(maxlen=_KEPT_MESSAGES)
        self.dropped = 0
        self.shaken = True
        self._endpoints = endpoints
        self._keys = keys
        self._own_context = context is None
        self._context: zmq.Context[Any] = zmq.Context() if context is None else context
        self._orders: zmq.Socket[Any] | None = None
        self._monitor: zmq.Socket[Any] | None = None
        self._heard_ns = 0
        self.public = self._socket(zmq.SUB)
        for topic in [*(wire.subscription(kind) for kind in _NOTICES), *topics]:
            self.public.setsockopt(zmq.SUBSCRIBE, topic)
        self.public.connect(endpoints.notices)
        self.public.connect(endpoints.market_data)

    def sockets(self) -> list["zmq.Socket[Any]"]:
        """Those to wait for."""
        return [socket for socket in (self._orders, self._monitor, self.public) if socket is not None]

    def send(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            if self._orders is not None:
                self._orders.send(frame, zmq.DONTWAIT)

    def step(self) -> None:
        """Take all that is there and do all that is due.

        Raises: VenueError: the venue refuses this session for good.
        """
        self._read_monitor()
        self._read(self._orders, self._on_orders)
        self._read(self.public, self._on_public)
        now = clock.monotonic_ns()
        state = self.state
        if state.phase in (Phase.LOGGING_ON, Phase.CATCHING_UP) and now - self._heard_ns > _ATTEMPT_NS:
            state.on_disconnect(now)
        if state.phase is Phase.OFFLINE:
            self._disconnect()
            if now >= state.retry_ns:
                self._connect(now)
        self.send(state.on_timer(now))
        if state.ready:
            self._repair_trades(now)

    def wait_ms(self) -> int:
        """How long until something may be due."""
        due = [at for at in (self.state.due_ns(), self.market.due_ns()) if at is not None]
        if self.state.phase is Phase.OFFLINE:
            due.append(self.state.retry_ns)
        if not due:
            return _SLICE_MS
        return max(1, min(_SLICE_MS, (min(due) - clock.monotonic_ns()) // clock.MS + 1))

    def why(self) -> str:
        """What keeps the session from standing."""
        if self.state.refusal:
            return f"the venue refuses account {self.state.account} a session: {in_words(self.state.refusal)}"
        if not self.shaken:
            return "the venue and this client do not accept each other's keys (one has none, or another's)"
        if self.state.logged_on is None:
            return f"no venue answers at {self._endpoints.orders}"
        return "the venue does not answer"

    def close(self) -> None:
        self._disconnect()
        self.public.close()
        if self._own_context:
            self._context.term()

    def _socket(self, kind: int) -> "zmq.Socket[Any]":
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)  # so that a silent network is a lost connection
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 5 * _HEARTBEAT_MS)
        if self._keys is not None:
            self._keys.apply(socket)
        return socket

    def _connect(self, now_ns: int) -> None:
        """A new socket each time: nothing of an old connection comes in late, and nothing waits in it to be sent."""
        self._orders = self._socket(zmq.DEALER)
        self._monitor = self._orders.get_monitor_socket(_EVENTS)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._orders.connect(self._endpoints.orders)
        self._heard_ns = now_ns
        self.send(self.state.on_connect(now_ns))

    def _disconnect(self) -> None:
        if self._orders is not None and self._monitor is not None:
            self._orders.disable_monitor()
            self._monitor.close()
            self._orders.close()
        self._orders = self._monitor = None

    def _read(self, socket: "zmq.Socket[Any] | None", take: Callable[[Any], None]) -> None:
        while socket is not None and not socket.closed and self.state.phase is not Phase.OFFLINE:
            try:
                frame = socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                message = wire.unpack(frame)
            except ValueError as error:
                raise VenueError(f"the venue does not speak this protocol: {error}") from None
            take(message)

    def _read_monitor(self) -> None:
        while self._monitor is not None:
            try:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.DONTWAIT))
            except zmq.Again:
                return
            if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.shaken = True
                continue
            if event["event"] & _FAILED_HANDSHAKES:
                self.shaken = False
            self._read(self._orders, self._on_orders)  # what came before the end still counts
            if self.state.phase is not Phase.OFFLINE:
                self.state.on_disconnect(clock.monotonic_ns(), _LOST_WAIT_NS)
            self._disconnect()

    def _on_orders(self, message: Any) -> None:
        self._heard_ns = now = clock.monotonic_ns()
        if isinstance(message, wire.Trade):
            for trade in self.market.take_trade(message, requested=True):
                self._keep(trade)
            return
        if isinstance(message, wire.Depth):
            self.market.take_state(message, published=False)
        self._do(self.state.on_message(message, now))

    def _on_public(self, message: Any) -> None:
        if isinstance(message, wire.Trade):
            for trade in self.market.take_trade(message):
                self._keep(trade)
        elif isinstance(message, wire.TopOfBook | wire.Depth | wire.Indicative):
            if self.market.take_state(message):
                self._keep(message)
        else:
            self._do(self.state.on_public(message, clock.monotonic_ns()))

    def _do(self, actions: Actions) -> None:
        self.send(actions.send)
        if actions.deliver is not None:
            self._keep(actions.deliver)

    def _keep(self, message: Any) -> None:
        self.dropped += len(self.inbox) == _KEPT_MESSAGES
        self.inbox.append(message)

    def _repair_trades(self, now_ns: int) -> None:
        for trade in self.market.abandon(now_ns):
            self._keep(trade)
        for instrument, first in self.market.requests(now_ns):
            self.send([wire.pack(wire.MessageKind.TRADES_REQUEST, instrument, first)])


class _Commands:
    """What both kinds of client can be asked to do without waiting."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self.state = link.state
        self.market = link.market
        """What was heard of the market: name its topics when the session is made."""

    @property
    def account(self) -> int:
        return self.state.account

    @property
    def ready(self) -> bool:
        """Whether commands reach the venue now; those given meanwhile are sent when they can be."""
        return self.state.ready

    @property
    def dropped(self) -> int:
        """Messages that nobody took while more than 65,536 waited. Orders' states are kept all the same."""
        return self._link.dropped

    def open_orders(self) -> list[Order]:
        """Orders that rest or may rest, by their ids."""
        return self.state.open_orders()

    def order(self, order_id: int) -> Order:
        """Raises: VenueError: this session knows no such order, or it ended long ago."""
        return self.state.order(order_id)

    def place(
        self,
        instrument: int,
        side: int,
        price_ticks: int,
        quantity_lots: int,
        order_type: int = OrderType.LIMIT,
        *,
        heard_ns: int = 0,
        cause_sequence: int = 0,
        rule: int = 0,
    ) -> int:
        """Send an order; returns its id. The last three say when and why it was decided, for the venue's journal."""
        order_id, frames = self.state.place(
            instrument,
            side,
            price_ticks,
            quantity_lots,
            order_type,
            heard_ns,
            clock.monotonic_ns(),
            cause_sequence,
            rule,
        )
        self._send(frames)
        return order_id

    def replace(
        self,
        order_id: int,
        price_ticks: int,
        quantity_lots: int,
        order_type: int = OrderType.LIMIT,
        *,
        heard_ns: int = 0,
        cause_sequence: int = 0,
        rule: int = 0,
    ) -> int:
        """Give an order a new price and total quantity, with what has been filled of it; returns its new id.

        Raises: VenueError: this session knows no such order.
        """
        new_id, frames = self.state.replace(
            order_id, price_ticks, quantity_lots, order_type, heard_ns, clock.monotonic_ns(), cause_sequence, rule
        )
        self._send(frames)
        return new_id

    def cancel(
        self, order_id: int, quantity_lots: int = 0, *, heard_ns: int = 0, cause_sequence: int = 0, rule: int = 0
    ) -> None:
        """Take lots off an order; 0 takes all of it. Raises: VenueError: this session knows no such order."""
        self._send(self.state.cancel(order_id, quantity_lots, heard_ns, clock.monotonic_ns(), cause_sequence, rule))

    def mass_cancel(
        self,
        instrument: int = NOBODY,
        side: int = BOTH_SIDES,
        *,
        heard_ns: int = 0,
        cause_sequence: int = 0,
        rule: int = 0,
    ) -> None:
        """Cancel all orders of the account, of one instrument or all, of one side or both."""
        self._send(self.state.mass_cancel(instrument, side, heard_ns, clock.monotonic_ns(), cause_sequence, rule))

    def request_depth(self, instrument: int) -> None:
        """Ask for the book: a Depth comes among the messages, and `market.depth` has it."""
        self._send(self.state.request_depth(instrument))

    def request_trades(self, instrument: int, first: int) -> None:
        """Ask for trades of before this session: they come among the messages."""
        self._send([wire.pack(wire.MessageKind.TRADES_REQUEST, instrument, first)])

    def _send(self, frames: list[bytes]) -> None:
        self._link.send(frames)

    def _is_answered(self, order_id: int, ended: bool) -> Callable[[], Order | None]:
        order = self.state.order(order_id)
        return lambda: order if (order.ended if ended else order.answered) else None

    def _log_off_frames(self) -> list[bytes]:
        return [wire.pack(wire.MessageKind.LOG_OFF)] if self.ready else []


class Session(_Commands):
    """An account's session, kept across lost connections and restarts of the venue. No threads: it acts within calls,
    so call `poll` at least once a second or so.

    Args: topics: market data to hear, of wire.subscription (notices are always heard); keys: of a venue that has keys;
    heard: where an earlier client of this account stopped (SessionState); timeout_s: how long to wait for the first
    logon, and for answers unless told otherwise.
    Raises: SessionRefused: the venue refused it; VenueError: nobody answered in time.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        account: int,
        *,
        cancel_on_disconnect: bool = False,
        self_trade: SelfTrade = SelfTrade.OFF,
        topics: Iterable[bytes] = (),
        keys: ClientKeys | None = None,
        heard: tuple[int, int] = (0, 0),
        declaration: wire.Declaration = wire.NO_VENDOR,
        context: "zmq.Context[Any] | None" = None,
        timeout_s: float = 10.0,
    ) -> None:
        super().__init__(
            _Link(
                endpoints,
                account,
                cancel_on_disconnect=cancel_on_disconnect,
                self_trade=self_trade,
                topics=topics,
                keys=keys,
                heard=heard,
                declaration=declaration,
                context=context,
            )
        )
        self.timeout_s = timeout_s
        try:
            self.wait_until(lambda: self.ready or None, timeout_s)
        except BaseException:
            self._link.close()
            raise

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def poll(self, timeout_s: float = 0.0) -> None:
        """Do what is due, and wait until something happens, at most so long."""
        self._link.step()
        if not self._link.inbox:
            poller = zmq.Poller()
            for socket in self._link.sockets():
                poller.register(socket, zmq.POLLIN)
            if poller.poll(min(int(timeout_s * 1000), self._link.wait_ms())):
                self._link.step()

    def wait_until(self, answer: Callable[[], _Answer | None], timeout_s: float | None = None) -> _Answer:
        """Act until answer() is not None, and return it. Raises: VenueError: not in time."""
        seconds = self.timeout_s if timeout_s is None else timeout_s
        deadline = clock.monotonic_ns() + int(seconds * clock.SECOND)
        while True:
            self._link.step()
            found = answer()
            if found is not None:
                return found
            left_ms = (deadline - clock.monotonic_ns()) // clock.MS
            if left_ms <= 0:
                raise _too_late(self._link, seconds)
            poller = zmq.Poller()
            for socket in self._link.sockets():
                poller.register(socket, zmq.POLLIN)
            poller.poll(min(left_ms, self._link.wait_ms()))

    def wait_for(self, order_id: int, timeout_s: float | None = None, *, ended: bool = False) -> Order:
        """Wait until an order is answered (accepted, rejected …), or until it has ended.

        Raises: VenueError: not in time, or no such order.
        """
        return self.wait_until(self._is_answered(order_id, ended), timeout_s)

    def messages(self) -> Iterator[Any]:
        """Reports and public messages that have come, each once, as named tuples of exchange.wire."""
        self._link.step()
        while self._link.inbox:
            yield self._link.inbox.popleft()

    def next_message(self, timeout_s: float | None = None) -> Any:
        """The next report or public message. Raises: VenueError: none came in time."""
        return self.wait_until(lambda: self._link.inbox.popleft() if self._link.inbox else None, timeout_s)

    def log_off(self) -> None:
        """End the session in order; use nothing but close() after it."""
        self._send(self._log_off_frames())

    def close(self) -> None:
        """End the connection: the venue then ends the session."""
        self._link.close()


class AsyncSession(_Commands):
    """Session for asyncio: `async with AsyncSession(…) as session`, `async for message in session`. A task keeps it
    alive; commands are sent at once, without waiting. Arguments and errors are Session's."""

    def __init__(
        self,
        endpoints: Endpoints,
        account: int,
        *,
        cancel_on_disconnect: bool = False,
        self_trade: SelfTrade = SelfTrade.OFF,
        topics: Iterable[bytes] = (),
        keys: ClientKeys | None = None,
        heard: tuple[int, int] = (0, 0),
        declaration: wire.Declaration = wire.NO_VENDOR,
        context: "zmq.Context[Any] | None" = None,
        timeout_s: float = 10.0,
    ) -> None:
        super().__init__(
            _Link(
                endpoints,
                account,
                cancel_on_disconnect=cancel_on_disconnect,
                self_trade=self_trade,
                topics=topics,
                keys=keys,
                heard=heard,
                declaration=declaration,
                context=context,
            )
        )
        self.timeout_s = timeout_s
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._error: VenueError | None = None

    async def __aenter__(self) -> "AsyncSession":
        self._task = asyncio.create_task(self._run())
        try:
            await self.wait_until(lambda: self.ready or None)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            while not self._link.inbox:
                if self._error is not None:
                    raise self._error
                await self._changed.wait()
            yield self._link.inbox.popleft()

    async def wait_until(self, answer: Callable[[], _Answer | None], timeout_s: float | None = None) -> _Answer:
        """Wait until answer() is not None, and return it. Raises: VenueError: not in time."""
        seconds = self.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = answer()
                    if found is not None:
                        return found
                    if self._error is not None:
                        raise self._error
                    await self._changed.wait()
        except TimeoutError:
            raise _too_late(self._link, seconds) from None

    async def wait_for(self, order_id: int, timeout_s: float | None = None, *, ended: bool = False) -> Order:
        """Wait until an order is answered (accepted, rejected …), or until it has ended.

        Raises: VenueError: not in time, or no such order.
        """
        return await self.wait_until(self._is_answered(order_id, ended), timeout_s)

    async def next_message(self, timeout_s: float | None = None) -> Any:
        """The next report or public message. Raises: VenueError: none came in time."""
        return await self.wait_until(lambda: self._link.inbox.popleft() if self._link.inbox else None, timeout_s)

    async def log_off(self) -> None:
        """End the session in order; use nothing but close() after it."""
        self._send(self._log_off_frames())

    async def close(self) -> None:
        """End the connection: the venue then ends the session."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._link.close()

    async def _run(self) -> None:
        from zmq.asyncio import Poller

        try:
            while True:
                self._step()
                poller = Poller()
                for socket in self._link.sockets():
                    poller.register(socket, zmq.POLLIN)
                await poller.poll(self._link.wait_ms())
        except VenueError as error:
            self._error = error
            self._changed.set()

    def _step(self) -> None:
        """Act, and wake whoever waits."""
        self._link.step()
        self._changed.set()
        self._changed = asyncio.Event()

    def _send(self, frames: list[bytes]) -> None:
        super()._send(frames)
        if self._task is not None and self._error is None:
            # To send is also to take note of what has come, and the poller would not be woken for that again.
            asyncio.get_running_loop().call_soon(self._after_send)

    def _after_send(self) -> None:
        if self._task is None or self._error is not None:
            return
        try:
            self._step()
        except VenueError as error:
            self._error = error
            self._changed.set()


def _too_late(link: _Link, seconds: float) -> VenueError:
    if link.state.ready:
        return VenueError(f"no answer within {seconds:g} s")
    why = f"no session within {seconds:g} s: {link.why()}"
    return VenueError(why)
