"""Orders per second through a real ROUTER over TCP with the journal on, beside bare echoes of the same bytes.

Three servers, each a process of its own, take the same frames from the same client (compiled, several sessions, a
bounded number of commands unanswered) in turn, several times over; the ratio is of the medians of one run:

- the venue: decode, sequence, journal, match, report (limit orders, a tenth marketable, and cancels; one instrument)
- a bare libzmq echo in numba: receive two frames, send them back
- the same echo through pyzmq

Then the venue at 50 % and 90 % of its capacity, *open loop*: commands are due at fixed times whether or not earlier
ones were answered, and latency counts from when a command was due, so that nothing is omitted when the venue is late.
Received → acknowledged is the venue's own time: from taking a command off the socket to its reports handed to the
sockets.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from operations import CANCEL, PRICE_LEVELS, make_operations

from exchange import journal, libzmq, wire
from exchange.bits import store_big_endian
from exchange.jit import kernel
from exchange.server import TIMINGS_FILE, ask_for_realtime
from exchange.types import CommandKind, EventKind

SESSIONS = 8
_WINDOW = 512
_ACCEPTED, _REJECTED = int(EventKind.ORDER_ACCEPTED), int(EventKind.ORDER_REJECTED)
_CANCELLED, _CANCEL_REJECTED = int(EventKind.ORDER_CANCELLED), int(EventKind.CANCEL_REJECTED)
_REPORT_LEAD = 0x9C
_SENT_FROM_END = 2 + 8
"""The bytes of sent_ns begin this far from a frame's end: cause_sequence and rule are one byte each."""


class Frames:
    """Commands as they go over the wire, in one buffer, each with the session (0 … 7) that sends it."""

    def __init__(self, count: int, instrument: int = 0) -> None:
        sent_ns = 1 << 62  # any number of nine bytes
        frames = []
        made = make_operations(count)
        for op, side, price, quantity, order_id in made.tolist():
            if op == CANCEL:
                frames.append(wire.pack(CommandKind.CANCEL_ORDER, order_id, instrument, 0, 0, sent_ns, 0, 0))
            else:
                frames.append(
                    wire.pack(CommandKind.PLACE_ORDER, order_id, instrument, side, 0, price, quantity, 0, sent_ns, 0, 0)
                )
        self.bytes = np.frombuffer(b"".join(frames), np.uint8).copy()
        self.starts = np.concatenate([[0], np.cumsum([len(frame) for frame in frames])]).astype(np.int64)
        self.sessions = (made["order_id"] % SESSIONS).astype(np.int64)


@kernel
def _drive(sockets, frames, starts, sessions, window, interval_ns, is_echo, buffer, clock):
    """Send every frame and wait for all answers.

    Args: interval_ns: 0 to send as fast as `window` unanswered commands allow, else the time between two commands.
    Returns: ns from the first send to the last answer, or −1 if answers stopped coming.
    """
    count = sessions.shape[0]
    sent = 0
    answered = 0
    began = libzmq.now_ns(clock)
    heard = began
    while answered < count:
        now = libzmq.now_ns(clock)
        while sent < count and (sent - answered < window if interval_ns == 0 else now >= began + sent * interval_ns):
            start = starts[sent]
            size = starts[sent + 1] - start
            due = libzmq.now_ns(clock) if interval_ns == 0 else began + sent * interval_ns
            store_big_endian(frames, start + size - _SENT_FROM_END, due)
            if libzmq.zmq_send(sockets[sessions[sent]], frames.ctypes.data + start, size, libzmq.DONTWAIT) < 0:
                break
            sent += 1
        for socket in range(sockets.shape[0]):
            while True:
                size = libzmq.zmq_recv(sockets[socket], buffer.ctypes.data, 256, libzmq.DONTWAIT)
                if size < 0:
                    break
                kind = buffer[1]
                if is_echo or (
                    buffer[0] == _REPORT_LEAD
                    and (kind == _ACCEPTED or kind == _REJECTED or kind == _CANCELLED or kind == _CANCEL_REJECTED)
                ):
                    answered += 1
                heard = now
        if now - heard > 10_000_000_000:
            return -1
    return libzmq.now_ns(clock) - began


