"""Comparisons: the order of their runs, what repeats say together, what is kept of a failure, table and page."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from aar_swarm import cli, comparison
from aar_swarm.analysis.compared import MEASURES, Setting, dial_of, estimate, lines_of, measures_of, trend_of
from aar_swarm.analysis.statistics import interval
from aar_swarm.comparison import Comparison, compare, parse_vary
from aar_swarm.report import comparison_plots as plots
from aar_swarm.report import comparison_story as story
from aar_swarm.report.comparison_table import comparison_tables
from aar_swarm.results import Run
from aar_swarm.swarm import RunFailed
from exchange.errors import ConfigurationError
from tests import synthetic_runs

_DRAWDOWN = next(measure for measure in MEASURES if measure.key == "drawdown_bps")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Breaker × leverage, twice; a leverage of 13 fails."""
    vary = {"breaker": ["off", "default"], "leverage": ["2", "5", "13"]}
    return synthetic_runs.comparison(tmp_path_factory.mktemp("grid") / "all", vary, 2, crisis=True)


def _settings(figures: dict[str, Sequence[float | None]], key: str = "x") -> list[Setting]:
    return [Setting({key: value}, tuple({"drawdown_bps": f} for f in each)) for value, each in figures.items()]


def _printed(vary: dict[str, list[str]], settings: Sequence[Setting], width: int = 100) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        for part in comparison_tables(vary, settings):
            console.print(part, soft_wrap=isinstance(part, str), markup=False)
    return captured.get().replace("\u00a0", " ")


