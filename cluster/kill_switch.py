"""A host's kill switch: a process that hears the venue's order to kill and SIGKILLs those agents, one by one confirmed.

A process of its own, above every agent in priority, because neither the host (it answers Ray) nor the zygote (it may be
forking) may be in the way of 100 ms. It holds a pidfd of each agent, so that it can never hit a process that got an old
pid, and the kernel tells it of each one's death. It decides nothing: the venue says who. It ends with its host.

`python -m cluster.kill_switch`: one JSON line in (pids, endpoint, keys), one line out when armed, then one a kill.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypedDict

import zmq

from cluster.zygote import FIFO_PRIORITY, die_with_parent
from exchange import wire
from exchange.clock import SECOND, monotonic_ns
from exchange.keys import ClientKeys
from exchange.types import NOBODY, EventKind

CONFIRM_S = 30.0
"""Longest wait for the deaths of one kill; whoever is not dead then is named."""
_ARM_TIMEOUT_S = 30.0


class Kill(TypedDict):
    """What became of one order to kill, on this host. Times in ns of its CLOCK_MONOTONIC."""

    sequence: int
    """Of the venue's command."""
    heard_ns: int
    signalled_ns: int
    """SIGKILL is pending for all of them: none runs an instruction of its own any more."""
    deaths: list[tuple[int, int]]
    """(agent, when the kernel said that its process had ended), in the order of their ends."""
    alive: list[int]


class KillSwitch:
    """The host's end: starts the process, and reads what it did."""

    def __init__(self, pids: Mapping[int, int], endpoint: str, keys: ClientKeys | None) -> None:
        """Arm it for these agents (agent → pid) against a venue's notices; returns when it listens.

        Raises: OSError: it could not be started or said nothing.
        """
        root = str(Path(__file__).resolve().parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.kill_switch", str(os.getpid())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        setup = {"pids": list(pids.items()), "endpoint": endpoint, "keys": keys}
        self._process.stdin.write(json.dumps(setup).encode() + b"\n")
        self._process.stdin.flush()
        self._lines = b""
        self._kills: list[Kill] = []
        self._closed = False
        if not (said := self._read(_ARM_TIMEOUT_S)):
            self.close()
            raise OSError("the kill switch could not be armed; see the run's log")
        self.scheduling: str = said[0]["scheduling"]

    def kills(self) -> list[Kill]:
        """What it has done so far. A kill is told once its deaths are confirmed."""
        if not self._closed:
            self._kills += self._read(0.0)
        return self._kills

    def close(self) -> None:
        """End the process. Idempotent."""
        self._closed = True
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.kill()
        self._process.wait()

    def _read(self, timeout_s: float) -> list[Any]:
        """The whole lines that have come; waits for the first for timeout_s."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while select.select([descriptor], [], [], timeout_s if b"\n" not in self._lines else 0.0)[0]:
            part = os.read(descriptor, 1 << 16)
            if not part:
                break
            self._lines += part
        *lines, self._lines = self._lines.split(b"\n")
        return [json.loads(line) for line in lines]


class _Switch:
    def __init__(self, setup: dict[str, Any]) -> None:
        self._descriptors: dict[int, int] = {}  # agent → pidfd
        for agent, pid in setup["pids"]:
            try:
                self._descriptors[agent] = os.pidfd_open(pid)
            except ProcessLookupError:  # it has ended already
                continue
        self._context: zmq.Context[Any] = zmq.Context()
        self._notices = self._context.socket(zmq.SUB)
        if setup["keys"]:
            ClientKeys(*setup["keys"]).apply(self._notices)
        self._notices.setsockopt(zmq.RCVHWM, 0)
        self._notices.setsockopt(zmq.SUBSCRIBE, wire.subscription(EventKind.PARTICIPANTS_KILLED))
        self._notices.setsockopt(zmq.SUBSCRIBE, wire.subscription(wire.MessageKind.HEARTBEAT))
        self._notices.connect(setup["endpoint"])

    def serve(self) -> NoReturn:
        """Obey until the host closes its end."""
        poller = zmq.Poller()
        poller.register(self._notices, zmq.POLLIN)
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        armed = False
        while True:
            ready = dict(poller.poll())
            if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 1):
                os._exit(0)
            while self._notices.poll(0):
                heard_ns = monotonic_ns()
                notice = wire.unpack(self._notices.recv())
                assert isinstance(notice, wire.Notice)
                if notice.kind == EventKind.PARTICIPANTS_KILLED:
                    self._kill(notice, heard_ns)
                elif not armed:  # a heartbeat: the subscription has reached the venue
                    armed = True
                    self._say({"scheduling": _scheduling()})

    def _kill(self, notice: wire.Notice, heard_ns: int) -> None:
        chosen = list(self._descriptors) if notice.value == NOBODY else [notice.value]
        waiting: dict[int, int] = {}  # pidfd → agent
        watch = select.epoll()
        for agent in chosen:
            descriptor = self._descriptors.pop(agent, None)
            if descriptor is not None:
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                except ProcessLookupError:  # it has ended and was reaped: not by this
                    os.close(descriptor)
                    continue
                waiting[descriptor] = agent
        signalled_ns = monotonic_ns()
        for descriptor in waiting:
            watch.register(descriptor, select.EPOLLIN | select.EPOLLONESHOT)
        deaths: list[tuple[int, int]] = []
        deadline_ns = monotonic_ns() + int(CONFIRM_S * SECOND)
        while waiting and (left_ns := deadline_ns - monotonic_ns()) > 0:
            for descriptor, _ in watch.poll(left_ns / SECOND):
                deaths.append((waiting.pop(descriptor), monotonic_ns()))
                os.close(descriptor)
        watch.close()
        kill: Kill = {
            "sequence": notice.sequence,
            "heard_ns": heard_ns,
            "signalled_ns": signalled_ns,
            "deaths": deaths,
            "alive": sorted(waiting.values()),
        }
        self._say(kill)

    def _say(self, what: Mapping[str, Any]) -> None:
        os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")


def _scheduling() -> str:
    return "SCHED_FIFO" if os.sched_getscheduler(0) == os.SCHED_FIFO else "normal"


def main() -> NoReturn:
    """Argument: pid of the host."""
    die_with_parent(int(sys.argv[1]))
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
    except OSError:
        pass  # not permitted; said when it is armed
    setup = json.loads(sys.stdin.readline())
    _Switch(setup).serve()


if __name__ == "__main__":
    main()
