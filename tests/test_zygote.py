import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.frames import FrameTooLarge
from cluster.scoreboard import BASE_FIELDS, AgentState, Scoreboard, row_dtype
from cluster.zygote_client import Newborn, Zygote, ZygoteClosed, ZygoteFailed, ZygoteGone
from tests.dummy_agent import FIELDS
from tests.processes import is_alive, script, wait_until, wait_until_dead

TARGET = "tests.dummy_agent:run"
CAPACITY = 64


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard.create(row_dtype(FIELDS), CAPACITY)
    yield board
    board.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "agents.log"


@pytest.fixture
def zygote(board: Scoreboard, log: Path) -> Iterator[Zygote]:
    zygote = Zygote(TARGET, board, preload=["zmq"], log_path=log)
    yield zygote
    zygote.close()


def newborns(count: int, **spec: Any) -> list[Newborn]:
    """Agents 100, 101, … in rows 0, 1, …"""
    return [Newborn(100 + row, row, spec) for row in range(count)]


def states(board: Scoreboard, count: int) -> set[int]:
    return set(board.rows["state"][:count].tolist())


def test_fifty_agents_fork_finish_and_are_reported(zygote: Zygote, board: Scoreboard) -> None:
    pids, error = zygote.spawn(newborns(50, do="finish"), {})
    assert error is None
    assert len(set(pids)) == 50
    assert zygote.wait(10) == 0
    assert sorted(zygote.exited) == [(100 + row, pid, 0) for row, pid in enumerate(pids)]
    assert states(board, 50) == {AgentState.FINISHED}
    assert board.counts()[AgentState.ABSENT] == CAPACITY - 50


def test_each_agent_writes_its_own_row_from_its_own_spec(zygote: Zygote, board: Scoreboard) -> None:
    agents = [Newborn(7 * row, row, {"value": row * row}) for row in range(20)]
    pids, _ = zygote.spawn(agents, {"do": "finish", "value": -1})
    assert zygote.wait(10) == 0
    assert board.rows["agent_id"][:20].tolist() == [7 * row for row in range(20)]
    assert board.rows["value"][:20].tolist() == [row * row for row in range(20)]
    assert board.rows["pid"][:20].tolist() == pids


def test_more_agents_than_fit_one_frame(zygote: Zygote, board: Scoreboard) -> None:
    agents = [Newborn(row, row, {"padding": "x" * 500_000}) for row in range(12)]
    pids, error = zygote.spawn(agents, {"do": "finish"})
    assert error is None and len(pids) == 12
    assert zygote.wait(10) == 0
    assert states(board, 12) == {AgentState.FINISHED}


def test_a_bad_spec_is_refused_before_any_fork(zygote: Zygote) -> None:
    good = [Newborn(row, row, {"do": "stay", "padding": bytes(1 << 20)}) for row in range(3)]  # a batch each
    with pytest.raises(FrameTooLarge):
        zygote.spawn([*good, Newborn(3, 3, {"padding": bytes(3 << 20)})], {})
    with pytest.raises(TypeError):
        zygote.spawn([*good, Newborn(3, 3, {"padding": object()})], {})
    assert zygote.status() == 0
    assert zygote.exited == []


def test_a_crash_is_reported_and_its_traceback_is_in_the_log(zygote: Zygote, board: Scoreboard, log: Path) -> None:
    (pid,), _ = zygote.spawn(newborns(1, do="crash"), {})
    assert zygote.wait(10) == 0
    assert zygote.exited == [(100, pid, 1)]
    assert board.rows["state"][0] == AgentState.FAILED
    text = log.read_text()
    assert "agent 100: Traceback" in text
    assert "ValueError: agent 100 was told to crash" in text


@pytest.mark.parametrize(("do", "code", "state"), [("finish", 3, 4), ("exit", 5, 4), ("exit", 0, 3), ("finish", 0, 3)])
def test_the_exit_code_is_the_agents_own(zygote: Zygote, board: Scoreboard, do: str, code: int, state: int) -> None:
    zygote.spawn(newborns(1, do=do, code=code), {})
    assert zygote.wait(10) == 0
    assert zygote.exited[0].exit_code == code
    assert board.rows["state"][0] == state


def test_a_killed_agent_keeps_its_last_row(zygote: Zygote, board: Scoreboard) -> None:
    pids, _ = zygote.spawn(newborns(5, do="stay", value=42), {})
    wait_until(lambda: states(board, 5) == {AgentState.READY}, "all ready")
    assert sorted(zygote.kill([101, 103, 999])) == [pids[1], pids[3]]
    assert not is_alive(pids[1]) and not is_alive(pids[3])
    assert zygote.status() == 3
    assert sorted(zygote.exited) == [(101, pids[1], -signal.SIGKILL), (103, pids[3], -signal.SIGKILL)]
    assert board.rows["value"][:5].tolist() == [42] * 5
    assert states(board, 5) == {AgentState.READY}
    assert sorted(zygote.kill(None)) == sorted([pids[0], pids[2], pids[4]])


def test_waiting_gives_up_at_the_time_given(zygote: Zygote) -> None:
    zygote.spawn(newborns(2, do="stay"), {})
    assert zygote.wait(0.05) == 2


def test_agents_inherit_the_streams_and_the_scoreboard_only(zygote: Zygote, board: Scoreboard) -> None:
    zygote.spawn(newborns(2, do="count_descriptors"), {})
    assert zygote.wait(10) == 0
    assert board.rows["descriptor_count"][:2].tolist() == [4, 4]


