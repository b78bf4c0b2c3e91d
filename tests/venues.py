"""A real venue process for tests, with its operator and participants. Closed, whatever happens."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import zmq

from exchange import clock, journal, wire
from exchange.client import Endpoints, Operator, Participant
from exchange.config import BreakerConfig, EngineConfig, InstrumentConfig
from exchange.keys import ClientKeys, GeneratedKeys
from exchange.loop import LoopConfig
from exchange.replay import Replay, replay
from exchange.server import VenueConfig
from exchange.state import Array
from exchange.types import CommandKind, EventKind, OrderType, Reason

BREAKER = BreakerConfig(price_move_bps=500, price_window_ns=10 * clock.SECOND)
INSTRUMENTS = (InstrumentConfig(price_levels=16384, breaker=BREAKER), InstrumentConfig(price_levels=64))
FAST = LoopConfig(market_data_interval_ns=5 * clock.MS, slow_market_data_interval_ns=50 * clock.MS)
START_S = 280  # the first may compile
_MAIN = "import sys, exchange.server as s; sys.exit(s.main())"


def engine(instruments: Iterable[InstrumentConfig] = INSTRUMENTS, **changes: Any) -> EngineConfig:
    return EngineConfig(instruments=tuple(instruments), **{"accounts": 8, "max_orders": 256, **changes})


def free_ports(random_numbers: random.Random | None = None) -> int:
    """The first of three ports in a row that nobody uses, below those that connecting sockets get."""
    numbers = random_numbers or random.Random()
    while True:
        port = numbers.randrange(20_000, 32_000)
        with contextlib.ExitStack() as stack:
            try:
                for offset in range(3):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return port


class RunningVenue:
    """A venue over directory/journal. `settings` are VenueConfig's; `before` is Python to run in its process first;
    keys: its keys come from them, and so do those of its operator and participants."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        keys: GeneratedKeys | None = None,
        before: str = "",
        **settings: Any,
    ) -> None:
        self.directory = directory
        self.keys = keys
        self.before = before
        (directory / "journal").mkdir(exist_ok=True)
        self.config = VenueConfig(
            **{
                "engine": engine(),
                "directory": directory / "journal",
                "loop": FAST,
                "realtime": False,
                "keys": None if keys is None else keys.venue,
                **settings,
            }
        )
        self.context: zmq.Context[Any] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 16_000)
        self.participants: list[Participant] = []
        self.connections: list[Connection] = []
        self._environment = {**os.environ, **(environment or {})}
        self._operator: Operator | None = None
        self.process: Any = None  # subprocess.Popen[bytes]
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self, **changes: Any) -> None:
        """Start it, over what is in its directory; `changes` of its configuration stay."""
        if self.process is not None:
            self.process.wait(30)
            self._close_pipes()
        self.config = VenueConfig.model_validate({**self.config.__dict__, **changes})
        with (self.directory / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", self.before + _MAIN],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(self.config.model_dump_json().encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, (self.directory / "stderr").read_text()
        self.said: dict[str, Any] = json.loads(line)
        if "endpoints" in self.said:
            self.endpoints = Endpoints(**self.said["endpoints"])

    @property
    def operator(self) -> Operator:
        if self._operator is None:
            keys = None if self.keys is None else next(iter(self.keys.operators.values()))
            self._operator = Operator(self.context, self.config.control_address, keys=keys)
        return self._operator

    def key_of(self, account: int) -> ClientKeys | None:
        return None if self.keys is None else self.keys.accounts[account]

    def participant(self, account: int, flags: int = 0, heard: tuple[int, int] = (0, 0)) -> Participant:
        """A session that hears everything public and has logged on."""
        made = Participant(self.context, self.endpoints, account, [b""], self.key_of(account))
        self.participants.append(made)
        made.log_on(0, flags, *heard)
        hear(made, wire.MessageKind.LOGGED_ON)
        return made

    def connection(self, keys: ClientKeys | None = None, routing_id: bytes | None = None) -> "Connection":
        return Connection(self, keys, routing_id)

    def session(self, account: int, flags: int = 0, heard: tuple[int, int] = (0, 0)) -> "Connection":
        """A connection that has logged on."""
        made = Connection(self, self.key_of(account))
        answer = made.log_on(account, flags, heard)
        assert isinstance(answer, wire.LoggedOn), answer
        return made

    def endow(self, account: int, cash: int = 10**9, shares: int = 10**6) -> None:
        assert self.operator.request(CommandKind.DEPOSIT_CASH, account, 0, cash).reason == 0
        assert self.operator.request(CommandKind.DEPOSIT_POSITION, account, 0, shares).reason == 0

    def open(self) -> None:
        assert self.operator.request(CommandKind.OPEN_SESSION).reason == 0

    def status(self) -> wire.Done:
        return self.operator.request(wire.MessageKind.STATUS)

    def stop(self) -> dict[str, Any]:
        """Stop in order; returns the venue's last word."""
        self.operator.request(wire.MessageKind.STOP)
        return self.last_word()

    def last_word(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.process.wait(30)
        self._close_pipes()
        return said

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self._close_pipes()

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.kill()

    def _close_pipes(self) -> None:
        if self._operator is not None:
            self._operator.close()
            self._operator = None
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Connection:
    """One DEALER, and all that was heard on it."""

    def __init__(self, venue: RunningVenue, keys: ClientKeys | None = None, routing_id: bytes | None = None) -> None:
        self.socket = venue.context.socket(zmq.DEALER)
        venue.connections.append(self)  # so that it is closed before it is collected
        for option in (zmq.LINGER, zmq.SNDHWM, zmq.RCVHWM):
            self.socket.setsockopt(option, 0)
        if keys is not None:
            keys.apply(self.socket)
        if routing_id is not None:
            self.socket.setsockopt(zmq.ROUTING_ID, routing_id)
        self.socket.connect(venue.endpoints.orders)
        self.heard: list[Any] = []

    def send(self, *values: int) -> None:
        """Raises: zmq.Again: libzmq has given the connection up, as it does after a handshake that failed."""
        self.socket.send(wire.pack(*map(int, values)), zmq.DONTWAIT)

    def place(
        self,
        order_id: int,
        side: int,
        price_ticks: int,
        quantity_lots: int,
        order_type: int = OrderType.LIMIT,
        instrument: int = 0,
    ) -> None:
        named = (CommandKind.PLACE_ORDER, order_id, instrument, side, order_type, price_ticks, quantity_lots)
        self.send(*named, 0, 0, 0, 0)

    def cancel(self, order_id: int, instrument: int = 0, quantity_lots: int = 0) -> None:
        self.send(CommandKind.CANCEL_ORDER, order_id, instrument, quantity_lots, 0, 0, 0, 0)

    def ask_log_on(
        self,
        account: int,
        flags: int = 0,
        heard: tuple[int, int] = (0, 0),
        declaration: wire.Declaration = wire.NO_VENDOR,
    ) -> None:
        self.send(CommandKind.LOG_ON, wire.PROTOCOL_VERSION, account, flags, *heard, 0, *declaration)

    def log_on(
        self,
        account: int,
        flags: int = 0,
        heard: tuple[int, int] = (0, 0),
        declaration: wire.Declaration = wire.NO_VENDOR,
    ) -> Any:
        """The LoggedOn, or the Refused or Report that answers it instead."""
        self.ask_log_on(account, flags, heard, declaration)
        return self.next()

    def log_off(self) -> None:
        self.send(wire.MessageKind.LOG_OFF)

    def next(self, timeout_s: float = 10.0) -> Any:
        if not self.socket.poll(int(timeout_s * 1000)):
            raise AssertionError(f"nothing heard within {timeout_s} s; before: {self.heard[-3:]}")
        message = wire.unpack(self.socket.recv())
        self.heard.append(message)
        return message

    def hear(self, kind: int, timeout_s: float = 10.0) -> Any:
        """The next message of a kind."""
        while True:
            message = self.next(timeout_s)
            if message.kind == kind:
                return message

    def is_quiet(self, timeout_ms: int = 200) -> bool:
        return not self.socket.poll(timeout_ms)

    def catch_up(self, timeout_s: float = 10.0) -> list[Any]:
        """All that the venue has said on this connection until now: a depth's answer comes behind it."""
        at = len(self.heard)
        self.send(wire.MessageKind.DEPTH_REQUEST, 0)
        self.hear(wire.MessageKind.DEPTH, timeout_s)
        return self.heard[at:-1]

    @property
    def reports(self) -> list[wire.Report]:
        return [message for message in self.heard if isinstance(message, wire.Report)]

    @property
    def position(self) -> tuple[int, int]:
        """What a next logon says that was heard."""
        reports = self.reports
        if not reports:
            return (0, 0)
        return reports[-1].sequence, sum(report.sequence == reports[-1].sequence for report in reports)

    def close(self) -> None:
        self.socket.close()


def hear(participant: Participant, kind: int, timeout_s: float = 10.0) -> Any:
    """Wait for the next message of a kind, dropping others."""
    deadline = clock.monotonic_ns() + int(timeout_s * clock.SECOND)
    while clock.monotonic_ns() < deadline:
        participant.wait(100)
        for source in (participant.public, participant.orders):
            while True:
                try:
                    message = wire.unpack(source.recv(zmq.DONTWAIT))
                except zmq.Again:
                    break
                if message[0] == kind:
                    return message
    raise AssertionError(f"no message of kind {kind} within {timeout_s} s")


def log_on_again(venue: RunningVenue, account: int, heard: tuple[int, int] = (0, 0), flags: int = 0) -> Connection:
    """A new session, as soon as the venue has noticed that the one before has ended."""
    made = Connection(venue, venue.key_of(account))
    deadline = clock.monotonic_ns() + 10 * clock.SECOND
    while True:
        answer = made.log_on(account, flags, heard)
        if isinstance(answer, wire.LoggedOn):
            return made
        assert answer.reason == Reason.SESSION_IN_USE, answer
        assert clock.monotonic_ns() < deadline, "the session is still in use"
        clock.sleep(0.005)


def wait_for_status(venue: RunningVenue, condition: Callable[[wire.Done], bool], what: str) -> wire.Done:
    deadline = clock.monotonic_ns() + 10 * clock.SECOND
    while not condition(status := venue.status()):
        assert clock.monotonic_ns() < deadline, f"still not: {what}: {status}"
        clock.sleep(0.01)
    return status


def check_replay(venue: RunningVenue, said: dict[str, Any]) -> Replay:
    """The journal gives the state and the events that the venue had."""
    replayed = replay(*journal.read(venue.config.directory))
    assert replayed.engine.state_hash() == said["state_hash"]
    assert replayed.events_digest == said["events_digest"]
    assert len(replayed.events) == said["events"]
    return replayed


def expected_reports(events: Array, account: int) -> list[wire.Report]:
    """What an account must have been told of these events (EVENT[n]), in order."""
    reports = []
    for event in events[(events["account"] == account) | (events["maker_account"] == account)]:
        kind = int(event["kind"])
        if kind > EventKind.MASS_CANCELLED or kind == EventKind.INSTRUMENT_HALTED:
            continue
        filled = kind == EventKind.ORDER_FILLED
        for maker in (False, True):
            if event["maker_account" if maker else "account"] == account:
                side = int(event["side"])
                values = [event[name] for name in ("kind", "sequence", "time_ns", "instrument")]
                values += [event["maker_order_id" if maker else "order_id"], 1 - side if maker else side]
                values += [event["price_ticks"], event["quantity_lots"]]
                values += [event["maker_leaves_lots" if maker else "leaves_lots"], event["reason"]]
                values.append((3 if event["reason"] else 2 if maker else 1) if filled else 0)
                referring = kind in (EventKind.ORDER_REPLACED, EventKind.ORDER_REPEATED)
                values.append(event["value"] if referring else 0)
                reports.append(wire.Report(*map(int, values)))
    return reports


@contextlib.contextmanager
def running_venue(directory: Path, environment: Mapping[str, str] | None = None, **settings: Any) -> Iterator[Any]:
    venue = RunningVenue(directory, environment, **settings)
    try:
        yield venue
    finally:
        venue.close()
