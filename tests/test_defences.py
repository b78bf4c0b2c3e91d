"""The study of the defences: what it runs and in which order, how it goes on, what its figures and pages say."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from aar_swarm import cli, comparison, defences, measure_defences
from aar_swarm.analysis.compared import Measure, Setting, estimate
from aar_swarm.analysis.defended import (
    CELL,
    Rung,
    against_none,
    calm_counts,
    false_alarms,
    rungs_in_order,
    verdict,
)
from aar_swarm.defence_plan import CALM, Asked, Cell, plan_of
from aar_swarm.defences import JSON, PAGE, STUDY, TABLE, Study
from aar_swarm.progress import Progress
from aar_swarm.report import defences_plots as plots
from aar_swarm.report.defences_table import defences_tables
from aar_swarm.results import Run
from aar_swarm.resuming import studied_by_one
from aar_swarm.runner import prepare
from aar_swarm.scenario import calm_settings, defence_settings, load_scenario, scenario_names
from aar_swarm.swarm import RunFailed
from aar_swarm.versions import versions
from exchange.errors import ConfigurationError
from tests.runs import aar, is_one_line, summary_of

_TABLE = ["none", "breaker", "supervisor", "all"]
_RUNGS = [f"reaction-{ms}-ms" for ms in (1, 10, 100, 1000, 5000)]
_SAME = "as-supervisor"
_ASKED = Asked(("exit-door",), 1, 1, "default", None, {}, tables=True, ladder=True, calm=0)
_DRAWDOWN = Measure("drawdown_bps", "Drawdown", "bps")
_PREVENTED = Measure("prevented.trades", "Trades prevented")
_OWN = """
[defences.breaker]
breaker = "default"
[defences.supervisor]
supervisor.watching = true
supervisor.authorised = true
[defences.explained]
explained_orders = "required"
"""
"""Whatever else the scenarios come to have: these two, and one that is not known."""


def _drawdown(breaker: str, settings: dict[str, Any], seed: int) -> float:
    """The sooner it is halted, the less."""
    if breaker != "off":
        return 200.0 + seed
    if not settings.get("supervisor.watching"):
        return 2200.0 + seed
    return 20.0 + float(settings.get("supervisor.reaction_ms", 0)) / 4 + seed


class Pretended:
    """Stands for `run`: notes what is asked for, and leaves a run directory without the session."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str, int]] = []
        self.failing: set[tuple[str, int]] = set()
        self.interrupted_at: int | None = None

    def __call__(
        self, scenario: str, *, seed: int, out: Path, settings: dict[str, Any], breaker: str, size: str, **_: object
    ) -> Run:
        cell = out.name.partition(",")[0]
        if len(self.ran) == self.interrupted_at:
            (out / "journal").mkdir(parents=True)
            raise KeyboardInterrupt
        self.ran.append((Path(scenario).stem, cell, seed))
        (out / "journal").mkdir(parents=True)
        if (cell, seed) in self.failing:
            raise RunFailed("a host was lost;\n its log is gone")
        chosen, agents = prepare(scenario, breaker=breaker, seed=seed, settings=settings, size=size)
        manifest = {
            "scenario": chosen.model_dump(), "agents": agents, "seed": seed, "cores": 2, "hosts": [{}],
            "scheduling": "SCHED_OTHER", "versions": versions(), "started_utc": f"20260101-00000{seed}",
        }  # fmt: skip
        fall = _drawdown(breaker, settings, seed)
        watched = bool(settings.get("supervisor.watching"))
        summary = {
            "scenario": Path(scenario).stem, "seed": seed, "breaker": breaker, "session_s": 10.0, "drawdown_bps": fall,
            "loss_crowd": 100 * fall, "trades": 1000 + fall, "trades_since_calm": fall, "lots_since_calm": 5 * fall,
            "sold_lots": None, "bad_debt": 0.0, "halts": int(fall < 2200), "refused_orders": 3, "refused_logons": 0,
            "calm": {"seconds": 4.0, "trades_per_s": 250.0 + seed, "spread_bps": 2.0, "halts": 0,
                     "alerts": 0 if watched else None, "refused_orders": 0, "refused_logons": 0, "rejects": 1},
            "supervisor": {"alerts": 1} if watched else None,
        }  # fmt: skip
        (out / "manifest.json").write_text(json.dumps(manifest))
        (out / "summary.json").write_text(json.dumps(summary))
        return Run(out)


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """`run` replaced."""
    stand_in = Pretended()
    monkeypatch.setattr(comparison, "run", stand_in)
    return stand_in


