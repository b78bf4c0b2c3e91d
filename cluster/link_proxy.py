"""A link's proxy: a process that passes TCP connections on to the venue, byte for byte, each direction delayed.

Owns the waiting: real time on a real wire, not arithmetic on stamps. Bytes leave at max(the time their predecessors of
the connection left, read + queueing at the link's rate + delay + jitter), so a connection's order is kept. It knows
nothing of messages, keys or sessions, and never starts a thread.

The waiting is a timerfd (epoll's own timeout counts in ms) with PR_SET_TIMERSLACK 1 ns, without garbage collection,
under SCHED_FIFO where that is permitted. What one connection's reader has not taken is bounded by BUFFER_BYTES; then
nothing more is read from its writer, whose own TCP window fills: back pressure as on a real wire.

`python -m cluster.link_proxy CONTROL_FD HOST_PID`, started by links.py. On the control socket (frames.py): the setup
in, {"ports", "scheduling"} out; then for each request {} its counters out. It ends with its host, however that ends.
"""

import contextlib
import ctypes
import errno
import gc
import heapq
import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from cluster import frames
from cluster.zygote import die_with_parent
from exchange.clock import SECOND, monotonic_ns

FIFO_PRIORITY = 4
"""Above zygote and kill switch (2), which may be busy for long; below the supervisor (5) and the venue (10)."""
BACKLOG = 4096
BUFFER_BYTES = 1 << 18
"""Of one direction of one connection. With a delay of 50 ms it lets 42 Mbit/s of one connection through."""
_CHUNK_BYTES = 1 << 16
_CHUNK_OVERHEAD_BYTES = 256  # what a chunk of one byte costs us, counted against the buffer
_EVENTS_AT_ONCE = 256
_JITTERS_AT_ONCE = 4096
_PR_SET_NAME, _PR_SET_TIMERSLACK = 15, 29
_TFD_ABSTIME = 1
_NO_LINGER = struct.pack("ii", 1, 0)  # close() then sends a reset
_ERRORS = select.EPOLLERR | select.EPOLLHUP
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _TimerSpec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


class _Timer:
    """A timerfd of CLOCK_MONOTONIC. Python has its own from 3.13 on."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._set_ns = 0

    def set(self, at_ns: int) -> None:
        """Become readable at this time."""
        if at_ns != self._set_ns:
            when = _TimerSpec(_Timespec(0, 0), _Timespec(*divmod(at_ns, SECOND)))
            _libc.timerfd_settime(self.fd, _TFD_ABSTIME, ctypes.byref(when), None)
            self._set_ns = at_ns

    def acknowledge(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)
        self._set_ns = 0


class Histogram:
    """Counts of times in ns: exact below 32, then sixteen buckets an octave (at most 6 % off); bounded."""

    def __init__(self) -> None:
        self.counts = [0] * (61 * 16)
        self.most_ns = 0

    def add(self, value_ns: int) -> None:
        value_ns = max(value_ns, 0)
        shift = max(value_ns.bit_length() - 5, 0)
        self.counts[(shift << 4) + (value_ns >> shift)] += 1
        if value_ns > self.most_ns:
            self.most_ns = value_ns

    def quantile(self, share: float) -> int | None:
        """The upper end of the bucket that holds it; None of nothing."""
        wanted = share * sum(self.counts)
        seen = 0
        for number, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                shift = max((number >> 4) - 1, 0)
                return min((((number - (shift << 4)) + 1) << shift) - 1, self.most_ns)
        return None


class Line:
    """One direction of the link: when bytes that are read now are to be delivered."""

    def __init__(self, delay_ns: int, jitter_ns: int, rate_mbit: float, random: np.random.Generator) -> None:
        """Args: jitter_ns: sigma of the half-normal extra; rate_mbit: of all connections together, 0: unlimited."""
        self.delay_ns = delay_ns
        self.bytes = 0
        self._jitter_ns = jitter_ns
        self._ns_per_byte = 8_000 / rate_mbit if rate_mbit else 0.0
        self._free_ns = 0  # when the last byte has left the sender
        self._random = random
        self._jitters: list[int] = []

    def due_ns(self, now_ns: int, size_bytes: int, not_before_ns: int) -> int:
        """not_before_ns: what the connection's bytes before these are due at."""
        self.bytes += size_bytes
        at_ns = now_ns
        if self._ns_per_byte:
            at_ns = self._free_ns = max(now_ns, self._free_ns) + round(size_bytes * self._ns_per_byte)
        at_ns += self.delay_ns
        if self._jitter_ns:
            if not self._jitters:
                drawn = np.abs(self._random.normal(0.0, self._jitter_ns, _JITTERS_AT_ONCE))
                self._jitters = drawn.astype(np.int64).tolist()
            at_ns += self._jitters.pop()
        return max(at_ns, not_before_ns)


