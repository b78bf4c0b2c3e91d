"""The report page and the terminal table: complete in themselves, honest about nulls, and no extreme lost."""

import base64
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from rich.table import Table

from aar_swarm.report import formats, html, story, views
from aar_swarm.report.decimate import bins_for, decimate, decimate_around, with_ends
from aar_swarm.report.page import write_report
from aar_swarm.report.picture import Picture
from aar_swarm.report.rows import rows_for
from aar_swarm.report.table import summary_table
from tests.synthetic_runs import CONDITIONS, SIGNAL_MS, TRIP_MS, empty_picture, picture, pictures

_LIMIT_BYTES = 6_000_000


@pytest.fixture(scope="module")
def both() -> list[Picture]:
    return pictures()


@pytest.fixture(scope="module")
def page(both: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, "Exit door", both, CONDITIONS)
    return path.read_text(encoding="utf-8")


def _written(tmp_path: Path, shown: list[Picture], title: str = "A run") -> str:
    path = tmp_path / "report.html"
    write_report(path, title, shown)
    return path.read_text(encoding="utf-8")


def _own_markup(page: str) -> str:
    """The page without its scripts and styles."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)


def _sources(page: str) -> Iterator[dict[str, np.ndarray]]:
    """The columns of every data source of the page's plots."""
    text = re.search(r"docs_json = ('|\")(.*?)\1;", page, flags=re.DOTALL)
    assert text is not None, "no plots on the page"
    documents = json.loads(text[2].replace("\\\\", "\\"))

    def walk(node: object) -> Iterator[dict[str, np.ndarray]]:
        if isinstance(node, dict):
            if node.get("name") == "ColumnDataSource":
                yield {name: _array(data) for name, data in node["attributes"]["data"]["entries"]}
            for child in node.values():
                yield from walk(child)
        elif isinstance(node, list):
            for child in node:
                yield from walk(child)

    yield from walk(documents)


def _array(data: object) -> np.ndarray:
    if isinstance(data, dict) and data.get("type") == "ndarray":
        return np.frombuffer(gzip.decompress(base64.b64decode(data["array"]["data"])), data["dtype"])
    return np.array(data, dtype=object)


def test_page_loads_nothing_from_outside(page: str) -> None:
    markup = re.sub(r"(<(?:script|style)\b[^>]*>).*?(?=</(?:script|style)>)", r"\1", page, flags=re.DOTALL)
    assert not re.search(r"<(script|img|iframe|link|source|object|embed)\b[^>]*\b(src|href|data)\s*=", markup)
    assert "http:" not in markup and "https:" not in markup
    for style in re.findall(r"<style.*?</style>", page, flags=re.DOTALL):
        assert "@import" not in style and "url(" not in style
    assert "default-src 'none'" in markup, "the policy that forbids the network is gone"


def test_page_is_small(page: str) -> None:
    assert len(page.encode()) < _LIMIT_BYTES


def test_page_names_runs_trip_and_conditions(page: str, both: list[Picture]) -> None:
    markup = _own_markup(page)
    for run in both:
        assert escape(run.label) in markup
    assert both[1].trip_text is not None and escape(both[1].trip_text) in markup
    for name, value in CONDITIONS.items():
        assert escape(name) in markup and escape(value) in markup
    for term in ("AAR ratio", "Illusion ratio", "Drawdown", "Trough"):
        assert f"<dt>{term}</dt>" in markup


def test_every_term_that_a_row_links_to_is_in_the_glossary(page: str) -> None:
    for anchor in set(re.findall(r'href="#([^"]+)"', _own_markup(page))):
        assert f'id="{anchor}"' in page, f"a link to #{anchor} leads nowhere"


def test_runs_of_a_row_share_their_ranges(page: str, both: list[Picture]) -> None:
    ranges = page.count('"name":"Range1d"')
    write_once = len([f for f in views.Views.__dataclass_fields__ if f not in ("stampede_ms",)])
    assert ranges == write_once, "each row has one x and one y range, whatever the number of runs"


def test_nulls_are_dashes_and_empty_frames_draw(tmp_path: Path) -> None:
    text = _own_markup(_written(tmp_path, [empty_picture("nothing")]))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", text)
    assert cells and set(cells) == {formats.DASH}
    for said in ("No trades.", "No quotes.", "No orders.", "Nothing was measured."):
        assert said in text


def test_one_run_beside_an_empty_one(tmp_path: Path, both: list[Picture]) -> None:
    text = _own_markup(_written(tmp_path, [both[1], empty_picture()]))
    assert text.count("<figure ") == 2 * 5


def test_a_trip_without_a_signal_is_the_anchor(tmp_path: Path, both: list[Picture]) -> None:
    alone = replace(both[1], signal_ms=None)
    assert alone.anchor_ms == TRIP_MS and alone.trough() is None
    assert "after the trip" in _own_markup(_written(tmp_path, [alone]))


