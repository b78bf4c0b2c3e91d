"""How exact is a link's delay, and how much does one proxy carry before it is late?

    python scripts/bench_links.py [--messages 500] [--connections 500] [--json]

Accuracy: one message at a time over one connection, sent and read by this process under SCHED_FIFO where permitted;
error = one-way time − nominal, with the clock that both ends share. It includes the socket calls of this process.
Load: a Poisson stream of 100-byte messages over many connections, one way; how late the proxy delivered by its own
due times, and how long a turn of its loop took (so long may a message have waited unread).
"""

import argparse
import json
import os
import selectors
import socket
import threading
from contextlib import contextmanager
from typing import Any

import numpy as np

from cluster.links import Link, LinkProxy
from cluster.priority import before_agents
from exchange import clock
from exchange.clock import MS, SECOND

DELAYS_MS = (0.0, 0.2, 1.0, 5.0, 20.0)
RATES_PER_S = (1_000, 3_000, 10_000, 20_000, 40_000)
MESSAGE = b"x" * 100
LOAD_S = 2.0


@contextmanager
def connected(link: Link, connections: int) -> Any:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    proxy = LinkProxy("bench", link, {"orders": address}, [1])
    port = int(proxy.endpoints["orders"].rpartition(":")[2])
    pairs = []
    for _ in range(connections):
        near = socket.create_connection(("127.0.0.1", port))
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pairs.append((near, listener.accept()[0]))
    try:
        yield proxy, pairs
    finally:
        proxy.close()
        for own in (listener, *(each for pair in pairs for each in pair)):
            own.close()


def accuracy(delay_ms: float, messages: int) -> dict[str, Any]:
    errors = []
    with connected(Link(round(delay_ms * MS), 0), 1) as (proxy, [(near, far)]):
        for _ in range(messages):
            sent_ns = clock.monotonic_ns()
            near.sendall(MESSAGE)
            far.recv(1 << 16)
            errors.append(clock.monotonic_ns() - sent_ns - round(delay_ms * MS))
        scheduling = proxy.scheduling
    quantiles = {
        f"error_ns_{name}": int(np.quantile(errors, q)) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1))
    }
    return {"delay_ms": delay_ms, **quantiles, "scheduling": scheduling}


def load(rate_per_s: int, connections: int) -> dict[str, Any]:
    random = np.random.default_rng(7)
    at_ns = np.cumsum(random.exponential(SECOND / rate_per_s, round(rate_per_s * LOAD_S))).astype(np.int64).tolist()
    whose = random.integers(0, connections, len(at_ns)).tolist()
    received = 0
    with connected(Link(MS, MS), connections) as (proxy, pairs), selectors.DefaultSelector() as selector:
        for _, far in pairs:
            selector.register(far, selectors.EVENT_READ)

        def read() -> None:
            nonlocal received
            while received < len(at_ns) * len(MESSAGE):
                for key, _ in selector.select(1.0):
                    received += len(key.fileobj.recv(1 << 16))  # type: ignore[union-attr]

        reader = threading.Thread(target=read)
        reader.start()
        begun_ns = clock.monotonic_ns()
        for due_ns, number in zip(at_ns, whose, strict=True):
            left_ns = begun_ns + due_ns - clock.monotonic_ns()
            if left_ns > 50_000:
                clock.sleep(left_ns / SECOND)
            pairs[number][0].sendall(MESSAGE)
        sent_s = (clock.monotonic_ns() - begun_ns) / SECOND
        reader.join()
        counters = proxy.counters()
    kept = ("delivered_late_ns_p50", "delivered_late_ns_p99", "delivered_late_ns_max", "turn_ns_p99", "turn_ns_max")
    return {"asked_per_s": rate_per_s, "sent_per_s": round(len(at_ns) / sent_s), **{key: counters[key] for key in kept}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=500)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with before_agents():
        exact = [accuracy(delay_ms, asked.messages) for delay_ms in DELAYS_MS]
    rates = RATES_PER_S if asked.connections >= 100 else RATES_PER_S[:1]
    carried = [load(rate, asked.connections) for rate in rates]
    if asked.json:
        conditions = {"cores": os.cpu_count(), "messages": asked.messages, "connections": asked.connections}
        print(json.dumps({"conditions": conditions, "accuracy": exact, "load": carried}))
        return
    for row in (*exact, *carried):
        print(
            "  ".join(f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in row.items())
        )


if __name__ == "__main__":
    main()
