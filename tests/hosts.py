"""Several hosts on this machine, for tests: scripts/test_hosts.sh as an object, and what runs on each host."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import ROOT, wait_until

SCRIPT = ROOT / "scripts" / "test_hosts.sh"
_CALL_S = 400.0


class Hosts:
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.environment = {
            **os.environ,
            "AAR_HOSTS_PREFIX": prefix,
            "AAR_HOSTS_PYTHON": sys.executable,
            "TMPDIR": "/tmp",  # sockets have short paths
        }

    def call(self, *words: object, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [str(SCRIPT), *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_CALL_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr}"
        return done

    def aar(self, *words: object, path: Path = ROOT) -> "subprocess.Popen[str]":
        """The command line on host 0, left running; path: where Python finds modules besides this tree's."""
        return subprocess.Popen(
            [str(SCRIPT), "exec", "0", sys.executable, "-u", "-m", "aar_swarm.cli", *map(str, words)],
            env={**self.environment, "PYTHONPATH": f"{ROOT}:{path}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def pids(self, host: int, part: str) -> list[int]:
        """Processes of a host by a part of their name or command line; numbers of this machine."""
        listed = subprocess.run(
            ["ip", "netns", "pids", f"{self.prefix}-{host}"], capture_output=True, text=True, check=False
        )
        return [pid for pid in map(int, listed.stdout.split()) if part in _name(pid)]

    def agents(self, host: int) -> list[int]:
        return self.pids(host, "agent-")


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return Path(f"/proc/{pid}/comm").read_text() + words
    except OSError:
        return ""


def why_not() -> str | None:
    """Why there can be no such hosts here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"t{secrets.token_hex(3)}-0"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"ip netns is not possible here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


@contextmanager
def some_hosts(count: int, ray: bool = True) -> Iterator[Hosts]:
    """Hosts of their own prefix, a Ray cluster across them; skips the test where that is not possible."""
    if reason := why_not():
        pytest.skip(reason)
    hosts = Hosts(f"t{secrets.token_hex(2)}")
    try:
        hosts.call("up", count)
        if ray:
            hosts.call("ray-up")
        yield hosts
    finally:
        hosts.call("down")
        left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        assert f"{hosts.prefix}-" not in left


def wait_for_line(process: "subprocess.Popen[str]", part: str) -> None:
    """Read standard error until a line says this."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if part in line:
            return
    raise AssertionError(f"it ended before it said {part!r}: {''.join(said)}")


def wait_until_none(hosts: Hosts, numbers: tuple[int, ...], part: str, timeout_s: float) -> None:
    wait_until(lambda: not any(hosts.pids(n, part) for n in numbers), f"no {part} on {numbers}", timeout_s)
