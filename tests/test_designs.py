"""Designs of a market compared: which runs, in which order, going on, figures and pages; and one real comparison."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from aar_swarm import compare_designs, comparison
from aar_swarm.analysis.designed import DESIGN, _classes, measures_of
from aar_swarm.designs import JSON, PAGE, STUDY, TABLE, DesignStudy
from aar_swarm.report.designs_page import designs_table
from aar_swarm.results import Run
from aar_swarm.runner import prepare
from aar_swarm.scenario import design_settings, load_scenario
from aar_swarm.swarm import RunFailed
from aar_swarm.versions import versions
from exchange.errors import ConfigurationError
from tests.runs import aar, summary_of

ALL = list(design_settings("latency-race"))


class Pretended:
    """Stands for `run`: notes what is asked for, and leaves a run directory without the session."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, int]] = []
        self.failing: set[tuple[str, int]] = set()
        self.interrupted_at: int | None = None

    def __call__(
        self, scenario: str, *, seed: int, out: Path, settings: dict[str, Any], breaker: str, size: str, **_: object
    ) -> Run:
        design = out.name.partition(",")[0]
        if len(self.ran) == self.interrupted_at:
            (out / "journal").mkdir(parents=True)
            raise KeyboardInterrupt
        self.ran.append((design, seed))
        (out / "journal").mkdir(parents=True)
        if (design, seed) in self.failing:
            raise RunFailed("a host was lost;\n its log is gone")
        chosen, agents = prepare(scenario, breaker=breaker, seed=seed, settings=settings, size=size)
        manifest = {
            "scenario": chosen.model_dump(), "agents": agents, "seed": seed, "cores": 2, "hosts": [{}],
            "scheduling": "SCHED_OTHER", "versions": versions(), "started_utc": f"20260101-00000{seed}",
        }  # fmt: skip
        tax = 4.0 / (1 + chosen.instrument.batch_ms) + seed / 10
        summary = {
            "scenario": "latency-race", "seed": seed,
            "scenario_measures": {
                "snipers_tax_bps": tax, "quoted_spread_bps": 2 * tax, "effective_spread_bps": 2 * tax,
                "makers_net_bps": -tax, "profit_makers_metro": -tax, "snipes_snipers_metro": 0.25,
            },
        }  # fmt: skip
        (out / "manifest.json").write_text(json.dumps(manifest))
        (out / "summary.json").write_text(json.dumps(summary))
        return Run(out)


def _raced(run: Run, rule: Any, after_s: float, *_: object) -> tuple[dict[str, Any], pl.DataFrame]:
    """Stands for races.measures.of_run."""
    in_batches = run.manifest["scenario"]["instrument"]["batch_ms"] > 0
    return {
        "races": 0 if in_batches else 12, "seconds": 60.0, "per_minute": 0.0 if in_batches else 12.0,
        "share_of_volume": 0.0 if in_batches else 0.2, "duration_us": {"p50": None if in_batches else 80.0},
        "wins": {"by_cancel": None, "by_group": {} if in_batches else {"snipers_metro": {"won": 9, "lost": 3}}},
        "tax_bps": None if in_batches else 0.4, "poisson": {"clusters_expected": 1.5},
    }, pl.DataFrame()  # fmt: skip


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    stand_in = Pretended()
    monkeypatch.setattr(comparison, "run", stand_in)
    monkeypatch.setattr("aar_swarm.analysis.designed.of_run", _raced)
    return stand_in


def printed(found: DesignStudy) -> str:
    console = Console(width=180, highlight=False)
    with console.capture() as captured:
        for part in designs_table(found.settings):
            console.print(part, soft_wrap=isinstance(part, str), markup=False)
    return captured.get()


def two(out: Path, repeats: int | None = None, **changes: Any) -> DesignStudy:
    return compare_designs(None, repeats, ["continuous", "batches-10ms"], size="small", out=out, **changes)