def test_a_report_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        write_report(tmp_path / "report.html", "None", [])


def test_text_is_escaped_everywhere(tmp_path: Path, both: list[Picture]) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    losses = both[1].losses.with_columns(participants=pl.lit(evil))
    summary = both[1].summary | {"scenario": evil}
    shown = replace(both[1], label=evil, trip_text=evil, losses=losses.head(1), summary=summary)
    path = tmp_path / "report.html"
    write_report(path, evil, [shown], {evil: evil})
    text = path.read_text(encoding="utf-8")
    assert "<script>alert(1)" not in text and "<img" not in _own_markup(text)


def test_extremes_reach_the_page(tmp_path: Path, both: list[Picture]) -> None:
    """One trade, one quote and one millisecond among a million, each far out, must still be drawn."""
    rng = np.random.default_rng(3)
    count = 300_000
    times = np.sort(rng.uniform(0, 10_000, count))
    prices = rng.integers(9_990, 10_011, count)
    prices[123_456], prices[200_001] = 4_321, 17_777
    trades = pl.DataFrame({"time_ms": times, "price_ticks": prices, "quantity_lots": np.ones(count, np.int64)})
    depth = rng.integers(5_000, 6_000, count)
    depth[150_000] = 0
    book = pl.DataFrame(
        {"time_ms": times, "bid_ticks": prices - 1, "ask_ticks": prices + 1, "bid_depth_lots": depth,
         "ask_depth_lots": depth}
    )  # fmt: skip
    text = _written(tmp_path, [replace(both[0], trades=trades, book=book), both[1]])
    assert len(text.encode()) < _LIMIT_BYTES
    assert "300,000 trades" in _own_markup(text) and "no extreme is hidden" in _own_markup(text)
    found = list(_sources(text))
    drawn = np.concatenate([source["price"] for source in found if "price" in source])
    assert {43.21, 177.77} <= set(np.round(drawn, 2))
    bids = np.concatenate([source["bid"] for source in found if "bid" in source])
    assert {43.20, 177.76, 0.0} <= set(np.round(bids, 2))


@pytest.mark.parametrize("seed", range(5))
def test_decimation_keeps_extremes_ends_and_empty_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bins, count = 50, 20_000
    price = pl.Series(rng.normal(0, 1, count).cumsum())
    holes = rng.random(count) < 0.001
    frame = pl.DataFrame({"time_ms": np.sort(rng.uniform(0, 1_000, count)), "price": price}).with_columns(
        price=pl.when(pl.Series(holes)).then(None).otherwise(pl.col("price"))
    )
    kept = decimate(frame, ("price",), bins)
    assert kept.height <= 6 * bins
    assert kept.row(0) == frame.row(0) and kept.row(-1) == frame.row(-1)
    assert kept["time_ms"].is_sorted()
    start, end = frame["time_ms"][0], frame["time_ms"][-1]
    number = ((pl.col("time_ms") - start) / ((end - start) / bins)).floor().clip(0, bins - 1)
    measures = [
        pl.col("price").min().alias("min"),
        pl.col("price").max().alias("max"),
        pl.col("price").is_null().any().alias("holes"),
    ]
    by_bin = [f.group_by(number.alias("bin")).agg(measures).sort("bin") for f in (frame, kept)]
    assert by_bin[0].equals(by_bin[1]), f"seed {seed}"


def test_short_series_are_left_whole() -> None:
    frame = pl.DataFrame({"time_ms": [1.0, 1.0, 1.0], "price": [3, 1, 2]})
    assert decimate(frame, ("price",), 1).equals(frame)
    assert decimate(frame.clear(), ("price",), 1).is_empty()


def test_many_trades_in_one_instant_are_decimated() -> None:
    frame = pl.DataFrame({"time_ms": np.zeros(1_000), "price": np.arange(1_000)})
    assert decimate(frame, ("price",), 10)["price"].to_list() == [0, 999]


def test_a_short_event_in_a_long_session_keeps_its_detail() -> None:
    frame = pl.DataFrame({"time_ms": np.arange(100_000) / 10.0, "price": np.tile([0, 1], 50_000)})
    kept = decimate_around(frame, ("price",), 100, (4_000.0, 4_010.0))
    inside = pl.col("time_ms").is_between(4_000.0, 4_010.0)
    assert kept.filter(inside).equals(frame.filter(inside))
    assert kept["time_ms"].is_sorted() and kept.height < 1_000


