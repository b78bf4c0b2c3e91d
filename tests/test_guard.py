import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.guard import RUN_ID_VARIABLE, Guard, new_run_id
from tests.processes import is_alive, marked_pids, ray_driver, script, wait_until, wait_until_dead

DRIVER = """
import json, os, subprocess, sys, time
from cluster.guard import Guard
from cluster.scoreboard import Scoreboard, row_dtype
from cluster.zygote_client import Newborn, Zygote
from tests.dummy_agent import FIELDS
run_id, directory, ending = sys.argv[1:]
guard = Guard.start(run_id, directory)
sleep = [sys.executable, "-c", "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64)); signal.pause()"]
quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
orphans = [subprocess.Popen(sleep, start_new_session=True, **quiet).pid for _ in range(3)]
board = Scoreboard.create(row_dtype(FIELDS), 20)
zygote = Zygote("tests.dummy_agent:run", board, log_path=os.devnull)
agents, _ = zygote.spawn([Newborn(row, row, {"do": "stay"}) for row in range(20)], {})
copy_of_pipe = 0
if ending == "fork":  # this child carries no mark of its own, but it holds the driver's end of the guard's pipe
    copy_of_pipe = os.fork()
    if copy_of_pipe == 0:
        os.close(1)
        time.sleep(3600)
print(json.dumps({"guard": guard.pid, "marked": [*orphans, zygote.pid, *agents], "copy": copy_of_pipe}), flush=True)
sys.stdin.readline()
if ending == "raise":
    raise SystemExit("the driver ends in an orderly way, but without closing anything")
if ending == "close":
    zygote.close()
    print(guard.close(), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def run_id() -> str:
    return secrets.token_hex(16)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "aar-run"
    (directory / "deep").mkdir(parents=True)
    (directory / "deep" / "file").write_text("x")
    return directory


@pytest.fixture
def bystander(run_id: str) -> Iterator[int]:
    """A process that does not belong to the run, though its environment holds the run's mark within other entries."""
    almost = {RUN_ID_VARIABLE: f"{run_id}0", "OTHER": f"{RUN_ID_VARIABLE}={run_id}"}
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], env={**os.environ, **almost})
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.parametrize("ending", ["kill", "fork", "raise"])
def test_nothing_of_a_run_outlives_its_driver(run_id: str, directory: Path, bystander: int, ending: str) -> None:
    with script("-c", DRIVER, run_id, directory, ending) as (process, started):
        try:
            marked = marked_pids(f"{RUN_ID_VARIABLE}={run_id}")
            assert set(marked) == set(started["marked"])
            os.killpg(started["guard"], signal.SIGINT)  # as Ctrl-C and a closing terminal would
            os.kill(started["guard"], signal.SIGHUP)
            os.kill(started["guard"], signal.SIGTERM)
            if ending == "raise":
                process.communicate("\n")
            else:
                process.kill()
                process.wait()
            wait_until_dead([*started["marked"], started["guard"]])
            assert not directory.exists()
            assert is_alive(bystander)
        finally:
            if started["copy"]:
                os.kill(started["copy"], signal.SIGKILL)


def test_closing_sweeps_spares_the_driver_and_says_so(run_id: str, directory: Path, bystander: int) -> None:
    # The driver itself carries the mark here, as one does that was started by another that reuses the id.
    with script("-c", DRIVER, run_id, directory, "close", **{RUN_ID_VARIABLE: run_id}) as (process, started):
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True\n"
        assert not any(map(is_alive, [*started["marked"], started["guard"]]))
        assert not directory.exists()
        assert process.poll() is None
        assert is_alive(bystander)


def test_the_environment_is_marked_while_the_guard_stands(
    run_id: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "cafecafe")
    monkeypatch.delenv("SPT_NOENV", raising=False)
    guard = Guard.start(run_id, directory)
    assert os.environ[RUN_ID_VARIABLE] == run_id
    assert guard.scheduling in ("SCHED_FIFO", "nice -20", "normal")
    assert guard.close()
    assert os.environ[RUN_ID_VARIABLE] == "cafecafe"
    assert "SPT_NOENV" not in os.environ
    assert not directory.exists()
    assert guard.close()


def test_a_guard_that_was_killed_has_not_swept(run_id: str) -> None:
    guard = Guard.start(run_id)
    os.kill(guard.pid, signal.SIGKILL)
    assert not guard.close()


@pytest.mark.parametrize("bad", ["", "abc", "0123456789ABCDEF", "../../etc", "0" * 65])
def test_a_run_id_that_could_match_something_else_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        Guard.start(bad)


def test_a_directory_of_another_name_is_refused(run_id: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="aar-"):
        Guard.start(run_id, tmp_path)
    assert tmp_path.exists()


def test_a_link_in_the_directorys_place_is_not_followed(run_id: str, directory: Path, tmp_path: Path) -> None:
    link = tmp_path / "aar-link"
    link.symlink_to(directory)
    guard = Guard.start(run_id, link)
    assert not guard.close()
    assert (directory / "deep" / "file").exists()


def test_run_ids_differ() -> None:
    assert new_run_id() != new_run_id()


@pytest.mark.slow
def test_nothing_of_a_local_ray_outlives_its_driver() -> None:
    with ray_driver() as (process, started, mark):
        marked = marked_pids(mark)
        names = {Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode() for pid in marked}
        # These two stay behind for ever without a guard, and hide their environment unless told not to.
        assert {"ray::DashboardAgent", "ray::RuntimeEnvAgent"} <= {name.strip() for name in names}
        assert {started["actor"], *started["agents"]} <= set(marked)
        process.kill()
        process.wait()
        wait_until_dead(marked)
        wait_until(lambda: not is_alive(started["guard"]), "guard gone")
