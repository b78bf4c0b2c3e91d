"""How long the race laboratory takes over a million messages.

A made-up workload of many participants, a tenth of it marketable and immediate-or-cancel, in bursts so that there are
races: read the messages out of the commands (by replay), detect races by the rule, and by the rule and its 14 variants,
and find what was displayed when each race began. The first round compiles and is not counted.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import bench_engine
import numpy as np
from operations import CANCEL, PRICE_LEVELS, make_operations

from aar_swarm.races.detection import Detection, detect
from aar_swarm.races.measures import displayed, variants
from aar_swarm.races.messages import Stream, read
from exchange.config import EngineConfig, InstrumentConfig
from exchange.journal import Journal
from exchange.state import Array
from exchange.types import CommandKind, OrderType

_ACCOUNTS = 50
_BURST_NS, _PAUSE_NS = 5_000, 200_000
_ANSWERED_NS = 20_000


def make_recorded(count: int, seed: int = 1) -> Journal:
    """So many orders and cancels of 50 participants; bursts of about ten messages."""
    random = np.random.default_rng(seed)
    raw = make_operations(count, seed)
    work = bench_engine.make_commands(raw)[3:]
    placed = raw["op"] != CANCEL
    owners = random.integers(0, _ACCOUNTS, int(raw["order_id"].max()) + 1)
    work["account"] = owners[raw["order_id"]]
    marketable = placed & (np.abs(raw["price"].astype(np.int64) - 30_000) < 4)
    work["order_type"] = np.where(placed & (random.random(count) < 0.2) | marketable, OrderType.IOC, OrderType.LIMIT)
    work["order_type"][~placed] = 0
    gaps = np.where(
        random.random(count) < 0.1, random.exponential(_PAUSE_NS, count), random.exponential(_BURST_NS, count)
    )
    work["received_ns"] = 1_000_000 + np.cumsum(gaps).astype(np.int64)
    before = np.zeros(2 * _ACCOUNTS + 1, work.dtype)
    before["account"] = [*np.repeat(np.arange(_ACCOUNTS), 2), -1]
    before["kind"] = [CommandKind.DEPOSIT_CASH, CommandKind.DEPOSIT_POSITION] * _ACCOUNTS + [CommandKind.OPEN_SESSION]
    before["quantity_lots"] = [*[1 << 44, 1 << 30] * _ACCOUNTS, 0]
    commands = np.concatenate([before, work])
    commands["sequence"] = np.arange(1, len(commands) + 1)
    instruments = (InstrumentConfig(price_levels=PRICE_LEVELS),)
    return Journal(EngineConfig(instruments=instruments, accounts=_ACCOUNTS, max_orders=1 << 16), commands)


def _detect_all(stream: Stream, rules: Iterable[Detection]) -> list[Array]:
    return [detect(stream, rule) for rule in rules]


def measure(count: int, repeats: int) -> dict[str, Any]:
    recorded = make_recorded(count)
    answered = recorded.commands["received_ns"] + _ANSWERED_NS
    rule = Detection()
    times: dict[str, list[float]] = {}
    figures: dict[str, Any] = {"commands": count, "repeats": repeats}

    def timed(name: str, task: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        found = task(*arguments)
        times.setdefault(name, []).append(time.perf_counter() - began)
        return found

    for repeat in range(repeats + 1):
        stream = timed("read_s", read, recorded, answered)
        races = timed("detect_s", detect, stream, rule)
        timed("detect_with_variants_s", _detect_all, stream, (rule, *variants(rule).values()))
        timed("displayed_s", displayed, recorded, races, stream)
        if repeat == 0:
            times.clear()
    figures |= {"messages": len(stream.messages), "races": len(races)}
    figures |= {name: round(statistics.median(spent), 4) for name, spent in times.items()}
    whole = figures["read_s"] + figures["detect_s"] + figures["displayed_s"]
    return figures | {"messages_per_s": round(len(stream.messages) / whole)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    figures = measure(chosen.commands, chosen.repeats) | {"cores": os.cpu_count()}
    if chosen.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
