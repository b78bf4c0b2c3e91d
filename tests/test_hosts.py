"""Runs across three hosts with a real Ray cluster: that they work, and what is lost when a part of them fails."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import aar_swarm
from aar_swarm import results
from cluster import code
from exchange import journal, recovery
from exchange.types import CommandKind
from tests.hosts import Hosts, some_hosts, wait_for_line, wait_until_none
from tests.processes import wait_until
from tests.runs import SMALL, aar, summary_of
from tests.test_run import own_scenario

pytestmark = pytest.mark.slow

AGENTS = 60
LONG_S = 10


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with some_hosts(3) as three:
        yield three


def arguments(directory: Path, scenario: object = "exit-door", duration_s: float = LONG_S) -> list[object]:
    settings = SMALL | {"duration_s": str(duration_s), "signal.at_s": "1.0"}
    words: list[object] = ["run", scenario, "--alongside", "--agents", AGENTS, "--breaker", "off"]
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    return [*words, "--address", "auto", "--out", directory, "--json"]


def finished(process) -> tuple[int, str, str]:
    try:
        output, error = process.communicate(timeout=180)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output, error


def told(what: str, **figures: object) -> None:
    print(f"\nmeasured: {what}: {json.dumps(figures)}")


def everywhere(hosts: Hosts) -> list[int]:
    return [len(hosts.agents(number)) for number in range(3)]


def test_agents_live_on_all_hosts_though_only_the_first_has_our_code(hosts, tmp_path):
    for folder in code.PACKAGES:  # what a worker has of ours before a run
        listed = hosts.call("exec", 1, "ls", code.ROOT / folder).stdout
        assert listed == ""
    status, output, error = finished(hosts.aar(*arguments(tmp_path / "run", duration_s=2.5)))
    assert status == 0, error
    summary = json.loads(output)
    assert summary["hosts"] == 3 and summary["hosts_lost"] == [] and summary["agent_processes_lost"] == 0
    run = aar_swarm.load(tmp_path / "run")
    assert {host["host_name"] for host in run.manifest["hosts"]} == {f"{hosts.prefix}-{n}" for n in range(3)}
    assert len(run.agents) == AGENTS and (run.agents["signal_heard_ns"] > 0).all()
    assert summary_of(aar("replay", run.directory, "--json"))["same"]
    assert (run.directory / results.LOG).read_text().startswith("== printed on ")
    assert everywhere(hosts) == [0, 0, 0]


def test_a_host_actor_that_is_killed_takes_its_agents_with_it_and_nothing_else(hosts, tmp_path):
    process = hosts.aar(*arguments(tmp_path / "run"))
    wait_for_line(process, "the session is open")
    before = everywhere(hosts)
    assert sum(before) == AGENTS and all(before)
    [actor] = hosts.pids(1, "_HostActor")
    killed_s = time.monotonic()
    os.kill(actor, signal.SIGKILL)
    wait_until_none(hosts, (1,), "agent-", 30)
    gone_s = time.monotonic() - killed_s
    status, output, error = finished(process)
    assert status == 0, error
    check_lost(tmp_path / "run", json.loads(output), "10.77.0.11", before[1], "died")
    told("host actor killed", agents=before, agents_gone_s=round(gone_s, 2), **figures(output))


def test_agents_on_a_host_that_was_cut_off_end_by_their_lease(hosts, tmp_path):
    process = hosts.aar(*arguments(tmp_path / "run"))
    wait_for_line(process, "the session is open")
    before = everywhere(hosts)
    hosts.call("cut", 2)
    cut_s = time.monotonic()
    try:
        wait_until_none(hosts, (2,), "agent-", 60)
        gone_s = time.monotonic() - cut_s
        status, output, error = finished(process)
    finally:
        hosts.call("join", 2)
    assert status == 0, error
    check_lost(tmp_path / "run", json.loads(output), "10.77.0.12", before[2], "has not answered")
    told("host cut off", agents=before, agents_gone_s=round(gone_s, 2), **figures(output))
    wait_until_none(hosts, (0, 1, 2), "_HostActor", 120)


def figures(output: str) -> dict[str, object]:
    summary = json.loads(output)
    return {key: summary[key] for key in ("session_s", "agent_processes_lost", "hosts_lost")}


def check_lost(directory: Path, summary: dict, address: str, agents: int, why: str) -> None:
    """This host is lost with all its agents, of which nothing else is said; and what the venue decided stands."""
    assert summary["agent_processes_started"] == AGENTS and summary["agent_processes_lost"] == agents
    [lost] = summary["hosts_lost"]
    assert lost["address"] == address and lost["agents"] == agents and why in lost["why"]
    run = aar_swarm.load(directory)
    unknown = run.agents.filter(pl.col("pid").is_null())
    assert len(unknown) == agents and len(run.agents) == AGENTS
    assert unknown["shares"].is_null().all() and unknown["participants"].is_not_null().all()
    assert summary_of(aar("replay", directory, "--json"))["same"]
    assert summary["session_s"] < LONG_S + 5  # it did not wait for who is gone


REPORTING = """
import os
from aar_swarm.agents.market_maker import MarketMaker
from exchange.wire import Report


