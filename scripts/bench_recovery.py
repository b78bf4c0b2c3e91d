"""Start-up is recovery: how long a venue with a million commands in its journal takes until it trades again.

The journal is written by the journal's own writer from a made-up workload. Then, each several times: reading and
verifying it; replaying it into an engine (with the digest over all events); and a venue process started over it, until
it says that it is ready and until a participant has its first order acknowledged. There is no snapshot (no segment has
ended), so everything is replayed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_engine
import numpy as np
import zmq
from operations import PRICE_LEVELS, make_operations

from exchange import journal, wire
from exchange.config import EngineConfig, InstrumentConfig
from exchange.recovery import recover
from exchange.types import CommandKind, EventKind


def _write_journal(directory: Path, config: EngineConfig, count: int) -> None:
    commands = bench_engine.make_commands(make_operations(count))
    commands["received_ns"] //= 1000  # long ago, so that the venue's clock is ahead
    words = commands.view(np.int64).reshape(len(commands), -1)
    journal.seal(words, 0, len(words), journal.first_check(config))
    writer = journal.Writer(directory, config, segment_records=1 << 22)
    os.pwrite(writer.descriptor, words.tobytes(), writer.offset)
    writer.close(len(words) + 1)


def _restart(directory: Path, config: EngineConfig) -> tuple[float, float]:
    """Seconds from starting the process to its being ready, and to the first acknowledgement."""
    venue = {
        "engine": config.model_dump(),
        "directory": str(directory),
        "segment_records": 1 << 22,
        "open_at_start": True,
    }
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "exchange.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    context: zmq.Context[Any] = zmq.Context()
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(venue).encode() + b"\n")
        process.stdin.flush()
        said = json.loads(process.stdout.readline())
        if "error" in said:
            raise SystemExit(said["error"])
        ready = time.perf_counter() - began
        socket = context.socket(zmq.DEALER)
        socket.connect(said["endpoints"]["orders"])
        socket.send(wire.log_on(0, 0, (0, 0), 0))
        logged_on = wire.unpack(socket.recv())
        assert isinstance(logged_on, wire.LoggedOn)
        order_id = logged_on.last_order_id + 1
        socket.send(wire.pack(CommandKind.PLACE_ORDER, order_id, 0, 0, 0, 1, 1, 0, 0, 0, 0))
        report = wire.unpack(socket.recv())
        assert report.kind == EventKind.ORDER_ACCEPTED, report
        acknowledged = time.perf_counter() - began
        process.kill()  # as a fault would: the next start recovers again
        process.wait()
    finally:
        context.destroy(linger=0)
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    return ready, acknowledged


def measure(count: int, repeats: int) -> dict[str, Any]:
    config = EngineConfig(
        instruments=(InstrumentConfig(price_levels=PRICE_LEVELS, max_quantity_lots=1 << 31),), accounts=1
    )
    times: dict[str, list[float]] = {name: [] for name in ("read_s", "recover_s", "ready_s", "first_acknowledgement_s")}
    with tempfile.TemporaryDirectory(prefix="aar-bench-") as name:
        directory = Path(name)
        _write_journal(directory, config, count)
        for repeat in range(repeats + 1):  # the first one compiles
            began = time.perf_counter()
            found = len(journal.read(directory).commands)
            read = time.perf_counter() - began
            began = time.perf_counter()
            recovered = recover(directory, config)
            spent = time.perf_counter() - began
            assert recovered.commands_replayed == found
            del recovered
            ready, acknowledged = _restart(directory, config)
            if repeat:
                for key, value in zip(times, (read, spent, ready, acknowledged), strict=True):
                    times[key].append(value)
    figures: dict[str, Any] = {"commands": count, "repeats": repeats}
    for key, values in times.items():
        figures[key] = round(statistics.median(values), 3)
        figures[f"{key}_range"] = [round(min(values), 3), round(max(values), 3)]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    arguments = parser.parse_args()
    figures = measure(arguments.commands, arguments.repeats)
    figures["conditions"] = f"{os.cpu_count()} CPUs, page cache warm, Python {sys.version.split()[0]}"
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
