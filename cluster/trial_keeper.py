"""Keeps one command at a time on a node, on cores of its own: starts it, times it, ends it, hands back its files.

Owns what a trial of a sweep is to a node: a process with a guard (so that it ends with this process, however that
ends), a time limit, a scratch directory. Knows nothing of Ray, nor of what the command does.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from cluster import code
from cluster.guard import RUN_ID_VARIABLE, TMP_DIR_PREFIX, Guard, new_run_id
from exchange import clock
from exchange.errors import ConfigurationError

_INTERRUPT_S = 20.0
"""How long a command may take to end in order after Ctrl-C's signal."""
_TAIL_BYTES = 2000


class Task(NamedTuple):
    """What is to be done."""

    arguments: list[str]
    """Of Python; the word OUT stands for the directory that the command is to write."""
    out: str | None
    """That directory, removed first if it is there; None: a scratch directory, which is gone afterwards."""
    files: list[str]
    """What to hand back of it, if it is there."""
    timeout_s: float
    keep_ray_environment: bool = False
    """For a command that itself connects to the cluster."""


class Outcome(NamedTuple):
    """What became of it."""

    exit_status: int | None
    """None: it took longer than it may."""
    said: str
    """The end of its standard error."""
    seconds: float
    host: str
    cores: list[int]
    """On which it ran."""
    files: dict[str, bytes]


OUT = "{out}"


class TrialKeeper:
    """One place where a command runs at a time; call it from one thread only: Linux pins threads, not processes."""

    def __init__(self, cores: int, number: int) -> None:
        """Take cores [number · cores, (number + 1) · cores) of those that this process may use."""
        allowed = sorted(os.sched_getaffinity(0))
        self.cores = allowed[number * cores : (number + 1) * cores]
        self._lacking = None
        if len(self.cores) < cores:
            self._lacking = (
                f"cores {cores}: place {number + 1} on {socket.gethostname()} needs {(number + 1) * cores} cores "
                f"there, and a process may use {len(allowed)}; ask for fewer, or tell Ray of no more than there are "
                "(--num-cpus)"
            )
        self._task: Task | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._directory = ""
        self._begun_ns = 0
        self._interrupted_ns: int | None = None

    def check(self) -> None:
        """Raises: ConfigurationError: there are fewer cores than asked for; none is ever shared instead."""
        if self._lacking is not None:
            raise ConfigurationError(self._lacking)

    def start(self, task: Task) -> None:
        """Begin it. Raises: OSError, RuntimeError: it cannot start, and nothing of it is left; as `check`."""
        self.check()
        try:
            self._start(Task(*task))
        except BaseException:
            self.stop()
            raise

    def _start(self, task: Task) -> None:
        self._task, self._interrupted_ns = task, None
        self._directory = tempfile.mkdtemp(prefix=TMP_DIR_PREFIX)
        # What this process starts from here on ends with it, and the directory is removed, also after a kill -9.
        self._guard = Guard.start(new_run_id(), self._directory)
        out = task.out or os.path.join(self._directory, "out")
        shutil.rmtree(out, ignore_errors=True)
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        arguments = [out if word == OUT else word for word in task.arguments]
        self._begun_ns = clock.monotonic_ns()
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)  # of this thread, and of all that it starts
        try:
            with open(os.path.join(self._directory, "said"), "wb") as said:
                self._process = subprocess.Popen(
                    [sys.executable, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env=_environment(task.keep_ray_environment),
                    start_new_session=True,  # Ctrl-C is for the sweep, which ends its trials itself
                )
        finally:
            os.sched_setaffinity(0, before)

    def poll(self) -> Outcome | None:
        """What became of it, once it has ended; None until then. One that took too long is interrupted, and killed if
        it does not end; none of that is waited for here, as the caller has others to look after.
        """
        assert self._task is not None and self._process is not None
        status = self._process.poll()
        now_ns = clock.monotonic_ns()
        seconds = (now_ns - self._begun_ns) / clock.SECOND
        if status is None and self._interrupted_ns is None and seconds > self._task.timeout_s:
            self._interrupted_ns = now_ns
            self._process.send_signal(signal.SIGINT)
        late = self._interrupted_ns is not None
        if status is None:
            if not late or now_ns - (self._interrupted_ns or 0) <= _INTERRUPT_S * clock.SECOND:
                return None
            self._process.kill()
            self._process.wait()
        said = Path(self._directory, "said").read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        out = self._task.out or os.path.join(self._directory, "out")
        files = {name: Path(out, name).read_bytes() for name in self._task.files if Path(out, name).is_file()}
        self._clear()
        return Outcome(None if late else status, said, seconds, socket.gethostname(), self.cores, files)

    def stop(self) -> None:
        """End it, in order if it does so within seconds; nothing of it is left. Idempotent."""
        self._end()
        self._clear()

    def _end(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_INTERRUPT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _clear(self) -> None:
        if self._guard is not None:
            self._guard.close()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._process, self._guard, self._directory = None, None, ""


def _environment(keep_ray: bool) -> dict[str, str]:
    """This process's, without what Ray put there for its own workers; modules are found where this process finds them.

    With RAY_ADDRESS or the sweep's token the command would not start a cluster of its own.
    """
    foreign = () if keep_ray else ("RAY_", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    found: dict[str, Any] = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    assert RUN_ID_VARIABLE in found
    # The driver's own sources first, where this node has them: beside them are the compiled kernels.
    paths = [str(code.venue_root()), *sys.path, os.environ.get("PYTHONPATH", "")]
    return found | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
