"""How fast the breaker is: from the receipt of the command that trips it to the notice handed to the socket.

A real venue process on loopback. One participant bids at 1000 and at 900 ticks, another sells through both, which
trips the breaker at the second; after a halt and a reopening auction of a millisecond each it is done again, as often
as asked. Once alone, and once while other sessions keep the venue saturated with orders for another instrument, so that
the command that trips waits in a full batch. What a breaker that does not trip costs, bench_engine.py's layers say.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_engine
import numpy as np
import zmq
from bench_venue import SESSIONS, Client, Frames
from operations import PRICE_LEVELS, make_operations

from exchange import journal, wire
from exchange.client import Endpoints, Participant
from exchange.replay import replay
from exchange.server import TIMINGS_FILE
from exchange.types import CommandKind, EventKind, OrderType, Phase, Side

_MS = 1_000_000
_MAKER, _TAKER = SESSIONS, SESSIONS + 1
_TIMINGS = 1 << 23
_WAIT_MS = 20_000


def _config(directory: str, realtime: bool) -> dict[str, Any]:
    breaker = {
        "price_move_bps": 500,
        "price_window_ns": 1_000 * _MS,
        "halt_ns": _MS,
        "reopening_auction_ns": _MS,
    }
    return {
        "engine": {
            "instruments": [{"price_levels": PRICE_LEVELS, "breaker": breaker}, {"price_levels": PRICE_LEVELS}],
            "accounts": SESSIONS + 2,
            "max_orders": 1 << 20,
        },
        "directory": directory,
        "endowment": {"cash": 1 << 55, "lots": 1 << 30},
        "open_at_start": True,
        "max_timings": _TIMINGS,
        "realtime": realtime,
    }


def _be_load(endpoint: str, commands: int) -> None:
    """The process that keeps the venue busy, until it is stopped."""
    frames = Frames(commands, instrument=1)
    client = Client(endpoint, sessions=True)
    print("ready", flush=True)
    client.drive(frames, 0, False)
    client.close()


def _until(participant: Participant, kind: int, **fields: int) -> None:
    while True:
        for message in participant.messages():
            if message.kind == kind and all(getattr(message, name) == value for name, value in fields.items()):
                return
        if not participant.wait(_WAIT_MS):
            raise SystemExit(f"no message of kind {kind} within {_WAIT_MS} ms")


def _trip(endpoints: Endpoints, times: int) -> None:
    context: zmq.Context[Any] = zmq.Context()
    topics = [wire.subscription(EventKind.PHASE_CHANGED), wire.subscription(EventKind.INSTRUMENT_HALTED)]
    maker = Participant(context, endpoints, _MAKER, topics)
    taker = Participant(context, endpoints, _TAKER, [])
    for participant in (maker, taker):
        participant.log_on(0)
        _until(participant, wire.MessageKind.LOGGED_ON)
    for order_id in range(1, 2 * times + 1, 2):
        for offset, price in enumerate((1000, 900)):
            maker.place(order_id + offset, 0, Side.BUY, OrderType.LIMIT, price, 1, 0, 0)
            _until(maker, EventKind.ORDER_ACCEPTED)
        taker.place(order_id, 0, Side.SELL, OrderType.IOC, 900, 2, 0, 0)
        _until(maker, EventKind.PHASE_CHANGED, value=Phase.CONTINUOUS)
        maker.mass_cancel(0, 0)
        _until(maker, EventKind.MASS_CANCELLED)
    context.destroy(linger=0)


def _measure(trips: int, load: int, realtime: bool) -> dict[str, Any]:
    """Trip the breaker, with `load` commands of others beside it (0: none)."""
    with tempfile.TemporaryDirectory(prefix="aar-bench-") as directory:
        venue = subprocess.Popen(
            [sys.executable, "-m", "exchange.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        busy = None
        assert venue.stdin is not None and venue.stdout is not None
        try:
            venue.stdin.write(json.dumps(_config(directory, realtime)).encode() + b"\n")
            venue.stdin.flush()
            said = json.loads(venue.stdout.readline())
            if "error" in said:
                raise SystemExit(said["error"])
            endpoints = Endpoints(**said["endpoints"])
            if load:
                busy = subprocess.Popen(
                    [sys.executable, __file__, "--be-load", endpoints.orders, str(load)], stdout=subprocess.PIPE
                )
                assert busy.stdout is not None
                busy.stdout.readline()
            _trip(endpoints, trips)
            beside = busy is None or busy.poll() is None
            venue.stdin.close()
            final = json.loads(venue.stdout.readline())
        finally:
            for process in (busy, venue):
                if process is not None:
                    process.kill()
                    process.wait()
                    assert process.stdout is not None
                    process.stdout.close()
        recorded = journal.read(Path(directory))
        timings = np.load(Path(directory) / TIMINGS_FILE)
    events = replay(*recorded).events
    tripped = events["sequence"][events["kind"] == EventKind.INSTRUMENT_HALTED]
    tripped = tripped[tripped <= len(timings)]
    taken = timings["noticed_ns"][tripped - 1] - recorded.commands["received_ns"][tripped - 1]
    session = recorded.commands[recorded.commands["kind"] == CommandKind.PLACE_ORDER]["received_ns"]
    return {
        "trips": len(tripped),
        "trip_to_notice_ns_p50": int(np.percentile(taken, 50)),
        "trip_to_notice_ns_p99": int(np.percentile(taken, 99)),
        "trip_to_notice_ns_max": int(taken.max()),
        "commands_per_s": round(len(session) / (session[-1] - session[0]) * 1e9),
        "load_lasted": beside,
        "scheduling": said["scheduling"],
        "commands": final["commands"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trips", type=int, default=2000)
    parser.add_argument("--load", type=int, default=3_000_000, help="commands of others beside the second round")
    parser.add_argument("--operations", type=int, default=1_000_000, help="of the workload for the cost per command")
    parser.add_argument("--no-realtime", action="store_true", help="leave the venue in the ordinary scheduling class")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--be-load", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be_load:
        _be_load(arguments.be_load[0], int(arguments.be_load[1]))
        return 0
    figures = _measure(arguments.trips, 0, not arguments.no_realtime)
    figures["under_load"] = _measure(max(1, arguments.trips // 4), arguments.load, not arguments.no_realtime)
    engine = bench_engine.measure(make_operations(arguments.operations), 5)
    figures["cost_ns_per_command"] = round(engine["engine_ns_per_op"] - engine["engine_with_limits_ns_per_op"], 1)
    figures["engine_ns_per_op"] = engine["engine_ns_per_op"]
    figures["conditions"] = f"{os.cpu_count()} CPUs, loopback TCP, Python {sys.version.split()[0]}"
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            if isinstance(value, dict):
                print(f"{name}:")
                for key, figure in value.items():
                    print(f"    {key:28} {figure}")
            else:
                print(f"{name:32} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
