"""For tests that start real processes: wait for conditions, look at /proc, run a script and never leave it behind."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 15.0


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"after {timeout_s} s still not: {what}")
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether the process exists and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_dead(pids: Iterable[int]) -> None:
    pids = list(pids)
    wait_until(lambda: not any(map(is_alive, pids)), f"processes {pids[:5]}… dead")


def marked_pids(mark: str) -> list[int]:
    """Processes that were executed with this NAME=value in their environment."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and mark.encode() in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
        except OSError:
            pass
    return found


@contextmanager
def script(*arguments: object, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", Any]]:
    """Run Python with these arguments; yields the process and the line of JSON that it printed. Killed at the end."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"the script ended with {process.wait(TIMEOUT_S)} before it printed anything")
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def ray_driver() -> Iterator[tuple["subprocess.Popen[str]", Any, str]]:
    """Run `ray_driver.py`, guarded; yields the process, what it printed, and the mark of all that it started."""
    run_id = secrets.token_hex(16)
    mark = f"AAR_RUN_ID={run_id}"
    directory = tempfile.mkdtemp(prefix="aar-")  # not pytest's: a socket's path has at most 107 bytes
    try:
        token = os.path.join(directory, "token")
        with script("-m", "tests.ray_driver", run_id, directory, RAY_AUTH_TOKEN_PATH=token) as (process, started):
            yield process, started, mark
        wait_until(lambda: not marked_pids(mark) and not os.path.exists(directory), "swept by the guard")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