def test_a_quote_is_drawn_until_its_side_empties() -> None:
    book = pl.DataFrame({"t": [0.0, 1.0, 2.0, 3.0], "bid": [5, None, None, 6], "ask": [7, 8, None, 9]})
    ended = with_ends(book, ("bid", "ask"), "t")
    assert ended.rows() == [(0.0, 5, 7), (1.0, 5, 7), (1.0, None, 8), (2.0, None, 8), (2.0, None, None), (3.0, 6, 9)]
    assert with_ends(book.clear(), ("bid", "ask"), "t").is_empty()


def test_more_runs_are_drawn_with_fewer_points() -> None:
    assert [bins_for(count) for count in (1, 2, 3, 50)] == [2_000, 1_500, 1_000, 500]


def test_zoom_lasts_until_most_of_the_fall_has_happened(both: list[Picture]) -> None:
    half, most = (views.fallen_within_ms(both[0], part) for part in (0.5, 0.9))
    assert half is not None and most is not None and 0 < half < most < 200
    assert most < views.stampede_ms(both) <= 1.3 * most + 50
    assert views.stampede_ms([empty_picture()]) == 300
    assert "half had happened" in story.fall(both[0]) and story.fall(empty_picture()).startswith("No fall")


def test_outcome_says_how_much_of_the_exit_happened(both: list[Picture]) -> None:
    halted = replace(both[1], summary=both[1].summary | {"planned_lots": 20_000})
    assert "The crowd sold 7,980 of the 20,000 lots that it planned to sell." in story.outcome(halted)


def test_trough_is_placed_by_the_summary(both: list[Picture]) -> None:
    trough = both[0].trough()
    assert trough is not None
    assert trough[0] == pytest.approx(SIGNAL_MS + both[0].summary["trough_ms"])
    assert trough[1] == pytest.approx(min(both[0].after_anchor(both[0].trades)["price_ticks"].to_list()) * 0.01)


def test_quotes_far_from_the_market_do_not_flatten_the_plot_and_are_reported(both: list[Picture]) -> None:
    far = both[0].book.with_columns(ask_ticks=pl.when(pl.col("time_ms") < 20).then(900_000).otherwise("ask_ticks"))
    run = replace(both[0], book=far)
    seen = views.views_of([run])
    assert seen.price[1] < 120
    assert "lie outside the first view" in story.price(run, seen)


def test_cautions_name_what_differs(both: list[Picture]) -> None:
    other = replace(both[1], summary=both[1].summary | {"seed": 8, "agent_processes_lost": 3})
    said = " ".join(story.cautions([both[0], other]))
    assert "Not the same: seed (7; 8)." in said
    assert "breaker on: 3 agent processes were lost" in said


def test_table_has_the_rows_of_the_page(both: list[Picture]) -> None:
    labels, summaries = [p.label for p in both], [p.summary for p in both]
    table = summary_table(labels, summaries)
    assert isinstance(table, Table) and len(table.columns) == 1 + len(both)
    assert all(column.justify == "right" for column in table.columns[1:])
    console = Console(width=160, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as captured:
        console.print(table)
    printed, page = captured.get(), html.figures_table(both).replace("&nbsp;", " ")
    for row in rows_for(summaries):
        assert row.name in printed and escape(row.name) in page
        for summary in summaries:
            assert (
                row.value(summary).replace(" ", "") in printed.replace(" ", "") and escape(row.value(summary)) in page
            )


def test_table_takes_labels_as_text_and_one_a_summary() -> None:
    with pytest.raises(ValueError, match="one label a run"):
        summary_table(["a"], [])
    table = summary_table(["[red]a[/red]"], [{"scenario": "[bold]x"}])
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    assert "[red]a[/red]" in captured.get() and "[bold]x" in captured.get()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.count(1234567), "1,234,567"), (formats.count(None), "–"), (formats.count(0), "0"),
        (formats.money(-1234.5), "−1,234"), (formats.money(12.5), "12.50"), (formats.money(-0.001), "0.00"),
        (formats.bps(912.4), "912 bps (9.12 %)"), (formats.ratio(4.871), "4.87 ×"), (formats.yes_no(False), "no"),
        (formats.duration(812_345), "812 µs"), (formats.duration(1_204_410), "1.20 ms"), (formats.duration(7), "7 ns"),
        (formats.duration(2_500_000_000), "2.50 s"), (formats.durations(None, None), "–"),
        (formats.durations(1_000, None), "1.00 µs / –"), (formats.ratio(float("inf")), "inf ×"),
        (formats.price(99.5, 0.25), "99.50"), (formats.price(99.0, 1.0), "99"), (formats.identifier(12345), "12345"),
        (formats.text(["a", "b"]), "a, b"), (formats.span(4.0, 120.25), "4.0 to 120.2 ms"),
    ],
)  # fmt: skip
def test_numbers_read_well(shown: str, expected: str) -> None:
    assert shown == expected


def test_synthetic_runs_are_the_same_every_time() -> None:
    assert picture().trades.equals(picture().trades)
