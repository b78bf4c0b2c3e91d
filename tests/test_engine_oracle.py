"""The engine against the oracle, over random sessions: every event, field by field, then the state, then invariants.

What is compared and how a difference is printed is in `tests.comparison`; `scripts/fuzz.py` does the same for longer.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from exchange.engine import Engine
from exchange.types import COMMAND, EventKind, Phase, Reason, Trigger
from tests.comparison import Report, apply_in_batches, compare, session_of
from tests.oracle import Oracle
from tests.scenario_parts import Scenario
from tests.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent
SEEDS = range(120)
MONEY_SEEDS = range(80)
COMMANDS = 600

compare_once = cache(compare)
"""The coverage test asks about the sessions that were just compared; they need not run again."""


@pytest.mark.parametrize("seed", SEEDS)
def test_engine_gives_the_events_and_the_state_of_the_oracle(seed: int) -> None:
    report = compare_once(seed, COMMANDS)
    assert not report.difference, "\n" + report.difference


@pytest.mark.parametrize("seed", MONEY_SEEDS)
def test_engine_gives_the_events_and_the_state_of_the_oracle_when_money_can_run_out(seed: int) -> None:
    report = compare_once(seed, COMMANDS, money=True)
    assert not report.difference, "\n" + report.difference


def test_sessions_contain_all_that_can_happen() -> None:
    reports: list[Report] = [compare_once(seed, COMMANDS) for seed in SEEDS]
    reports += [compare_once(seed, COMMANDS, money=True) for seed in MONEY_SEEDS]
    kinds = {kind for report in reports for kind in report.kinds}
    reasons = {reason for report in reports for reason in report.reasons}
    triggers = {trigger for report in reports for trigger in report.triggers}
    phases = {phase for report in reports for phase in report.phases}
    # The venue gives these; what it gives them for never becomes a command.
    gateway = {reason for reason in Reason if Reason.NOT_LOGGED_ON < reason < Reason.UNDECLARED}
    assert reasons == set(Reason) - gateway
    assert kinds == set(EventKind)
    assert triggers == set(Trigger)
    assert phases == set(Phase) - {Phase.PRE_OPEN}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_engine_gives_the_events_worked_out_by_hand(scenario: Scenario) -> None:
    commands = scenario.all_commands()
    records = np.array([tuple(command) for command in commands], COMMAND)
    engine = Engine(scenario.exchange)
    events = [event for event in apply_in_batches(engine, records) if event[0] >= 10]
    assert events == list(scenario.expected)
    oracle = Oracle(scenario.exchange)
    for command in commands:
        oracle.apply(command)
    assert engine.state_hash() == oracle.state_hash()
    for number in range(len(oracle.instruments)):
        assert list(map(tuple, engine.resting(number).tolist())) == oracle.resting_rows(number)


@pytest.mark.parametrize("money", [False, True], ids=["plain", "money"])
@pytest.mark.parametrize("seed", range(12))
def test_batches_of_any_size_give_the_same_events_and_state(seed: int, money: bool) -> None:
    commands, _, oracle = session_of(seed, COMMANDS, money)
    config = oracle.config
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    sizes = {"at once": [], "one by one": [1] * COMMANDS, "at random": rng.integers(0, 40, size=20).tolist()}
    results = {}
    for name, each in sizes.items():
        engine = Engine(config)
        results[name] = (apply_in_batches(engine, commands, each), engine.state_hash())
    assert results["one by one"] == results["at once"], f"seed {seed}"
    assert results["at random"] == results["at once"], f"seed {seed}, sizes {sizes['at random']}"


def test_engine_agrees_without_the_compiler() -> None:
    _fuzz_in_a_process(commands=3_000, NUMBA_DISABLE_JIT="1")
    _fuzz_in_a_process("--money", commands=6_000, NUMBA_DISABLE_JIT="1")


@pytest.mark.slow
@pytest.mark.timeout(600)  # what is compiled with checks takes minutes on a busy machine
def test_engine_stays_within_its_arrays(tmp_path: Path) -> None:
    # What is compiled with checks must not be found by those who want none.
    _fuzz_in_a_process(commands=20_000, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path))
    _fuzz_in_a_process("--money", commands=20_000, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path))


def _fuzz_in_a_process(*options: str, commands: int, **environment: str) -> None:
    command = [sys.executable, "scripts/fuzz.py", "--commands", str(commands), "--run", "600", "--seed", "1000"]
    command += options
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f"{environment}\n{done.stdout}\n{done.stderr}"
