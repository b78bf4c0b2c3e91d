"""What a participant and an operator use to reach the venue. A client in any language can do the same: docs/wire.md.

Owns one connection's sockets and nothing else: no strategy, no clock, no threads, no memory of what was sent; one
client belongs to one thread of one process. session.py has the client that keeps a session whatever happens.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import zmq

from exchange import wire
from exchange.errors import VenueError
from exchange.keys import ClientKeys
from exchange.types import BOTH_SIDES, NOBODY, CommandKind

_CONFLATED = frozenset(
    {
        wire.MessageKind.TOP_OF_BOOK,
        wire.MessageKind.SLOW_TOP_OF_BOOK,
        wire.MessageKind.DEPTH,
        wire.MessageKind.INDICATIVE,
    }
)
"""Market data of which only the latest counts."""


class Endpoints(NamedTuple):
    """Where a venue listens, as ZeroMQ addresses."""

    orders: str
    market_data: str
    notices: str


class Voice:
    """What one account can say; by which way is its maker's concern."""

    def __init__(self, account: int, send: Callable[[bytes], Any]) -> None:
        """send: takes one packed message."""
        self.account = account
        self._send = send

    def log_on(
        self,
        now_ns: int,
        flags: int = 0,
        heard_sequence: int = 0,
        heard_reports: int = 0,
        declaration: wire.Declaration = wire.NO_VENDOR,
    ) -> None:
        """Ask for a session; the answer is a LoggedOn (or a Refused) among the messages.

        Args: flags: of wire.log_on_flags; heard_sequence and heard_reports: the sequence of the latest report heard
        and how many of that sequence were; 0: resend nothing; declaration: of the model that decides.
        """
        self._send(wire.log_on(self.account, flags, (heard_sequence, heard_reports), now_ns, declaration))

    def log_off(self) -> None:
        """End the session in order; orders are cancelled if that was chosen at logon."""
        self._send(wire.pack(wire.MessageKind.LOG_OFF))

    def place(
        self,
        order_id: int,
        instrument: int,
        side: int,
        order_type: int,
        price_ticks: int,
        quantity_lots: int,
        heard_ns: int,
        sent_ns: int,
        cause_sequence: int = 0,
        rule: int = 0,
        inputs: Sequence[int] = (),
    ) -> None:
        """Send an order; order_id must be larger than any before. The last five say when and why it was decided.

        Args: inputs: up to nine words that the rule decided on (docs/explained-trades.md); none: unexplained.
        """
        self._send(
            wire.pack(
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
                *wire.explanation(inputs),
            )
        )

    def replace(
        self,
        order_id: int,
        target_order_id: int,
        instrument: int,
        order_type: int,
        price_ticks: int,
        quantity_lots: int,
        heard_ns: int,
        sent_ns: int,
        cause_sequence: int = 0,
        rule: int = 0,
        inputs: Sequence[int] = (),
    ) -> None:
        """Give a resting order a new name, price and total quantity (with what has been filled of it)."""
        self._send(
            wire.pack(
                CommandKind.REPLACE_ORDER,
                order_id,
                target_order_id,
                instrument,
                order_type,
                price_ticks,
                quantity_lots,
                heard_ns,
                sent_ns,
                cause_sequence,
                rule,
                *wire.explanation(inputs),
            )
        )

    def cancel(
        self,
        order_id: int,
        instrument: int,
        quantity_lots: int,
        heard_ns: int,
        sent_ns: int,
        cause_sequence: int = 0,
        rule: int = 0,
    ) -> None:
        """Take quantity_lots off a resting order of this account; 0 takes all of it."""
        self._send(
            wire.pack(
                CommandKind.CANCEL_ORDER,
                order_id,
                instrument,
                quantity_lots,
                heard_ns,
                sent_ns,
                cause_sequence,
                rule,
            )
        )

    def mass_cancel(
        self,
        heard_ns: int,
        sent_ns: int,
        instrument: int = NOBODY,
        side: int = BOTH_SIDES,
        cause_sequence: int = 0,
        rule: int = 0,
    ) -> None:
        """Cancel all orders of this account, of one instrument or all, of one side or both."""
        self._send(wire.pack(CommandKind.MASS_CANCEL, instrument, side, heard_ns, sent_ns, cause_sequence, rule))

    def request(
        self,
        kind: int,
        target: int,
        quantity_lots: int,
        heard_ns: int,
        sent_ns: int,
        cause_sequence: int = 0,
        rule: int = 0,
    ) -> None:
        """Ask something of the lending pool or the stablecoin's issuer.

        Args: kind: one of exchange.types.REQUEST_COMMANDS; target: the account whose loan a LIQUIDATE repays, else 0.
        """
        self._send(wire.pack(kind, target, quantity_lots, heard_ns, sent_ns, cause_sequence, rule))

    def request_depth(self, instrument: int) -> None:
        """Ask for the book; the answer is a Depth among the messages."""
        self._send(wire.pack(wire.MessageKind.DEPTH_REQUEST, instrument))

    def request_trades(self, instrument: int, first: int) -> None:
        """Ask for trades from this number on; the answer is at most wire.MAX_TRADES_RESENT Trades."""
        self._send(wire.pack(wire.MessageKind.TRADES_REQUEST, instrument, first))