class TestTheScenarioSDesigns:
    def test_are_those_of_the_literature(self):
        assert set(ALL) == {
            "continuous", "speed-bump-symmetric", "speed-bump-takers", "batches-1ms", "batches-10ms", "batches-100ms",
            "hold-and-release",
        }  # fmt: skip

    @pytest.mark.parametrize("design", ALL)
    @pytest.mark.parametrize("size", ["default", "small"])
    def test_each_makes_a_venue(self, design, size):
        scenario, _ = prepare("latency-race", settings=design_settings("latency-race")[design], size=size)
        hold = scenario.sequencing.config()
        assert (hold.speed_bump_ns, hold.speed_bump_on) == {
            "speed-bump-symmetric": (350_000, "all"), "speed-bump-takers": (4_000_000, "takers"),
        }.get(design, (0, "all"))  # fmt: skip
        assert bool(hold.hold_ns) == (design == "hold-and-release")
        batch_ms = {"batches-1ms": 1, "batches-10ms": 10, "batches-100ms": 100}.get(design, 0)
        assert scenario.engine_config(48).instruments[0].batch_interval_ns == batch_ms * 1_000_000
        assert scenario.breaker is not None

    def test_a_run_itself_knows_nothing_of_them(self):
        assert load_scenario("latency-race").instrument.batch_ms == 0


class TestWhatIsRun:
    def test_each_repeat_of_every_design_before_the_next_of_any_with_the_same_seed(self, pretended, tmp_path):
        found = two(tmp_path / "s", 2, seed=5)
        assert pretended.ran == [(design, seed) for seed in (5, 6) for design in ("continuous", "batches-10ms")]
        assert len(found.runs) == 4 and not found.failures

    def test_all_designs_five_times_unless_told_otherwise(self, pretended, tmp_path):
        compare_designs(size="small", out=tmp_path / "s")
        assert [design for design, seed in pretended.ran if seed == 1] == ALL
        assert len(pretended.ran) == 5 * len(ALL)

    def test_an_interrupted_one_goes_on_with_what_is_missing(self, pretended, tmp_path):
        pretended.interrupted_at = 3
        with pytest.raises(KeyboardInterrupt):
            two(tmp_path / "s", 2)
        pretended.interrupted_at = None
        before = len(pretended.ran)
        found = compare_designs(out=tmp_path / "s")
        assert pretended.ran[before:] == [("batches-10ms", 2)] and len(found.runs) == 4
        assert found.asked.size == "small"

    def test_a_run_that_fails_is_told_and_the_others_go_on(self, pretended, tmp_path):
        pretended.failing = {("batches-10ms", 1)}
        found = two(tmp_path / "s", 2)
        assert len(found.runs) == 3 and len(found.failures) == 1
        assert "Failed: batches-10ms: a host was lost; its log is gone" in printed(found)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"designs": ["dark-pool"]}, "--designs dark-pool: latency-race has continuous, "),
            ({"designs": ["continuous", "continuous"]}, "names one twice"),
            ({"scenario": "exit-door"}, "has no [designs.NAME] tables"),
            ({"settings": {"instrument.batch_ms": "5"}}, "--set instrument.batch_ms: is what [designs."),
            ({"repeats": 0}, "--repeats 0"),
        ],
    )
    def test_what_cannot_be_is_told_before_anything_runs(self, pretended, tmp_path, arguments, said):
        with pytest.raises(ConfigurationError) as error:
            compare_designs(out=tmp_path / "s", **arguments)
        assert said in str(error.value) and "\n" not in str(error.value)
        assert not pretended.ran and not (tmp_path / "s").exists()

    def test_another_comparison_is_not_gone_on_with(self, pretended, tmp_path):
        two(tmp_path / "s", 1)
        with pytest.raises(ConfigurationError, match="--seed: the comparison in .* has 1"):
            compare_designs(seed=2, out=tmp_path / "s")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "letter").touch()
        with pytest.raises(ConfigurationError, match="holds no comparison of designs"):
            compare_designs(out=tmp_path / "other")