@pytest.fixture
def pretended(drawing: Pretended, monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """And the page, which takes seconds."""
    monkeypatch.setattr(defences, "write_defences_page", lambda path, *_: path.write_text("page"))
    return drawing


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> str:
    """exit-door with the defences of _OWN, under a name of its own: what other defences it has is not tested here."""
    text = (Path(defences.__file__).parent / "scenarios" / "exit-door.toml").read_text()
    text = re.sub(r"\[defences\.\w+\]\n(?:[^\[\n]+\n)*", "", text) + _OWN
    path = tmp_path_factory.mktemp("own") / "exit-door.toml"
    path.write_text(text)
    return str(path)


class Told(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        self.said.append(text)


def _printed(found: Study, width: int = 150) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        for part in defences_tables(found.parts):
            console.print(part, soft_wrap=isinstance(part, str), markup=False)
    return captured.get()


def _without_scripts(page: Path) -> str:
    return re.sub(r"<(script|style)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)


# What is run


@pytest.mark.parametrize("name", [name for name in scenario_names() if name != "latency-race"])  # nothing crashes there
def test_every_scenario_says_what_its_defences_are(name: str) -> None:
    there = {"breaker", "supervisor", "explained", *(() if name == "flash-crash-2010" else ("diversity",))}
    assert set(defence_settings(name)) == there  # nobody shares a vendor on 6 May 2010
    for size in ("default", "small"):
        plan = plan_of(name, Asked((name,), 1, 1, size, None, {}, tables=True, ladder=True, calm=1))
        assert {"none", "breaker", "supervisor", "all"} <= {cell.name for cell in plan.table}
        assert {cell.name for cell in plan.table} >= there
        assert set(plan.unavailable) == {"breaker", "supervisor", "explained", "diversity"} - there
        assert bool(plan.ladder) == (name == "exit-door")
        assert plan.calm is not None
        for cell in (*plan.cells, plan.calm):
            chosen = load_scenario(name, cell.breaker, cell.sets, size)
            watching = chosen.supervisor is not None and chosen.supervisor.watching
            assert watching == (cell.name not in ("none", "breaker", "diversity", "explained", _SAME))
            assert (chosen.breaker is not None) == (cell.name in ("breaker", "all", CALM, _SAME))


def test_all_is_the_union_of_what_there_is_and_the_rest_is_named(door: str) -> None:
    plan = plan_of(door, _ASKED)
    assert [cell.name for cell in plan.table] == _TABLE
    assert plan.table[-1].breaker == "default" and plan.table[-1].sets["supervisor.authorised"] is True
    assert plan.unavailable["diversity"] == "its file has no [defences.diversity] table"
    assert plan.unavailable["explained"] == "unknown setting 'explained_orders'"
    assert plan.notes == ("all is breaker and supervisor: the others are not available here.",)


def test_the_ladder_shares_its_ends_with_the_table(door: str) -> None:
    plan = plan_of(door, _ASKED)
    assert [(label, cell.name) for label, _, cell in plan.ladder] == [
        ("in-line", "breaker"), ("in-line, same trigger", _SAME), ("0 ms", "supervisor"), ("1 ms", _RUNGS[0]),
        ("10 ms", _RUNGS[1]),
        ("100 ms", _RUNGS[2]), ("1 s", _RUNGS[3]), ("5 s", _RUNGS[4]), ("never", "none"),
    ]  # fmt: skip
    assert [cell.name for cell in plan.cells] == [*_TABLE, _SAME, *_RUNGS]
    assert all(cell.breaker == "off" for _, reaction_ms, cell in plan.ladder if reaction_ms is None or reaction_ms >= 0)
    same = load_scenario(door, "as-supervisor")
    assert same.breaker is not None and same.supervisor is not None
    assert (same.breaker.imbalance_bps, same.breaker.imbalance_lots, same.breaker.imbalance_window_ms) == (
        same.supervisor.imbalance_bps,
        same.supervisor.imbalance_lots,
        same.supervisor.window_ms,
    )
    small = plan_of(door, Asked((door,), 1, 1, "small", None, {}, tables=True, ladder=True, calm=0))
    assert [cell.name for cell in small.cells] == [*_TABLE, _SAME, *_RUNGS[:-1]]
    assert small.notes[-1] == "Left out of the ladder: 5 s, longer than the 1500 ms after the signal."


def test_a_defence_whose_value_is_wrong_is_an_error_and_not_unavailable(tmp_path: Path, door: str) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(Path(door).read_text().replace('breaker = "default"', 'breaker = "loud"'))
    with pytest.raises(ConfigurationError, match="unknown breaker 'loud'"):
        plan_of(str(own), _ASKED)
    own.write_text(Path(door).read_text() + '[defences.guard]\nbreaker = "default"\n')
    with pytest.raises(ConfigurationError, match="defences.guard.*choose one of breaker"):
        plan_of(str(own), _ASKED)
    own.write_text(Path(door).read_text() + "[defences.diversity]\nsupervisor.watching = false\n")
    with pytest.raises(ConfigurationError, match="supervisor.watching: two .defences. tables set it"):
        plan_of(str(own), _ASKED)


def test_a_calm_day_is_the_scenario_s_own() -> None:
    assert calm_settings("exit-door") == {"signal.bps": 0} == calm_settings("defi-cascade")
    assert calm_settings("shared-brain") == {"vendors.fault_bps": 0}
    assert calm_settings("flash-crash-2010") == {"program.shares": 0}


# The order of the runs, and going on


def test_repeats_are_interleaved_over_all_scenarios(pretended: Pretended, tmp_path: Path, door: str) -> None:
    found = measure_defences([door, "defi-cascade"], 2, seed=5, out=tmp_path / "all", settings={"duration_s": "9"})
    names = [*(("exit-door", name) for name in [*_TABLE, _SAME, *_RUNGS[:-1]])]
    first = [(scenario, cell) for scenario, cell, seed in pretended.ran if seed == 5]
    assert first[: len(names)] == names and {scenario for scenario, _ in first[len(names) :]} == {"defi-cascade"}
    assert pretended.ran == [(*each, 5) for each in first] + [(*each, 6) for each in first]
    assert found.missing == 0 and not found.failures
    assert (tmp_path / "all" / "exit-door" / "breaker,seed=6" / "summary.json").is_file()


def test_it_goes_on_after_an_interruption_with_what_is_missing(pretended: Pretended, tmp_path: Path, door: str) -> None:
    out = tmp_path / "all"
    pretended.interrupted_at = 12
    with pytest.raises(KeyboardInterrupt):
        measure_defences([door], 2, out=out)
    assert json.loads((out / JSON).read_text())["missing"] == 10  # written when the first repeat was complete
    before, pretended.interrupted_at, pretended.ran = list(pretended.ran), None, []
    told = Told()
    found = measure_defences(out=out, progress=told)  # the study knows what it is
    assert len(before) == 12 and len(pretended.ran) == 8 and not set(before) & set(pretended.ran)
    assert "12 of 20 runs are there already" in told.said and found.missing == 0
    assert any(re.search(r"run 14 of 20: exit-door, .*, seed 2; 7 to go, about \d+ min", text) for text in told.said)


def test_a_finished_one_only_writes_its_pages_again(pretended: Pretended, tmp_path: Path, door: str) -> None:
    out = tmp_path / "all"
    measure_defences([door], 1, out=out)
    pretended.ran.clear()
    (out / PAGE).unlink()
    measure_defences(out=out)
    assert not pretended.ran and (out / PAGE).is_file()


def test_runs_of_other_settings_are_made_again(pretended: Pretended, tmp_path: Path, door: str) -> None:
    out, own = tmp_path / "all", tmp_path / "exit-door.toml"
    own.write_text(Path(door).read_text())
    measure_defences([str(own)], 1, out=out)
    pretended.ran.clear()
    own.write_text(own.read_text().replace("depth_bps = 1000", "depth_bps = 900"))
    (out / "exit-door" / "none,seed=1" / "summary.json").write_text('{"half')
    measure_defences(out=out)
    assert len(pretended.ran) == 10  # the supervisor's settings are in every manifest
    pretended.ran.clear()
    measure_defences(out=out, repeats=2, calm=1)
    assert {seed for _, cell, seed in pretended.ran if cell != CALM} == {2}
    assert [cell for _, cell, _ in pretended.ran].count(CALM) == 1


def test_another_study_in_its_directory_is_refused(pretended: Pretended, tmp_path: Path, door: str) -> None:
    out = tmp_path / "all"
    measure_defences([door], 1, out=out)
    for changed, message in (
        ({"seed": 7}, "--seed 7: the study in .* has 1"),
        ({"size": "small"}, "--size small"),
        ({"agents": 500}, "--agents 500"),
        ({"settings": {"duration_s": "8"}}, "--set: the study"),
        ({"repeats": 0}, "--repeats 0"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            measure_defences(out=out, **changed)
    with pytest.raises(ConfigurationError, match="holds no study"):
        measure_defences([door], 1, out=out / "exit-door")
    with studied_by_one(out), pytest.raises(ConfigurationError, match="is under way"):
        measure_defences(out=out)


def test_what_is_no_run_is_never_removed(pretended: Pretended, tmp_path: Path, door: str) -> None:
    place = tmp_path / "all" / "exit-door" / "none,seed=1"
    measure_defences([door], 1, out=tmp_path / "all")
    for path in place.iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    (place / "thesis.tex").write_text("dear")
    with pytest.raises(ConfigurationError, match="is in the way and not a run's"):
        measure_defences(out=tmp_path / "all")
    assert (place / "thesis.tex").read_text() == "dear"


def test_a_failed_run_is_told_and_tried_again(drawing: Pretended, tmp_path: Path, door: str) -> None:
    out = tmp_path / "all"
    drawing.failing = {("supervisor", 1)}
    found = measure_defences([door], 2, out=out)
    assert len(drawing.ran) == 20 and len(found.failures) == 1
    kept = json.loads((out / JSON).read_text())
    results = kept["results"]["exit-door"]
    assert results["failures"] == [{"cell": "supervisor", "seed": 1, "reason": "a host was lost; its log is gone"}]
    assert (results["cells"]["supervisor"]["runs"], results["cells"]["supervisor"]["failed"]) == (1, 1)
    table = pl.read_parquet(out / TABLE)
    assert table.height == 20 and table["failure"].null_count() == 19
    assert "Failed: exit-door, supervisor, seed 1: a host was lost" in _printed(found)
    assert "a host was lost" in _without_scripts(out / PAGE)
    drawing.failing, drawing.ran = set(), []
    assert not measure_defences(out=out).failures
    assert drawing.ran == [("exit-door", "supervisor", 1)]


def test_bad_requests_are_refused_before_anything_runs(pretended: Pretended, tmp_path: Path, door: str) -> None:
    for names, changed, message in (
        (["nowhere"], {}, "unknown scenario 'nowhere'"),
        ([door, "exit-door"], {}, "have the same name"),
        ([door], {"calm": -1}, "--calm -1"),
        ([door], {"repeats": 9_999}, "runs were asked for"),
        ([door], {"settings": {"supervisor.watching": "true"}}, "is what the study switches"),
        ([door], {"settings": {"breaker.price_move_bps": "9"}}, "also runs without a breaker"),
        ([door], {"settings": {"makers.levles": "9"}}, "unknown setting 'makers.levles'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            measure_defences(names, out=tmp_path / "all", **changed)
    assert not list(tmp_path.iterdir()) and not pretended.ran


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "defences", "--breaker", "off"], "--breaker: the study chooses"),
        (["run", "defences", "--background", "lobster:x"], "--background: the study"),
        (["run", "defences", "--port", "5000"], "--port: the study"),
        (["run", "exit-door", "--ladder"], "--ladder: is for `aar run defences`"),
        (["run", "exit-door", "--scenario", "exit-door"], "--scenario: is for"),
        (["run", "exit-door", "--calm", "3"], "--calm: is for"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["aar", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and is_one_line(said) and message in said


def test_command_line_prints_what_is_in_the_file(
    pretended: Pretended, tmp_path: Path, door: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all"
    asked = ["aar", "run", "defences", "--scenario", door, "--repeats", "2", "--out", str(out)]
    for arguments, status, failing in (
        ([*asked, "--json"], 1, {("none", 1)}), (["aar", "run", "defences", "--out", str(out)], 0, set())
    ):  # fmt: skip
        pretended.failing = failing
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == status
        printed = capsys.readouterr().out
        if "--json" in arguments:
            assert json.loads(printed) == json.loads((out / JSON).read_text())
    assert "exit-door: what each defence is worth" in printed and str(out / PAGE) in printed


# What the figures say


def _setting(name: str, *figures: float, key: str = "drawdown_bps") -> Setting:
    return Setting({CELL: name}, tuple({key: figure} for figure in figures))


def test_apart_means_that_the_intervals_do_not_overlap() -> None:
    none = _setting("none", 100.0, 102.0, 101.0)
    below = verdict(_setting("breaker", 10.0, 11.0, 12.0), none, _DRAWDOWN)
    assert below is not None and below.apart and below.direction == -1
    near = verdict(_setting("breaker", 60.0, 150.0, 99.0), none, _DRAWDOWN)
    assert near is not None and near.apart is False
    alone = verdict(_setting("breaker", 10.0), none, _DRAWDOWN)
    assert alone is not None and alone.apart is None
    assert verdict(none, none, _DRAWDOWN) is None


def test_prevented_is_the_difference_from_the_run_of_the_same_repeat() -> None:
    none = {"trades_since_calm": 500, "lots_since_calm": 900, "sold_lots": None}
    found = against_none({"trades_since_calm": 120, "lots_since_calm": 1000, "sold_lots": 3}, none)
    assert found["prevented"] == {"trades": 380, "lots": -100, "exit_lots": None}
    assert set(against_none(none, None)["prevented"].values()) == {None}
    some = Setting({CELL: "breaker"}, ({"prevented": {"trades": 380}}, {"prevented": {"trades": 390}}))
    said = verdict(some, _setting("none", 1.0), _PREVENTED)
    assert said is not None and said.apart and said.direction == 1


def test_the_partner_is_of_the_same_repeat(pretended: Pretended, tmp_path: Path, door: str) -> None:
    found = measure_defences([door], 3, out=tmp_path / "all")
    breaker = found.parts[0].cells[1]
    assert breaker.figures("prevented.trades") == [2000.0] * 3  # (2200 + seed) − (200 + seed)
    kept = json.loads((tmp_path / "all" / JSON).read_text())["results"]["exit-door"]["cells"]
    assert kept["breaker"]["measures"]["drawdown_bps"]["apart_from_none"] is True
    assert kept["none"]["measures"]["drawdown_bps"]["apart_from_none"] is None
    assert "sold_lots" not in kept["none"]["measures"] and "prevented.trades" not in kept["none"]["measures"]


def test_no_alarm_in_a_hundred_runs_is_bounded_by_three_of_them() -> None:
    none = false_alarms("halts", [0] * 100, 0.25)
    assert (none.share_upper, none.per_hour_upper, none.per_hour) == (0.03, 12.0, 0.0)
    some = false_alarms("alerts", [2, 0, 1, *[0] * 97], 0.5)
    assert (some.count, some.runs_with, some.per_hour) == (3, 2, 6.0)
    assert some.share_upper == pytest.approx(0.0616, abs=1e-3)  # Clopper–Pearson, 2 of 100, one-sided
    assert some.per_hour_upper == pytest.approx(7.754 / 0.5, abs=1e-2)  # Poisson, 3 events
    assert false_alarms("halts", [1, 1], 0.0).share_upper == 1.0
    assert false_alarms("halts", [0], 1.0).share_upper == 1.0
    with pytest.raises(ValueError, match="no run"):
        false_alarms("halts", [], 1.0)


def test_alarms_without_a_supervisor_do_not_count_as_none() -> None:
    assert calm_counts({"calm": {"alerts": None}, "supervisor": None}, "alerts", whole=False) is None
    assert calm_counts({"calm": {"halts": 2}, "halts": 5}, "halts", whole=True) == 5
    assert calm_counts({"calm": None}, "halts", whole=False) is None


def test_calm_runs_are_counted_by_themselves(drawing: Pretended, tmp_path: Path, door: str) -> None:
    found = measure_defences([door], calm=4, out=tmp_path / "all", settings={"duration_s": "5"})
    assert drawing.ran == [("exit-door", CALM, seed) for seed in (1, 2, 3, 4)]
    (part,) = found.parts
    assert not part.cells and part.calm_sets["signal.bps"] == 0 and part.calm_sets["breaker"] == "default"
    before, whole = part.calm[1], part.calm_whole[1]
    assert (before.what, before.count, whole.count, whole.runs) == ("alerts", 0, 4, 4)
    assert before.hours == pytest.approx(16 / 3600) and whole.hours == pytest.approx(40 / 3600)
    printed = _printed(found)
    assert "4 runs without news, 0.3 minutes before the public moment" in printed and "Supervisor's alerts" in printed
    markup = _without_scripts(tmp_path / "all" / PAGE)
    assert 'id="calm-exit-door"' in markup and 'id="ladder-exit-door"' not in markup


# Pictures


def test_in_line_stands_at_the_left_end_and_never_at_the_right() -> None:
    rungs = [
        Rung("never", None, _setting("none", 9.0, 9.5)),
        Rung("5 s", 5000.0, _setting("slow", 8.0, 7.0)),
        Rung("0 ms", 0.0, _setting("supervisor", 1.0, 1.5)),
        Rung("in-line", -1.0, _setting("breaker", 2.0)),
    ]
    ordered = rungs_in_order(rungs)
    assert [rung.label for rung in ordered] == ["in-line", "0 ms", "5 s", "never"]
    places = [plots.place(rung) for rung in ordered]
    assert places == sorted(places) and len(set(places)) == 4
    fig = plots.ladder(ordered, _DRAWDOWN)
    assert set(fig.xaxis[0].major_label_overrides.values()) == {"in-line", "0 ms", "5 s", "never"}
    assert fig.y_range.start == 0


def test_table_and_page_say_what_is_apart_and_what_is_missing(drawing: Pretended, tmp_path: Path, door: str) -> None:
    found = measure_defences([door], 3, out=tmp_path / "all", alongside=True)
    printed = _printed(found)
    assert "2,202 [2,200, 2,204]" in printed.replace("\n", " ") or "2,202" in printed
    assert re.search(r"Drawdown, bps.*2,202.*202 ▼", printed)
    assert "explained: not available in exit-door: unknown setting" in printed
    assert "Drawdown: 2,202 bps without any; less with breaker 202, supervisor 22, all 202." in printed
    assert printed.index("in-line") < printed.index("100 ms") < printed.index("never")
    markup = _without_scripts(tmp_path / "all" / PAGE)
    sections = re.findall(r'<section id="([\w-]+)"', markup)
    assert sections == ["ladder-exit-door", "exit-door", "conditions", "glossary"]
    assert "202 ▼" in markup and "explained: not available in exit-door" in markup
    assert "shared with other runs" in markup and "SCHED_OTHER" in markup and "1 to 3" in markup
    assert "http:" not in markup and "https:" not in markup
    for anchor in re.findall(r'href="#([^"]+)"', markup):
        assert f'id="{anchor}"' in markup, f"a link to #{anchor} leads nowhere"


def test_single_runs_mark_nothing(pretended: Pretended, tmp_path: Path, door: str) -> None:
    found = measure_defences([door], 1, out=tmp_path / "all")
    printed = _printed(found)
    assert "▼" not in printed.replace("▼ below", "") and "(one run: chance is not ruled out)" in printed
    assert estimate(found.parts[0].cells[0], _DRAWDOWN) is not None
    assert json.loads((tmp_path / "all" / STUDY).read_text())["repeats"] == 1


def test_a_cell_tells_what_it_sets() -> None:
    assert Cell("all", "default", {"a.b": 1}).told == {"breaker": "default", "a.b": 1}


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.timeout(900)
def test_a_real_study(tmp_path: Path) -> None:
    """Every process of it, on the small exit."""
    out = tmp_path / "all"
    asked = ["run", "defences", "--size", "small", "--scenario", "exit-door", "--repeats", "1", "--alongside"]
    found = summary_of(aar(*asked, "--out", out, "--json", timeout_s=800))
    cells = found["results"]["exit-door"]["cells"]
    assert found["failed"] == found["missing"] == 0 and {"none", "breaker", "supervisor", "all"} <= set(cells)
    for cell in cells.values():
        assert cell["measures"]["calm.trades_per_s"]["mean"] > 0
        assert cell["measures"]["calm.spread_bps"]["mean"] > 0
    none, supervisor = (cells[name]["measures"] for name in ("none", "supervisor"))
    assert none["halts"]["mean"] == 0 and none["refused_orders"]["mean"] == 0
    assert "prevented.trades" in supervisor and "calm.alerts" in supervisor and "calm.alerts" not in none
    assert [rung["label"] for rung in found["results"]["exit-door"]["ladder"]][::5] == ["in-line", "100 ms"]
    assert (out / PAGE).stat().st_size > 100_000
    before = (out / TABLE).stat().st_mtime_ns
    again = summary_of(aar("run", "defences", "--out", out, "--json"))
    assert again["results"] == found["results"] and (out / TABLE).stat().st_mtime_ns > before
