"""Runs wait for one another: two processes, one lock, and what becomes of it when its holder is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aar_swarm import runner
from aar_swarm.machine_lock import machine_to_itself
from aar_swarm.progress import Progress
from exchange.errors import ConfigurationError
from tests.processes import wait_until
from tests.runs import start_aar

HOLDER = """
import sys, time
from pathlib import Path
from aar_swarm.machine_lock import machine_to_itself
from aar_swarm.progress import Progress

class Said(Progress):
    def stage(self, text):
        Path(sys.argv[1] + ".waits").write_text(text)

with machine_to_itself(Said()):
    Path(sys.argv[1]).touch()
    while not Path(sys.argv[2]).exists():
        time.sleep(0.01)
Path(sys.argv[1] + ".over").touch()
"""


class Holders:
    """Processes that want the machine to themselves, each until its file `NAME.go` is there."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str) -> "subprocess.Popen[bytes]":
        arguments = [str(self.place / name), str(self.place / f"{name}.go")]
        self.started.append(subprocess.Popen([sys.executable, "-c", HOLDER, *arguments]))
        return self.started[-1]

    def has(self, name: str) -> bool:
        return (self.place / name).exists()

    def let_go(self, name: str) -> None:
        (self.place / f"{name}.go").touch()


@pytest.fixture
def holders(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a lock of this test's own
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = Holders(tmp_path)
    yield found
    for process in found.started:
        process.kill()
        process.wait()


def test_the_second_of_two_waits_saying_so_until_the_first_is_over(holders):
    holders.start("first")
    wait_until(lambda: holders.has("first"), "the first has the machine")
    second = holders.start("second")
    wait_until(lambda: holders.has("second.waits"), "the second says that it waits")
    assert "another run" in (holders.place / "second.waits").read_text()
    assert not holders.has("second") and not holders.has("first.waits")
    holders.let_go("first")
    wait_until(lambda: holders.has("second"), "the second has the machine")
    holders.let_go("second")
    assert second.wait(20) == 0


def test_a_killed_holder_leaves_nothing_locked(holders):
    first = holders.start("first")
    wait_until(lambda: holders.has("first"), "the first has the machine")
    holders.start("second")
    wait_until(lambda: holders.has("second.waits"), "the second waits")
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: holders.has("second"), "the second has the machine")


def test_what_a_holder_starts_does_not_keep_the_lock(holders):
    with machine_to_itself(Progress()):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        holders.start("next")
        wait_until(lambda: holders.has("next"), "the next has the machine")
        assert not holders.has("next.waits")
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("what", ["link", "directory"])
def test_a_lock_that_somebody_laid_there_is_refused(holders, what):
    path = holders.place / f"aar-machine-{os.getuid()}.lock"
    if what == "link":
        victim = holders.place / "victim"
        victim.write_text("precious")
        path.symlink_to(victim)
    else:
        path.mkdir()
    with pytest.raises(ConfigurationError, match=f"{path}: .*--alongside"), machine_to_itself(Progress()):
        pass


def test_a_run_waits_for_the_machine_and_leaves_nothing_if_it_is_interrupted(holders):
    place = holders.place / "run"
    with machine_to_itself(Progress()):
        process = start_aar("run", "exit-door", "--out", place)
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert "waiting for another run" in said and place.exists()
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 130 and not place.exists()


@pytest.mark.parametrize("alongside", [True, False])
def test_only_a_run_alongside_shares_the_machine(holders, monkeypatch, alongside):
    """run() is watched from within: while it performs, does it hold the lock?"""
    held = []

    def perform(self: object) -> None:
        holders.start("other")
        wait_until(lambda: holders.has("other") or holders.has("other.waits"), "the other got the machine or waits")
        held.append(holders.has("other.waits"))

    monkeypatch.setattr(runner._Run, "perform", perform)
    runner.run("exit-door", out=holders.place / "run", alongside=alongside)
    assert held == [not alongside]