def test_agents_have_default_signals_and_priority_and_a_name(zygote: Zygote, board: Scoreboard) -> None:
    (pid,), _ = zygote.spawn(newborns(1, do="stay"), {})
    wait_until(lambda: states(board, 1) == {AgentState.READY}, "ready")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Name"].strip() == "agent-100"
    ours = sum(1 << (number - 1) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD))
    for mask in ("SigBlk", "SigIgn", "SigCgt"):
        assert int(status[mask], 16) & ours == 0, mask
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    os.kill(pid, signal.SIGTERM)
    assert zygote.wait(10) == 0
    assert zygote.exited == [(100, pid, -signal.SIGTERM)]


def test_agents_may_open_as_many_files_as_is_permitted(board: Scoreboard, log: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        zygote = Zygote(TARGET, board, log_path=log)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        (pid,), _ = zygote.spawn(newborns(1, do="stay"), {})
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        zygote.close()


def test_a_signal_at_birth_is_not_lost(board: Scoreboard, log: Path) -> None:
    zygote = Zygote(TARGET, board, preload=["tests.dummy_fork_signal"], log_path=log)
    try:
        zygote.spawn(newborns(5, do="stay"), {})
        assert zygote.wait(10) == 0
        assert {end.exit_code for end in zygote.exited} == {-signal.SIGTERM}
    finally:
        zygote.close()


def test_a_failed_fork_is_reported_and_the_zygote_lives_on(board: Scoreboard, log: Path) -> None:
    zygote = Zygote(TARGET, board, preload=["tests.dummy_fork_limit"], log_path=log)
    try:
        pids, error = zygote.spawn(newborns(5, do="finish"), {})
        assert len(pids) == 2
        assert error is not None and "temporarily unavailable" in error
        pids, error = zygote.spawn(newborns(5, do="finish"), {})
        assert len(pids) == 5 and error is None
        assert zygote.wait(10) == 0
    finally:
        zygote.close()


@pytest.mark.parametrize(
    ("target", "preload", "message"),
    [
        (TARGET, ["no_such_module_anywhere"], "no_such_module_anywhere"),
        ("tests.dummy_agent:no_such_function", [], "no_such_function"),
        (TARGET, ["tests.dummy_threaded"], "2 threads"),
    ],
)
def test_a_zygote_that_cannot_be_prepared_says_why(
    board: Scoreboard, log: Path, target: str, preload: list[str], message: str
) -> None:
    with pytest.raises(ZygoteFailed, match=message):
        Zygote(target, board, preload, log)


def test_a_malformed_target_is_refused(board: Scoreboard) -> None:
    with pytest.raises(ValueError, match="module:function"):
        Zygote("tests.dummy_agent", board)


def test_a_zygote_is_refused_outside_the_main_thread(board: Scoreboard) -> None:
    raised: list[BaseException] = []

    def attempt() -> None:
        try:
            Zygote(TARGET, board)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])


def test_closing_ends_agents_and_zygote_and_is_final(zygote: Zygote, log: Path) -> None:
    pids, _ = zygote.spawn(newborns(10, do="stay"), {})
    zygote.close()
    assert not any(map(is_alive, [*pids, zygote.pid]))
    assert log.read_text() == ""
    with pytest.raises(ZygoteClosed):
        zygote.status()
    zygote.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_agents_die_with_their_zygote(zygote: Zygote, number: signal.Signals) -> None:
    pids, _ = zygote.spawn(newborns(10, do="stay"), {})
    os.kill(zygote.pid, number)
    wait_until_dead(pids)
    for _ in range(2):
        with pytest.raises(ZygoteGone):
            zygote.status()


HOST = """
import json, time
from cluster.scoreboard import AgentState, Scoreboard, row_dtype
from cluster.zygote_client import Newborn, Zygote
from tests.dummy_agent import FIELDS
board = Scoreboard.create(row_dtype(FIELDS), 8)
zygote = Zygote("tests.dummy_agent:run", board)
pids, _ = zygote.spawn([Newborn(row, row, {"do": "stay"}) for row in range(8)], {})
while board.counts()[AgentState.READY] < 8:  # one that is stopped before it has set PDEATHSIG stays until continued
    time.sleep(0.01)
print(json.dumps({"zygote": zygote.pid, "agents": pids}), flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["running_zygote", "stopped_zygote"])
def test_zygote_and_agents_die_with_their_host(stopped: bool) -> None:
    with script("-c", HOST) as (process, started):
        if stopped:
            os.kill(started["zygote"], signal.SIGSTOP)
            os.kill(started["agents"][0], signal.SIGSTOP)
        assert is_alive(started["zygote"]) and all(map(is_alive, started["agents"]))
        process.kill()
        wait_until_dead([started["zygote"], *started["agents"]])


def test_a_stopped_zygote_is_closed_all_the_same(zygote: Zygote) -> None:
    pids, _ = zygote.spawn(newborns(3, do="stay"), {})
    os.kill(zygote.pid, signal.SIGSTOP)
    zygote.close(timeout_s=0.1)
    wait_until_dead([*pids, zygote.pid])


def test_scoreboard_rows_must_start_with_the_base_fields_and_be_int64() -> None:
    assert row_dtype(BASE_FIELDS).names == ("agent_id", "pid", "state")
    with pytest.raises(ValueError, match="start with"):
        row_dtype([("value", "i8"), *BASE_FIELDS])
    with pytest.raises(ValueError, match="price"):
        row_dtype([*BASE_FIELDS, ("price", "f8")])
    with pytest.raises(ValueError, match="capacity"):
        Scoreboard.create(row_dtype(BASE_FIELDS), 0)


def test_scoreboard_rows_outlive_its_closing() -> None:
    board = Scoreboard.create(row_dtype(BASE_FIELDS), 2)
    board.rows[1]["pid"] = 5
    row = board.rows[1]
    board.close()
    board.close()
    assert row["pid"] == 5
    assert np.array_equal(board.rows["pid"], [0, 5])
