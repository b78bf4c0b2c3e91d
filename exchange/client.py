"""What a participant and an operator use to reach the venue. A client in any language can do the same: docs/wire.md.

Owns one session's sockets. No strategy, no clock, no threads; one client belongs to one thread of one process.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import zmq

from exchange import wire
from exchange.errors import VenueError
from exchange.types import CommandKind


class Endpoints(NamedTuple):
    """Where a venue listens, as ZeroMQ addresses."""

    orders: str
    market_data: str
    notices: str


class Participant:
    """One account's session: a DEALER for orders and reports, a SUB for notices and the market data it asks for."""

    def __init__(self, context: zmq.Context[Any], endpoints: Endpoints, account: int, topics: Iterable[bytes]) -> None:
        self.orders = context.socket(zmq.DEALER)
        self.orders.setsockopt(zmq.ROUTING_ID, wire.identity(account))
        self.public = context.socket(zmq.SUB)
        for socket in (self.orders, self.public):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
        for topic in topics:
            self.public.setsockopt(zmq.SUBSCRIBE, topic)
        self.orders.connect(endpoints.orders)
        self.public.connect(endpoints.notices)
        self.public.connect(endpoints.market_data)
        self._poller = zmq.Poller()
        self._poller.register(self.orders, zmq.POLLIN)
        self._poller.register(self.public, zmq.POLLIN)

    def log_on(self, now_ns: int) -> None:
        """Ask for a session; the answer is a LoggedOn among the messages."""
        self.orders.send(wire.pack(wire.MessageKind.LOGON, wire.PROTOCOL_VERSION, now_ns))

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
    ) -> None:
        """Send an order; order_id must be larger than any before. The last four say when and why it was decided."""
        self.orders.send(
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
        self.orders.send(
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

    def wait(self, timeout_ms: int) -> bool:
        """Wait until a message is there; False if none came in time."""
        return bool(self._poller.poll(timeout_ms))

    def messages(self) -> Iterator[Any]:
        """The messages that are there now, as named tuples of exchange.wire; public ones first."""
        for socket in (self.public, self.orders):
            while True:
                try:
                    frame = socket.recv(zmq.DONTWAIT)
                except zmq.Again:
                    break
                yield wire.unpack(frame)

    def close(self) -> None:
        self.orders.close()
        self.public.close()


class Operator:
    """The control channel: deposits, opening, signals, closing, stopping. One request, one answer."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, timeout_ms: int = 10_000) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
        self._socket.connect(endpoint)

    def request(
        self, kind: CommandKind | wire.MessageKind, account: int = 0, instrument: int = 0, amount: int = 0
    ) -> wire.Done:
        """Send one command and wait for its answer.

        Raises: VenueError: no answer in time.
        """
        self._socket.send(wire.control_message(kind, account, instrument, amount))
        return self._answer()

    def request_many(self, messages: Iterable[bytes]) -> list[wire.Done]:
        """Send many without waiting in between, then collect their answers in order."""
        count = 0
        for message in messages:
            self._socket.send(message)
            count += 1
        return [self._answer() for _ in range(count)]

    def _answer(self) -> wire.Done:
        try:
            answer = wire.unpack(self._socket.recv())
        except zmq.Again:
            raise VenueError("the venue does not answer on its control channel; see its log") from None
        assert isinstance(answer, wire.Done)
        return answer

    def close(self) -> None:
        self._socket.close()
