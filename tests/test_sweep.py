"""Sweeps: what an experiment's file asks for, going on after any end, failures, the table, SQL."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import polars as pl
import pytest

from aar_swarm.scenario import path_of
from aar_swarm.swarm import RunFailed
from aar_swarm.sweeps import performing, records, table
from aar_swarm.sweeps.experiment import Experiment, Planned, plan, read_experiment
from aar_swarm.sweeps.performing import Sweep, sweep
from cluster import trial_keeper
from cluster.placement import ActorDied, Node
from cluster.trial_keeper import Outcome, Task, TrialKeeper
from exchange.errors import ConfigurationError
from tests.processes import ROOT, marked_pids, wait_until
from tests.runs import aar, is_one_line

DUMMY = ["-m", "tests.dummy_trial"]
FILE = """
scenario = "exit-door"
size = "small"
seeds = [1, 2]
cores = 1
[settings]
duration_s = 2.5
signal.at_s = 1.0
[grid]
noise.count = [4, 5]
breaker = ["off", "default"]
"""


def written(directory: Path, text: str = FILE) -> Path:
    path = directory / "experiment.toml"
    path.write_text(text)
    return path


def planned(directory: Path, text: str = FILE) -> list[Planned]:
    path = written(directory, text)
    return plan(read_experiment(path), str(path))


def test_a_grid_is_every_combination_and_a_seed_of_all_comes_before_the_next(tmp_path):
    found = planned(tmp_path)
    assert [trial.told for trial in found[:5]] == [
        "noise.count = 4, breaker = off, seed 1",
        "noise.count = 4, breaker = default, seed 1",
        "noise.count = 5, breaker = off, seed 1",
        "noise.count = 5, breaker = default, seed 1",
        "noise.count = 4, breaker = off, seed 2",
    ]
    assert len(found) == len({trial.name for trial in found}) == 8
    assert found[0].command(True, None, "D") == [
        *("run", "exit-door", "--seed", "1", "--out", "D", "--json", "--breaker", "off", "--size", "small"),
        *("--set", "duration_s=2.5", "--set", "signal.at_s=1.0", "--set", "noise.count=4", "--alongside"),
    ]


def test_a_list_of_trials_keeps_its_order_and_lists_stay_lists(tmp_path):
    text = 'scenario = "defi-cascade"\nrepeats = 2\n[[trial]]\nagents = 50\n[[trial]]\n"holders.leverage" = [1, 3]\n'
    found = planned(tmp_path, text)
    assert [(t.arguments.get("agents"), t.settings, t.seed) for t in found] == [
        *((50, {}, 1), (None, {"holders.leverage": [1, 3]}, 1)),
        *((50, {}, 2), (None, {"holders.leverage": [1, 3]}, 2)),
    ]
    assert "holders.leverage=[1, 3]" in found[1].command(False, None, "D")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = [1]", "scenario is missing"),
        ('scenario = "exit-door"\nsedes = [1]', "sedes: Extra inputs"),
        ('scenario = "exit-door"\nseeds = [1]\nrepeats = 2', "both seeds and repeats"),
        ('scenario = "exit-door"\nseeds = []', "seeds is empty"),
        ('scenario = "exit-door"\nseeds = [1, 1]', "the same trial twice"),
        ('scenario = "exit-door"\nrepeats = 0', "repeats: Input should be greater"),
        ('scenario = "exit-door"\n[grid]\nagents = 5', "grid.agents: write a list"),
        ('scenario = "exit-door"\n[grid]\nagents = [0]', "agents: Input should be greater"),
        ('scenario = "exit-door"\n[grid]\nagents = [5]\n[[trial]]\nagents = 6', "both [grid] and [[trial]]"),
        ('scenario = "exit-door"\n[settings]\nbreaker = "off"', "settings.breaker: write breaker above"),
        (f'scenario = "exit-door"\nrepeats = {10**6}', "ask for 100,000 at most"),
        ("scenario = ", "Invalid"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused_in_one_line(tmp_path, text, said):
    with pytest.raises(ConfigurationError) as error:
        planned(tmp_path, text)
    assert said in str(error.value) and "\n" not in str(error.value) and "experiment" in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("noise.count", "noise.counts"), "noise.counts"),
        (("4, 5", '4, "many"'), "noise.count = many"),
        (('"exit-door"', '"exit"'), "exit"),
        (("[1, 2]", "[-1, 2]"), "seeds.0: Input should be greater"),
        (("[4, 5]", "[4, 2026-01-02]"), "noise.count: [4, datetime.date(2026, 1, 2)] is a list"),
        (("duration_s = 2.5", "duration_s = 2026-01-02"), "duration_s: 2026-01-02 is a date"),
        (("cores = 1", "hosts = 2"), "--address"),
    ],
)
def test_a_setting_that_no_run_accepts_is_refused_before_anything_runs(tmp_path, aar_here, change, said):
    done = aar_here("sweep", written(tmp_path, FILE.replace(*change)), "--out", tmp_path / "out")
    assert done.returncode == 2 and said in done.stderr and is_one_line(done.stderr)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Sweep]:
    """A sweep without Ray: dummies as trials, kept by two keepers of this process."""
    log = tmp_path / "started"
    monkeypatch.setenv("DUMMY_TRIALS", str(log))

    def make(making: Any, asked: Experiment, address: str | None, program: Any) -> None:
        places = [TrialKeeper(1, number) for number in range(min(2, len(os.sched_getaffinity(0))))]
        making.perform(making.pending, places, lambda trial: making.task(trial, program, None))

    def call(text: str = FILE, **options: Any) -> Sweep:
        log.write_text("")
        return sweep(written(tmp_path, text), tmp_path / "out", alongside=True, program=DUMMY, **options)

    monkeypatch.setattr(performing, "_make", make)
    monkeypatch.setattr(performing, "_POLL_S", 0.02)
    return call


def started(directory: Path) -> list[int]:
    return sorted(json.loads(line)["seed"] for line in (directory / "started").read_text().splitlines())


def test_a_finished_sweep_repeats_nothing_and_more_seeds_add_only_themselves(tmp_path, here, nothing_left):
    first = here()
    assert (first.done, first.missing, started(tmp_path)) == (8, 0, [1] * 4 + [2] * 4)
    again = here()
    assert started(tmp_path) == [] and again.trials.equals(first.trials)
    more = here(FILE.replace("[1, 2]", "[1, 2, 3]").replace("4, 5", "4, 5, 6"))
    assert (more.done, started(tmp_path)) == (18, [1] * 2 + [2] * 2 + [3] * 6)
    fewer = here(FILE.replace("[1, 2]", "[1]"))
    assert (fewer.done, started(tmp_path)) == (4, []) and fewer.trials.height == 18


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("duration_s = 2.5", "duration_s = 3.0"), "settings: the sweep in"),
        (("cores = 1", "cores = 2"), "cores: the sweep in"),
        (("[1, 2]", "[7]"), "none of the 8 trials there"),
    ],
)
def test_a_file_that_no_longer_fits_its_directory_is_said_so(tmp_path, here, change, said):
    here()
    with pytest.raises(ConfigurationError, match=said):
        here(FILE.replace(*change))
    assert started(tmp_path) == []


def test_other_programs_or_another_scenario_file_do_not_go_on_with_a_sweep(tmp_path, here, monkeypatch):
    here()
    path = tmp_path / "out" / records.EXPERIMENT
    kept = json.loads(path.read_text())
    for change, said in (
        ({"files": {"exit-door": "another"}}, "scenario exit-door: has changed since"),
        ({"code": "another"}, "own code has changed"),
        ({"cluster": True}, "were made on a cluster, and now none is named"),
    ):
        path.write_text(json.dumps({**kept, **change}))
        with pytest.raises(ConfigurationError, match=said):
            here()
    path.write_text(json.dumps(kept))
    monkeypatch.setattr(records, "versions", lambda: {"aar-swarm": "9"})
    with pytest.raises(ConfigurationError, match="other versions"):
        here()


def test_a_change_in_a_breaker_of_a_scenario_s_file_is_seen(tmp_path, here):
    own = tmp_path / "own.toml"
    own.write_text(path_of("exit-door").read_text())
    text = FILE.replace('"exit-door"', '"own.toml"')
    assert here(text).done == 8
    own.write_text(own.read_text() + "\n[sizes.mine]\nagents = 50\n")
    with pytest.raises(ConfigurationError, match="has changed since"):
        here(text)


def test_trials_of_one_sweep_have_as_many_cores_each(tmp_path, here):
    here()
    for hosts, cores in ((1, 2), (3, 6), (1, 2)):
        records.note_cores(tmp_path / "out", hosts, cores)
    here()  # keeps what it found
    with pytest.raises(ConfigurationError, match="had 2, and would have 1 now"):
        records.note_cores(tmp_path / "out", 1, 1)


def test_heads_without_cores_are_no_nodes_for_trials():
    head, node = Node("a", "10.0.0.1", 0.0, True), Node("b", "10.0.0.2", 2.0, False)
    assert performing.with_cores([head, node]) == [node]
    with pytest.raises(ConfigurationError, match="has a core"):
        performing.with_cores([head])


def test_paths_of_scenarios_are_from_the_experiment_s_directory_everywhere(tmp_path):
    (tmp_path / "own.toml").write_text("")
    own = str(tmp_path / "own.toml")
    for text in ('scenario = "own.toml"', '[grid]\nscenario = ["own.toml"]', '[[trial]]\nscenario = "own.toml"'):
        assert [trial.arguments["scenario"] for trial in planned(tmp_path, text)] == [own]
    named = planned(tmp_path, '[grid]\nscenario = ["exit-door", "absent.toml"]')
    assert [trial.arguments["scenario"] for trial in named] == ["exit-door", "absent.toml"]


def test_a_scenario_s_file_is_refused_where_other_nodes_make_the_trials(tmp_path):
    (tmp_path / "own.toml").write_text(path_of("exit-door").read_text())
    with pytest.raises(ConfigurationError, match="not shipped") as error:
        sweep(written(tmp_path, 'scenario = "own.toml"'), tmp_path / "out", "10.0.0.1:6379")
    assert "\n" not in str(error.value)


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path, here):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="holds no sweep"):
        here()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_two_sweeps_never_work_in_one_directory(tmp_path, here, monkeypatch):
    def make(*_: Any) -> None:
        with pytest.raises(ConfigurationError, match="under way"):
            here()

    monkeypatch.setattr(performing, "_make", make)
    here()


def test_a_sweep_that_was_killed_before_it_began_can_begin(tmp_path, here):
    (tmp_path / "out" / "trials").mkdir(parents=True)
    (tmp_path / "out" / "experiment.json.part").write_text('{"exp')
    assert here().done == 8


def test_half_a_trial_is_removed_and_a_damaged_one_made_again(tmp_path, here):
    found = here()
    trials = tmp_path / "out" / records.TRIALS
    names = [trial.name for trial in found.planned]
    (trials / names[0]).rename(trials / (names[0] + records.PART))
    (trials / names[1] / "summary.json").write_text('{"seed": 1, "tra')
    (trials / names[2] / "trial.json").unlink()
    (trials / names[3] / "manifest.json").write_text(json.dumps({"seed": 5}))
    again = here()
    assert again.done == 8 and started(tmp_path) == [1] * 4
    assert again.trials.drop("seconds", "started_utc").equals(found.trials.drop("seconds", "started_utc"))
    assert sorted(path.name for path in trials.iterdir()) == sorted(names)


@pytest.mark.parametrize("new", [True, False])
def test_a_trial_that_was_being_replaced_is_never_lost(tmp_path, here, new):
    found = here()
    trial = tmp_path / "out" / records.TRIALS / found.planned[0].name
    trial.rename(trial.with_name(trial.name + ".old.part"))  # killed just then
    if new:
        shutil.copytree(trial.with_name(trial.name + ".old.part"), trial.with_name(trial.name + records.PART))
    assert here().done == 8 and started(tmp_path) == []
    shutil.copytree(trial, trial.with_name(trial.name + ".old.part"))  # killed before it was removed
    assert here().done == 8 and started(tmp_path) == []
    assert len(list(trial.parent.iterdir())) == 8


def test_failures_are_kept_with_their_reasons_and_the_others_go_on(tmp_path, here, nothing_left):
    text = FILE.replace("[1, 2]", "[13, 14, 15, 16, 2]").replace("cores = 1", "timeout_s = 3")
    text = text.partition("noise.count")[0]
    found = here(text.replace("[grid]", ""))
    said = {failed["seed"]: failed["reason"] for failed in found.failures}
    assert said == {
        13: "thirteen is refused",
        14: "took longer than timeout_s 3",
        15: "ended well, but left no summary.json",
        16: "ended with status -9 without a word",
    }
    assert found.done == 1 and found.trials.filter(status="failed").height == 4
    here(text.replace("[grid]", ""))
    assert started(tmp_path) == []
    here(text.replace("[grid]", ""), retry_failed=True)
    assert started(tmp_path) == [13, 14, 15, 16]


def test_a_sweep_goes_on_while_a_place_is_left_and_ends_with_a_word_when_none_is(tmp_path, here, monkeypatch):
    class Lost:
        def start(self, task: Task) -> None:
            pass

        def poll(self) -> Outcome | None:
            raise ActorDied("the place for trials on 10.0.0.2 died")

        def stop(self) -> None:
            pass

    chosen: list[Any] = [Lost(), TrialKeeper(1, 0)]

    def make(making: Any, asked: Experiment, address: str | None, program: Any) -> None:
        making.perform(making.pending, chosen, lambda trial: making.task(trial, program, None))

    monkeypatch.setattr(performing, "_make", make)
    found = here()
    assert found.done == 7 and [each["reason"] for each in found.failures] == ["the place for trials on 10.0.0.2 died"]
    chosen[:] = [Lost()]
    with pytest.raises(RunFailed, match="no place for trials is left; 7 are to go"):
        here(FILE.replace("[1, 2]", "[1, 2, 3, 4]"))


@pytest.mark.parametrize("error", [OSError("no space left"), RuntimeError("the guard did not start")])
def test_a_trial_that_cannot_start_gives_its_place_back(tmp_path, here, monkeypatch, error):
    class Full(TrialKeeper):
        def _start(self, task: Task) -> None:
            if "1" in task.arguments:
                raise error
            super()._start(task)

    keeper = Full(1, 0)

    def make(making: Any, asked: Experiment, address: str | None, program: Any) -> None:
        making.perform(making.pending, [keeper], lambda trial: making.task(trial, program, None))

    monkeypatch.setattr(performing, "_make", make)
    found = here()
    assert found.done == 4 and {each["reason"] for each in found.failures} == {str(error)}


def test_what_was_made_for_a_trial_that_cannot_start_is_removed(tmp_path, monkeypatch, nothing_left):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    keeper = TrialKeeper(1, 0)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="file"):
        keeper.start(Task([], str(blocked / "out"), [], 1.0))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    keeper.start(Task(["-c", "pass"], None, [], 60.0))
    wait_until(lambda: keeper.poll() is not None, "the next one made", 30)


def test_a_place_never_shares_cores_for_want_of_its_own():
    there = len(os.sched_getaffinity(0))
    TrialKeeper(there, 0).check()
    for cores, number in ((there + 1, 0), (1, there)):
        with pytest.raises(ConfigurationError, match=f"a process may use {there}"):
            TrialKeeper(cores, number).start(Task(["-c", "pass"], None, [], 60.0))


def test_looking_at_a_trial_that_does_not_end_waits_for_nothing(tmp_path, monkeypatch, nothing_left):
    keeper = TrialKeeper(1, 0)
    code = "import pathlib, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    code += f"pathlib.Path({str(tmp_path / 'deaf')!r}).touch(); time.sleep(600)"
    keeper.start(Task(["-c", code], None, [], 0.0))
    wait_until((tmp_path / "deaf").exists, "deaf to Ctrl-C", 30)
    assert keeper.poll() is None and keeper.poll() is None
    monkeypatch.setattr(trial_keeper, "_INTERRUPT_S", 0.0)
    outcome = keeper.poll()
    assert outcome is not None and outcome.exit_status is None


def test_what_was_asked_for_wins_over_a_figure_of_the_same_name():
    record = {"arguments": {"agents": 5}, "settings": {"duration_s": 2.5}, "seed": 1, "cores": [0]}
    found = table.row(record, {"agents": 4, "duration_s": 9.0, "seed": 7, "trades": 3})
    assert (found["agents"], found["duration_s"], found["seed"], found["trades"]) == (5, 2.5, 1, 3)


def test_a_whole_run_directory_stays_where_it_was_asked_for(tmp_path, here):
    found = here(FILE.replace("cores = 1", "keep = true"))
    names = {path.name for path in Path(found.trials["directory"][0]).iterdir()}
    assert found.done == 8 and names == {"manifest.json", "summary.json", "trial.json"}


def test_columns_have_one_type_whatever_the_trials_gave(tmp_path, here):
    found = here()
    assert found.trials.schema == {
        **table.OWN,
        **{"scenario": pl.String, "breaker": pl.String, "size": pl.String, "duration_s": pl.Float64},
        **{"signal.at_s": pl.Float64, "noise.count": pl.Int64, "trades": pl.Int64, "trip.observed": pl.Int64},
    }
    assert pl.read_parquet(tmp_path / "out" / table.TABLE).equals(found.trials)
    rows = [{"a": 1, "b": True, "c": None, "d": 1, "e": "x"}, {"a": 2.5, "b": None, "c": None, "d": 1 << 70, "e": [1]}]
    assert table.frame(rows, {}).schema == {
        **{"a": pl.Float64, "b": pl.Boolean, "c": pl.Float64, "d": pl.Float64, "e": pl.String}
    }


DRIVER = """
import os, sys
from aar_swarm.sweeps import performing
from tests.test_sweep import DUMMY, TrialKeeper
def make(making, asked, address, program):
    places = [TrialKeeper(1, number) for number in range(min(2, len(os.sched_getaffinity(0))))]
    making.perform(making.pending, places, lambda trial: making.task(trial, program, None))
