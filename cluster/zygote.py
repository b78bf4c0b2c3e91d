"""The zygote: a clean, single-threaded process from which agents are forked.

A host *executes* it (`python -m cluster.zygote`), so it carries none of the host's threads, locks or descriptors. It
imports what agents need once; an agent then costs one fork and shares that memory. It owns its agents' lives: forks
them on command, reaps them, kills them, and ends all of them when its host ends. It must not know what an agent does,
must not import Ray, and must never start a thread.

Nothing survives its maker: the zygote and every agent have PR_SET_PDEATHSIG, and the zygote kills its agents at the
end of file on its control socket. Each of the two alone leaks in some failure.

Agents share the zygote's state at the moment of the fork, NumPy's global random state included: draw random numbers
only from a generator seeded with the agent's id.
"""

import ctypes
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from cluster import frames
from cluster.scoreboard import AgentState, Scoreboard, row_dtype

AgentFunction = Callable[[int, dict[str, Any], np.ndarray], int | None]
"""What an agent's process runs: (agent_id, spec, its own rows of the scoreboard) → exit code, None for 0. A process of
several agents has a row each, their ids from agent_id on; else there is one. spec["notice_board"]: the words of
notice_board.py."""

ORPHANED_EXIT_CODE = 9
MAX_TRACEBACK_BYTES = 1 << 14
LAST_REAP_S = 5.0
FIFO_PRIORITY = 2
"""Above every agent, so that forks and kills go on in a stampede, and above those that are being told of a halt (1);
below the venue."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_OWN_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel SIGKILL this process when the *thread* that created it ends; exit now if it already has."""
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(ORPHANED_EXIT_CODE)


class _Zygote:
    """The command loop. One request is outstanding at a time; `kill` and `wait` are answered when agents are gone."""

    def __init__(self, control: socket.socket, board: Scoreboard, function: AgentFunction) -> None:
        self._control = control
        self._board = board
        self._function = function
        self._pid = os.getpid()
        self._agents: dict[int, int] = {}  # pid -> agent_id, until reaped
        self._exited: list[tuple[int, int, int]] = []  # agent_id, pid, exit code: not yet reported
        self._awaited: set[int] | None = None  # pids whose end the outstanding request waits for
        self._answer: dict[str, Any] = {}
        self._deadline_s = 0.0
        self._terminated = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up descriptor does the work
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)

    def _on_sigterm(self, *_: object) -> None:
        self._terminated = True

    def serve(self) -> NoReturn:
        """Obey until the host closes its end or SIGTERM arrives, then kill and reap all agents and exit."""
        try:
            while not self._terminated:
                self._reap()
                timeout_ms = self._answer_when_due()
                for fd, _ in self._poll.poll(timeout_ms):
                    if fd == self._control.fileno():
                        self._obey(frames.receive(self._control))
        except (EOFError, ConnectionError):
            pass  # the host has ended
        self._end()

    def _obey(self, request: dict[str, Any]) -> None:
        match request["op"]:
            case "spawn":
                self._reply(self._spawn(request["common"], request["agents"]))
            case "status":
                self._reap()
                self._reply({})
            case "kill":
                chosen = None if request["ids"] is None else set(request["ids"])
                pids = [pid for pid, agent_id in self._agents.items() if chosen is None or agent_id in chosen]
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)  # not reaped yet, so the pid is still this agent's
                self._reply_when_gone(pids, request["timeout_s"], {"pids": pids})
            case "wait":
                self._reply_when_gone(list(self._agents), request["timeout_s"], {})
            case unknown:
                raise ValueError(f"unknown request {unknown!r}")

    def _reply(self, answer: dict[str, Any]) -> None:
        exited, self._exited = self._exited, []
        frames.send(self._control, {**answer, "alive": len(self._agents), "exited": exited})

    def _reply_when_gone(self, pids: list[int], timeout_s: float, answer: dict[str, Any]) -> None:
        self._awaited, self._answer = set(pids), answer
        self._deadline_s = time.monotonic() + timeout_s

    def _answer_when_due(self) -> int | None:
        """Send the outstanding answer if it is due; returns for how many ms to sleep otherwise."""
        if self._awaited is None:
            return None
        left_s = self._deadline_s - time.monotonic()
        if self._awaited and left_s > 0:
            return int(left_s * 1e3) + 1
        self._awaited = None
        self._reply(self._answer)
        return None

    def _reap(self) -> None:
        try:
            os.read(self._wake_read, 1 << 16)
        except BlockingIOError:
            pass
        while self._agents:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._exited.append((self._agents.pop(pid), pid, os.waitstatus_to_exitcode(status)))
            if self._awaited is not None:
                self._awaited.discard(pid)

    def _spawn(self, common: bytes, agents: list[list[Any]]) -> dict[str, Any]:
        """Fork one process per [agent_id, row, rows, packed spec]; stops at the first fork that fails and says why."""
        pids: list[int] = []
        error = None
        for agent_id, row, rows, spec in agents:
            # Blocked, so that a signal to a newborn cannot run the zygote's handlers there.
            signal.pthread_sigmask(signal.SIG_BLOCK, _OWN_SIGNALS)
            try:
                pid = os.fork()
                if pid == 0:
                    self._become_agent(agent_id, self._board.rows[row : row + rows], common, spec)
            except OSError as failure:
                error = f"fork: {failure}"
                break
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _OWN_SIGNALS)
            self._agents[pid] = agent_id
            pids.append(pid)
        return {"pids": pids, "error": error}

    def _become_agent(self, agent_id: int, rows: np.ndarray, common: bytes, spec: bytes) -> NoReturn:
        code = 1
        try:
            die_with_parent(self._pid)
            self._drop_zygote()
            _libc.prctl(_PR_SET_NAME, f"agent-{agent_id}".encode(), 0, 0, 0)
            rows["state"] = AgentState.ABSENT
            for name in rows.dtype.names or ():
                rows[name] = 0
            rows["agent_id"], rows["pid"] = np.arange(agent_id, agent_id + len(rows)), os.getpid()
            rows["state"] = AgentState.STARTED
            gc.enable()
            whole = {"notice_board": self._board.notices, **frames.unpack(common), **frames.unpack(spec)}
            code = self._run(agent_id, whole, rows)
            rows["state"] = AgentState.FAILED if code else AgentState.FINISHED
        except BaseException as failure:  # noqa: BLE001 (whatever it is, it ends this agent and nothing else)
            rows["state"] = AgentState.FAILED
            # One write, so that tracebacks of agents that crash together do not mix.
            text = "".join(traceback.format_exception(failure))
            os.write(2, f"agent {agent_id}: {text}".encode(errors="replace")[-MAX_TRACEBACK_BYTES:])
        finally:
            # Never back into the zygote's loop, and no exit handlers: they are the zygote's.
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code & 0xFF)

    def _run(self, agent_id: int, spec: dict[str, Any], rows: np.ndarray) -> int:
        try:
            return int(self._function(agent_id, spec, rows) or 0)
        except SystemExit as request:
            return int(request.code or 0)

    def _drop_zygote(self) -> None:
        """Keep no descriptor of the zygote's: a copy of its control socket would hide its death from the host.

        What stays open is 0, 1, 2 and the descriptor that Python's mmap keeps for the scoreboard.
        """
        signal.set_wakeup_fd(-1)
        for number in _OWN_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OWN_SIGNALS)
        self._control.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        os.close(self._board.fd)

    def _end(self) -> NoReturn:
        for pid in self._agents:
            os.kill(pid, signal.SIGKILL)
        self._poll.unregister(self._control)
        deadline_s = time.monotonic() + LAST_REAP_S
        self._reap()
        while self._agents and (left_s := deadline_s - time.monotonic()) > 0:
            self._poll.poll(int(left_s * 1e3) + 1)
            self._reap()
        os._exit(0)


