"""The supervisor's process beside the venue: started, asked for its figures, ended. The venue's keeper has one."""

import json
import os
import select
import subprocess
import sys
from typing import Any

from cluster.code import venue_root
from exchange.errors import ConfigurationError
from exchange.supervisor import SupervisorConfig

_START_TIMEOUT_S = 400.0  # a fresh clone compiles the kernels first
_STOP_TIMEOUT_S = 60.0


class SupervisorProcess:
    """One supervisor. It ends with the thread that made it, at the latest."""

    def __init__(self, config: SupervisorConfig, log: Any) -> None:
        """Start it and wait until it follows. Raises: ConfigurationError: it refused, with its reason."""
        self._alerts = config.alerts
        self._lines = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "exchange.supervisor"],  # -P: nothing of the working directory is imported
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(venue_root()), *filter(None, sys.path)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        self._ask(config.model_dump_json())
        said = self._read_line(_START_TIMEOUT_S)
        if "error" in said:
            self.kill()
            raise ConfigurationError(f"the supervisor cannot start: {said['error']}")
        self.pid = self._process.pid

    def stop(self, until: int) -> dict[str, Any]:
        """Let it follow up to command `until`; returns its figures, or `error`: why there are none. With `told`, its
        alerts, one JSON object a line."""
        self._ask(json.dumps({"until": until}))
        said = self._read_line(_STOP_TIMEOUT_S)
        self.kill()
        told = self._alerts.read_text() if self._alerts.exists() else ""
        return {**said, "told": told[: told.rfind("\n") + 1]}

    def kill(self) -> None:
        """End it, if it lives."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what it was to be told and was not
                    pass

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone: reading what it says will tell

    def _read_line(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._lines:
            if not select.select([descriptor], [], [], timeout_s)[0]:
                return {"error": f"it said nothing for {timeout_s:.0f} s"}
            part = os.read(descriptor, 65536)
            if not part:
                return {"error": f"its process ended (exit status {self._process.wait()})"}
            self._lines += part
        line, _, self._lines = self._lines.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said
