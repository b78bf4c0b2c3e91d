"""The benchmarks run, small: what they print is there and is what they claim to count."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.runs import SMALL

pytestmark = pytest.mark.usefixtures("nothing_left")
SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def script(name: str, *arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, SCRIPTS / name, *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_bench_trip_counts_trades_after_the_trip_and_who_was_told():
    settings = {**SMALL, "crowd.shares": "400", "breaker.sell_volume_lots": "300"}
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    found = script("bench_trip.py", "--runs", 1, "--agents", 60, *arguments)
    assert found["tripped"] == 1 and found["trades_after_trip"] == 0
    assert found["trip_to_last_notified_ms_max"] > 0 and found["conditions"]["agents"] == 60


@pytest.mark.slow
def test_bench_kill_finds_nothing_alive_in_the_end():
    found = script("bench_kill.py", "--agents", 50)
    assert found["processes_before"] > 50 and found["processes_left"] == 0


def test_fuzz_compares_the_engine_with_the_oracle():
    done = subprocess.run(
        [sys.executable, SCRIPTS / "fuzz.py", "--commands", "4000", "--seed", "5"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0 and "4000 commands" in done.stdout and "equal" in done.stdout, done.stdout


@pytest.mark.slow
def test_bench_rehearsal_prints_both_times():
    found = script("bench_rehearsal.py", "--agents", 3)
    assert found["first_us"] > 0 and found["second_us"] > 0


@pytest.mark.slow
def test_bench_engine_says_what_each_layer_adds_and_that_the_fills_are_the_books():
    found = script("bench_engine.py", "--operations", 20_000, "--repeats", 1)
    assert found["operations"] == 20_000 and found["trades"] > 500 and len(found["fill_hash"]) == 16
    assert all(found[f"{layer}_ns_per_op"] > 0 for layer in ("book", "engine_bare", "engine_with_limits", "engine"))


def test_bench_engine_finds_the_fills_of_the_shared_workload(data):
    """Its generator and the hash of its fills are the shared prototypes'; a tenth of it has a hash of its own."""
    generator = data.parent / "prototypes" / "gen_workload.py"
    if not generator.exists():
        pytest.skip(f"{generator} is not there")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "workload.bin"
        subprocess.run(
            [sys.executable, generator, "--n", "200000", "--out", path], check=True, capture_output=True, timeout=120
        )
        found = script("bench_engine.py", "--workload", path, "--repeats", 1)
        expected = json.loads(path.with_suffix(".json").read_text())
    assert found["fill_hash"] == found["fill_hash_expected"] == expected["trade_hash"]
    assert found["trades"] == expected["trades"]


@pytest.mark.slow
def test_bench_venue_compares_with_both_echoes_and_measures_under_load():
    found = script("bench_venue.py", "--commands", 20_000, "--rounds", 1, "--loads", "0.5")
    assert all(found[f"{name}_per_s"] > 0 for name in ("venue_orders", "libzmq_echo", "pyzmq_echo"))
    load = found["loads"]["50%"]
    for name in ("received", "due"):
        values = [load[f"{name}_to_acknowledged_ns_{at}"] for at in ("p50", "p99", "p999", "max")]
        assert values[0] > 0 and values == sorted(values)


@pytest.mark.slow
def test_bench_breaker_counts_every_trip():
    found = script("bench_breaker.py", "--trips", 20, "--load", 50_000, "--operations", 20_000)
    assert found["trips"] == 20 and found["under_load"]["trips"] == 5
    assert 0 < found["trip_to_notice_ns_p50"] <= found["trip_to_notice_ns_p99"] <= found["trip_to_notice_ns_max"]


@pytest.mark.slow
def test_bench_recovery_replays_everything_and_trades_again():
    found = script("bench_recovery.py", "--commands", 20_000, "--repeats", 1)
    assert found["recover_s"] > 0 and 0 < found["ready_s"] <= found["first_acknowledgement_s"]


def test_bench_races_finds_races_among_its_messages():
    found = script("bench_races.py", "--commands", 20_000, "--repeats", 1)
    assert 0 < found["races"] < found["messages"] <= found["commands"] == 20_000
    assert min(found["read_s"], found["detect_s"], found["detect_with_variants_s"], found["displayed_s"]) > 0
