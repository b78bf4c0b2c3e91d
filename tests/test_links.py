"""A link's proxy alone, against plain TCP sockets. Times are asserted from below only: a busy machine is late."""

import os
import resource
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from cluster.link_proxy import Histogram, Line
from cluster.links import Link, LinkFailed, LinkProxy
from tests.processes import is_alive, script, wait_until, wait_until_dead

pytestmark = pytest.mark.usefixtures("nothing_left")

MS = 1_000_000
Open = Callable[..., tuple[socket.socket, socket.socket]]


class Path:
    """A listener, a proxy before it, and pairs of sockets whose bytes go through."""

    def __init__(self, link: Link) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.settimeout(10)
        self.proxy = LinkProxy("test", link, {"orders": f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"}, [7])
        self.port = int(self.proxy.endpoints["orders"].rpartition(":")[2])
        self.sockets: list[socket.socket] = [self.listener]

    def open(self) -> tuple[socket.socket, socket.socket]:
        """The agent's end and the venue's."""
        near = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        far, _ = self.listener.accept()
        far.settimeout(10)
        for own in (near, far):
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets += [near, far]
        return near, far

    def close(self) -> None:
        self.proxy.close()
        for own in self.sockets:
            own.close()


@pytest.fixture
def path() -> Iterator[Callable[[Link], Path]]:
    made: list[Path] = []

    def make(link: Link) -> Path:
        made.append(Path(link))
        return made[-1]

    yield make
    for each in made:
        each.close()


def one_way_ns(source: socket.socket, sink: socket.socket, size: int = 1) -> int:
    sent_ns = time.monotonic_ns()
    source.sendall(b"x" * size)
    received = 0
    while received < size:
        received += len(sink.recv(1 << 16))
    return time.monotonic_ns() - sent_ns


def test_each_direction_has_its_own_delay(path):
    near, far = path(Link(up_ns=30 * MS, down_ns=5 * MS)).open()
    assert one_way_ns(near, far) >= 30 * MS
    down = min(one_way_ns(far, near) for _ in range(10))
    assert 5 * MS <= down < 30 * MS  # of ten one is in time, on any machine


def test_bytes_arrive_as_they_were_sent_in_both_directions_at_once(path):
    near, far = path(Link(up_ns=MS, down_ns=MS, jitter_ns=2 * MS)).open()
    data = np.random.default_rng(3).bytes(3_000_000)
    got: dict[str, bytes] = {}

    def take(name: str, sink: socket.socket) -> None:
        parts = []
        while part := sink.recv(1 << 16):
            parts.append(part)
        got[name] = b"".join(parts)

    takers = [threading.Thread(target=take, args=each) for each in (("far", far), ("near", near))]
    for taker in takers:
        taker.start()
    senders = [threading.Thread(target=source.sendall, args=(data,)) for source in (near, far)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    near.shutdown(socket.SHUT_WR)
    far.shutdown(socket.SHUT_WR)
    for taker in takers:
        taker.join()
    assert got == {"near": data, "far": data}


def test_jitter_varies_the_delay_and_keeps_the_order(path):
    near, far = path(Link(up_ns=0, down_ns=0, jitter_ns=3 * MS)).open()
    trips = [one_way_ns(near, far) for _ in range(40)]
    assert max(trips) > 2 * MS and max(trips) > 3 * min(trips)
    for number in range(2_000):
        near.sendall(struct.pack("I", number))
    data = b""
    while len(data) < 8_000:
        data += far.recv(1 << 16)
    assert data == struct.pack("2000I", *range(2_000))


def test_the_rate_is_shared_by_all_connections_of_a_direction(path):
    slow = path(Link(up_ns=0, down_ns=0, rate_mbit=8.0))  # a byte a microsecond
    pairs = [slow.open() for _ in range(4)]
    begun_ns = time.monotonic_ns()
    for near, _ in pairs:
        near.sendall(b"x" * 10_000)
    for _, far in pairs:
        received = 0
        while received < 10_000:
            received += len(far.recv(1 << 16))
    assert time.monotonic_ns() - begun_ns >= 40 * MS
    assert slow.proxy.counters()["bytes_up"] == 40_000


def test_a_reader_who_does_not_read_stops_the_writer_and_nobody_else(path):
    through = path(Link(up_ns=0, down_ns=0))
    near, far = through.open()
    near.setblocking(False)
    sent, quiet_s = 0, time.monotonic() + 0.5
    while time.monotonic() < quiet_s:
        try:
            sent += near.send(b"x" * 65_536)
            quiet_s = time.monotonic() + 0.5
        except BlockingIOError:
            time.sleep(0.01)
        assert sent < 200 << 20, "nothing pushes back"
    held = through.proxy.counters()["bytes_up"]
    assert held is not None and held <= sent
    with open(f"/proc/{through.proxy.pid}/status") as status:
        resident_kb = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert resident_kb < 100_000
    assert one_way_ns(*through.open()) > 0  # another connection passes
    received = 0
    far.settimeout(10)
    while received < sent:
        received += len(far.recv(1 << 20))
    assert received == sent
    near.setblocking(True)
    assert one_way_ns(near, far) > 0
    late = through.proxy.counters()["delivered_late_ns_max"]
    assert late is not None and late < 500 * MS, "a reader's own delay is not the proxy's"


def test_a_half_close_passes_and_the_other_half_stays_open(path):
    near, far = path(Link(up_ns=20 * MS, down_ns=0)).open()
    begun_ns = time.monotonic_ns()
    near.sendall(b"last words")
    near.shutdown(socket.SHUT_WR)
    assert far.recv(100) == b"last words" and far.recv(100) == b""
    assert time.monotonic_ns() - begun_ns >= 20 * MS  # a close travels no faster than bytes
    far.sendall(b"answer")
    assert near.recv(100) == b"answer"
    far.close()
    assert near.recv(100) == b""


def test_connections_that_ended_leave_nothing_behind(path):
    through = path(Link(up_ns=0, down_ns=0))
    for _ in range(20):
        near, far = through.open()
        near.close()
        assert far.recv(1) == b""
        far.close()
    wait_until(lambda: through.proxy.counters()["connections_open"] == 0, "no connection open")
    assert through.proxy.counters()["connections"] == 20
    assert len(os.listdir(f"/proc/{through.proxy.pid}/fd")) < 20


@pytest.mark.parametrize("half_closed", [False, True])
def test_a_reset_passes_in_both_directions(path, half_closed):
    through = path(Link(up_ns=MS, down_ns=MS))
    for breaks_first in (0, 1):
        pair = through.open()
        breaker, hearer = pair[breaks_first], pair[1 - breaks_first]
        if half_closed:
            breaker.shutdown(socket.SHUT_WR)
            assert hearer.recv(1) == b""
        breaker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        breaker.close()
        with pytest.raises(OSError):  # reset, or a broken pipe after it
            for _ in range(1000):
                hearer.sendall(b"x")
                if not half_closed and select.select([hearer], [], [], 0.01)[0]:
                    hearer.recv(1)
                time.sleep(0.005)
    wait_until(lambda: through.proxy.counters()["connections_open"] == 0, "no connection open")


def test_nobody_behind_the_proxy_is_a_reset(path):
    through = path(Link(up_ns=0, down_ns=0))
    through.listener.close()
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", through.port), 10) as near:
        near.recv(1)


def test_thousands_of_connections(path):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8_000:
        pytest.skip(f"this machine allows {hard} descriptors a process; 1,500 connections need 6,200 in two processes")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    through = path(Link(up_ns=2 * MS, down_ns=0))
    pairs = [through.open() for _ in range(1_500)]
    for number, (near, _) in enumerate(pairs):
        near.sendall(struct.pack("I", number))
    echoed = [struct.unpack("I", far.recv(4))[0] for _, far in pairs]
    assert sorted(echoed) == list(range(1_500))
    counters = through.proxy.counters()
    assert counters["connections"] == counters["connections_open"] == 1_500
    assert counters["bytes_up"] == 6_000 and counters["descriptor_shortages"] == 0


def test_without_descriptors_clients_wait_until_a_connection_ends(path):
    through = path(Link(up_ns=0, down_ns=0))
    used = len(os.listdir(f"/proc/{through.proxy.pid}/fd"))
    resource.prlimit(through.proxy.pid, resource.RLIMIT_NOFILE, (used + 2, used + 2))
    first = through.open()
    waiting = socket.create_connection(("127.0.0.1", through.port), timeout=10)  # the kernel took it: the backlog
    through.sockets.append(waiting)
    waiting.sendall(b"!")
    wait_until(lambda: (through.proxy.counters()["descriptor_shortages"] or 0) > 0, "a shortage noticed")
    for own in first:
        own.close()
    far, _ = through.listener.accept()
    through.sockets.append(far)
    assert far.recv(1) == b"!"


def test_it_counts_what_it_carried_and_how_late(path):
    through = path(Link(up_ns=MS, down_ns=MS))
    assert through.proxy.counters()["delivered_late_ns_p50"] is None  # of nothing: null, not 0
    near, far = through.open()
    for _ in range(50):
        one_way_ns(near, far, 10)
    found = through.proxy.counters()
    assert (found["bytes_up"], found["bytes_down"]) == (500, 0)
    quantiles = [found[f"delivered_late_ns_{name}"] for name in ("p50", "p99", "max")]
    assert quantiles == sorted(quantiles) and quantiles[0] >= 0


def test_what_a_stopped_proxy_delivers_too_late_shows_in_its_figures(path):
    through = path(Link(up_ns=500 * MS, down_ns=0))
    near, far = through.open()
    near.sendall(b"x")
    wait_until(lambda: through.proxy.counters()["bytes_up"] == 1, "read")
    os.kill(through.proxy.pid, signal.SIGSTOP)
    time.sleep(0.8)
    os.kill(through.proxy.pid, signal.SIGCONT)
    assert far.recv(1) == b"x"
    assert through.proxy.counters()["delivered_late_ns_max"] >= 200 * MS


def test_a_dead_proxy_is_told(path):
    through = path(Link(up_ns=0, down_ns=0))
    os.kill(through.proxy.pid, signal.SIGKILL)
    wait_until_dead([through.proxy.pid])
    with pytest.raises(LinkFailed, match="'test' has ended"):
        through.proxy.counters()


def test_kill_9_of_the_host_takes_the_proxy_along():
    program = (
        "import json, time; from cluster.links import Link, LinkProxy; "
        "proxy = LinkProxy('test', Link(0, 0), {'orders': 'tcp://127.0.0.1:9'}, [1]); "
        "print(json.dumps({'pid': proxy.pid, 'scheduling': proxy.scheduling}), flush=True); time.sleep(60)"
    )
    with script("-c", program) as (host, started):
        assert is_alive(started["pid"]) and started["scheduling"] in ("SCHED_FIFO", "normal")
        host.kill()
        wait_until_dead([started["pid"]])


def line(**changes: float) -> Line:
    settings = {"delay_ns": 1_000, "jitter_ns": 0, "rate_mbit": 0.0, **changes}
    return Line(**settings, random=np.random.default_rng(5))  # type: ignore[arg-type]


def test_a_line_adds_delay_and_what_queues_before_it():
    plain = line()
    assert [plain.due_ns(10, 1, 0), plain.due_ns(10, 1, 0), plain.due_ns(10, 1, 5_000)] == [1_010, 1_010, 5_000]
    slow = line(rate_mbit=8.0)
    assert [slow.due_ns(0, 100, 0), slow.due_ns(0, 100, 0)] == [101_000, 201_000]
    assert slow.due_ns(1_000_000, 100, 0) == 1_101_000  # idle time is not saved up


def test_jitter_is_half_normal_and_the_same_for_the_same_seed():
    draws = [line(jitter_ns=1_000_000).due_ns(0, 1, 0) for _ in range(3)]
    assert len(set(draws)) == 1
    one = line(jitter_ns=1_000_000)
    extra = np.array([one.due_ns(0, 1, 0) - 1_000 for _ in range(20_000)])
    assert extra.min() >= 0
    assert np.median(extra) == pytest.approx(674_490, rel=0.05)  # of |N(0, 1)|: 0.67449


def test_the_nominal_round_trip_has_the_median_of_both_jitters():
    random = np.random.default_rng(9)
    both = np.abs(random.normal(0, 1, (2, 400_000))).sum(axis=0)
    assert Link(5, 7, 1_000_000).nominal_rtt_ns == pytest.approx(12 + 1e6 * np.median(both), rel=0.01)


def test_a_histograms_quantiles_are_within_a_sixteenth():
    values = np.random.default_rng(2).integers(0, 1 << 40, 5_000) >> np.random.default_rng(4).integers(0, 40, 5_000)
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    for value in values.tolist():
        histogram.add(value)
    for share in (0.01, 0.5, 0.99, 1.0):
        exact = int(np.quantile(values, share, method="inverted_cdf"))
        assert exact <= histogram.quantile(share) <= exact * 17 / 16 + 1
    assert histogram.most_ns == values.max()