performing._make = make
found = performing.sweep(sys.argv[1], sys.argv[2], alongside=True, program=DUMMY)
print(found.done)
"""


def test_killed_at_any_moment_a_sweep_repeats_no_finished_trial(tmp_path, nothing_left):
    log, out = tmp_path / "started", tmp_path / "out"
    environment = {**os.environ, "DUMMY_TRIALS": str(log), "DUMMY_TRIAL_S": "0.5"}
    command = [sys.executable, "-c", DRIVER, str(written(tmp_path)), str(out)]
    driver = subprocess.Popen(command, cwd=ROOT, env=environment)
    wait_until(lambda: len(list(out.glob("trials/*/trial.json"))) >= 3, "three trials made", 60)
    driver.kill()
    driver.wait()
    done = {path.parent for path in out.glob("trials/*/trial.json") if not path.parent.name.endswith(records.PART)}
    begun = len(log.read_text().splitlines())
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert again.stdout == "8\n"
    assert len(log.read_text().splitlines()) == begun + 8 - len(done)
    assert begun - len(done) <= 2  # no more than were under way


@pytest.fixture
def sweep_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Callable[[], subprocess.Popen[str]]":
    monkeypatch.setenv("DUMMY_TRIALS", str(tmp_path / "started"))
    monkeypatch.setenv("DUMMY_TRIAL_S", "60")
    code = "import sys; from aar_swarm.sweeps.performing import sweep; "
    code += f"sweep(sys.argv[1], sys.argv[2], alongside=True, program={DUMMY})"
    command = [sys.executable, "-c", code, str(written(tmp_path)), str(tmp_path / "out")]
    return lambda: subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_nothing_of_a_sweep_outlives_its_driver(tmp_path, sweep_driver, nothing_left, end):
    """With Ray, two trials under way on a core each."""
    driver = sweep_driver()
    log = tmp_path / "started"
    wait_until(lambda: log.is_file() and len(log.read_text().splitlines()) == 2, "two trials under way", 90)
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({tuple(each["cores"]) for each in told}) == min(2, len(os.sched_getaffinity(0)))
    assert all(len(each["cores"]) == 1 and each["leaked"] == [] for each in told)
    driver.send_signal(end)
    driver.communicate(timeout=60)
    mark = f"DUMMY_TRIALS={log}"
    wait_until(lambda: not marked_pids(mark), "gone, all that the sweep started", 30)
    assert list((tmp_path / "out").glob("trials/*/trial.json")) == []


@pytest.mark.slow
def test_the_nodes_of_a_cluster_make_the_trials(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("DUMMY_TRIALS", str(tmp_path / "started"))
    place = Path(mkdtemp(prefix="aar-"))  # a short path, for Ray's sockets
    head = {"num_cpus": 1, "include_dashboard": False, "temp_dir": str(place / "ray")}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1)
        found = sweep(written(tmp_path), tmp_path / "out", cluster.address, alongside=True, program=DUMMY)
        assert found.done == 8 and started(tmp_path) == [1] * 4 + [2] * 4
        with pytest.raises(ConfigurationError, match="cores 2: the largest node has 1"):
            sweep(written(tmp_path, FILE.replace("cores = 1", "cores = 2")), tmp_path / "two", cluster.address)
    finally:
        cluster.shutdown()
        shutil.rmtree(place, ignore_errors=True)


def test_two_real_trials_and_what_sql_says_of_them(tmp_path, nothing_left):
    text = 'scenario = "exit-door"\nagents = 20\nat_once = 1\n[settings]\nduration_s = 1.5\nsignal.at_s = 0.5\n'
    text += "makers.count = 6\nvalue.count = 4\nnoise.count = 4\n[grid]\nbreaker = ['off', 'default']\n"
    out = tmp_path / "out"
    done = aar("sweep", written(tmp_path, text), "--out", out, "--alongside", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 2
    asked = "SELECT t.breaker, t.trades > 0 AS traded, r.agents_requested, t.cores FROM trials t, runs r "
    asked += "WHERE t.directory = r.run ORDER BY t.breaker"
    found = aar("sql", asked, tmp_path, "--json")
    cores = len(os.sched_getaffinity(0))
    assert json.loads(found.stdout)["rows"] == [["default", True, 20, cores], ["off", True, 20, cores]], found.stderr
    manifests = [json.loads(path.read_text()) for path in out.glob("trials/*/manifest.json")]
    assert [manifest["cores"] for manifest in manifests] == [cores, cores]