class _Sockets:
    """A DEALER for orders and reports, a SUB for notices and market data."""

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoints: Endpoints,
        topics: Iterable[bytes],
        keys: ClientKeys | None = None,
        name: bytes | None = None,
    ) -> None:
        self.orders = context.socket(zmq.DEALER)
        self.public = context.socket(zmq.SUB)
        for socket in (self.orders, self.public):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            if keys is not None:
                keys.apply(socket)
        if name is not None:
            self.orders.setsockopt(zmq.ROUTING_ID, name)
        for topic in topics:
            self.public.setsockopt(zmq.SUBSCRIBE, topic)
        self.orders.connect(endpoints.orders)
        self.public.connect(endpoints.notices)
        self.public.connect(endpoints.market_data)
        self._poller = zmq.Poller()
        self._poller.register(self.orders, zmq.POLLIN)
        self._poller.register(self.public, zmq.POLLIN)

    def wait(self, timeout_ms: int) -> bool:
        """Wait until a message is there; False if none came in time."""
        return bool(self._poller.poll(timeout_ms))

    def watch(self, socket: "zmq.Socket[Any]") -> None:
        """Let `wait` end for messages on a socket of the caller's too."""
        self._poller.register(socket, zmq.POLLIN)

    def unwatch(self, socket: "zmq.Socket[Any]") -> None:
        self._poller.unregister(socket)

    def close(self) -> None:
        self.orders.close()
        self.public.close()


class Participant(_Sockets, Voice):
    """One account's session over a connection of its own."""

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoints: Endpoints,
        account: int,
        topics: Iterable[bytes],
        keys: ClientKeys | None = None,
    ) -> None:
        _Sockets.__init__(self, context, endpoints, topics, keys)
        Voice.__init__(self, account, self.orders.send)

    def messages(self) -> Iterator[Any]:
        """The messages that are there now, as named tuples of exchange.wire; public ones first."""
        for socket in (self.public, self.orders):
            while True:
                try:
                    frame = socket.recv(zmq.DONTWAIT)
                except zmq.Again:
                    break
                yield wire.unpack(frame)


class SharedConnection(_Sockets):
    """The sessions of many accounts over one connection: a frame that names the account goes before each message."""

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoints: Endpoints,
        topics: Iterable[bytes],
        keys: ClientKeys | None = None,
        name: bytes | None = None,
    ) -> None:
        """name: of this connection, for a relay that wants to know whose it is; a venue takes none."""
        super().__init__(context, endpoints, topics, keys, name)

    def voice(self, account: int) -> Voice:
        """What this account says over the connection."""
        frame, send = wire.account_frame(account), self.orders.send_multipart
        return Voice(account, lambda message: send((frame, message)))

    def messages(self) -> Iterator[tuple[int | None, Any]]:
        """(account, message) of those that are there now, public ones first. Account None: to all of them.

        Of market data that the venue conflates anyway, only the latest of each kind and instrument: who hands each
        message to many may be slower than they come, and would fall further and further behind.
        """
        for message in _conflated(self._waiting()):
            yield None, message
        while True:
            try:
                *to, frame = self.orders.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            yield (wire.account_in(to[0]) if to else None), wire.unpack(frame)

    def _waiting(self) -> list[Any]:
        """The public messages that are there now."""
        found = []
        with contextlib.suppress(zmq.Again):
            while True:
                found.append(wire.unpack(self.public.recv(zmq.DONTWAIT)))
        return found


def _conflated(messages: list[Any]) -> list[Any]:
    """Without market data of which there is a later one."""
    latest = {(each.kind, each.instrument): at for at, each in enumerate(messages) if each.kind in _CONFLATED}
    return [
        each
        for at, each in enumerate(messages)
        if each.kind not in _CONFLATED or latest[each.kind, each.instrument] == at
    ]


class Operator:
    """The control channel: deposits, limits, opening, signals, closing, stopping. One request, one answer."""

    def __init__(
        self, context: zmq.Context[Any], endpoint: str, timeout_ms: int = 10_000, keys: ClientKeys | None = None
    ) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
        if keys is not None:
            keys.apply(self.socket)
        self.socket.connect(endpoint)

    def request(
        self, kind: CommandKind | wire.MessageKind, account: int = 0, instrument: int = 0, amount: int = 0
    ) -> wire.Done:
        """Send one command and wait for its answer.

        Raises: VenueError: no answer in time.
        """
        self.send(kind, account, instrument, amount)
        return self.answer()

    def send(
        self, kind: CommandKind | wire.MessageKind, account: int = 0, instrument: int = 0, amount: int = 0
    ) -> None:
        """Send one command without waiting; `answer` has what the venue says to it, and `socket` tells when."""
        self.socket.send(wire.control_message(kind, account, instrument, amount))

    def request_many(self, messages: Iterable[bytes]) -> list[wire.Done]:
        """Send many without waiting in between, then collect their answers in order."""
        count = 0
        for message in messages:
            self.socket.send(message)
            count += 1
        return [self.answer() for _ in range(count)]

    def answer(self) -> wire.Done:
        """Wait for the answer to the oldest command that has none. Raises: VenueError: none in time."""
        try:
            answer = wire.unpack(self.socket.recv())
        except zmq.Again:
            raise VenueError("the venue does not answer on its control channel; see its log") from None
        assert isinstance(answer, wire.Done)
        return answer

    def close(self) -> None:
        self.socket.close()
