"""A host's kill switch: a process that hears the venue's order to kill and SIGKILLs those agents, one by one confirmed.

It also relays the notices: it posts them on the host's notice_board, and at a halt tells each of its agents to look
there (SIGURG, which does nothing to a process that has no handler for it). Where it has real-time priority it lends
each agent the lowest one until that has looked: an agent then waits for the looks of others and not for their work. An
agent gives it back itself, and who has not is told again (a signal that comes between a process's last look and its
sleep does not wake it); what has not been given back after LENT_S is taken. A kill goes before telling.

A process of its own, above every agent in priority, because neither the host (it answers Ray) nor the zygote (it may be
forking) may be in the way of 100 ms. It holds a pidfd of each agent, checked to be the zygote's child after it was
opened, so that it cannot hit a process that got an old pid, and the kernel tells it of each one's death. It decides
nothing: the venue says who. It ends with its host.

`python -m cluster.kill_switch`: one JSON line in (agents, parent, endpoint, keys), one out when armed. Then, for each
line in, one out with all that it has done since the last: it never writes unasked, so no pipe can fill up and stop it.
"""

import contextlib
import json
import mmap
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypedDict

import zmq

from cluster import notice_board
from cluster.priority import LOWEST
from cluster.zygote import FIFO_PRIORITY, die_with_parent
from exchange import wire
from exchange.clock import MS, SECOND, monotonic_ns
from exchange.keys import ClientKeys
from exchange.types import NOBODY, BreakerAction, EventKind

SUBSCRIBED = (EventKind.PARTICIPANTS_KILLED, *notice_board.POSTED_KINDS)
CONFIRM_S = 30.0
"""Longest wait for the deaths of one kill; whoever is not dead then is named."""
LENT_S = 0.2
"""Longest that an agent has the priority that it is lent to look at the notice board."""
_AGAIN_MS = 20
_TOLD_AT_ONCE = 50  # agents, between two looks for an order to kill
_ANSWER_TIMEOUT_S = 60.0  # above CONFIRM_S: a kill may be on its way


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


class KillSwitchGone(RuntimeError):
    """It has ended, or does not answer: nobody would be killed."""