@kernel
def _echo(socket, address, payload, poll):
    """Send back whatever comes, until a message of one byte."""
    while True:
        address_size = libzmq.zmq_recv(socket, address.ctypes.data, 256, libzmq.DONTWAIT)
        if address_size < 0:
            poll[0] = socket
            poll[1] = libzmq.POLLIN << 32
            libzmq.zmq_poll(poll.ctypes.data, 1, 100)
            continue
        size = libzmq.zmq_recv(socket, payload.ctypes.data, 256, 0)
        if size == 1:
            return 0
        libzmq.zmq_send(socket, address.ctypes.data, address_size, libzmq.SNDMORE)
        libzmq.zmq_send(socket, payload.ctypes.data, size, 0)


def _be_echo(compiled: bool, realtime: bool) -> None:
    """The process of an echo, in the venue's scheduling class: says its port, serves until told to stop."""
    ask_for_realtime(realtime)
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    print(socket.bind_to_random_port("tcp://127.0.0.1"), flush=True)
    if compiled:
        _echo(socket.underlying, np.zeros(256, np.uint8), np.zeros(256, np.uint8), np.zeros(2, np.int64))
    else:
        while True:
            address, payload = socket.recv_multipart()
            if len(payload) == 1:
                break
            socket.send_multipart([address, payload])
    context.destroy(linger=0)


class Client:
    def __init__(self, endpoint: str, sessions: bool, first_account: int = 0) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self.sockets = []
        for account in range(SESSIONS):
            socket = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.LINGER, 1000)
            socket.connect(endpoint)
            if sessions:
                socket.send(wire.log_on(first_account + account, 0, (0, 0), 0))
                assert wire.unpack(socket.recv()).kind == wire.MessageKind.LOGGED_ON
            self.sockets.append(socket)
        self._handles = np.array([socket.underlying for socket in self.sockets], np.int64)
        self._drive(np.zeros(1, np.uint8), np.zeros(1, np.int64), np.zeros(0, np.int64), 0, True)  # compiles

    def _drive(self, *arguments: Any) -> int:
        frames, starts, sessions, interval_ns, is_echo = arguments
        buffer, clock = np.zeros(256, np.uint8), np.zeros(2, np.int64)
        window = _WINDOW * SESSIONS
        return int(_drive(self._handles, frames, starts, sessions, window, interval_ns, is_echo, buffer, clock))

    def drive(self, frames: Frames, interval_ns: int, is_echo: bool) -> float:
        """Commands per second; at a fixed rate, the rate at which they were answered."""
        spent = self._drive(frames.bytes, frames.starts, frames.sessions, interval_ns, is_echo)
        if spent < 0:
            raise SystemExit("answers stopped coming for 10 s")
        return len(frames.sessions) / spent * 1e9

    def close(self) -> None:
        self._context.destroy(linger=1000)