class Reporting(MarketMaker):
    def on_event(self, event, now_ns):
        if isinstance(event, Report) and event.sequence:
            os.write(1, f"acknowledged {event.sequence} {event.order_id}\\n".encode())
        return super().on_event(event, now_ns)
"""


def test_what_a_killed_venue_had_acknowledged_stands(hosts, tmp_path):
    """The run ends with a clear word. Its journal has every command of which an agent heard, and a venue goes on from
    it. The strategy is a user's own, so it was shipped to the hosts too."""
    (tmp_path / "reporting.py").write_text(REPORTING)
    scenario = own_scenario(tmp_path, "aar_swarm.agents.holder:Holder")
    scenario.write_text(
        scenario.read_text().replace("aar_swarm.agents.market_maker:MarketMaker", "reporting:Reporting")
    )
    process = hosts.aar(*arguments(tmp_path / "run", scenario, 30), path=tmp_path)
    wait_for_line(process, "the session is open")
    time.sleep(2)
    [venue] = hosts.pids(0, "exchange.server")
    os.kill(venue, signal.SIGKILL)
    killed_s = time.monotonic()
    status, _, error = finished(process)
    ended_s = time.monotonic() - killed_s
    wait_until_none(hosts, (0, 1, 2), "agent-", 30)
    told("venue killed", run_ended_s=round(ended_s, 2), agents_gone_s=round(time.monotonic() - killed_s, 2))
    last = error.splitlines()[-1]
    assert status == 1 and "the venue process ended (exit status -9)" in last and "Traceback" not in error
    assert str(tmp_path / "run" / "journal") in last
    found = re.findall(r"^acknowledged (\d+) (\d+)$", (tmp_path / "run" / results.LOG).read_text(), re.MULTILINE)
    heard = {int(sequence) for sequence, _ in found}
    assert len(heard) > 100
    header = journal.read_header(journal.segments(tmp_path / "run" / "journal")[0])
    recovered = recovery.recover(tmp_path / "run" / "journal", header.config)  # as a venue's start
    assert max(heard) < recovered.next_sequence
    recorded = journal.read(tmp_path / "run" / "journal")
    assert heard <= set(recorded.commands["sequence"].tolist())
    placed = recorded.commands[recorded.commands["kind"] == CommandKind.PLACE_ORDER]
    by_sequence = dict(zip(placed["sequence"].tolist(), placed["order_id"].tolist(), strict=True))
    own = [(int(s), int(o)) for s, o in found if int(o) == by_sequence.get(int(s))]
    assert len(own) > 50
    told("venue killed", acknowledged=len(heard), journaled=len(recorded.commands))


def test_a_killed_driver_leaves_nothing_on_any_host(hosts, tmp_path):
    process = hosts.aar(*arguments(tmp_path / "run", duration_s=60))
    wait_for_line(process, "the session is open")
    before = everywhere(hosts)
    [driver] = [
        pid for pid in hosts.pids(0, "aar_swarm.cli") if "nsenter" not in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(driver, signal.SIGKILL)
    killed_s = time.monotonic()
    try:
        gone_s = []
        for number in range(3):
            wait_until_none(hosts, (number,), "agent-", 60)
            gone_s.append(round(time.monotonic() - killed_s, 2))
        for part in ("exchange.server", "cluster.zygote", "cluster.kill_switch", "_HostActor", "_VenueActor"):
            wait_until_none(hosts, (0, 1, 2), part, 60)
    finally:
        finished(process)
    told("driver killed", agents=before, agents_gone_s=gone_s, all_gone_s=round(time.monotonic() - killed_s, 2))


def test_a_host_without_power_takes_its_agents_with_it_and_nothing_else(hosts, tmp_path):
    """Last, as the host does not come back."""
    process = hosts.aar(*arguments(tmp_path / "run"))
    wait_for_line(process, "the session is open")
    before = everywhere(hosts)
    hosts.call("kill-node", 1)
    wait_until(lambda: not hosts.pids(1, ""), "nothing runs there", 30)
    status, output, error = finished(process)
    assert status == 0, error
    check_lost(tmp_path / "run", json.loads(output), "10.77.0.11", before[1], "10.77.0.11")
    told("host without power", agents=before, **figures(output))


def test_a_run_after_it_leaves_the_dead_host_out(hosts, tmp_path):
    status, output, error = finished(hosts.aar(*arguments(tmp_path / "run", duration_s=2.5)))
    assert status == 0, error
    assert json.loads(output)["hosts"] == 2 and json.loads(output)["agent_processes_lost"] == 0
