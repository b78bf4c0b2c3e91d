"""The venue's keeper: the class that a Ray actor runs on the venue's node to start the venue process and speak to it.

Owns the venue process's life and the operator's channel. Not on the path of an order; knows nothing of agents.
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import zmq

from cluster.clocks import Responder, boot_id
from cluster.code import venue_root
from cluster.supervision import SupervisorProcess
from exchange import journal, wire
from exchange.client import Operator
from exchange.config import SupervisionConfig
from exchange.errors import ConfigurationError, VenueError
from exchange.keys import ClientKeys
from exchange.server import TIMINGS_FILE, VenueConfig
from exchange.supervisor import SupervisorConfig
from exchange.types import CommandKind, Reason

_START_TIMEOUT_S = 400.0  # a fresh clone compiles the kernels first, on a busy machine for minutes
_STOP_TIMEOUT_S = 30.0
_PREFIX = "aar-venue-"


class VenueKeeper:
    """One venue process. As a Ray actor: ray.remote(num_cpus=0)(VenueKeeper)."""

    def __init__(self, log_path: str | None = None) -> None:
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._operator: Operator | None = None
        self._supervisor: SupervisorProcess | None = None
        self._context: zmq.Context[Any] = zmq.Context()
        self._clock: Responder | None = None
        # A short path (a socket's is at most 107 bytes) that only this user can open.
        self._private = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=os.environ.get("AAR_TMP_DIR")))
        self._lines = b""

    def start(
        self, config: dict[str, Any], directory: str | None, keys: ClientKeys | None = None, feed: bool = False
    ) -> dict[str, Any]:
        """Start the process and wait until it serves.

        Args: config: of VenueConfig, without directory and control; directory: where the journal goes on this node,
        or None for a private one that `files` empties; keys: an operator's, if the venue has keys; feed: whether a
        supervisor is to follow.
        Returns: what the venue said: endpoints, scheduling, pid.
        Raises: ConfigurationError: it refused its configuration; VenueError: it died, or took too long.
        """
        whole = VenueConfig.model_validate(
            {
                **config,
                "directory": directory or str(self._private),
                "control": f"ipc://{self._private}/control",
                "feed": f"ipc://{self._private}/feed" if feed else None,
            }
        )
        self._directory = Path(whole.directory)
        with contextlib.ExitStack() as stack:
            log: Any = stack.enter_context(open(self._log_path, "ab")) if self._log_path else None
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "exchange.server"],  # -P: nothing of the working directory is imported
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(venue_root()), *filter(None, sys.path)])},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(whole.model_dump_json().encode() + b"\n")
        self._process.stdin.flush()
        said = self._read_line(_START_TIMEOUT_S)
        if "error" in said:
            self._process.wait()
            raise ConfigurationError(said["error"])
        self._operator = Operator(self._context, whole.control_address, keys=keys)
        self._venue, self._clock_offset_ns = whole, int(said["clock_offset_ns"])
        return said

    def start_supervisor(
        self, supervision: SupervisionConfig, alerts: str | None, keys: ClientKeys | None = None
    ) -> dict[str, Any]:
        """Start a supervisor beside the venue, which was started with its feed; returns its pid.

        Args: alerts: where they are written on this node, or None for a private file; keys: an operator's of its own.
        Raises: ConfigurationError: it refused, with its reason.
        """
        config = SupervisorConfig(
            engine=self._venue.engine,
            supervision=supervision,
            feed=self._venue.feed or "",
            control=self._venue.control_address,
            journal=self._venue.directory,
            alerts=Path(alerts or self._private / "alerts.jsonl"),
            keys=keys,
            clock_offset_ns=self._clock_offset_ns,
            realtime=self._venue.realtime,
        )
        with contextlib.ExitStack() as stack:
            log: Any = stack.enter_context(open(self._log_path, "ab")) if self._log_path else None
            self._supervisor = SupervisorProcess(config, log)
        return {"pid": self._supervisor.pid}

    def stop_supervisor(self, until: int) -> dict[str, Any]:
        """Let the supervisor follow up to command `until` and end; returns its figures, or `error`."""
        if self._supervisor is None:
            return {}
        said = self._supervisor.stop(until)
        self._supervisor = None
        return said

    def show_clock(self) -> tuple[tuple[str, int], bytes, str]:
        """Answer hosts that measure their clocks against this node's, until `hide_clock`; returns where, the token to
        ask with, and the node's boot_id."""
        self._clock = Responder(self._venue.host)
        return self._clock.address, self._clock.token, boot_id()

    def hide_clock(self) -> None:
        """Answer no more. Idempotent."""
        if self._clock is not None:
            self._clock.close()
            self._clock = None

    def pid(self) -> int:
        """This actor's own process."""
        return os.getpid()

    def alive(self) -> bool:
        """Whether the venue process still serves."""
        return self._process is not None and self._process.poll() is None

    def request(self, kind: int, account: int = 0, instrument: int = 0, amount: int = 0) -> dict[str, int]:
        """Send one operator's command; returns the answer's fields.

        Raises: VenueError: the venue is gone or silent.
        """
        if not self.alive() or self._operator is None:
            raise VenueError(f"the venue process ended (exit status {self._exit_status()}); see the run's log")
        return self._operator.request(CommandKind(kind), account, instrument, amount)._asdict()

    def status(self) -> dict[str, int]:
        """Counts of the running venue: commands, logged_on, refused."""
        if not self.alive() or self._operator is None:
            raise VenueError(f"the venue process ended (exit status {self._exit_status()}); see the run's log")
        return self._operator.request(wire.MessageKind.STATUS)._asdict()

    def request_many(self, commands: list[tuple[int, int, int, int]]) -> None:
        """Send operator's commands, each (kind, account, instrument, amount), in this order.

        Raises: VenueError: the venue refused one, or is gone.
        """
        if not self.alive() or self._operator is None:
            raise VenueError(f"the venue process ended (exit status {self._exit_status()}); see the run's log")
        answers = self._operator.request_many(wire.pack(*command) for command in commands)
        for command, answer in zip(commands, answers, strict=True):
            if answer.reason:
                kind, account, instrument, amount = command
                raise VenueError(
                    f"the venue refused {CommandKind(kind).name} of {amount} for account {account}, instrument "
                    f"{instrument}: {Reason(answer.reason).name}"
                )

    def stop(self) -> dict[str, Any]:
        """Stop the venue in order; returns its final word (hashes, counts). Raises: VenueError."""
        if self._process is None:
            return {}
        if self.alive() and self._operator is not None:
            with contextlib.suppress(VenueError):
                self._operator.request(wire.MessageKind.STOP)
        said = self._read_line(_STOP_TIMEOUT_S)
        self._process.wait()
        self._close()
        return said

    def files(self) -> list[str]:
        """Names of what a driver on another node has to take: the journal's segments, oldest first, and the timings,
        which only a venue that ended in order has left."""
        if self._process is None:
            return []
        names = [path.name for path in journal.segments(self._directory)]
        return [*names, *([TIMINGS_FILE] if (self._directory / TIMINGS_FILE).exists() else [])]

    def file(self, name: str) -> bytes:
        """Content of one of `files`."""
        return (self._directory / name).read_bytes()

    def kill(self) -> None:
        """End the processes at once, if they live, and leave nothing behind."""
        if self._supervisor is not None:
            self._supervisor.kill()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._close()
        shutil.rmtree(self._private, ignore_errors=True)

    def _close(self) -> None:
        self.hide_clock()
        if self._operator is not None:
            self._operator.close()
            self._operator = None
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _exit_status(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def _read_line(self, timeout_s: float) -> dict[str, Any]:
        """One JSON line of the venue's standard output."""
        assert self._process is not None and self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._lines:
            if not select.select([descriptor], [], [], timeout_s)[0]:
                self._process.kill()
                raise VenueError(f"the venue said nothing for {timeout_s:.0f} s; see the run's log")
            part = os.read(descriptor, 65536)
            if not part:
                self._process.wait()
                raise VenueError(f"the venue process ended (exit status {self._exit_status()}); see the run's log")
            self._lines += part
        line, _, self._lines = self._lines.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said
