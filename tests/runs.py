"""Small real runs for tests: every process, socket and file of the main job, in a few seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SMALL = {
    "duration_s": "2.5",
    "signal.at_s": "1.0",
    "makers.count": "6",
    "value.count": "4",
    "noise.count": "4",
    "market_data.slow_interval_ms": "200",
}


def aar(*arguments: object, timeout_s: float = 240.0, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command line, as a user calls it."""
    return subprocess.run(
        [sys.executable, "-m", "aar_swarm.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **environment},
        check=False,
    )


def start_aar(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
    """The same, left running, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "aar_swarm.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )


def small(agents: int = 40, **changes: str) -> list[object]:
    """Arguments of a small exit-door run, which waits for no other: tests measure nothing."""
    settings = {**SMALL, **changes}
    arguments: list[object] = ["run", "exit-door", "--alongside", "--agents", agents]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={value}"]
    return arguments


def summary_of(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """The one JSON object on standard output of a run that succeeded."""
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def is_one_line(text: str) -> bool:
    return text.startswith("aar: ") and text.count("\n") == 1 and text.endswith("\n")


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory with its content."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
