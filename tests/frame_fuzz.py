"""Frames that are no messages, nearly messages, and messages, thrown at a real venue; each must be accounted for."""

import random
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import zmq

from exchange import journal, wire
from exchange.config import InstrumentConfig
from exchange.replay import replay
from exchange.server import EndowmentConfig
from exchange.types import CommandKind
from tests.venues import Connection, RunningVenue, engine, running_venue

CHUNK = 500
ACCOUNTS = 8
_DEPTH_LEAD = 0xDC
_EDGES = [0, 1, -1, 2, 7, 31, 127, 128, 255, 256, 2**15, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]
_WRONG: list[Any] = [None, True, False, 1.5, float("nan"), "text", b"bytes", [], [1], {}, {1: 2}]


class Figures(NamedTuple):
    sent: int
    refused: int
    commands: int
    requests: int
    cut: int
    """Connections that were cut for a frame that was much too long."""


class Maker:
    """Makes frames; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._ids = [0] * ACCOUNTS

    def message(self) -> list[Any]:
        """A whole message of some kind, its numbers plausible or not."""
        pick = self._random
        order_id = self._ids[0] = self._ids[0] + 1
        account = pick.randrange(ACCOUNTS)
        price, lots = pick.randint(1, 63), pick.randint(1, 9)
        times = [0, pick.getrandbits(40), 0, 0]
        kinds = [
            [1, order_id, pick.randrange(2), pick.randrange(2), pick.randrange(5), price, lots, *times],
            [2, pick.randint(1, order_id), pick.randrange(2), pick.randrange(3), *times],
            [4, order_id, pick.randint(1, order_id), pick.randrange(2), 0, price, lots, *times],
            [5, pick.randrange(-1, 2), pick.randrange(3), *times],
            [3, 2, account, pick.randrange(6), 0, 0, 0],
            [6],
            [7, pick.randrange(-1, 3)],
            [8, pick.randrange(-1, 3), pick.randrange(5)],
            [10, account, 0, 10**6],
            [15, account, 1, 5],
            [50, 0, 0, 0],
            [20, 0],
        ]
        return pick.choices(kinds, [300, 150, 100, 1, 20, 1, 20, 20, 10, 10, 10, 10])[0]

    def frame(self) -> bytes:
        pick = self._random
        how = pick.randrange(12)
        if how == 0:
            return pick.randbytes(pick.choice((0, 1, 2, 5, 11, 30, 100, 256, 257, 300, 1000, 4000, 4096)))
        values = self.message()
        if how <= 4:
            return msgpack.packb(values)
        if how <= 6:
            for _ in range(pick.randint(1, 3)):
                values[pick.randrange(len(values))] = pick.choice(_EDGES)
            return msgpack.packb(values)
        if how == 7:
            values[pick.randrange(len(values))] = pick.choice(_WRONG)
            return msgpack.packb(values)
        if how == 8:
            at = pick.randrange(len(values) + 1)
            more = [pick.choice(_EDGES), *values[at:]] if pick.random() < 0.5 else []
            return msgpack.packb([*values[:at], *more])
        raw = bytearray(msgpack.packb(values))
        if how == 9:
            return bytes(raw[: pick.randrange(len(raw))])
        if how == 10:
            for _ in range(pick.randint(1, 4)):
                raw[pick.randrange(len(raw))] = pick.randrange(256)
            return bytes(raw)
        return bytes(raw) + pick.randbytes(pick.choice((1, 2, 8, 250)))

    def is_multipart(self) -> bool:
        return self._random.random() < 0.005


def decoded(frame: bytes) -> list[int] | None:
    """By the words of docs/wire.md: an array of at most 15 integers that fit int64, and nothing behind it."""
    if not frame or frame[0] & 0xF0 != 0x90 or len(frame) > wire.MAX_MESSAGE_BYTES:
        return None
    try:
        values = msgpack.unpackb(frame, strict_map_key=False)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return None
    return values if all(type(value) is int and value < 2**63 for value in values) else None


def is_request(values: list[int] | None) -> bool:
    """Whether it is a depth request that is answered."""
    return bool(values) and len(values) == 2 and values[0] == wire.MessageKind.DEPTH_REQUEST and 0 <= values[1] < 2


def is_trades_request(values: list[int] | None) -> bool:
    """With a session it is answered, perhaps with nothing; without one it is refused."""
    return bool(values) and len(values) == 3 and values[0] == wire.MessageKind.TRADES_REQUEST


def is_control(values: list[int] | None) -> bool:
    return bool(values) and len(values) == 4 and (10 <= values[0] <= 15 or values[0] in (50, 51))


def is_log_on(values: list[int] | None) -> bool:
    return bool(values) and len(values) == wire.LOG_ON_FIELDS and values[0] == CommandKind.LOG_ON


def _drain(connection: Connection) -> None:
    """Read until the answer to a depth request of our own, which says its number."""
    socket = connection.socket
    socket.send(wire.pack(wire.MessageKind.DEPTH_REQUEST, 1))
    connection.waiting += 1  # type: ignore[attr-defined]
    while connection.waiting:  # type: ignore[attr-defined]
        assert socket.poll(20_000), "the venue does not answer"
        frame = socket.recv()
        if frame[0] == _DEPTH_LEAD:
            connection.waiting -= 1  # type: ignore[attr-defined]


def throw(venue: RunningVenue, frames: int, seed: int, sessions: bool) -> Figures:
    """Send so many frames over several connections. sessions: they are logged on at first; else they never are, and
    nothing that is sent may become a command."""
    maker = Maker(seed)
    before = venue.status()
    connections = [venue.connection() for _ in range(ACCOUNTS)]
    sent = requests = cut = 0
    for number, connection in enumerate(connections):
        connection.waiting = 0  # type: ignore[attr-defined]
        if sessions:
            connection.ask_log_on(number)
            sent += 1
            _drain(connection)
            requests += 1
    while sent < frames:
        for number, connection in enumerate(connections):
            for _ in range(min(CHUNK, frames - sent)):
                frame = maker.frame()
                if maker.is_multipart():
                    connection.socket.send_multipart([frame, frame] if sent % 2 else [frame, b"", frame])
                    sent += 1
                    continue
                values = decoded(frame)
                if is_trades_request(values) if sessions else is_log_on(values):
                    continue
                if is_request(values):
                    requests += 1
                    connection.waiting += 1  # type: ignore[attr-defined]
                connection.socket.send(frame)
                sent += 1
            _drain(connection)
            sent += 1
            requests += 1
            if sessions:  # it may have ended its session, or not
                connection.ask_log_on(number)
                sent += 1
        with_end = venue.connection()
        with_end.socket.send(b"\x9b" * 5000)
        cut += 1
        with_end.socket.setsockopt(zmq.LINGER, 1000)
        with_end.close()
        venue.connections.remove(with_end)
    if sessions:
        for connection in connections:
            _drain(connection)
            sent += 1
            requests += 1
        sent += ACCOUNTS  # those behind the first logons
    control = 0
    for _ in range(min(frames // 100, 5000)):
        frame = maker.frame()
        if not is_control(decoded(frame)):
            venue.operator.socket.send(frame)
            control += 1
    for _ in range(control):
        venue.operator.answer()
    sent += control
    after = venue.status()
    for connection in connections:
        connection.close()
        venue.connections.remove(connection)
    return Figures(sent, after.refused - before.refused, after.commands - before.commands, requests, cut)


def fuzz(directory: Path, frames: int, seed: int) -> tuple[Figures, Figures]:
    """Throw so many frames without and with sessions. Returns: the figures of both.

    Raises: AssertionError: the venue did not live, or a frame is not accounted for, or what was refused changed it.
    """
    # So few orders rest that what a mass cancel reports fits a session's queue: else the venue would end the session.
    instruments = (InstrumentConfig(price_levels=64), InstrumentConfig(price_levels=64))
    with running_venue(
        directory,
        engine=engine(instruments, accounts=ACCOUNTS, max_orders=1 << 13),
        endowment=EndowmentConfig(cash=10**15, lots=10**9),
        open_at_start=True,
    ) as venue:
        config, began = journal.read(venue.config.directory)
        untouched = replay(config, began).engine.state_hash()
        without = throw(venue, frames // 2, seed, sessions=False)
        assert without.commands == 0, without
        assert without.refused + without.requests == without.sent, without
        config, now = journal.read(venue.config.directory)
        assert len(now) == len(began) and replay(config, now).engine.state_hash() == untouched
        with_sessions = throw(venue, frames - frames // 2, seed + 1, sessions=True)
        figures = with_sessions
        assert figures.refused + figures.commands + figures.requests == figures.sent, figures
        assert figures.commands > figures.sent // 20, figures
        said = venue.stop()
        replayed = replay(*journal.read(venue.config.directory))
        assert replayed.engine.state_hash() == said["state_hash"]
        assert replayed.events_digest == said["events_digest"]
        assert said["refused"] == without.refused + with_sessions.refused
    assert (directory / "stderr").read_text() == ""
    return without, with_sessions