@dataclass(slots=True, eq=False)
class _End:
    """One of a connection's two sockets, and what is on its way to it."""

    socket: socket.socket
    line: Line
    """The direction in which what is sent to this end travels."""
    fd: int
    peer: "_End" = field(init=False)
    waiting: deque[tuple[int, bytes | None]] = field(default_factory=deque)
    """(due, bytes); b"": the end of the stream; None: a reset."""
    waiting_bytes: int = 0
    last_due_ns: int = 0
    freed_ns: int = 0
    """When the socket last took something again."""
    queued: bool = False
    """Whether its first waiting chunk stands in the heap."""
    blocked: bool = False
    """The socket took no more: its reader does not read."""
    paused: bool = False
    """Nothing is read from it, as its peer has enough waiting."""
    read_done: bool = False
    write_done: bool = False
    mask: int = 0
    """What epoll watches it for; 0: it is not registered."""

    @property
    def closed(self) -> bool:
        return self.read_done and self.write_done


class Proxy:
    """The loop over all connections of one link."""

    def __init__(self, setup: dict[str, Any], control: socket.socket) -> None:
        """setup: up_ns, down_ns, jitter_ns, rate_mbit, seed (of the jitter), targets ({name: [address, port]})."""
        self._control = control
        self._epoll = select.epoll()
        self._timer = _Timer()
        self._heap: list[tuple[int, int, _End]] = []
        self._pushed = 0
        seeds = np.random.SeedSequence(setup["seed"]).spawn(2)
        up, down = (np.random.Generator(np.random.PCG64(seed)) for seed in seeds)
        self._up = Line(setup["up_ns"], setup["jitter_ns"], setup["rate_mbit"], up)
        self._down = Line(setup["down_ns"], setup["jitter_ns"], setup["rate_mbit"], down)
        self._late = Histogram()
        self._turn = Histogram()  # of the loop: so long may bytes have waited unread, which no stamp of ours shows
        self._accepted = self._open_ends = self._descriptor_shortages = 0
        self._ends: dict[int, _End] = {}
        self._listeners: dict[int, tuple[socket.socket, tuple[str, int]]] = {}
        self._listening = False
        self.ports: dict[str, int] = {}
        for name, (address, port) in setup["targets"].items():
            # The client's SYN is answered at once; what is delayed are its bytes.
            listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
            listener.setblocking(False)
            self.ports[name] = listener.getsockname()[1]
            self._listeners[listener.fileno()] = listener, (address, port)
        self._epoll.register(self._control, select.EPOLLIN)
        self._epoll.register(self._timer.fd, select.EPOLLIN)
        self._listen()

    def serve(self) -> NoReturn:
        """Obey until the host closes its end."""
        control_fd, timer_fd = self._control.fileno(), self._timer.fd
        ends, listeners, heap = self._ends, self._listeners, self._heap
        while True:
            if heap:
                self._timer.set(heap[0][0])
            ready = self._epoll.poll(-1, _EVENTS_AT_ONCE)
            turn_ns = monotonic_ns()
            for fd, events in ready:
                if (end := ends.get(fd)) is not None:
                    self._handle(end, events)
                elif fd == timer_fd:
                    self._timer.acknowledge()
                elif fd in listeners:
                    self._accept(*listeners[fd])
                elif fd == control_fd:
                    self._answer()
            now_ns = monotonic_ns()
            while heap and heap[0][0] <= now_ns:
                _, _, end = heapq.heappop(heap)
                end.queued = False
                self._deliver(end)
            self._turn.add(monotonic_ns() - turn_ns)

    def _answer(self) -> None:
        try:
            frames.receive(self._control)
        except (EOFError, ConnectionError):
            os._exit(0)
        late, turn = self._late, self._turn
        frames.send(
            self._control,
            {
                "bytes_up": self._up.bytes,
                "bytes_down": self._down.bytes,
                "connections": self._accepted,
                "connections_open": (self._open_ends + 1) // 2,
                "descriptor_shortages": self._descriptor_shortages,
                "delivered_late_ns_p50": late.quantile(0.5),
                "delivered_late_ns_p99": late.quantile(0.99),
                "delivered_late_ns_max": late.most_ns if any(late.counts) else None,
                "turn_ns_p99": turn.quantile(0.99),
                "turn_ns_max": turn.most_ns,
            },
        )

    def _listen(self) -> None:
        if not self._listening:
            for fd in self._listeners:
                self._epoll.register(fd, select.EPOLLIN)
            self._listening = True

    def _accept(self, listener: socket.socket, target: tuple[str, int]) -> None:
        """Open the connection's other half at once; what was read meanwhile waits for it."""
        if not self._listening:
            return
        upstream = client = None
        try:
            upstream = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            client, _ = listener.accept()
        except OSError as error:
            if upstream is not None:
                upstream.close()
            if upstream is None or error.errno in _NO_DESCRIPTOR:
                # Clients wait in the backlog until a connection ends.
                self._descriptor_shortages += 1
                for fd in self._listeners:
                    self._epoll.unregister(fd)
                self._listening = False
            return
        self._accepted += 1
        client.setblocking(False)
        for own in (client, upstream):
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near, far = _End(client, self._down, client.fileno()), _End(upstream, self._up, upstream.fileno())
        near.peer, far.peer = far, near
        for end in (near, far):
            self._ends[end.fd] = end
            self._open_ends += 1
        upstream.connect_ex(target)  # refused or not: epoll tells
        for end in (near, far):
            self._watch(end)

    def _watch(self, end: _End) -> None:
        """Have epoll look for what this end can use. Not registered for nothing: epoll tells of errors unasked, and
        would do so without a pause."""
        mask = 0
        if not end.read_done and not end.paused:
            mask |= select.EPOLLIN
        if end.blocked:
            mask |= select.EPOLLOUT
        if mask == end.mask:
            return
        if not end.mask:
            self._epoll.register(end.fd, mask)
        elif not mask:
            self._epoll.unregister(end.fd)
        else:
            self._epoll.modify(end.fd, mask)
        end.mask = mask

    def _handle(self, end: _End, events: int) -> None:
        if events & (select.EPOLLOUT | _ERRORS) and end.blocked:
            end.blocked = False
            end.freed_ns = monotonic_ns()
            self._deliver(end)
        if events & (select.EPOLLIN | _ERRORS) and end.mask & select.EPOLLIN:
            self._read(end)

    def _read(self, end: _End) -> None:
        try:
            data = end.socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._break(end)
            return
        if data:
            self._send_on(end.peer, data)
            if end.peer.waiting_bytes > BUFFER_BYTES:
                end.paused = True
                self._watch(end)
        else:
            end.read_done = True
            self._send_on(end.peer, b"")
            self._watch(end)
            self._close_if_done(end)

    def _send_on(self, end: _End, data: bytes | None) -> None:
        """Let this travel to an end, as fast as the link does."""
        if end.closed or (end.write_done and data is not None):
            return
        size_bytes = len(data or b"")
        end.last_due_ns = end.line.due_ns(monotonic_ns(), size_bytes, end.last_due_ns)
        end.waiting.append((end.last_due_ns, data))
        end.waiting_bytes += size_bytes + _CHUNK_OVERHEAD_BYTES
        self._queue(end)

    def _queue(self, end: _End) -> None:
        if end.waiting and not end.queued and not end.blocked:
            self._pushed += 1
            heapq.heappush(self._heap, (end.waiting[0][0], self._pushed, end))
            end.queued = True

    def _deliver(self, end: _End) -> None:
        """Write what is due; the rest stands in the heap, or waits until the socket takes more."""
        if end.closed:
            return
        waiting = end.waiting
        while waiting and not end.blocked:
            due_ns, data = waiting[0]
            now_ns = monotonic_ns()
            if now_ns < due_ns:
                break
            if not data:
                self._finish_writing(end, data is None)
                return
            try:
                sent = end.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._break(end)
                return
            if sent == len(data):
                waiting.popleft()
                end.waiting_bytes -= sent + _CHUNK_OVERHEAD_BYTES
                # While the socket took nothing its reader was late, and not we.
                self._late.add(now_ns - max(due_ns, end.freed_ns))
            else:
                waiting[0] = due_ns, data[sent:]
                end.waiting_bytes -= sent
                end.blocked = True
        peer = end.peer
        if peer.paused and end.waiting_bytes <= BUFFER_BYTES // 2:
            peer.paused = False
            self._watch(peer)
        self._watch(end)
        self._queue(end)

    def _finish_writing(self, end: _End, reset: bool) -> None:
        """Its peer has ended the stream, or the whole connection."""
        end.write_done = True
        end.waiting.clear()
        end.waiting_bytes = 0
        if reset:
            end.read_done = True
            with contextlib.suppress(OSError):
                end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        else:
            with contextlib.suppress(OSError):  # it has ended meanwhile: reading tells
                end.socket.shutdown(socket.SHUT_WR)
        end.blocked = False
        self._close_if_done(end)

    def _break(self, end: _End) -> None:
        """An end has failed: nothing can be written to it or read from it, and its peer shall hear of it in time."""
        end.read_done = end.write_done = True
        end.blocked = False
        end.waiting.clear()
        end.waiting_bytes = 0
        self._send_on(end.peer, None)
        self._close_if_done(end)

    def _close_if_done(self, end: _End) -> None:
        self._watch(end)
        if not end.closed or self._ends.pop(end.fd, None) is None:
            return
        end.socket.close()
        self._open_ends -= 1
        peer = end.peer
        if peer.closed:
            del end.peer, peer.peer  # a cycle, and nobody collects them
        elif peer.paused:  # whom it would have been sent to is gone
            peer.paused = False
            self._watch(peer)
        self._listen()


def main() -> NoReturn:
    """Arguments: descriptor of the control socket, pid of the host."""
    control_fd, host_pid = (int(argument) for argument in sys.argv[1:3])
    die_with_parent(host_pid)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(control_fd, False)
    control = socket.socket(fileno=control_fd)
    try:
        setup = frames.receive(control)
        _libc.prctl(_PR_SET_NAME, f"link-{setup['name']}".encode()[:15], 0, 0, 0)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        proxy = Proxy(setup, control)
        _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        scheduling = "SCHED_FIFO"
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
        except OSError:
            scheduling = "normal"
    except Exception:  # noqa: BLE001 (whatever it is, the host has to be told)
        frames.send(control, {"error": traceback.format_exc()})
        sys.exit(1)
    # No cycles are made; a collection would only be late for something.
    gc.collect()
    gc.freeze()
    gc.disable()
    frames.send(control, {"error": None, "ports": proxy.ports, "scheduling": scheduling})
    proxy.serve()


if __name__ == "__main__":
    main()