class TestWhatItSays:
    def test_means_with_intervals_over_the_repeats(self, pretended, tmp_path):
        found = two(tmp_path / "s", 3)
        told = json.loads((tmp_path / "s" / JSON).read_text())
        assert told == json.loads(json.dumps(found.as_dict())) and told["runs"] == 6
        tax = {each[DESIGN]: each["measures"]["scenario_measures.snipers_tax_bps"] for each in told["results"]}
        assert tax["continuous"]["mean"] == pytest.approx(4.2) and tax["continuous"]["n"] == 3
        assert tax["batches-10ms"]["mean"] == pytest.approx(4 / 11 + 0.2)
        assert tax["continuous"]["low"] == pytest.approx(4.2 - 4.302653 * 0.1 / 3**0.5, abs=1e-5)
        assert told["results"][1]["sets"] == {"instrument.batch_ms": 10.0}

    def test_a_race_figure_that_a_design_has_not_got_is_no_zero(self, pretended, tmp_path):
        told = two(tmp_path / "s", 2).as_dict()
        batches = told["results"][1]["measures"]
        assert batches["races_baseline.tax_bps"] is None and batches["races_wide.per_minute"]["mean"] == 0
        assert told["results"][0]["measures"]["races_wide.won_snipers_metro"]["mean"] == 0.75

    def test_who_wins_and_earns_is_told_by_group(self, pretended, tmp_path):
        names = {name: [m.name for m in measures] for name, measures in measures_of(two(tmp_path / "s", 1).settings)}
        assert {"Races won, share: snipers metro", "Lots sniped, share: snipers metro"} <= set(names["Who wins"])
        assert {"Races won, share: makers remote", "Races won, share, link: metro"} <= set(names["Who wins"])  # of 0
        assert names["Who earns, by the public value"] == ["Gains: makers metro", "Gains, link: metro"]

    def test_the_terminal_and_the_page_show_every_design(self, pretended, tmp_path):
        found = two(tmp_path / "s", 2)
        text = printed(found)
        page = re.sub(r"<(script|style)\b.*?</\1>", "", (tmp_path / "s" / PAGE).read_text(), flags=re.DOTALL)
        for shown in (text, page):
            assert "continuous" in shown and "batches-10ms" in shown and "Effective spread, bps" in shown
        assert "instrument.batch_ms = 10.0" in page and "http" not in page.replace("http-equiv", "")
        assert pl.read_parquet(tmp_path / "s" / TABLE).height == 4
        assert (tmp_path / "s" / STUDY).is_file()


def test_by_link_what_its_groups_won_and_gained_together(tmp_path):
    manifest = {
        "scenario": {"participants": {"a": {"link": "near"}, "b": {"link": "near"}, "c": {"link": ""}, "d": {}}}
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = _classes(Run(tmp_path), {"won_a": 0.5, "won_c": 0.25}, {"profit_a": 3.0, "profit_b": -1.0, "profit_d": 9.0})
    assert found == {"won_near": 0.5, "profit_near": 2.0}


def test_a_small_comparison_from_end_to_end(tmp_path, nothing_left):
    """Real processes: news, quotes, snipes and batches."""
    settings = ("--set", "duration_s=3", "--set", "news.rate_per_s=8")
    arguments = ("designs", "--designs", "continuous,batches-10ms", "--repeats", 1, "--size", "small", "--alongside")
    told = summary_of(aar(*arguments, *settings, "--out", tmp_path / "s", "--json", timeout_s=500))
    assert told["runs"] == 2 and not told["failures"]
    for result in told["results"]:
        measures = result["measures"]
        assert measures["scenario_measures.lots_traded"]["mean"] > 0
        assert 0 < measures["scenario_measures.quoted_spread_bps"]["mean"] < 200
    directory = tmp_path / "s" / "continuous,seed=1"
    assert (
        sum(json.loads(line).get("bps", 0) != 0 for line in (directory / "notices.jsonl").read_text().splitlines()) >= 5
    )
    rules = set(pl.read_parquet(directory / "decisions.parquet")["rule"])
    assert {"QUOTE", "WITHDRAW", "SNIPE", "TRADE_AT_RANDOM"} <= rules
