"""A real venue process for tests, with its operator and participants. Closed, whatever happens."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

from exchange import clock, wire
from exchange.client import Endpoints, Operator, Participant
from exchange.config import BreakerConfig, EngineConfig, InstrumentConfig
from exchange.loop import LoopConfig
from exchange.server import VenueConfig
from exchange.types import CommandKind

BREAKER = BreakerConfig(price_move_bps=500, price_window_ns=10 * clock.SECOND)


class RunningVenue:
    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        (directory / "journal").mkdir()
        engine = EngineConfig(
            instruments=(InstrumentConfig(price_levels=16384, breaker=BREAKER), InstrumentConfig(price_levels=64)),
            accounts=8,
            max_orders=256,
        )
        self.config = VenueConfig(
            engine=engine,
            directory=directory / "journal",
            control=f"ipc://{directory}/control",
            loop=LoopConfig(market_data_interval_ns=5 * clock.MS, slow_market_data_interval_ns=50 * clock.MS),
            realtime=False,
        )
        with (directory / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "exchange.server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(self.config.model_dump_json().encode() + b"\n")
        self.process.stdin.flush()
        self.said: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.endpoints = Endpoints(**self.said["endpoints"])
        self.context: zmq.Context[Any] = zmq.Context()
        self.operator = Operator(self.context, self.config.control)
        self.participants: list[Participant] = []

    def participant(self, account: int) -> Participant:
        """A session that hears everything public and has logged on."""
        made = Participant(self.context, self.endpoints, account, [b""])
        self.participants.append(made)
        made.log_on(0)
        hear(made, wire.MessageKind.LOGGED_ON)
        return made

    def endow(self, account: int, cash: int = 10**9, shares: int = 10**6) -> None:
        assert self.operator.request(CommandKind.DEPOSIT_CASH, account, 0, cash).reason == 0
        assert self.operator.request(CommandKind.DEPOSIT_POSITION, account, 0, shares).reason == 0

    def open(self) -> None:
        assert self.operator.request(CommandKind.OPEN_SESSION).reason == 0

    def stop(self) -> dict[str, Any]:
        """Stop in order; returns the venue's last word."""
        self.operator.request(wire.MessageKind.STOP)
        return self.last_word()

    def last_word(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.process.wait(10)
        return said

    def close(self) -> None:
        for participant in self.participants:
            participant.close()
        self.operator.close()
        self.context.destroy(linger=0)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def hear(participant: Participant, kind: int, timeout_s: float = 10.0) -> Any:
    """Wait for the next message of a kind, dropping others."""
    deadline = clock.monotonic_ns() + int(timeout_s * clock.SECOND)
    while clock.monotonic_ns() < deadline:
        participant.wait(100)
        for socket in (participant.public, participant.orders):
            while True:
                try:
                    message = wire.unpack(socket.recv(zmq.DONTWAIT))
                except zmq.Again:
                    break
                if message[0] == kind:
                    return message
    raise AssertionError(f"no message of kind {kind} within {timeout_s} s")


@contextlib.contextmanager
def running_venue(directory: Path, **environment: str) -> Iterator[RunningVenue]:
    venue = RunningVenue(directory, **environment)
    try:
        yield venue
    finally:
        venue.close()
