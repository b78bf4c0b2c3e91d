"""A venue of one instrument for tests of clients: it remembers, restarts, forgets and goes silent when told to."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import zmq

from exchange import clock, wire
from exchange.client import Endpoints
from exchange.keys import VenueKeys
from exchange.types import CommandKind, EventKind, Reason

REMEMBERED_ORDERS = 32


class Core:
    """The venue without sockets: rests every order, fills what it is told to. Lives on when its connections do not."""

    def __init__(self) -> None:
        self.sequence = 0
        self.starts = 1
        self.counted: dict[int, int] = {}
        self.outcomes: dict[tuple[int, int], tuple[int, int, int]] = {}  # (account, id): sequence, quantity, reason
        self.resting: dict[tuple[int, int], list[int]] = {}  # (account, id): side, price, leaves, filled
        self.reports: dict[int, list[wire.Report]] = {}
        self.kept = 1 << 16
        """How many of an account's reports are remembered."""
        self.sessions: dict[bytes, int] = {}
        self.commands: list[tuple[int, ...]] = []
        """All that counted."""
        self.trades: list[wire.Trade] = []
        self.refuse_next: list[Reason] = []
        self.out: list[tuple[bytes, bytes]] = []

    def restart(self) -> None:
        self.sessions.clear()
        self.starts += 1
        self.sequence += 1

    def disconnect(self, connection: bytes) -> None:
        self.sessions.pop(connection, None)

    def take(self, connection: bytes, frame: bytes) -> list[bytes]:
        """One message; returns what is said on that connection."""
        self.out = []
        values = msgpack.unpackb(frame)
        if self.refuse_next:
            named = values[0] in (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER)
            self._refuse(connection, self.refuse_next.pop(0), values[1] if named else 0)
        elif values[0] == CommandKind.LOG_ON:
            self._log_on(connection, values)
        elif values[0] == wire.MessageKind.DEPTH_REQUEST:
            self.out.append((connection, wire.pack(wire.MessageKind.DEPTH, 0, 1, self.sequence, 0, 1, 0, *[0] * 40)))
        elif values[0] == wire.MessageKind.TRADES_REQUEST:
            wanted = [trade for trade in self.trades if trade.number >= values[2]][: wire.MAX_TRADES_RESENT]
            self.out += [(connection, wire.pack(*trade)) for trade in wanted]
        elif connection not in self.sessions:
            named = values[0] in (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER)
            self._refuse(connection, Reason.NOT_LOGGED_ON, values[1] if named else 0)
        elif values[0] == wire.MessageKind.LOG_OFF:
            del self.sessions[connection]
        else:
            self.sequence += 1
            account = self.sessions[connection]
            self.commands.append((account, *values))
            _TAKE[values[0]](self, account, values)
        return [frame for to, frame in self.out if to == connection]

    def fill(self, account: int, order_id: int, lots: int) -> None:
        self.sequence += 1
        row = self.resting[account, order_id]
        lots = min(lots, row[2])
        row[2] -= lots
        row[3] += lots
        self._report(EventKind.ORDER_FILLED, account, order_id, row[0], row[1], lots, row[2], 0, 2)
        if row[2] == 0:
            del self.resting[account, order_id]

    def _refuse(self, connection: bytes, reason: Reason, order_id: int) -> None:
        self.out.append((connection, wire.pack(wire.MessageKind.REFUSED, self.sequence, 0, reason, order_id)))

    def _log_on(self, connection: bytes, values: list[int]) -> None:
        _, version, account, flags, heard_sequence, heard_reports, *_ = values
        if version != wire.PROTOCOL_VERSION:
            return self._refuse(connection, Reason.UNKNOWN_VERSION, 0)
        if account >= 8:
            return self._refuse(connection, Reason.UNKNOWN_ACCOUNT, 0)
        if any(owner == account and other != connection for other, owner in self.sessions.items()):
            return self._refuse(connection, Reason.SESSION_IN_USE, 0)
        self.sessions[connection] = account
        self.sequence += 1
        everything = self.reports.get(account, [])
        known = everything[max(0, len(everything) - self.kept) :]
        forgotten = everything[-self.kept - 1].sequence if len(everything) > self.kept else 0
        last = self.counted.get(account, 0)
        resent_from = max(heard_sequence, forgotten + 1)
        welcome = (self.sequence, 0, 1, account, last, resent_from, self.starts, flags)
        self.out.append((connection, wire.pack(wire.MessageKind.LOGGED_ON, *welcome)))
        if heard_sequence == 0:
            return None
        skip = heard_reports
        for report in known:
            if report.sequence == heard_sequence and skip:
                skip -= 1
            elif report.sequence >= heard_sequence:
                self.out.append((connection, wire.pack(*report)))
        return None

    def _report(
        self,
        kind: EventKind,
        account: int,
        order_id: int,
        side: int,
        price: int,
        quantity: int,
        leaves: int,
        reason: int = 0,
        liquidity: int = 0,
        reference: int = 0,
        instrument: int = 0,
    ) -> None:
        values = (instrument, order_id, side, price, quantity, leaves, int(reason), liquidity, reference)
        report = wire.Report(int(kind), self.sequence, 0, *values)
        self.reports.setdefault(account, []).append(report)
        for connection, owner in self.sessions.items():
            if owner == account:
                self.out.append((connection, wire.pack(*report)))

    def _counts(self, account: int, order_id: int, quantity: int) -> bool:
        if order_id > self.counted.get(account, 0):
            self.counted[account] = order_id
            self.outcomes[account, order_id] = (self.sequence, quantity, 0)
            mine = [key for key in self.outcomes if key[0] == account]
            for key in mine[: max(0, len(mine) - REMEMBERED_ORDERS)]:
                del self.outcomes[key]
            return True
        if (account, order_id) in self.outcomes:
            sequence, first, reason = self.outcomes[account, order_id]
            leaves = self.resting.get((account, order_id), [0, 0, 0, 0])[2]
            self._report(EventKind.ORDER_REPEATED, account, order_id, 0, 0, first, leaves, reason, 0, sequence)
        else:
            reason = Reason.ORDER_ID_NOT_INCREASING
            self._report(EventKind.ORDER_REJECTED, account, order_id, 0, 0, quantity, 0, reason)
        return False

    def _place(self, account: int, values: list[int]) -> None:
        _, order_id, _, side, _, price, quantity = values[:7]
        if not self._counts(account, order_id, quantity):
            return
        if price <= 0:
            self._reject(account, order_id, side, price, quantity, Reason.PRICE_OUT_OF_RANGE)
            return
        self.resting[account, order_id] = [side, price, quantity, 0]
        self._report(EventKind.ORDER_ACCEPTED, account, order_id, side, price, quantity, quantity)

    def _reject(self, account: int, order_id: int, side: int, price: int, quantity: int, reason: Reason) -> None:
        self.outcomes[account, order_id] = (*self.outcomes[account, order_id][:2], int(reason))
        self._report(EventKind.ORDER_REJECTED, account, order_id, side, price, quantity, 0, reason)

    def _replace(self, account: int, values: list[int]) -> None:
        _, order_id, target, _, _, price, quantity = values[:7]
        if not self._counts(account, order_id, quantity):
            return
        if (account, target) not in self.resting:
            self._reject(account, order_id, 0, price, quantity, Reason.UNKNOWN_ORDER)
            return
        side, old_price, leaves, filled = self.resting.pop((account, target))
        if quantity <= filled:
            self.outcomes[account, order_id] = (*self.outcomes[account, order_id][:2], int(Reason.REPLACED))
            self._report(EventKind.ORDER_CANCELLED, account, target, side, old_price, leaves, 0, Reason.REPLACED)
            return
        rest = quantity - filled
        self.resting[account, order_id] = [side, price, rest, filled]
        reason = Reason.NONE if price == old_price and rest <= leaves else Reason.LOST_PRIORITY
        self._report(EventKind.ORDER_REPLACED, account, order_id, side, price, quantity, rest, reason, 0, target)

    def _cancel(self, account: int, values: list[int]) -> None:
        _, target, _, quantity = values[:4]
        if (account, target) not in self.resting:
            self._report(EventKind.CANCEL_REJECTED, account, target, 0, 0, quantity, 0, Reason.UNKNOWN_ORDER)
            return
        row = self.resting[account, target]
        taken = row[2] if quantity == 0 or quantity >= row[2] else quantity
        row[2] -= taken
        self._report(EventKind.ORDER_CANCELLED, account, target, row[0], row[1], taken, row[2], Reason.BY_OWNER)
        if row[2] == 0:
            del self.resting[account, target]

    def _mass_cancel(self, account: int, values: list[int]) -> None:
        _, instrument, side = values[:3]
        mine = [key for key, row in self.resting.items() if key[0] == account and side in (2, row[0])]
        for key in mine:
            row = self.resting.pop(key)
            self._report(EventKind.ORDER_CANCELLED, account, key[1], row[0], row[1], row[2], 0, Reason.MASS_CANCEL)
        self._report(EventKind.MASS_CANCELLED, account, 0, side, 0, len(mine), 0, instrument=instrument)


