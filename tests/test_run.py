"""Whole small runs: the contract of the run directory, replay, and every way in which a run can end."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

import aar_swarm
from aar_swarm import cli, results
from aar_swarm.scenario import load_scenario
from aar_swarm.write_up import ReplayDiffers, write_up
from cluster.scoreboard import AgentState
from exchange import journal
from exchange.replay import replay
from exchange.types import CommandKind, EventKind
from tests.processes import is_alive, wait_until
from tests.runs import SMALL, aar, small, start_aar, summary_of, tree

pytestmark = pytest.mark.usefixtures("nothing_left")

CONTRACT = {
    "run": ("scenario", "seed", "agents_requested", "agent_processes_started", "agent_processes_lost", "hosts"),
    "counts": ("commands", "events", "trades", "rejects", "state_hash"),
    "outcome": ("halted", "drawdown_bps", "trough_ms", "loss_total", "loss_crowd", "aar_ratio", "illusion_ratio"),
    "later": ("liquidations", "bad_debt", "killed_processes", "kill_to_last_dead_ms"),
    "breaker": ("trip", "trades_after_trip", "trip_to_last_notified_ms"),
}
FILES = (
    *("manifest.json", "journal/000000000001.journal", "events.parquet", "decisions.parquet", "latency.parquet"),
    *("notices.jsonl", "summary.json", "report.html"),
)


def test_the_summary_and_the_directory_are_as_the_contract_says(finished):
    directory, summary = finished
    assert {name for part in CONTRACT.values() for name in part} <= set(summary)
    for family in ("notice", "decision", "transit", "venue"):
        assert all(isinstance(summary[f"{family}_ns_{q}"], int) for q in ("p50", "p99", "p999", "max"))
    assert all((directory / name).stat().st_size for name in FILES)
    assert summary["agents_requested"] == summary["agent_processes_started"] == 40
    assert summary["agent_processes_lost"] == 0 and summary["hosts"] == 1
    assert summary["liquidations"] == 0  # nobody is on margin, but somebody could be
    assert summary["loan_liquidations"] is None and summary["redemptions"] is None  # does not apply: null, never 0
    assert summary["trades"] > 0 and summary["reports_unsent"] == 0 and summary["messages_refused"] == 0
    manifest = json.loads((directory / results.MANIFEST).read_text())
    assert manifest["seed"] == summary["seed"] and manifest["versions"]["ray"] and manifest["scheduling"]


def test_a_run_on_one_kernel_has_one_clock_and_says_how_well_the_method_finds_that_out(finished):
    directory, summary = finished
    manifest = json.loads((directory / results.MANIFEST).read_text())
    (host,) = manifest["hosts"]
    assert host["agents"] == [0, 40] and host["cores"] >= 1
    assert manifest["clock_bound_ns"] == summary["clock_bound_ns"] == 0
    assert (host["clock"]["offset_ns"], host["clock"]["bound_ns"]) == (0, 0)
    assert host["clock"]["pings"] >= 2 * 128
    assert abs(host["clock"]["measured_offset_ns"]) <= host["clock"]["smallest_rtt_ns"]


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count waits for a core")
def test_a_run_says_how_long_its_agents_waited_for_a_core_and_what_ordered_its_stampede(finished):
    directory, summary = finished
    agents = aar_swarm.load(directory).agents.filter(pl.col("waits_known") == 1)
    starved, order = summary["starvation"], summary["stampede_order"]
    assert starved["agents"] == len(agents) and order["racers"] >= 20
    assert starved["agents_per_core"] == pytest.approx(40 / starved["cores"], abs=0.01)
    assert starved["runqueue_wait_ns_max"] == agents["stampede_waited_ns"].max()
    assert (agents["stampede_on_core_ns"] > 0).all()  # to decide and send takes some time on a core
    assert summary["stampede_ordered_by"] in ("scheduler", "network", "mixed", "neither")
    assert order["pairs_reversed_without"]["network"] == 0  # there are no links
    assert sum(order["share_of_variance"].values()) == pytest.approx(1, abs=1e-3)
    assert abs(order["median_ns"]["rest"]) < sum(order["median_ns"].values())  # the parts account for most of the way


def test_every_agent_was_a_process_with_a_connection_of_its_own(finished):
    agents = aar_swarm.load(finished[0]).agents
    assert agents["pid"].n_unique() == 40
    assert (agents["state"] == AgentState.FINISHED).all()
    assert (agents["ready_ns"] > 0).all() and (agents["signal_heard_ns"] > 0).all()
    assert agents["ready_ns"].n_unique() == 40  # clock readings of its own


def test_the_tables_agree_with_each_other(finished):
    run = aar_swarm.load(finished[0])
    assert len(run.events) == run.summary["events"]
    assert len(run.trades) == run.summary["trades"] == (run.events["kind"] == EventKind.ORDER_FILLED).sum()
    assert len(run.latency) == len(run.decisions)
    assert (run.latency["transit_ns"] >= 0).all() and (run.latency["venue_ns"] >= 0).all()
    sent = run.agents["orders_sent"].sum()
    assert len(run.decisions) == sent  # nothing was lost on the way
    exits = run.decisions.filter(pl.col("rule") == "EXIT")
    signal_sequence = run.events.filter(pl.col("kind") == EventKind.SIGNAL_PUBLISHED)["sequence"][0]
    assert len(exits) and (exits["sequence"] > signal_sequence).all()
    assert set(exits["participants"]) == {"crowd"}
    assert signal_sequence in set(exits["cause_sequence"])


def test_the_crowd_s_plans_are_their_own_and_their_sales_are_the_plan(finished):
    run = aar_swarm.load(finished[0])
    leaving = run.agents.filter(pl.col("planned_lots") > 0)
    assert len(leaving) and leaving["planned_cost"].n_unique() > 1
    assert run.summary["agents_exiting"] == len(leaving)


@pytest.mark.parametrize("environment", [{}, {"NUMBA_DISABLE_JIT": "1"}], ids=["jit", "no jit"])
def test_replay_gives_every_event_and_the_state_again(finished, environment):
    directory, summary = finished
    replayed = summary_of(aar("replay", directory, "--json", **environment))
    assert replayed["same"] is True
    assert replayed["state_hash"] == summary["state_hash"]
    assert replayed["events_digest"] == summary["events_digest"]


def test_replay_with_another_breaker_is_a_what_if(finished, aar_here):
    directory, summary = finished
    replayed = summary_of(
        aar(
            "replay",
            directory,
            "--json",
            "--set",
            "breaker.sell_volume_lots=20",
            "--set",
            "breaker.sell_window_ms=1000",
        )
    )
    assert replayed["same"] is None and replayed["halts"][0]["trigger"] == "SELL_VOLUME"
    assert replayed["trades"] < summary["trades"]
    done = aar_here("replay", directory, "--set", "makers.count=2")
    assert done.returncode == 2 and "a replay can change: breaker." in done.stderr


def test_a_cut_or_damaged_journal_is_refused_and_left_alone(finished, tmp_path, aar_here):
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    path = journal.segments(copy / "journal")[0]
    whole = path.read_bytes()
    for content, message in (
        (whole[:-50], "was never wholly written from record"),
        (whole[:-128], "cut off at a record's end"),
        (whole[:5000] + b"?" + whole[5001:], "is damaged while later ones are sound"),
    ):
        path.write_bytes(content)
        before = tree(copy)
        done = aar_here("replay", copy)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert tree(copy) == before
    path.write_bytes(whole[:-50])
    assert summary_of(aar_here("replay", copy, "--until", "100", "--json"))["commands"] == 100


def test_a_report_can_be_written_anew(finished, tmp_path, aar_here):
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    (copy / results.REPORT).unlink()
    assert aar_here("report", copy).returncode == 0
    assert "exit" in (copy / results.REPORT).read_text()


@pytest.mark.slow
def test_python_can_do_what_the_command_line_does(tmp_path):
    """A halted market refuses everything, and who was told knows."""
    run = aar_swarm.run(
        "exit-door",
        agents=60,
        seed=5,
        settings={**SMALL, "crowd.shares": "400", "breaker.sell_volume_lots": "300"},
        out=tmp_path / "run",
        alongside=True,
    )
    summary = run.summary
    assert summary["halted"] and summary["trip"]["trigger"] == "SELL_VOLUME"
    assert summary["trades_after_trip"] == 0
    assert summary["agents_notified"] == 60 and summary["trip_to_last_notified_ms"] > 0
    assert summary["trip"]["matched_ns"] >= summary["trip"]["received_ns"]
    after = run.events.filter(pl.col("sequence") > summary["trip"]["sequence"])
    ours = after.filter(pl.col("kind") <= EventKind.CANCEL_REJECTED)
    cancelled_at_close = ours.filter(pl.col("kind") == EventKind.ORDER_CANCELLED)
    assert set(ours["kind"]) <= {EventKind.ORDER_REJECTED, EventKind.CANCEL_REJECTED, EventKind.ORDER_CANCELLED}
    close = run.events.filter(pl.col("kind") == EventKind.SESSION_CLOSED)["sequence"][0]
    assert (cancelled_at_close["sequence"] == close).all()
    notices = [json.loads(line) for line in (run.directory / results.NOTICES).read_text().splitlines()]
    halt = next(notice for notice in notices if notice["notice"] == "INSTRUMENT_HALTED")
    assert halt["observed"] >= halt["threshold"] == 300 and halt["sequence"] == summary["trip"]["sequence"]
    assert halt["fix"]["MassActionReason"] == 11


def test_compare_runs_each_value_and_shows_them_side_by_side(tmp_path):
    arguments = small()[2:]
    done = aar(
        "compare", "exit-door", "--vary", "breaker=off,default", *arguments, "--out", tmp_path / "both", "--json"
    )
    both = summary_of(done)
    assert [run["breaker"] for run in both["runs"]] == ["off", "default"]
    page = Path(both["report"]).read_text()
    assert "breaker off" in page and "breaker default" in page


def running_run(directory: Path, *more: object):
    """A run in the middle of its session, and the pids of all its processes."""
    process = start_aar(*small(**{"duration_s": "60", "signal.at_s": "50"}), "--out", directory, *more)
    wait_until(lambda: (directory / results.MANIFEST).is_file(), "the session is open", 120)
    time.sleep(0.5)
    return process, pids_of_run(process.pid)


def pids_of_run(driver: int) -> dict[int, str]:
    """Every process that carries the run id of this driver's children."""
    marks, found = set(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        mark = next((entry for entry in environment if entry.startswith(b"AAR_RUN_ID=")), None)
        if mark:
            found[int(folder.name)] = (mark, name)
            if parent == driver:
                marks.add(mark)
    return {pid: name for pid, (mark, name) in found.items() if mark in marks}


def commands_of(pids: dict[int, str], *parts: str) -> list[int]:
    return [pid for pid, name in pids.items() if all(part in name for part in parts)]


@pytest.mark.parametrize(
    "how",
    [
        *("ctrl-c", "kill -9 of the driver", "kill -9 of the venue"),
        pytest.param("kill -9 of the host actor", marks=pytest.mark.slow),
    ],
)
def test_however_a_run_ends_its_processes_are_gone(tmp_path, how):
    process, pids = running_run(tmp_path / "run")
    try:
        agents = [p for p, name in pids.items() if "cluster.zygote" in name]
        assert len(agents) == 41  # forty agents, and the zygote whose command line they share
        assert len(pids) > 45  # and the venue, the actors and Ray
        if how == "ctrl-c":
            os.killpg(process.pid, signal.SIGINT)
        elif how == "kill -9 of the driver":
            os.kill(process.pid, signal.SIGKILL)
        elif how == "kill -9 of the venue":
            os.kill(commands_of(pids, "exchange.server")[0], signal.SIGKILL)
        else:
            os.kill(commands_of(pids, "AgentHost")[0], signal.SIGKILL)
        error = process.communicate(timeout=60)[1]
        wait_until(lambda: not any(map(is_alive, pids)), f"all of the run gone: {how}")
    finally:
        process.kill()
        process.communicate()
    last = error.splitlines()[-1] if error else ""
    if how == "ctrl-c":
        assert process.returncode == 130 and "interrupted" in last
    elif how != "kill -9 of the driver":
        assert process.returncode == 1, error
        assert last.startswith("aar: ") and ("venue" in last or "host actor" in last)
        assert "Traceback" not in error


@pytest.mark.slow
def test_a_killed_agent_is_counted_and_the_run_goes_on(tmp_path):
    process = start_aar(*small(duration_s="4"), "--out", tmp_path / "run", "--json")
    try:
        wait_until(lambda: (tmp_path / "run" / results.MANIFEST).is_file(), "the session is open", 120)
        agents = [pid for pid in pids_of_run(process.pid) if Path(f"/proc/{pid}/comm").read_text().startswith("agent-")]
        for pid in agents[:3]:
            os.kill(pid, signal.SIGKILL)
        output, error = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, error
    summary = json.loads(output)
    assert (summary["agent_processes_started"], summary["agent_processes_lost"]) == (40, 3)
    assert sorted(code for _, _, code in summary["agent_exits"]) == [-9, -9, -9]


@pytest.mark.slow
def test_agents_end_by_themselves_when_the_venue_falls_silent(tmp_path):
    """A stopped venue says nothing more: the lease runs out on every agent, as on a node that was cut off."""
    process, pids = running_run(tmp_path / "run")
    try:
        venue = commands_of(pids, "exchange.server")[0]
        agents = [p for p in pids if is_alive(p) and Path(f"/proc/{p}/comm").read_text().startswith("agent-")]
        os.kill(venue, signal.SIGSTOP)
        wait_until(lambda: not any(map(is_alive, agents)), "agents gone by their lease", 30)
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1 and "does not answer" in error.splitlines()[-1]
    wait_until(lambda: not any(map(is_alive, pids)), "all of the run gone")


@pytest.mark.slow
def test_two_runs_at_once_do_not_disturb_each_other(tmp_path):
    found = {}

    def go(name: str) -> None:
        found[name] = aar(*small(), "--out", tmp_path / name, "--json")

    threads = [threading.Thread(target=go, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for done in found.values():
        summary = summary_of(done)
        assert summary["agent_processes_started"] == 40 and summary["agent_processes_lost"] == 0


@pytest.mark.slow
def test_the_default_place_of_a_run_is_new_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = summary_of(aar(*small(duration_s="1.2", **{"signal.at_s": "1.0"}), "--json"))
    second = summary_of(aar(*small(duration_s="1.2", **{"signal.at_s": "1.0"}), "--json"))
    assert first["directory"] != second["directory"]
    assert {Path(run["directory"]).parent for run in (first, second)} == {tmp_path / "runs"}


def test_commands_of_the_operator_are_in_the_journal(finished):
    kinds = journal.read(finished[0] / "journal").commands["kind"].tolist()
    for kind in (CommandKind.OPEN_SESSION, CommandKind.PUBLISH_SIGNAL, CommandKind.CLOSE_SESSION):
        assert kinds.count(kind) == 1


OWN_STRATEGY = """
from aar_swarm.agents.base import SIGNAL, Plan, Rule, Strategy
from exchange.types import OrderType


class Dumper(Strategy):
    def on_event(self, event, now_ns):
        if event.kind == SIGNAL and self.shares and self.plan is None:
            self.plan = Plan(self.shares, expected_cost=0.0)
            return [self.sell(OrderType.MARKET, 0, self.shares, Rule.EXIT)]
        return ()
"""


def own_scenario(place: Path, strategy: str) -> Path:
    """exit-door with a crowd of the user's own, in a folder of the user's own."""
    text = (Path(aar_swarm.__file__).parent / "scenarios" / "exit-door.toml").read_text()
    path = place / "mine.toml"
    path.write_text(text.replace("aar_swarm.agents.holder:Holder", strategy))
    return path


def test_a_user_s_own_strategy_beside_a_scenario_of_their_own(tmp_path):
    (tmp_path / "dumping.py").write_text(OWN_STRATEGY)
    arguments = small()
    arguments[1] = own_scenario(tmp_path, "dumping:Dumper")
    summary = summary_of(aar(*arguments, "--out", tmp_path / "run", "--json"))
    assert summary["scenario"] == "mine" and summary["agents_exiting"] == 26
    assert summary["planned_lots"] == 26 * 60 and summary["sold_lots"] > 0
    assert summary["exit_cost"] is not None and summary["aar_ratio"] is None  # it says nothing of a horizon


def test_everything_that_money_can_do_in_one_run_of_a_user_s_own_strategies(tmp_path):
    """Margin accounts, loans, races of liquidators, redemptions: and every agent's books are the venue's."""
    scenario = Path(__file__).parent / "money" / "everything.toml"
    done = aar("run", scenario, "--breaker", "off", "--alongside", "--out", tmp_path / "run", "--json")
    summary = summary_of(done)
    assert summary["agent_processes_lost"] == 0 and summary["agents_requested"] == 40
    run = aar_swarm.load(tmp_path / "run")
    count = Counter(run.events["kind"].to_list())
    assert (count[EventKind.MARGIN_SET], count[EventKind.CASH_WITHDRAWN]) == (18, 12)  # a third at leverage 1
    assert count[EventKind.INDEX_PUBLISHED] == 3  # both at the opening, one at the signal
    assert count[EventKind.LIQUIDATION_STARTED] == count[EventKind.LIQUIDATION_ENDED] == 12
    assert count[EventKind.COLLATERAL_DEPOSITED] == count[EventKind.BORROWED] == count[EventKind.LOAN_LIQUIDATED] == 9
    assert count[EventKind.REDEEMED] == count[EventKind.MINTED] == 3  # the reserves are for three
    requests = run.decisions.filter(pl.col("kind") >= CommandKind.DEPOSIT_COLLATERAL)
    assert (requests["cause_sequence"] > 0).all() and (requests["rule"] > 0).all()
    attempts = requests.filter(pl.col("kind") == CommandKind.LIQUIDATE)
    assert len(attempts) == 27 and count[EventKind.REQUEST_REJECTED] >= 18  # three race for each, two are late
    recorded = journal.read(tmp_path / "run" / "journal")
    state = replay(*recorded).engine.state
    agents = run.agents.sort("agent_id")
    assert agents["cash"].to_list() == state.accounts["cash"][:40].tolist()
    assert agents["shares"].to_list() == state.positions["quantity_lots"][:40, 0].tolist()
    assert summary_of(aar("replay", tmp_path / "run", "--json"))["same"] is True


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Dumper(:", "invalid syntax"),
        ("raise RuntimeError('no market today')", "no market today"),
        (OWN_STRATEGY.replace("self.sell(", "self.sel("), "has no attribute 'sel'"),
    ],
    ids=["syntax", "import", "rehearsal"],
)
def test_a_strategy_that_does_not_work_is_told_in_one_line(tmp_path, source, message):
    name = f"broken_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    arguments = small()
    arguments[1] = own_scenario(tmp_path, f"{name}:Dumper")
    done = aar(*arguments, "--out", tmp_path / "run")
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("aar: ") and message in done.stderr.splitlines()[-1]


def test_a_run_whose_replay_differs_fails(finished):
    run = aar_swarm.load(finished[0])
    said = {"state_hash": "0" * 32, "events_digest": run.summary["events_digest"]}
    with pytest.raises(ReplayDiffers, match="state hash"):
        write_up(run.directory, load_scenario("exit-door"), [], {}, {"final": said}, None)


@pytest.mark.slow
def test_ctrl_c_again_and_again_still_leaves_nothing(tmp_path):
    process, pids = running_run(tmp_path / "run")
    try:
        for _ in range(5):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.15)
        error = process.communicate(timeout=60)[1]
        wait_until(lambda: not any(map(is_alive, pids)), "all of the run gone")
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130 and "interrupted" in error.splitlines()[-1]


@pytest.mark.slow
def test_a_stopped_host_ends_the_run_with_a_word(tmp_path):
    process, pids = running_run(tmp_path / "run")
    try:
        os.kill(commands_of(pids, "AgentHost")[0], signal.SIGSTOP)
        error = process.communicate(timeout=120)[1]
        wait_until(lambda: not any(map(is_alive, pids)), "all of the run gone")
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1 and "has not answered" in error.splitlines()[-1]


@pytest.mark.parametrize("command", ["replay", "report"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe"], ids=repr)
def test_damaged_figures_of_a_run_are_named(finished, tmp_path, content, command, monkeypatch, capfd):
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    (copy / results.SUMMARY).write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["aar", command, str(copy)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = capfd.readouterr().err
    assert ended.value.code == 2 and results.SUMMARY in error and error.count("\n") == 1, error


@pytest.mark.slow
def test_extreme_but_allowed_settings_run(tmp_path):
    for number, changes in enumerate(({"crowd.shares": "0"}, {"crowd.horizon_s": "0.001"}, {"makers.count": "0"})):
        done = aar(
            *small(duration_s="1.5", **{"signal.at_s": "0.5", **changes}), "--out", tmp_path / str(number), "--json"
        )
        assert summary_of(done)["agent_processes_lost"] == 0
