"""shared-brain from end to end, small: vendors' processes, boom and bust, and that many vendors make less of it."""

import os

import polars as pl
import pytest

import aar_swarm
from cluster.scoreboard import AgentState

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    made = {}

    def run(count: int) -> aar_swarm.Run:
        if count not in made:
            place = tmp_path_factory.mktemp("shared") / "run"
            changes = {"vendors.count": count, "vendors.processes_per_vendor": 1 if count > 1 else 2}
            made[count] = aar_swarm.run(
                "shared-brain", size="small", breaker="off", settings=changes, out=place, alongside=True
            )
        return made[count]

    return run


def test_vendors_are_processes_of_their_own_counted_apart_from_the_agents(run_of):
    run = run_of(1)
    summary = run.summary
    assert (summary["vendor_processes"], summary["vendor_processes_lost"]) == (2, 0)
    assert summary["agent_processes_started"] == summary["agents_requested"] == len(run.agents) == 80
    assert summary["agent_processes_lost"] == 0 and not summary["agent_exits"]
    assert (run.agents["state"] == AgentState.FINISHED).all()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in run.agents["pid"])
    assert run.manifest["scenario"]["vendors"]["fault_factor"] > 0 and run.manifest["scenario"]["vendors"]["seed"] == 1


def test_every_fund_asked_its_vendor_and_nobody_else_did(run_of):
    run = run_of(1)
    funds = run.agents.filter(pl.col("participants") == "funds")
    others = run.agents.filter(pl.col("participants") != "funds")
    assert (funds["vendor"] == 1).all() and (funds["valuations"] > 3).all() and (funds["valuation_ns"] > 0).all()
    assert (others["vendor"] == 0).all() and (others["valuations"] == 0).all()
    assert 0 <= run.summary["valuations"] - funds["valuations"].sum() <= len(funds)  # the last may come after the close
    assert (funds["withdrawal_heard_ns"] > 0).all()


def test_the_fault_makes_a_boom_and_its_discovery_a_bust(run_of):
    measured = run_of(1).summary["scenario_measures"]
    assert measured["model_overvaluation_bps"] == pytest.approx(1000, abs=0.1)
    assert measured["overvaluation_bps"] == pytest.approx(1000, abs=150)  # heard through the feed's noise
    assert measured["boom_bps"] > 150 and measured["bust_bps"] > 150
    assert measured["effective_vendors"] == measured["effective_models"] == 1
    assert measured["share_of_funds_at_faulty_vendors"] == 1 and measured["similarity"] is None
    rules = set(run_of(1).decisions.filter(pl.col("participants") == "funds")["rule"])
    assert {"ACT_ON_VALUATION", "RETURN_TO_BENCHMARK"} == rules


def test_with_eight_vendors_there_is_much_less_of_both(run_of):
    one, many = (run_of(count).summary["scenario_measures"] for count in (1, 8))
    assert many["boom_bps"] < one["boom_bps"] / 2 and many["bust_bps"] < one["bust_bps"] / 2
    assert many["effective_vendors"] == pytest.approx(8, rel=0.05) and many["vendors_faulty"] == 1
    assert many["similarity"] < 0.6 and len(many["loss_by_vendor"]) == 8
    assert run_of(8).summary["vendor_processes"] == 8
