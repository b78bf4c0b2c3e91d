"""How long until the last of many agents knows of a halt, by subscription alone and as a host's relay tells it.

    python scripts/bench_notify.py --agents 2000 [--busy] [--json]

Real agent processes of a real host hear a stand-in venue, which only publishes notices and answers logons; they trade
nothing. An agent knows when its own code has written halt_heard_ns; until its strategy has heard of the halt, no order
of it leaves. `subscription`: nothing else, as without a relay. `ordinary`: the relay posts and signals, and nobody but
the venue has real-time priority. `told`: as in a run, the relay above the agents, and each agent lent a real-time
priority until it has looked. `busy`: from a signal before the halt on, every agent computes without a pause, so that
all want a core.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgpack
import numpy as np
import zmq

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from aar_swarm.agent_process import ROW_FIELDS, TARGET  # noqa: E402
from aar_swarm.agents.base import SIGNAL, Action, Event, Market, Strategy, Wake  # noqa: E402
from cluster.host import AgentHost  # noqa: E402
from exchange import wire  # noqa: E402
from exchange.clock import MS, SECOND, monotonic_ns  # noqa: E402
from exchange.types import CommandKind, EventKind  # noqa: E402

WAYS = ("subscription", "ordinary", "told")
WORK_NS = 2 * MS
WAIT_S = 60.0
MARKET = Market(instrument=0, opening_ticks=10_000, price_levels=16_384)


class Computing(Strategy):
    """Idle until the signal; then computes for ever, as if it had a valuation to do at each turn."""

    listens_to: ClassVar = ()

    def on_event(self, event: Event, now_ns: int) -> list[Action]:
        if event.kind != SIGNAL and isinstance(event, wire.Notice):
            return []
        until_ns, total = time.thread_time_ns() + WORK_NS, 0
        while time.thread_time_ns() < until_ns:
            total += sum(range(100))
        return [Wake(now_ns, 0)]


class StandIn:
    """A venue's sockets; above all agents in priority, as a venue is."""

    def __init__(self, place: str) -> None:
        self.endpoints = {name: f"ipc://{place}/{name}" for name in ("orders", "market_data", "notices")}
        self.context: zmq.Context[Any] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 1 << 14)
        self.stopping = threading.Event()
        self.say: list[bytes] = []
        self.said_ns = 0
        self.bound = threading.Event()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        self.bound.wait()

    def _serve(self) -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        except OSError:
            pass
        kinds = {"orders": zmq.ROUTER, "market_data": zmq.XPUB, "notices": zmq.XPUB}
        sockets = {name: self.context.socket(kind) for name, kind in kinds.items()}
        for name, socket in sockets.items():
            for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0), (zmq.BACKLOG, 4096)):
                socket.setsockopt(option, value)
            socket.bind(self.endpoints[name])
        self.bound.set()
        beaten_ns = 0
        while not self.stopping.is_set():
            if sockets["orders"].poll(2):
                connection, frame = sockets["orders"].recv_multipart()
                kind, *fields = msgpack.unpackb(frame)
                if kind == CommandKind.LOG_ON:
                    answer = wire.pack(wire.MessageKind.LOGGED_ON, 0, 0, 1, fields[1], 0, 0, 1, 0)
                    sockets["orders"].send_multipart([connection, answer])
            while self.say:
                self.said_ns = monotonic_ns()
                sockets["notices"].send(self.say.pop(0))
            if monotonic_ns() - beaten_ns > SECOND / 4:
                beaten_ns = monotonic_ns()
                sockets["notices"].send(notice(wire.MessageKind.HEARTBEAT, 0))
        for socket in sockets.values():
            socket.close()

    def close(self) -> None:
        self.stopping.set()
        self.thread.join()
        self.context.destroy(linger=0)


def notice(kind: int, sequence: int) -> bytes:
    return wire.pack(kind, sequence, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def told(way: str, agents: int, busy: bool) -> dict[str, float]:
    """One halt: from its publication to each agent's note of it, ms."""
    with tempfile.TemporaryDirectory(prefix="aar-bench-") as place:
        venue = StandIn(place)
        host = AgentHost(TARGET, ["aar_swarm.agent_process", "bench_notify"], ROW_FIELDS, agents)
        try:
            common = {
                "keys": None,
                "strategy": "bench_notify:Computing",
                "params": {},
                "endowment": [0, 0, 0, 1.0],
                "rehearse": False,
                "endpoints": venue.endpoints,
                "seed": 1,
                "lease_ns": 600 * SECOND,
                "market": MARKET._asdict(),
                "models": [{"declaration": (0, 0, 0), "endpoint": None}],
                "explains": False,
            }
            host.spawn([(agent, {}) for agent in range(agents)], common)
            _wait(lambda: host.status()["ready"] == agents, "ready")
            if way != "subscription":
                host.arm_kill_switch(venue.endpoints["notices"], range(agents))
                if way == "ordinary":
                    assert host._kill_switch is not None
                    os.sched_setscheduler(host._kill_switch._process.pid, os.SCHED_OTHER, os.sched_param(0))
            time.sleep(1.0)
            if busy:
                venue.say.append(notice(SIGNAL, 1))
                _wait(lambda: bool((host.rows()["signal_heard_ns"] > 0).all()), "busy")
            venue.say.append(notice(EventKind.INSTRUMENT_HALTED, 2))
            _wait(lambda: bool((host.rows()["halt_heard_ns"] > 0).all()), "told")
            took_ms = (host.rows()["halt_heard_ns"] - venue.said_ns) / MS
        finally:
            host.stop()
            venue.close()
    p50, p99 = np.percentile(took_ms, [50, 99])
    return {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "max_ms": round(float(took_ms.max()), 2)}


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline_ns = monotonic_ns() + int(WAIT_S * SECOND)
    while not condition():
        if monotonic_ns() > deadline_ns:
            raise SystemExit(f"not all agents are {what} after {WAIT_S:.0f} s")
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=2000)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--way", choices=WAYS, action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # three connections an agent
    result: dict[str, Any] = {
        "conditions": {
            "agents": asked.agents,
            "busy": asked.busy,
            "cores": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 1),
            "kernel": os.uname().release,
        },
        "notice_to_knowing": {
            way: [told(way, asked.agents, asked.busy) for _ in range(asked.repeats)] for way in asked.way or WAYS
        },
    }
    if asked.json:
        print(json.dumps(result))
        return 0
    print("  ".join(f"{key} {value}" for key, value in result["conditions"].items()))
    for way, runs in result["notice_to_knowing"].items():
        for run in runs:
            print(f"{way:14} {'  '.join(f'{key} {value}' for key, value in run.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
