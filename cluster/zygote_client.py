"""The host's end of a zygote: starts it, commands it, learns of its agents' ends, and closes it.

Owns the zygote process and its environment. Must not decide which agents run; that is the host's.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster import frames
from cluster.scoreboard import Scoreboard

MAX_BATCH_AGENTS = 256
MAX_BATCH_BYTES = frames.MAX_FRAME_BYTES // 4
MAX_SPEC_BYTES = frames.MAX_FRAME_BYTES // 2
REPLY_TIMEOUT_S = 120.0
"""Longest silence on a request; a batch of forks on a crowded machine takes a few seconds."""

ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # a thread pool per agent would be thousands of threads; the zygote must have none
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # sets of strings iterate in the same order in every zygote of a run
}
_DROPPED_PREFIXES = ("RAY_", "LD_PRELOAD", "PYTHONPATH")


class ZygoteFailed(RuntimeError):
    """The zygote could not be prepared (a module, the target, a thread); the message holds its traceback."""


class ZygoteClosed(RuntimeError):
    """This side has closed the zygote."""


class ZygoteGone(ConnectionError):
    """The zygote has died, or does not answer. Its agents die with it."""


class Exit(NamedTuple):
    """The end of one agent; the code of a signal is negative, as in subprocess."""

    agent_id: int
    pid: int
    exit_code: int


class Newborn(NamedTuple):
    """A process to fork: its first agent's id, the number of that one's scoreboard row, its own part of the spec (plain
    data), and for how many agents it is, whose ids and rows follow."""

    agent_id: int
    row: int
    spec: dict[str, Any]
    agents: int = 1


class Zygote:
    """A running zygote. Not thread-safe. `alive` and `exited` are as of the last reply."""

    def __init__(
        self,
        target: str,
        board: Scoreboard,
        preload: Sequence[str] = (),
        log_path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Start it and wait until it has imported everything.

        Args: target: "module:function" that every agent runs, an `AgentFunction`; preload: modules to import before
        any fork; log_path: file to which zygote and agents append stdout and stderr, None to share this process's.
        Errors: RuntimeError outside the main thread; ValueError for a malformed target; ZygoteFailed.
        """
        # The kernel ends the zygote when the thread that created it ends, so that thread must live as long as we do.
        if threading.get_native_id() != os.getpid():
            raise RuntimeError("a zygote must be started from the main thread of its process: it dies with its thread")
        if not all(target.partition(":")):
            raise ValueError(f'target must be "module:function", not {target!r}')
        self.alive = 0
        self.exited: list[Exit] = []
        self._gone: str | None = None
        self._control, theirs = socket.socketpair()
        try:
            self._process = _start(theirs.fileno(), board.fd, log_path)
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        fields = [(name, "i8") for name in board.rows.dtype.names or ()]
        setup = {"target": target, "preload": list(preload), "fields": fields, "capacity": len(board.rows)}
        try:
            reply = self._exchange(setup, REPLY_TIMEOUT_S)
            if reply["error"]:
                raise ZygoteFailed(f"the zygote could not be prepared:\n{reply['error']}")
            self.scheduling: str = reply["scheduling"]
            """"SCHED_FIFO", or "normal" where real-time priority is not permitted. Agents are always "normal"."""
        except BaseException:
            self.close()
            raise

    def spawn(self, agents: Iterable[Newborn], common: dict[str, Any]) -> tuple[list[int], str | None]:
        """Fork agents; each gets `common` overlaid with its own spec.

        Returns: pids of those forked, in order, and why the next one could not be (None if all were).
        Errors: before any fork, TypeError if a spec is not plain data and FrameTooLarge if it is too big;
        ZygoteClosed, ZygoteGone.
        """
        pids: list[int] = []
        packed_common = frames.pack(common)
        for batch in list(_batches(agents, len(packed_common))):
            reply = self._call({"op": "spawn", "common": packed_common, "agents": batch})
            pids += reply["pids"]
            if reply["error"]:
                return pids, str(reply["error"])
        return pids, None

    def status(self) -> int:
        """Bring `alive` and `exited` up to date; returns `alive`. Errors: ZygoteClosed, ZygoteGone."""
        self._call({"op": "status"})
        return self.alive

    def kill(self, agent_ids: Iterable[int] | None, timeout_s: float = 10.0) -> list[int]:
        """SIGKILL these agents (None: all) and wait until they are reaped.

        Returns: the pids of those that are dead; one is missing only if the kernel needed more than timeout_s.
        Errors: ZygoteClosed, ZygoteGone.
        """
        ids = None if agent_ids is None else [int(agent_id) for agent_id in agent_ids]
        before = len(self.exited)
        killed = set(self._call({"op": "kill", "ids": ids, "timeout_s": timeout_s}, timeout_s)["pids"])
        return [end.pid for end in self.exited[before:] if end.pid in killed]

    def wait(self, timeout_s: float) -> int:
        """Wait until no agent is left, at most timeout_s; returns how many are. Errors: ZygoteClosed, ZygoteGone."""
        self._call({"op": "wait", "timeout_s": timeout_s}, timeout_s)
        return self.alive

    def close(self, timeout_s: float = 10.0) -> None:
        """End the zygote and, through it, every agent; idempotent."""
        self._control.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()  # stopped or stuck; the kernel then kills the agents
            self._process.wait()
        self.alive = 0

    def _call(self, request: dict[str, Any], extra_s: float = 0.0) -> dict[str, Any]:
        if self._gone is not None:
            raise ZygoteGone(self._gone)
        if self._control.fileno() < 0:
            raise ZygoteClosed("the zygote has been closed")
        reply = self._exchange(request, REPLY_TIMEOUT_S + extra_s)
        self.alive = reply["alive"]
        self.exited += (Exit(*end) for end in reply["exited"])
        return reply

    def _exchange(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        self._control.settimeout(timeout_s)
        try:
            frames.send(self._control, request)
            reply: dict[str, Any] = frames.receive(self._control)
        except BaseException as failure:
            # Whatever was half sent or half read, the next request could not be understood.
            self.close(timeout_s=1.0)
            self._gone = f"zygote {self.pid} is gone (exit code {self._process.returncode}): {failure!r}"
            if isinstance(failure, EOFError | OSError):
                raise ZygoteGone(self._gone) from None
            raise
        return reply


def _start(control_fd: int, board_fd: int, log_path: str | os.PathLike[str] | None) -> "subprocess.Popen[bytes]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED_PREFIXES)}
    root = str(Path(__file__).resolve().parent.parent)
    path = dict.fromkeys([root, *(os.path.abspath(entry) for entry in sys.path)])
    log_fd = None
    if log_path is not None:
        log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        return subprocess.Popen(
            # -P: not the working directory first; -u: nothing buffered at a fork, to be written once per agent.
            [sys.executable, "-P", "-u", "-m", "cluster.zygote", str(control_fd), str(board_fd), str(os.getpid())],
            env={**kept, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path)},
            pass_fds=(control_fd, board_fd),
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            start_new_session=True,  # Ctrl-C in the terminal is the driver's business
        )
    finally:
        if log_fd is not None:
            os.close(log_fd)


def _batches(agents: Iterable[Newborn], common_bytes: int) -> Iterator[list[tuple[int, int, int, bytes]]]:
    """Cut into frames; specs travel packed, so that each agent unpacks its own and the zygote's heap stays clean."""
    batch: list[tuple[int, int, int, bytes]] = []
    size_bytes = 0
    for agent_id, row, spec, count in agents:
        packed = frames.pack(spec)
        spec_bytes = common_bytes + len(packed)
        if spec_bytes > MAX_SPEC_BYTES:
            raise frames.FrameTooLarge(f"spec of agent {agent_id}: {spec_bytes} bytes; at most {MAX_SPEC_BYTES}")
        if batch and (len(batch) >= MAX_BATCH_AGENTS or size_bytes + len(packed) > MAX_BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append((agent_id, row, count, packed))
        size_bytes += len(packed)
    if batch:
        yield batch
