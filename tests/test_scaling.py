"""The study of scale: exponents, sizes, the page and the file."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from aar_swarm.analysis.scaling import FIGURES, Size, by_size, exponent, value
from aar_swarm.results import Run
from aar_swarm.sweeps import records, table
from aar_swarm.sweeps import scaling as study
from aar_swarm.sweeps.experiment import Experiment, plan
from aar_swarm.sweeps.performing import Sweep
from tests.runs import is_one_line


def row(agents: int, seed: int = 1, **changes: Any) -> dict[str, Any]:
    made = {
        "status": "done", "agents": agents, "seed": seed, "agents_start_s": 0.004 * agents * (1 + 0.02 * seed),
        "orders_per_s_peak": 900.0 * agents**0.5, "orders_per_s": 10.0 * agents, "stampede_first_ms": 2.0,
        "stampede_last_ms": 2.0 + 0.1 * agents, "stampede_p5_ms": 3.0, "stampede_p95_ms": 3.0 + 0.05 * agents,
        "transit_ns_p50": 900_000, "transit_ns_p99": 10_000 * agents, "venue_ns_p99": 200_000, "agent_memory_kb": 4_000,
        "cores_busy": 1.1, "agent_processes_lost": 0,
    }  # fmt: skip
    return made | changes


def test_an_exponent_is_the_slope_of_the_logarithms_with_its_interval():
    points = [(100, 2.0), (300, 6.0), (1000, 20.0)]
    found = exponent(points)
    assert found is not None and found.n == 3
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1), abs=1e-6)
    # By hand: x = 0, 1, 2 and y = 0, 1, 3 (of e): slope 3/2, residuals 1/6, −1/3, 1/6; s² = 1/6, over Σ(x − x̄)² = 2:
    # s.e. √(1/12); t(0.975; 1) = 12.7062.
    found = exponent([(1, 1), (math.e, math.e), (math.e**2, math.e**3)])
    assert found is not None
    half = 12.7062 * math.sqrt(1 / 12)
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.5 - half, 1.5 + half), abs=1e-3)


@pytest.mark.parametrize("points", [[], [(100, 1), (200, 2)], [(100, 1)] * 5, [(100, 0), (200, 0), (300, 0)]])
def test_no_exponent_of_too_little(points):
    assert exponent(points) is None


def test_runs_are_told_apart_by_size_and_failed_ones_are_left_out():
    rows = [
        row(300),
        row(100),
        row(100, 2),
        row(100, hosts=3),
        row(300, agents_per_process=50),
        row(50, status="failed"),
    ]
    found = by_size(rows)
    assert [(*size, len(runs)) for size, runs in found.runs.items()] == [
        *((100, 1, 1, 2), (300, 1, 1, 1), (300, 1, 50, 1), (100, 3, 1, 1)),
    ]
    assert found.lines == [(1, 1), (1, 50), (3, 1)]
    spread = next(figure for figure in FIGURES if figure.key == "stampede_spread_ms")
    assert [x for x, _ in found.points(spread, (1, 1))] == [100, 100, 300]
    assert value(found.runs[Size(300, 1, 1)][0], spread) == pytest.approx(30)
    assert value({"stampede_first_ms": None}, spread) is None


def made_up(directory: Path) -> Sweep:
    """A study's sweep as if it had been made: three sizes, two repeats, one failure."""
    planned = plan(Experiment(scenario="exit-door", breaker="off", grid={"agents": [100, 300, 1000]}, repeats=2))
    kept, rows = {}, []
    for trial in planned:
        failed = trial.seed == 2 and trial.arguments["agents"] == 1000
        record = {
            "trial": trial.name,
            "status": "failed" if failed else "done",
            "reason": "no room" if failed else None,
        }
        record |= {**trial.key, "seconds": 9.0, "host": "here", "cores": [0, 1]}
        files = {}
        if not failed:
            manifest = {"seed": trial.seed, "scenario": {"duration_s": 3}, "cores": 2, "scheduling": "SCHED_FIFO 10"}
            files = {"manifest.json": json.dumps(manifest | {"versions": {"ray": "2"}}).encode()}
        (directory / records.TRIALS).mkdir(parents=True, exist_ok=True)
        kept[trial.name] = records.keep(directory, trial.name, record, files)
        rows.append(table.row(kept[trial.name], None if failed else row(trial.arguments["agents"], trial.seed)))
    return Sweep(directory, planned, kept, rows)


def test_the_studys_file_and_page_say_what_was_measured(tmp_path):
    found = study.write("exit-door", made_up(tmp_path))
    said = json.loads((tmp_path / study.JSON).read_text())
    assert said == json.loads(json.dumps(found.found))
    assert [(size["agents"], size["runs"]) for size in said["sizes"]] == [(100, 2), (300, 2), (1000, 1)]
    assert said["sizes"][0]["agents_start_s"] == pytest.approx([0.408, 0.416])
    assert said["exponents"][0]["agents_start_s"]["value"] == pytest.approx(1, abs=0.02)
    assert said["exponents"][0]["agent_processes_lost"] is None and said["failed"] == 1
    page = found.page.read_text()
    assert "1,000 agents, 1 host" in page and "no room" in page and "SCHED_FIFO 10" in page


def test_the_sweep_is_asked_for_the_sizes(monkeypatch, tmp_path):
    asked: list[Experiment] = []

    def pretend(experiment: Experiment, directory: Path, *_: object, **__: object) -> Sweep:
        asked.append(experiment)
        return made_up(tmp_path)

    monkeypatch.setattr(study, "sweep", pretend)
    study.measure_scaling(agents=[100, 300], hosts=[1, 3], agents_per_process=[1, 50], repeats=2, out=tmp_path)
    study.measure_scaling(agents=[100], out=tmp_path)
    assert len(plan(asked[0])) == 16 and asked[0].breaker == "off"
    assert [trial.arguments for trial in plan(asked[1])] == [{"scenario": "exit-door", "agents": 100, "breaker": "off"}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--agents", "1,x"], "--agents 1,x"),
        (["--agents", "5,5"], "--agents 5,5"),
        (["--hosts", "2"], "--address"),
        (["--agents-per-process", "0"], "--agents-per-process 0"),
        (["nothing"], "nothing"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(aar_here, tmp_path, arguments, said):
    done = aar_here("scaling", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2 and said in done.stderr and is_one_line(done.stderr)


def test_measures_of_load_of_a_run(finished):
    """Of the whole run that other tests look at too: what the table of a study needs is in its summary."""
    summary = Run(finished[0]).summary
    for figure in FIGURES:
        assert value(summary, figure) is not None, figure.key
    assert summary["orders_per_s_peak"] >= summary["orders_per_s"] > 0
    assert 0 < summary["cores_busy"] <= Run(finished[0]).manifest["cores"] + 0.1
