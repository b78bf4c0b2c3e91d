"""The benchmarks run, small: what they print is there and is what they claim to count."""

import json
import os
import subprocess
import sys
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


def test_bench_trip_counts_trades_after_the_trip_and_who_was_told():
    settings = {**SMALL, "crowd.shares": "400", "breaker.sell_volume_lots": "300"}
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    found = script("bench_trip.py", "--runs", 1, "--agents", 60, *arguments)
    assert found["tripped"] == 1 and found["trades_after_trip"] == 0
    assert found["trip_to_last_notified_ms_max"] > 0 and found["conditions"]["agents"] == 60


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


def test_bench_rehearsal_prints_both_times():
    found = script("bench_rehearsal.py", "--agents", 3)
    assert found["first_us"] > 0 and found["second_us"] > 0
