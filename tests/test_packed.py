"""Real runs whose processes hold many agents: what they leave is what a run of one agent a process leaves."""

from pathlib import Path

import numpy as np
import pytest

import aar_swarm
from aar_swarm.analysis.explained import explain_run
from aar_swarm.packing import packs
from aar_swarm.write_up import _killed_within, relayed
from cluster.scoreboard import AgentState
from tests.runs import aar, is_one_line, small, summary_of

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_a_packed_run_replays_and_its_orders_are_explained(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    summary = summary_of(aar(*small(60), "--agents-per-process", "10", "--out", directory, "--json"))
    run = aar_swarm.load(directory)
    groups = run.agents["participants"].to_list()
    processes = packs(groups, range(60), 10)
    assert summary["agents_requested"] == len(run.agents) == 60 and summary["agents_per_process"] == 10
    assert summary["agent_processes_started"] == len(processes) == run.agents["pid"].n_unique() < 10
    assert summary["agent_processes_lost"] == 0 and summary["agents_killed_within_processes"] == 0
    assert [run.agents["pid"][process.start] for process in processes] == run.agents["pid"].unique(
        maintain_order=True
    ).to_list()
    assert (run.agents["state"] == AgentState.FINISHED).all() and (run.agents["signal_heard_ns"] > 0).all()
    sent = int(run.agents["orders_sent"].sum())
    assert len(run.decisions) == sent > 0 and run.decisions["account"].n_unique() > 10
    relay = summary["relay"]
    # Logons and orders, and at the end a log off of each; the venue answered all of the first two.
    assert relay["to_venue"] == sent + 60 and relay["processes"] == len(processes) and relay["stopped_reading"] == 0
    assert summary["orders_explained_share"] == 1.0
    found = explain_run(directory)
    assert found["coverage"] == 1 and found["orders"] > 0
    assert not found["not_reproduced"] and not found["differences"]
    replayed = summary_of(aar("replay", directory, "--json"))
    assert replayed["same"] is True and replayed["state_hash"] == summary["state_hash"]


@pytest.mark.slow
def test_a_kill_of_all_ends_the_processes_of_many_agents(tmp_path: Path) -> None:
    changes = {"breaker.sell_volume_lots": "100", "breaker.action": "kill_all", "duration_s": "3"}
    summary = summary_of(aar(*small(40, **changes), "--agents-per-process", "8", "--out", tmp_path / "run", "--json"))
    assert summary["killed_processes"] == summary["agent_processes_started"] < 10
    assert summary["agent_processes_lost"] == 0


@pytest.mark.parametrize("value", ["0", "2001"])
def test_a_wrong_number_a_process_is_refused_in_one_line(aar_here, value: str) -> None:
    done = aar_here("run", "exit-door", "--agents-per-process", value)
    assert done.returncode == 2 and is_one_line(done.stderr)
    assert f"--agents-per-process {value}: must be from 1 to 2000" in done.stderr


@pytest.mark.slow
def test_two_thousand_agents_in_a_few_processes(tmp_path: Path) -> None:
    arguments = ["run", "exit-door", "--agents", 2000, "--agents-per-process", 100, "--out", tmp_path / "run", "--json"]
    summary = summary_of(aar(*arguments, timeout_s=600))
    assert summary["agent_processes_started"] == 23 and summary["agent_processes_lost"] == 0
    assert summary["agents_exiting"] > 1500


def test_agents_of_a_process_that_was_killed_were_not_killed_within_it():
    rows = np.zeros(6, [("agent_id", "i8"), ("pid", "i8"), ("killed_ns", "i8")])
    rows["agent_id"], rows["pid"] = range(6), [10, 10, 10, 13, 13, 13]
    rows["killed_ns"] = [5, 5, 0, 0, 5, 0]  # one of the first process had not heard of it
    assert _killed_within(rows, {0}) == 1
    assert _killed_within(rows, set()) == 3


def test_a_relay_that_was_lost_is_counted_and_the_others_are_told():
    known = {"scheduling": "SCHED_FIFO", "to_venue": 3, "longest_pass_ns": 7}
    assert relayed([]) is None
    assert relayed([known, None]) == {"lost": 1, **known}
    assert relayed([None]) == {"lost": 1}
    assert relayed([known, {**known, "longest_pass_ns": 9}]) == {
        **known,
        "lost": 0,
        "to_venue": 6,
        "longest_pass_ns": 9,
    }