def _summary(seed: int, drawdown: float) -> dict[str, object]:
    return {"seed": seed, "drawdown_bps": drawdown, "halted": False, "trip": None, "scenario": "exit-door"}


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """`run` and the report replaced: what is run, in its order, is noted; three levels fail from the second repeat."""
    ran: list[tuple[str, int]] = []

    def run(scenario: str, *, seed: int, out: Path, settings: dict[str, str], breaker: str, **_: object) -> Run:
        ran.append((f"{breaker} {settings.get('makers.levels')}", seed))
        if settings.get("makers.levels") == "3" and seed > 1:
            raise RunFailed("a host was lost;\n its log is gone")
        made = Run(out)
        made.__dict__["summary"] = _summary(seed, 100.0 * float(settings.get("makers.levels") or 1) + seed)
        return made

    monkeypatch.setattr(comparison, "run", run)
    monkeypatch.setattr(comparison, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(comparison, "write_comparison", lambda path, *_: path.write_text("page"))
    return ran


def test_repeats_are_interleaved_and_have_their_own_seeds(pretended: list[tuple[str, int]], tmp_path: Path) -> None:
    found = compare("exit-door", {"makers.levels": ["1", "2"]}, 3, seed=5, out=tmp_path / "all")
    assert pretended == [(f"default {levels}", seed) for seed in (5, 6, 7) for levels in (1, 2)]
    assert [trial.directory.name for trial in found.trials[:2]] == ["makers.levels=1,seed=5", "makers.levels=2,seed=5"]
    once = compare("exit-door", {"makers.levels": ["1"]}, out=tmp_path / "once")
    assert once.trials[0].directory.name == "makers.levels=1"


def test_a_grid_is_every_combination(pretended: list[tuple[str, int]], tmp_path: Path) -> None:
    compare("exit-door", {"breaker": ["off", "default"], "makers.levels": ["1", "2"]}, out=tmp_path / "all")
    assert [what for what, _ in pretended] == ["off 1", "off 2", "default 1", "default 2"]


def test_a_failed_run_is_told_and_the_others_go_on(pretended: list[tuple[str, int]], tmp_path: Path) -> None:
    found = compare("exit-door", {"makers.levels": ["3", "2"]}, 3, out=tmp_path / "all")
    assert len(pretended) == 6 and len(found.runs) == 4
    failed, sound = found.settings
    assert failed.failures == ("a host was lost; its log is gone",) * 2 and not sound.failures
    kept = json.loads((tmp_path / "all" / comparison.JSON).read_text())
    assert [entry["seed"] for entry in kept["failures"]] == [2, 3] and kept["settings"][0]["failed"] == 2
    table = pl.read_parquet(tmp_path / "all" / comparison.TABLE)
    assert table.height == 6 and table["failure"].null_count() == 4 and table["makers.levels"].dtype == pl.Float64
    assert table.filter(pl.col("failure").is_not_null())["drawdown_bps"].null_count() == 2
    assert "Failed: makers.levels 3: a host was lost; its log is gone" in _printed(found.vary, found.settings)


def test_status_is_one_if_a_run_failed(pretended: list[tuple[str, int]], tmp_path: Path, capsys, monkeypatch) -> None:
    for levels, status in (("1,2", 0), ("3,2", 1)):
        out = str(tmp_path / levels)
        arguments = ["compare", "exit-door", "--vary", f"makers.levels={levels}", "--repeats", "2", "--out", out]
        monkeypatch.setattr("sys.argv", ["aar", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == status
        printed = json.loads(capsys.readouterr().out)
        assert printed == json.loads((tmp_path / levels / comparison.JSON).read_text())
        assert len(printed["runs"]) + len(printed["failures"]) == 4


def test_no_run_finished_leaves_no_report(pretended: list[tuple[str, int]], tmp_path: Path) -> None:
    found = compare("exit-door", {"makers.levels": ["3"]}, seed=2, out=tmp_path / "all")
    assert found.report is None and not (tmp_path / "all" / "report.html").exists()
    assert "Failed:" in _printed(found.vary, found.settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["breaker"], "write it as key=a,b"),
        (["breaker=off,"], "write it as key=a,b"),
        (["breaker=off,off"], "names a value twice"),
        (["breaker=off", "breaker=default"], "is given twice"),
    ],
)
def test_vary_is_checked(given: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_vary(given)


def test_a_list_is_one_value() -> None:
    assert parse_vary(["crowd.leverage=[1,2],5", "breaker=off"]) == {
        "crowd.leverage": ["[1,2]", "5"],
        "breaker": ["off"],
    }


def test_bad_requests_are_refused_before_anything_runs(tmp_path: Path) -> None:
    for vary, repeats, message in (
        ({"breaker": ["off"]}, 0, "--repeats 0"),
        ({"agents": ["few"]}, 1, "agents=few"),
        ({"seed": ["1", "2"]}, 2, "unknown setting 'seed'"),
        ({"makers.levels": ["1", "99"]}, 1, "makers.levels"),
        ({"makers.levels": ["1", "2"]}, 501, "1,002 runs"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            compare("exit-door", vary, repeats, out=tmp_path / "all")
    assert not list(tmp_path.iterdir())


def test_estimates_leave_out_what_does_not_apply() -> None:
    some, none = _settings({"a": [10.0, None, 30.0], "b": [None]})
    found = estimate(some, _DRAWDOWN)
    assert found is not None and (found.mean, found.n, found.interval) == (20.0, 2, interval([10.0, 30.0]))
    assert estimate(none, _DRAWDOWN) is None
    assert story.cell(some, _DRAWDOWN)[1].endswith("in 2 of 3") and story.cell(none, _DRAWDOWN) == ("–", "")
    assert [measure.key for measure in measures_of([some, none])] == ["drawdown_bps"]


def test_measures_of_a_scenario_are_compared_with_their_units() -> None:
    setting = Setting({"x": "1"}, ({"scenario_measures": {"hft_net_share": 0.5, "pause_ms": 5, "who": "text"}},))
    assert [(m.name, m.unit) for m in measures_of([setting])] == [("Hft net share", ""), ("Pause", "ms")]


def test_the_dial_is_the_longest_list_of_numbers() -> None:
    assert dial_of({"breaker": ["off", "default"]}) is None and dial_of({"x": ["1"]}) is None
    assert dial_of({"a": ["1", "2"], "b": ["3", "1e1", "5"], "c": ["1", "two", "3", "4"]}) == "b"


def test_a_dial_is_told_with_its_steps_back() -> None:
    settings = _settings({"5": [300.0, 310.0], "1": [100.0, 101.0], "2": [90.0, 105.0]})
    (line,) = lines_of(settings, "x")
    assert [x for x, _ in line.points] == [1, 2, 5]
    said = story.dial_sentence("x", line, _DRAWDOWN)
    assert "not monotone: it rises, but down by 3 bps from 1 to 2, within the confidence intervals" in said
    rising = story.dial_sentence("x", lines_of(_settings({"1": [1.0], "2": [3.0]}), "x")[0], _DRAWDOWN)
    assert rising == "Drawdown: 1 bps at x 1, 3 bps at 2; it rises, which may be chance."


def test_two_settings_are_told_apart_or_not() -> None:
    apart = story.finding({"x": ["a", "b"]}, _settings({"a": [100.0, 102.0], "b": [10.0, 11.0]}))[0]
    assert "90% less; the intervals do not overlap" in apart
    together = story.finding({"x": ["a", "b"]}, _settings({"a": [100.0, 150.0], "b": [90.0, 140.0]}))[0]
    assert "but the intervals overlap" in together
    single = story.finding({"x": ["a", "b"]}, _settings({"a": [100.0], "b": [50.0]}))[0]
    assert single == "Drawdown: 100 bps with x a, 50 bps with x b: 50% less (one run each: chance is not ruled out)."


def test_table_has_means_intervals_and_every_measure(grid: Comparison) -> None:
    settings = [setting for setting in grid.settings if setting.summaries]
    across, down = _printed(grid.vary, settings[:2], 140), _printed(grid.vary, grid.settings, 140)
    for measure in measures_of(settings[:2]):
        assert measure.name in across
    mean, rest = story.cell(settings[0], _DRAWDOWN)
    assert f"{mean} {rest}" in across and rest.startswith("[") and rest in down
    assert "2 runs" in across and "breaker default, leverage 5" in down


def test_median_path_is_in_force_from_the_first_to_the_last_value() -> None:
    paths = [(np.array([0.0, 10.0]), np.array([1.0, 3.0])), (np.array([5.0, 20.0]), np.array([5.0, 9.0]))]
    grid, median = plots.median_path(paths, (-10.0, 30.0))
    at = {moment: float(median[np.searchsorted(grid, moment)]) for moment in (6.0, 15.0)}
    assert at == {6.0: 3.0, 15.0: 4.0}
    assert np.isnan(median[grid < 5]).all() and np.isnan(median[grid > 20]).all()


def test_files_of_a_grid(grid: Comparison) -> None:
    kept = json.loads((grid.directory / comparison.JSON).read_text())
    assert len(kept["settings"]) == 6 and len(kept["runs"]) == 8 and len(kept["failures"]) == 4
    lines = {(entry["at"]["breaker"], entry["measure"]): entry for entry in kept["trends"]}
    assert lines["off", "drawdown_bps"]["direction"] == 1 and lines["off", "drawdown_bps"]["monotone"]
    table = pl.read_parquet(grid.directory / comparison.TABLE)
    assert table.height == 12 and {"breaker", "leverage", "repeat", "failure", "drawdown_bps"} <= set(table.columns)
    assert table["scenario_measures.races_lost"].drop_nulls().len() == 8
    found = trend_of(lines_of(grid.settings, "leverage")[0], _DRAWDOWN)
    assert found is not None and found.monotone


def test_page_of_a_grid_has_every_section(grid: Comparison) -> None:
    assert grid.report is not None
    page = grid.report.read_text()
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    sections = re.findall(r'<section id="(\w+)"', markup)
    assert sections == [
        "finding", "curves", "price", "zoom", "load", "depth", "liquidations", "coin", "figures", "losers", "runs",
        "conditions", "glossary",
    ]  # fmt: skip
    assert "the venue did not start" in markup and "monotone" in markup and "By leverage" in markup
    assert not re.search(r"<(script|img|iframe|link|source|object|embed)\b[^>]*\b(src|href|data)\s*=", markup)
    assert "http:" not in markup and "https:" not in markup and len(page.encode()) < 6_000_000
    for anchor in re.findall(r'href="#([^"]+)"', markup):
        assert f'id="{anchor}"' in markup, f"a link to #{anchor} leads nowhere"
    assert 'href="breaker%3Doff%2Cleverage%3D2%2Cseed%3D1/report.html"' in markup


def test_page_of_single_runs_has_no_intervals(tmp_path: Path) -> None:
    found = synthetic_runs.comparison(tmp_path / "all", {"breaker": ["off", "default"]}, 1)
    assert found.report is not None
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", found.report.read_text(), flags=re.DOTALL)
    assert 'id="curves"' not in markup and 'id="liquidations"' not in markup and 'id="coin"' not in markup
    assert "[" not in markup and "not halted" in markup and "By class" in markup
    printed = _printed(found.vary, found.settings)
    assert "breaker default" in printed and "[" not in printed and "State hash" in printed


def test_report_of_one_run_gains_what_applies(grid: Comparison) -> None:
    from aar_swarm.report.pictures import write_run_report

    run = grid.runs[0]
    write_run_report(run)
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", run.report.read_text(), flags=re.DOTALL)
    for name in ("liquidations", "coin", "losers"):
        assert f'<section id="{name}"' in markup
    assert "of par" in markup and "margin accounts" in markup and "Of this scenario" in markup
    (run.directory / "losers.parquet").unlink()
    write_run_report(run)
    assert '<section id="losers"' not in run.report.read_text()