def _run_echo(frames: Frames, compiled: bool, realtime: bool) -> float:
    command = [sys.executable, __file__, "--be-echo", "compiled" if compiled else "pyzmq"]
    process = subprocess.Popen(command + ([] if realtime else ["--no-realtime"]), stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        client = Client(f"tcp://127.0.0.1:{int(process.stdout.readline())}", sessions=False)
        rate = client.drive(frames, 0, True)
        client.sockets[0].send(b"x")
        client.close()
        process.wait(20)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return rate


def _run_venue(frames: Frames, rate: float | None, sync: str, realtime: bool) -> tuple[float, dict[str, Any]]:
    """Returns: (commands per second, latency percentiles in ns)."""
    with tempfile.TemporaryDirectory(prefix="aar-bench-") as directory:
        config = {
            "engine": {
                "instruments": [{"price_levels": PRICE_LEVELS}],
                "accounts": SESSIONS,
                "max_orders": 1 << 20,
            },
            "directory": directory,
            "endowment": {"cash": 1 << 56, "lots": 1 << 30},
            "open_at_start": True,
            "max_timings": len(frames.sessions) + 1000,
            "realtime": realtime,
            "sync": sync,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "exchange.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(config).encode() + b"\n")
            process.stdin.flush()
            said = json.loads(process.stdout.readline())
            if "error" in said:
                raise SystemExit(said["error"])
            client = Client(said["endpoints"]["orders"], sessions=True)
            reached = client.drive(frames, 0 if rate is None else round(1e9 / rate), False)
            client.close()
            process.stdin.close()
            final = json.loads(process.stdout.readline())
            process.wait(30)
            if "error" in final:
                raise SystemExit(final["error"])
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        commands = journal.read(Path(directory)).commands
        timings = np.load(Path(directory) / TIMINGS_FILE)
    orders = commands["kind"] <= CommandKind.CANCEL_ORDER
    acknowledged = timings["acknowledged_ns"][orders]
    latencies = {"scheduling": said["scheduling"]}
    for name, began in (("received", "received_ns"), ("due", "sent_ns")):
        values = acknowledged - commands[began][orders]
        for label, percent in (("p50", 50), ("p99", 99), ("p999", 99.9), ("max", 100)):
            latencies[f"{name}_to_acknowledged_ns_{label}"] = int(np.percentile(values, percent))
    return reached, latencies


def measure(count: int, rounds: int, sync: str, realtime: bool, loads: tuple[float, ...]) -> dict[str, Any]:
    frames = Frames(count)
    rates: dict[str, list[float]] = {"venue_orders_per_s": [], "libzmq_echo_per_s": [], "pyzmq_echo_per_s": []}
    small = Frames(1000)
    _run_venue(small, None, sync, realtime)  # compiles
    _run_echo(small, True, realtime)
    for _ in range(rounds):
        rates["libzmq_echo_per_s"].append(_run_echo(frames, True, realtime))
        rates["venue_orders_per_s"].append(_run_venue(frames, None, sync, realtime)[0])
        rates["pyzmq_echo_per_s"].append(_run_echo(frames, False, realtime))
    figures: dict[str, Any] = {"commands": count, "rounds": rounds, "sessions": SESSIONS, "sync": sync}
    for name, values in rates.items():
        figures[name] = round(statistics.median(values))
        figures[f"{name}_range"] = [round(min(values)), round(max(values))]
    figures["ratio"] = round(figures["venue_orders_per_s"] / figures["libzmq_echo_per_s"], 3)
    figures["loads"] = {}
    for load in loads:
        rate = load * figures["venue_orders_per_s"]
        reached, latencies = _run_venue(frames, rate, sync, realtime)
        figures["loads"][f"{load:.0%}"] = {"offered_per_s": round(rate), "answered_per_s": round(reached), **latencies}
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sync", choices=["never", "interval", "batch"], default="never")
    parser.add_argument("--no-realtime", action="store_true", help="leave the venue in the ordinary scheduling class")
    parser.add_argument("--loads", type=float, nargs="*", default=[0.5, 0.9], help="shares of capacity, open loop")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--be-echo", choices=["compiled", "pyzmq"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be_echo:
        _be_echo(arguments.be_echo == "compiled", not arguments.no_realtime)
        return 0
    figures = measure(
        arguments.commands, arguments.rounds, arguments.sync, not arguments.no_realtime, tuple(arguments.loads)
    )
    figures["conditions"] = f"{os.cpu_count()} CPUs, loopback TCP, Python {sys.version.split()[0]}"
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            if name == "loads":
                for load, values in value.items():
                    print(f"at {load} of capacity:")
                    for key, figure in values.items():
                        print(f"    {key:36} {figure}")
            else:
                print(f"{name:32} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