def _prepare(control: socket.socket, board_fd: int) -> _Zygote:
    """Import, check and freeze, as the host's first frame says."""
    setup = frames.receive(control)
    for module in setup["preload"]:
        importlib.import_module(module)
    module, _, name = setup["target"].partition(":")
    function = getattr(importlib.import_module(module), name)
    board = Scoreboard(board_fd, row_dtype(setup["fields"]), setup["capacity"])
    thread_count = len(os.listdir("/proc/self/task"))
    if thread_count != 1:
        raise RuntimeError(
            f"importing {setup['target']} and {setup['preload']} left {thread_count} threads running; forking is only "
            "safe from a single-threaded process: do not preload the module that starts them"
        )
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    zygote = _Zygote(control, board, function)
    # What exists now is never collected, so that no agent's collector touches (and copies) the shared pages.
    gc.collect()
    gc.freeze()
    gc.disable()
    return zygote


def _outrank_agents() -> str:
    """Take real-time priority if permitted, agents not inheriting it; returns the scheduling class."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(FIFO_PRIORITY))
    except OSError:
        return "normal"
    return "SCHED_FIFO"


def main() -> NoReturn:
    """Arguments: descriptor of the control socket, descriptor of the scoreboard, pid of the host."""
    control_fd, board_fd, host_pid = (int(argument) for argument in sys.argv[1:4])
    die_with_parent(host_pid)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _libc.prctl(_PR_SET_NAME, b"aar-zygote", 0, 0, 0)
    for fd in (control_fd, board_fd):
        os.set_inheritable(fd, False)
    control = socket.socket(fileno=control_fd)
    try:
        zygote = _prepare(control, board_fd)
    except Exception:  # noqa: BLE001 (whatever it is, the host has to be told)
        frames.send(control, {"error": traceback.format_exc()})
        sys.exit(1)
    frames.send(control, {"error": None, "scheduling": _outrank_agents()})
    zygote.serve()


if __name__ == "__main__":
    main()
