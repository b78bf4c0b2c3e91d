"""The venue as a process: sockets, real-time priority, signals, start and end. `python -m exchange.server`.

One JSON object (VenueConfig) comes on standard input, which its parent then holds open: at its end the venue stops.
On standard output it says one JSON line when it is ready and one when it has stopped. Owns no rule of the market.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from exchange import clock, journal
from exchange.config import Config, EngineConfig
from exchange.engine import Engine
from exchange.errors import ConfigurationError
from exchange.loop import JOURNAL_FAILED, SLICE_OVER, STOPPED, LoopConfig, Sockets, new_loop, serve
from exchange.replay import format_digest
from exchange.wire import MAX_MESSAGE_BYTES

_PR_SET_PDEATHSIG = 1
_SLICE_NS = 50_000_000
_BACKLOG = 4096
_FIFO_PRIORITY = 10
TIMINGS_FILE = "timings.npy"


class VenueConfig(Config):
    engine: EngineConfig
    directory: Path
    """Where the journal and the timings go; exists, and holds no journal yet."""
    host: str = "127.0.0.1"
    """Address to listen on for participants; anything but loopback lets the whole network trade: no keys yet."""
    port: int = 0
    """Of order entry; market data and notices take the next two. 0: any free ones."""
    control: str
    """ZeroMQ address of the control channel, an ipc:// path that only this user can reach."""
    loop: LoopConfig = LoopConfig()
    realtime: bool = True
    max_timings: int = 1 << 22


def ask_for_realtime(wanted: bool) -> str:
    """Take SCHED_FIFO if wanted and permitted; returns the class in force, in words for the manifest.

    On few cores a stampede would otherwise measure the scheduler: the venue starves until nearly all racers ran.
    """
    if not wanted:
        return "SCHED_OTHER (as asked)"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_FIFO_PRIORITY))
    except PermissionError:
        return "SCHED_OTHER (SCHED_FIFO not permitted here: latencies include the scheduler's)"
    return f"SCHED_FIFO {_FIFO_PRIORITY}"


def _socket(context: zmq.Context[Any], kind: int, maximum_bytes: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 200)
    socket.setsockopt(zmq.BACKLOG, _BACKLOG)
    socket.setsockopt(zmq.MAXMSGSIZE, maximum_bytes)
    return socket


def _bind(socket: zmq.Socket[bytes], host: str, port: int, name: str) -> str:
    try:
        if port == 0:
            port = socket.bind_to_random_port(f"tcp://{host}")
        else:
            socket.bind(f"tcp://{host}:{port}")
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} for {name} is in use on {host}; choose another with --port, or leave it out for free ones"
            ) from None
        raise ConfigurationError(
            f"cannot listen for {name} on {host}:{port}: {error.strerror}; is it an address of this machine?"
        ) from None
    return f"tcp://{host}:{port}"


class Venue:
    """The sockets and the engine of one venue process."""

    def __init__(self, config: VenueConfig) -> None:
        self.config = config
        self.engine = Engine(config.engine)
        self.descriptor, check = journal.create(config.directory, config.engine)
        self.loop = new_loop(self.engine.state, config.loop, check, config.max_timings)
        serve(self.loop, self.engine.state, Sockets(0, 0, 0, 0, self.descriptor), 0)  # compiles, touches no socket
        # From here on: threads that libzmq starts inherit the class.
        self.scheduling = ask_for_realtime(config.realtime)
        self.context = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 16)
        self._orders = _socket(self.context, zmq.ROUTER, MAX_MESSAGE_BYTES)
        # Bounded per session: a session that does not read loses its own reports, and nobody else's.
        self._orders.setsockopt(zmq.SNDHWM, 100_000)
        self._orders.setsockopt(zmq.RCVHWM, 100_000)
        self._orders.setsockopt(zmq.ROUTER_MANDATORY, 1)  # so that a report nobody can take is an error, and counted
        self._control = _socket(self.context, zmq.ROUTER, MAX_MESSAGE_BYTES)
        self._control.setsockopt(zmq.SNDHWM, 0)
        self._market_data = _socket(self.context, zmq.PUB, MAX_MESSAGE_BYTES)
        self._market_data.setsockopt(zmq.SNDHWM, 1000)
        self._notices = _socket(self.context, zmq.PUB, MAX_MESSAGE_BYTES)
        self._notices.setsockopt(zmq.SNDHWM, 0)  # never dropped
        self.endpoints = {
            name: _bind(socket, config.host, config.port and config.port + offset, name)
            for offset, (name, socket) in enumerate(
                (("orders", self._orders), ("market_data", self._market_data), ("notices", self._notices))
            )
        }
        self._control.bind(config.control)
        self.sockets = Sockets(
            self._orders.underlying,
            self._control.underlying,
            self._market_data.underlying,
            self._notices.underlying,
            self.descriptor,
        )
        self.terminated = False

    def run(self) -> int:
        """Serve until the operator, a signal or the parent's end stops it; returns the loop's last code."""
        signal.signal(signal.SIGTERM, self._terminate)
        while not self.terminated:
            code = int(serve(self.loop, self.engine.state, self.sockets, clock.monotonic_ns() + _SLICE_NS))
            if code in (STOPPED, JOURNAL_FAILED):
                return code
            if select.select([0], [], [], 0)[0] and not os.read(0, 1):
                break  # the parent is gone
        return SLICE_OVER

    def _terminate(self, _signal: int, _frame: object) -> None:
        self.terminated = True

    def close(self) -> dict[str, object]:
        """Write out what was measured, close everything, and say how it ended."""
        status = self.loop.status[0]
        with contextlib.suppress(OSError):  # a full disk: the timings are measurements, the journal is the truth
            np.save(self.config.directory / TIMINGS_FILE, self.loop.timings[: int(status["timings"])])
        os.fsync(self.descriptor)
        os.close(self.descriptor)
        self.context.destroy(linger=200)
        return {
            "commands": int(status["sequence"]),
            "events": int(status["events"]),
            "events_digest": format_digest(int(status["digest"])),
            "state_hash": self.engine.state_hash(),
            "sessions_logged_on": int(status["logged_on"]),
            "malformed": int(status["malformed"]),
            "reports_unsent": int(status["unsent"]),
            "journal_errno": int(status["journal_errno"]),
        }


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def main() -> int:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which stops the venue in order
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        venue = Venue(VenueConfig.model_validate_json(sys.stdin.buffer.readline()))
    except (ConfigurationError, ValueError, OSError, zmq.ZMQError) as error:
        _say(error=str(error))
        return 2
    _say(ready=True, endpoints=venue.endpoints, scheduling=venue.scheduling, pid=os.getpid())
    code = venue.run()
    result = venue.close()
    if code == JOURNAL_FAILED:
        error_number = int(str(result["journal_errno"]))
        _say(**result, error=f"the journal could not be written: {os.strerror(error_number)}; nothing unwritten counts")
        return 1
    _say(**result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
