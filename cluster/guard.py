"""The last defence against orphans: a process that outlives the driver just long enough to end its run.

Owns the mark by which a run's processes are known (a variable in their environment), and the driver's end of the guard.
The guard process itself is `sweeper.py`. It must not be how a run ends normally: by then there should be nothing left
to sweep.

What only this catches: after `kill -9` of a driver that started Ray locally, Ray's raylet agents live for ever and its
workers for seconds. What it does not catch: other nodes, and processes that replace their environment.
"""

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

RUN_ID_VARIABLE = "AAR_RUN_ID"
TMP_DIR_PREFIX = "aar-"

_KEEP_ENVIRON_VARIABLE = "SPT_NOENV"
"""Tells setproctitle to leave /proc/PID/environ alone; without it, Ray's raylet agents overwrite the mark with their
titles, and they are just the ones that stay behind."""


def new_run_id() -> str:
    """A random run id: 32 hexadecimal digits."""
    return secrets.token_hex(16)


class Guard:
    """A running guard. When this process ends, in whatever way, or on `close`, it sweeps and then ends itself."""

    def __init__(self, process: "subprocess.Popen[bytes]", scheduling: str) -> None:
        """Use `start`."""
        self._process = process
        self._environment_before = {name: os.environ.get(name) for name in (RUN_ID_VARIABLE, _KEEP_ENVIRON_VARIABLE)}
        self.pid = process.pid
        self.scheduling = scheduling
        """"SCHED_FIFO", "nice -20" or "normal": how soon the guard gets a core on a crowded machine."""

    @classmethod
    def start(cls, run_id: str, tmp_dir: str | os.PathLike[str] | None = None) -> "Guard":
        """Mark this process's environment, so that all it starts from now on carries the run id, and stand guard.

        Call it before `ray.init`; `close` restores the environment. A driver that itself carries another run's mark
        is swept with that run, and its own guard then sweeps in turn.

        Args: run_id: 8 … 64 lower-case hexadecimal digits, never used before; tmp_dir: a directory to remove after
        the sweep, whose name must start with TMP_DIR_PREFIX.
        Errors: ValueError for a bad argument; RuntimeError if the guard does not start.
        """
        if not re.fullmatch("[0-9a-f]{8,64}", run_id):
            raise ValueError(f"a run id is 8 … 64 lower-case hexadecimal digits, not {run_id!r}")
        directory = "" if tmp_dir is None else os.path.abspath(tmp_dir)
        if directory and not os.path.basename(directory).startswith(TMP_DIR_PREFIX):
            raise ValueError(f"the guard removes only directories named {TMP_DIR_PREFIX}…, not {directory}")
        sweeper = Path(__file__).with_name("sweeper.py")
        mark = f"{RUN_ID_VARIABLE}={run_id}"
        process = subprocess.Popen(
            # By file, isolated and without site: it imports next to nothing, and nothing of ours.
            [sys.executable, "-I", "-S", str(sweeper), mark, str(os.getpid()), directory, TMP_DIR_PREFIX],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name != RUN_ID_VARIABLE},
            start_new_session=True,
        )
        assert process.stdout is not None
        with process.stdout:
            output = process.stdout.read().decode(errors="replace")  # it closes its end when it is on guard
        word, _, scheduling = output.strip().partition(" ")
        guard = cls(process, scheduling)
        if word != "ready":
            guard.close()
            raise RuntimeError(f"the guard did not start:\n{output}")
        os.environ.update({RUN_ID_VARIABLE: run_id, _KEEP_ENVIRON_VARIABLE: "1"})
        return guard

    def close(self, timeout_s: float = 10.0) -> bool:
        """Sweep now and wait until it is done; idempotent. Shut down Ray before.

        Returns: whether the guard did its work: nothing that carries the run id is alive, the directory is gone.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            swept = self._process.wait(timeout_s) == 0
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            swept = False
        for name, value in self._environment_before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environment_before.clear()
        return swept
