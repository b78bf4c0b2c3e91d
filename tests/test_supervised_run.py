"""Whole small runs with a supervisor beside the venue: it halts or only tells, and its death harms nobody."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from aar_swarm.analysis.supervision import supervision
from aar_swarm.results import load
from aar_swarm.scenario import load_scenario
from exchange import journal
from exchange.errors import ConfigurationError
from exchange.types import CommandKind, EventKind, Trigger
from tests.hand_made import command, play
from tests.processes import wait_until
from tests.runs import aar, small, start_aar, summary_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]
WATCHING = {
    "supervisor.watching": "true",
    "supervisor.imbalance_bps": "8000",
    "supervisor.imbalance_lots": "100",
    "supervisor.herd_accounts": "5",
}


def alerts_of(directory: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in (directory / "alerts.jsonl").read_text().splitlines()]


def halts_of(directory: Path) -> pl.DataFrame:
    events = load(directory).events
    return events.filter(pl.col("kind") == int(EventKind.INSTRUMENT_HALTED))


def test_an_authorised_supervisor_ends_a_stampede_and_says_why(tmp_path):
    out = tmp_path / "run"
    settings = {**WATCHING, "supervisor.authorised": "true"}
    summary = summary_of(aar(*small(60, **settings), "--breaker", "off", "--out", out, "--json"))
    found = summary["supervisor"]
    halts = halts_of(out)
    assert halts["reason"].to_list() == [Trigger.SUPERVISOR]
    named = {alert["sequence"]: alert for alert in alerts_of(out)}
    evidence = named[halts["maker_order_id"][0]]
    assert found["halts"][0] == {**found["halts"][0], "evidence": evidence["sequence"], "refused": None}
    assert found["halt_ms"] >= found["first_alert_ms"] > 0
    assert found["state_hash_equal"] and found["error"] is None and found["gaps"] == 0
    assert found["commands"] == len(journal.read(out / "journal").commands)
    assert found["lag_ns_p50"] <= found["lag_ns_p99"] <= found["lag_ns_max"]
    assert summary["trip"]["trigger"] == "SUPERVISOR" and summary["trades_after_trip"] == 0
    assert "SUPERVISOR" in (out / "report.html").read_text()


def test_one_without_authority_halts_nothing(tmp_path):
    out = tmp_path / "run"
    found = summary_of(aar(*small(60, **WATCHING), "--breaker", "off", "--out", out, "--json"))["supervisor"]
    assert found["alerts"] == len(alerts_of(out)) > 0 and found["halt_ms"] is None and found["halts"] == []
    assert halts_of(out).is_empty() and found["state_hash_equal"]


def test_a_supervisor_that_is_killed_harms_nobody(tmp_path):
    out = tmp_path / "run"
    arguments = small(40, **WATCHING, **{"duration_s": "4", "signal.at_s": "3"})
    running = start_aar(*arguments, "--breaker", "off", "--out", out, "--json")
    try:
        wait_until(lambda: bool(_supervisors(out)), "a supervisor", 120)
        wait_until(lambda: (out / "manifest.json").exists(), "everyone is there", 120)
        (pid,) = _supervisors(out)
        os.kill(pid, signal.SIGKILL)
        said, errors = running.communicate(timeout=120)
        assert running.returncode == 0, errors
        summary = json.loads(said)
        assert summary["supervisor"]["error"] == "its process ended (exit status -9)"
        assert summary["supervisor"]["state_hash_equal"] is None and summary["supervisor"]["lag_ns_p50"] is None
        assert summary["agent_processes_lost"] == 0
    finally:
        if running.poll() is None:
            running.terminate()
            running.communicate(timeout=60)


def _supervisors(out: Path) -> list[int]:
    """Those that have the run's alerts open."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_one = entry.name.isdigit() and b"exchange.supervisor" in (entry / "cmdline").read_bytes()
            if is_one and str(out / "alerts.jsonl") in {os.readlink(file) for file in (entry / "fd").iterdir()}:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_run_without_one_says_so(tmp_path):
    out = tmp_path / "run"
    assert summary_of(aar(*small(20), "--out", out, "--json"))["supervisor"] is None
    assert not (out / "alerts.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"supervisor.instrument": 1}, "supervisor.instrument is 1"),
        (
            {f"supervisor.{name}_bps": 0 for name in ("imbalance", "depth", "pressure", "herding", "similarity")},
            "alarm",
        ),
        ({"supervisor.reaction_ms": -1}, "supervisor.reaction_ms"),
        ({"supervisor.speed": 1}, "unknown setting 'supervisor.speed'"),
    ],
)
def test_a_table_that_cannot_be_is_refused_in_one_line(settings, named):
    with pytest.raises(ConfigurationError, match=named):
        load_scenario("exit-door", settings=settings)


def test_measures_of_alerts_by_hand():
    """Alerts at 100 and 120 ms; the signal at 110; the breaker trips at 150, a supervisor halts at 160."""
    scenario = load_scenario("exit-door", "off")
    session = play(
        scenario.engine_config(2),
        [
            command(CommandKind.OPEN_SESSION, 1),
            command(CommandKind.PUBLISH_SIGNAL, 110, quantity_lots=-50),
            command(CommandKind.HALT, 160, account=-1, quantity_lots=2),
        ],
        ["crowd", "makers"],
    )[0]
    tripped = session.events[session.events["kind"] == EventKind.INSTRUMENT_HALTED].copy()
    tripped["reason"], tripped["time_ns"] = Trigger.PRICE_MOVE, 150_000_000
    session.events = np.concatenate([session.events, tripped])
    told = "".join(
        json.dumps({"sequence": 2, "indicator": name, "received_ns": at, "computed_ns": at + 500_000}) + "\n"
        for name, at in (("IMBALANCE", 100_000_000), ("PRESSURE", 120_000_000))
    )
    found = supervision(session, {"told": told, "state_hash": "a", "commands": 3}, "a")
    assert found is not None
    assert (found["alerts"], found["alerts_before_signal"], found["state_hash_equal"]) == (2, 1, True)
    assert (found["first_alert_ms"], found["first_alert_indicator"]) == (10.5, "PRESSURE")
    assert (found["halt_ms"], found["lead_ms"], found["liquidation_lead_ms"]) == (50.0, 29.5, None)
    assert supervision(session, {}, "a") is None
    dead = supervision(session, {"told": "", "error": "gone"}, "a")
    assert dead is not None and (dead["error"], dead["alerts"], dead["state_hash_equal"]) == ("gone", 0, None)