class KillSwitch:
    """The host's end: starts the process, and asks what it did."""

    def __init__(
        self,
        agents: Mapping[int, int],
        parent: int,
        endpoint: str,
        keys: ClientKeys | None,
        board_fd: int,
        far: Sequence[int] = (),
    ) -> None:
        """Arm it for these agents (agent → pid), children of `parent`, against a venue's notices; returns when it
        listens. board_fd: the host's scoreboard, whose end is the notice board; far: agents who are not told of halts,
        as they are behind a link. Raises: KillSwitchGone.
        """
        root = str(Path(__file__).resolve().parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.kill_switch", str(os.getpid())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(board_fd,),
            start_new_session=True,
        )
        self._lines = b""
        self._kills: list[Kill] = []
        self._closed = False
        try:
            setup = {
                "agents": list(agents.items()),
                "parent": parent,
                "endpoint": endpoint,
                "keys": keys,
                "board_fd": board_fd,
                "far": list(far),
            }
            self.scheduling: str = self._ask(setup)["scheduling"]
        except BaseException:
            self.close()
            raise

    def add(self, agents: Mapping[int, int]) -> None:
        """Watch these too. Raises: KillSwitchGone."""
        self._take(self._ask({"agents": list(agents.items())}))

    def name_vendors(self, vendors: Mapping[int, int]) -> None:
        """Tell whose model each agent logged on with (agent → vendor), for a kill by vendor. Raises: KillSwitchGone."""
        self._take(self._ask({"vendors": list(vendors.items())}))

    def kills(self) -> list[Kill]:
        """What it has done so far. A kill is told once its deaths are confirmed. Raises: KillSwitchGone."""
        if not self._closed:
            self._take(self._ask({}))
        return self._kills

    def close(self) -> None:
        """End the process. Idempotent."""
        self._closed = True
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.kill()
        self._process.wait()

    def _take(self, answer: dict[str, Any]) -> None:
        self._kills += answer["kills"]

    def _ask(self, what: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        try:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise KillSwitchGone("the kill switch of this host has ended; see the run's log") from None
        poll = select.poll()  # not select(), which knows descriptors below 1024 only
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._lines:
            part = os.read(descriptor, 1 << 16) if poll.poll(_ANSWER_TIMEOUT_S * 1000) else b""
            if not part:
                raise KillSwitchGone("the kill switch of this host has ended or is silent; see the run's log")
            self._lines += part
        line, _, self._lines = self._lines.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


class _Switch:
    def __init__(self, setup: dict[str, Any]) -> None:
        self._parent: int = setup["parent"]
        self._descriptors: dict[int, int] = {}  # agent → pidfd
        self._pids: dict[int, int] = {}
        board = memoryview(mmap.mmap(setup["board_fd"], 0))
        self._board = notice_board.NoticeWriter(board[len(board) - notice_board.BYTES :].cast("q"))
        self._far = set(setup["far"])
        self._untold: list[int] = []  # agents whom the latest halt is still to be told
        self._lent: list[int] = []  # agents who were lent a priority
        self._again_ns = self._lent_until_ns = 0
        self._may_lend = False
        self._armed = False
        self._kills: list[Kill] = []  # not asked for yet
        self._vendors: dict[int, int] = {}
        self._add(setup["agents"])
        self._context: zmq.Context[Any] = zmq.Context()
        self._notices = self._context.socket(zmq.SUB)
        if setup["keys"]:
            ClientKeys(*setup["keys"]).apply(self._notices)
        self._notices.setsockopt(zmq.RCVHWM, 0)
        # The heartbeat last: when it is heard the others have reached the venue too.
        for kind in (*SUBSCRIBED, wire.MessageKind.HEARTBEAT):
            self._notices.setsockopt(zmq.SUBSCRIBE, wire.subscription(kind))
        self._notices.connect(setup["endpoint"])

    def _add(self, agents: list[list[int]]) -> None:
        for agent, pid in agents:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:  # it has ended already
                continue
            # Until a process that we hold is reaped its pid is its own; so what was read before this was of this one.
            if _parent_of(pid) == self._parent and _is_there(descriptor):
                if agent in self._descriptors:
                    os.close(self._descriptors[agent])
                self._descriptors[agent], self._pids[agent] = descriptor, pid
            else:
                os.close(descriptor)

    def serve(self) -> NoReturn:
        """Obey until the host closes its end."""
        poller = zmq.Poller()
        poller.register(self._notices, zmq.POLLIN)
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        asked = b""
        while True:
            ready = dict(poller.poll(0 if self._untold else _AGAIN_MS if self._lent else None))
            self._hear()
            self._tell()
            if self._lent and not self._untold:
                self._look_after_lent()
            if sys.stdin.fileno() in ready:
                part = os.read(sys.stdin.fileno(), 1 << 16)
                if not part:
                    os._exit(0)
                *lines, asked = (asked + part).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    self._add(told.get("agents", []))
                    self._vendors |= dict(told.get("vendors", []))
                    kills, self._kills = self._kills, []
                    self._say({"kills": kills})

    def _hear(self) -> None:
        while self._notices.poll(0):
            heard_ns = monotonic_ns()
            try:
                notice = wire.unpack(self._notices.recv())
            except ValueError:  # not of this protocol: not an order
                continue
            if not isinstance(notice, wire.Notice):
                continue
            if notice.kind == EventKind.PARTICIPANTS_KILLED:
                self._kill(notice, heard_ns)
            elif notice.kind != wire.MessageKind.HEARTBEAT:
                self._board.post(notice)
                if notice.kind == EventKind.INSTRUMENT_HALTED:
                    self._untold = [agent for agent in self._descriptors if agent not in self._far]
                    self._may_lend = _scheduling() == "SCHED_FIFO"
            elif not self._armed:  # the subscription has reached the venue
                self._armed = True
                self._say({"scheduling": _scheduling()})

    def _tell(self) -> None:
        """Have some of those whom a halt is to be told look at the board."""
        some, self._untold = self._untold[:_TOLD_AT_ONCE], self._untold[_TOLD_AT_ONCE:]
        told = [(agent, self._descriptors[agent]) for agent in some if agent in self._descriptors]
        ended = _ended([descriptor for _, descriptor in told])
        for agent, descriptor in told:
            if descriptor in ended:  # its pid may be somebody else's
                continue
            with contextlib.suppress(OSError):  # it has ended since, or nothing may be lent
                if self._may_lend:  # first, or it might look and give back what it has not got
                    os.sched_setscheduler(self._pids[agent], os.SCHED_FIFO, LOWEST)
                    self._lent.append(agent)
                signal.pidfd_send_signal(descriptor, signal.SIGURG)
        if some and not self._untold:
            now_ns = monotonic_ns()
            self._again_ns, self._lent_until_ns = now_ns + _AGAIN_MS * MS, now_ns + int(LENT_S * SECOND)

    def _look_after_lent(self) -> None:
        """Tell again who has not looked, or at last take back what was lent: it is stopped, or in one long call."""
        now_ns = monotonic_ns()
        if now_ns < self._again_ns:
            return
        self._again_ns = now_ns + _AGAIN_MS * MS
        lent, self._lent = self._lent, []
        for agent in lent:
            descriptor, pid = self._descriptors.get(agent), self._pids[agent]
            if descriptor is None:  # it is killed
                continue
            with contextlib.suppress(OSError):  # it has ended, or nothing may be lent
                signal.pidfd_send_signal(descriptor, 0)
                if os.sched_getscheduler(pid) != os.SCHED_FIFO:
                    continue
                if now_ns > self._lent_until_ns:
                    os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
                else:
                    signal.pidfd_send_signal(descriptor, signal.SIGURG)
                    self._lent.append(agent)

    def _kill(self, notice: wire.Notice, heard_ns: int) -> None:
        if notice.action == BreakerAction.KILL_VENDOR:
            chosen = [agent for agent in self._descriptors if self._vendors.get(agent) == notice.value]
        else:
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
        self._kills.append(kill)

    def _say(self, what: Mapping[str, Any]) -> None:
        os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")


def _ended(descriptors: list[int]) -> set[int]:
    """Those of these pidfds whose process has ended: one call for all."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poller.poll(0)}


def _is_there(descriptor: int) -> bool:
    """Whether the process behind a pidfd has not been reaped."""
    try:
        signal.pidfd_send_signal(descriptor, 0)
    except ProcessLookupError:
        return False
    return True


def _parent_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])


def _scheduling() -> str:
    return "SCHED_FIFO" if os.sched_getscheduler(0) == os.SCHED_FIFO else "normal"


def main() -> NoReturn:
    """Argument: pid of the host."""
    die_with_parent(int(sys.argv[1]))
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
    except OSError:
        pass  # not permitted; said when it is armed
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as plain:  # reads nothing beyond the line
        setup = json.loads(plain.readline())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor an agent
    _Switch(setup).serve()


if __name__ == "__main__":
    main()
