"""The main promise, with a thousand real processes: the market absorbs a tenth of the crowd, and not all of it."""

import secrets
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import polars as pl
import pytest

import aar_swarm
from exchange.types import EventKind
from tests.runs import aar, summary_of

pytestmark = pytest.mark.usefixtures("nothing_left")
A_TENTH, ALL = 136, 1000  # 96 and 960 holders beside the same forty others
SHORTER = {"duration_s": "7", "signal.at_s": "3"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(agents, breaker) → the run; each is made once."""

    @cache
    def made(agents: int, breaker: str) -> aar_swarm.Run:
        place = tmp_path_factory.mktemp("exit") / "run"
        return aar_swarm.run("exit-door", agents=agents, breaker=breaker, settings=SHORTER, out=place)

    return made


def test_the_market_absorbs_a_tenth_of_the_crowd_and_the_breaker_stays_silent(runs):
    summary = runs(A_TENTH, "default").summary
    assert summary["agents_exiting"] > 0.8 * 96
    assert not summary["halted"] and summary["trip"] is None
    assert summary["drawdown_bps"] < 300
    assert summary["exhausted_ms"] is None


def test_the_market_does_not_absorb_all_of_it(runs):
    summary = runs(ALL, "off").summary
    assert summary["agent_processes_started"] == ALL and summary["agent_processes_lost"] == 0
    assert summary["drawdown_bps"] > 1000
    assert summary["exhausted_ms"] is not None
    assert summary["aar_ratio"] > 1.5 and summary["illusion_ratio"] > 5
    assert summary["illusion_ratio"] > 3 * runs(A_TENTH, "default").summary["illusion_ratio"]


def test_each_holder_s_plan_is_the_same_in_the_small_crowd_and_the_large(runs):
    """It is not the plans that change with the crowd: as if alone, each expects what it would expect in any crowd."""
    per_lot = {}
    for agents, breaker in ((A_TENTH, "default"), (ALL, "off")):
        leaving = runs(agents, breaker).agents.filter(pl.col("planned_lots") > 0)
        per_lot[agents] = leaving["planned_cost"].sum() / leaving["planned_lots"].sum()
    assert per_lot[ALL] == pytest.approx(per_lot[A_TENTH], rel=0.05)


def test_the_breaker_stops_the_fall_and_nothing_trades_after_it(runs):
    off, on = runs(ALL, "off").summary, runs(ALL, "default").summary
    assert on["halted"] and on["trades_after_trip"] == 0
    assert on["agents_notified"] == ALL and on["trip_to_last_notified_ms"] > 0
    assert on["drawdown_bps"] < off["drawdown_bps"] / 2
    assert on["loss_crowd"] < off["loss_crowd"] / 2


def test_makers_withdrew_at_their_limits(runs):
    """Finite depth, seen in the holdings: no maker bought more than its limit beyond what it started with."""
    run = runs(ALL, "off")
    makers = run.manifest["accounts"]["makers"]
    limit = run.manifest["scenario"]["participants"]["makers"]["params"]["inventory_limit_lots"]
    for account in range(*makers):
        bought = run.trades.filter(pl.col("buyer") == account).select("sequence", "quantity_lots")
        sold = run.trades.filter(pl.col("seller") == account).select("sequence", -pl.col("quantity_lots"))
        inventory = pl.concat([bought, sold]).sort("sequence")["quantity_lots"].cum_sum()
        assert inventory.max() <= limit
    most = run.agents.filter(pl.col("participants") == "makers")["shares"].max()
    assert most <= limit + run.manifest["scenario"]["participants"]["makers"]["shares"]


@pytest.mark.parametrize(
    "environment",
    [{}, {"NUMBA_DISABLE_JIT": "1"}],
    ids=["jit", "no jit"],
)
@pytest.mark.slow
def test_each_of_these_runs_replays_to_the_same_state(runs, environment):
    for agents, breaker in ((A_TENTH, "default"), (ALL, "off"), (ALL, "default")):
        run = runs(agents, breaker)
        replayed = summary_of(aar("replay", run.directory, "--json", **environment))
        assert replayed["same"] and replayed["state_hash"] == run.summary["state_hash"]


def test_what_the_agents_believe_they_hold_is_what_they_hold(runs):
    """Agents keep their own books from the reports alone; at the end both sides agree."""
    run = runs(ALL, "default")
    fills = run.events.filter(pl.col("kind") == EventKind.ORDER_FILLED)
    sold = fills.filter(pl.col("side") == 1).group_by("account").agg(pl.col("quantity_lots").sum())
    crowd = run.agents.filter(pl.col("participants") == "crowd")
    both = crowd.join(sold, left_on="agent_id", right_on="account", how="left").fill_null(0)
    assert (both["shares"] == 60 - both["quantity_lots"]).all()


@pytest.mark.slow
def test_ten_runs_in_a_row_trade_nothing_after_the_trip(tmp_path):
    for number in range(10):
        run = aar_swarm.run("exit-door", seed=number, settings=SHORTER, out=tmp_path / str(number))
        assert run.summary["halted"] and run.summary["trades_after_trip"] == 0


@pytest.mark.slow
def test_two_thousand_agents_start_and_finish(tmp_path):
    run = aar_swarm.run("exit-door", agents=2000, settings=SHORTER, out=tmp_path / "run")
    assert run.summary["agent_processes_started"] == 2000 and run.summary["agent_processes_lost"] == 0
    assert run.summary["agents_notified"] == 2000


@pytest.mark.slow
def test_two_thousand_are_killed_and_each_death_is_confirmed(tmp_path):
    run = aar_swarm.run("exit-door", agents=2000, breaker="kill", settings=SHORTER, out=tmp_path / "run")
    assert run.summary["killed_processes"] == 2000 and run.summary["agent_processes_lost"] == 0
    assert run.summary["trades_after_trip"] == 0


@pytest.mark.slow
def test_a_recorded_day_is_the_market_that_the_crowd_hits(data, tmp_path):
    recording = data / "lobster" / "LOBSTER_SampleFile_GOOG_2012-06-21_10.zip"
    run = aar_swarm.run(
        "exit-door",
        agents=60,
        settings={"duration_s": "5", "signal.at_s": "3"},
        background=f"lobster:{recording}",
        speed=100.0,
        out=tmp_path / "run",
    )
    found = run.summary["background"]
    assert found["rows_before_crowd"] > 1000
    assert found["rows_compared"] > 900
    assert found["best_bid_agrees"] == found["best_ask_agrees"] == 1.0
    assert run.manifest["scenario"]["participants"].keys() == {"background", "crowd"}
    crowd = run.losses.filter(pl.col("participants") == "crowd")
    assert crowd["sold_lots"][0] > 0


@pytest.mark.slow
def test_a_cluster_of_two_nodes_hosts_agents_on_both(monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    place = Path(mkdtemp(prefix="aar-"))  # a short path, for Ray's sockets
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "temp_dir": str(place / "ray")}
    )
    try:
        cluster.add_node(num_cpus=3, resources={"exchange": 1})  # two of them are the venue's
        run = aar_swarm.run("exit-door", agents=100, settings=SHORTER, address=cluster.address, out=place / "run")
        assert run.summary["hosts"] == 2 and run.summary["agent_processes_lost"] == 0
        assert len({host["pid"] for host in run.manifest["hosts"]}) == 2
        assert summary_of(aar("replay", run.directory, "--json"))["same"]
    finally:
        cluster.shutdown()
        shutil.rmtree(place, ignore_errors=True)