_TAKE: dict[int, Callable[[Core, int, list[int]], None]] = {
    CommandKind.PLACE_ORDER: Core._place,
    CommandKind.REPLACE_ORDER: Core._replace,
    CommandKind.CANCEL_ORDER: Core._cancel,
    CommandKind.MASS_CANCEL: Core._mass_cancel,
}


class FakeVenue:
    """Core behind sockets, in a thread. Stop and start it again on the same ports."""

    def __init__(self, core: Core, keys: VenueKeys | None = None) -> None:
        self.core = core
        self.keys = keys
        self.deaf = False
        """Takes what comes, and says nothing."""
        self.endpoints = Endpoints(*["tcp://127.0.0.1:*"] * 3)
        self._work: deque[Callable[[], Any]] = deque()
        self._context: zmq.Context[Any] = zmq.Context()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        sockets = [self._context.socket(kind) for kind in (zmq.ROUTER, zmq.PUB, zmq.PUB)]
        for socket, endpoint in zip(sockets, self.endpoints, strict=True):
            socket.setsockopt(zmq.LINGER, 0)
            if self.keys is not None:
                socket.curve_server = True
                socket.curve_secretkey = self.keys.secret.encode()
            _bind(socket, endpoint)
        self.endpoints = Endpoints(*(socket.getsockopt_string(zmq.LAST_ENDPOINT) for socket in sockets))
        self._stopping.clear()
        self._thread = threading.Thread(target=self._serve, args=(sockets,))
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def restart(self) -> None:
        self.stop()
        self.core.restart()
        self.deaf = False
        self.start()

    def do(self, work: Callable[[], Any]) -> Any:
        """Run something within the venue's thread, between two messages."""
        done = threading.Event()
        result: list[Any] = []

        def run() -> None:
            result.append(work())
            done.set()

        self._work.append(run)
        assert done.wait(10)
        return result[0]

    def publish(self, *messages: Any, market_data: bool = False) -> None:
        self.do(lambda: [self._sockets[1 if market_data else 2].send(wire.pack(*message)) for message in messages])

    def fill(self, account: int, order_id: int, lots: int) -> None:
        def fill() -> None:
            self.core.out = []
            self.core.fill(account, order_id, lots)
            self._say()

        self.do(fill)

    def drop_connections(self) -> None:
        """Unbind and bind anew: every connection is lost, and nothing else."""
        self.stop()
        self.core.sessions.clear()
        self.start()

    def close(self) -> None:
        self.stop()
        self._context.destroy(linger=0)

    def _serve(self, sockets: list[Any]) -> None:
        self._sockets = sockets
        try:
            while not self._stopping.is_set():
                if sockets[0].poll(2):
                    connection, frame = sockets[0].recv_multipart()
                    self.core.take(connection, frame)
                    self._say()
                while self._work:
                    self._work.popleft()()
        finally:
            for socket in sockets:
                socket.close()

    def _say(self) -> None:
        for connection, frame in self.core.out:
            if not self.deaf:
                self._sockets[0].send_multipart([connection, frame])
        self.core.out = []


def _bind(socket: Any, endpoint: str) -> None:
    """libzmq lets go of a port a moment after its socket was closed."""
    deadline = clock.monotonic_ns() + 10 * clock.SECOND
    while True:
        try:
            socket.bind(endpoint)
            return
        except zmq.ZMQError:
            if clock.monotonic_ns() > deadline:
                raise
            clock.sleep(0.01)


@contextlib.contextmanager
def fake_venue(keys: VenueKeys | None = None) -> Iterator[FakeVenue]:
    venue = FakeVenue(Core(), keys)
    venue.start()
    try:
        yield venue
    finally:
        venue.close()
