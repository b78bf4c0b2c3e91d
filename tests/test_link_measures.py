"""What is said of a run's links, on figures small enough to check by hand; and one small real run over two links."""

import polars as pl
import pytest

import aar_swarm
from aar_swarm import results
from aar_swarm.analysis.calm_crash import PING_COLUMNS, calm_and_crash
from aar_swarm.analysis.link_check import in_words, off_nominal, told
from aar_swarm.report.rows import rows_for
from aar_swarm.scenario import load_scenario
from cluster.links import Link
from exchange.clock import MS
from exchange.errors import ConfigurationError
from exchange.types import EventKind
from tests.runs import aar, small, summary_of

LINKS = {"links.metro.up_ms": "0.5", "links.remote.down_ms": "30", "crowd.link": "metro", "noise.link": "remote"}


class Signalled:
    """What calm_and_crash needs of a session."""

    opened_ns, signal_ns = 1_000 * MS, 2_000 * MS


def latency(*rows: tuple[int, float, int, int]) -> pl.DataFrame:
    """(account, received at ms, transit, venue)."""
    return pl.DataFrame(
        [(account, round(at_ms * MS), transit, venue) for account, at_ms, transit, venue in rows],
        {"account": pl.Int64, "received_ns": pl.Int64, "transit_ns": pl.Int64, "venue_ns": pl.Int64},
        orient="row",
    )


def pings(*rows: tuple[int, str, int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), PING_COLUMNS, orient="row")


ROWS = (
    (0, 999, 1, 1),  # before the opening: of neither
    (0, 1_000, 10, 3),
    (1, 1_999.5, 100, 5),
    (0, 2_000, 30, 7),
    (1, 2_050, 300, 9),
    (1, 2_050.1, 999, 99),  # after the last agent's first order
)


def test_the_crash_lasts_from_the_signal_to_the_last_agents_first_order():
    found = calm_and_crash(Signalled(), latency(*ROWS), ["", ""], pings(), 50.0)
    calm, crash = found["latency_calm"], found["latency_crash"]
    assert (calm["lasted_ms"], calm["commands"], calm["transit_ns_max"], calm["venue_ns_max"]) == (1000.0, 2, 100, 5)
    assert (crash["lasted_ms"], crash["commands"], crash["transit_ns_max"]) == (50.0, 2, 300)
    assert calm["links"] is None and calm["round_trip_ns_p50"] is None and calm["pings"] is None  # null, never 0


def test_each_link_has_its_own_latencies_and_round_trips():
    over = pings((0, "", 1_500 * MS, 70), (0, "metro", 1_500 * MS, 90), (0, "metro", 2_020 * MS, 5_000))
    found = calm_and_crash(Signalled(), latency(*ROWS), ["", "metro"], over, 50.0)
    calm, crash = found["latency_calm"], found["latency_crash"]
    assert set(calm["links"]) == {"direct", "metro"}
    assert calm["links"]["direct"]["transit_ns_p50"] == 10 and calm["links"]["metro"]["transit_ns_p50"] == 100
    assert calm["links"]["direct"]["round_trip_ns_max"] == 70 and calm["links"]["metro"]["round_trip_ns_max"] == 90
    assert crash["links"]["metro"]["round_trip_ns_p50"] == 5_000
    assert crash["links"]["direct"]["round_trip_ns_p50"] is None
    assert crash["round_trip_ns_p50"] is None  # of different links together it would be nobody's
    assert crash["transit_ns_max"] == 300


def test_without_a_signal_or_a_stampede_there_is_no_crash():
    calm = calm_and_crash(Signalled(), latency(*ROWS), ["", ""], pings(), None)
    assert calm["latency_calm"] is not None and calm["latency_crash"] is None

    class Quiet(Signalled):
        signal_ns = None

    assert set(calm_and_crash(Quiet(), latency(*ROWS), ["", ""], pings(), None).values()) == {None}


COUNTERS = {
    **{f"delivered_late_ns_{label}": late for label, late in (("p50", 50_000), ("p99", 900_000), ("max", 1_000_000))},
    **{"scheduling": "SCHED_FIFO", "connections": 9, "bytes_up": 100, "bytes_down": 200, "descriptor_shortages": 0},
    **{"turn_ns_p99": 10, "turn_ns_max": 20},
}


def entry(link: Link, before: list[int], after: list[int], **counters: object) -> dict:
    return told(1, "10.0.0.2", "metro", link, [before, after], [100_000], {**COUNTERS, **counters})


def test_a_link_is_told_with_both_checks_and_its_proxys_figures():
    link = entry(Link(2 * MS, MS), [3 * MS] * 3, [4 * MS, 5 * MS])
    assert (link["nominal_rtt_ns"], link["measured_rtt_ns_p50"], link["measured_rtt_ns_max"]) == (
        3 * MS,
        3 * MS,
        5 * MS,
    )
    assert (link["before_rtt_ns_p50"], link["after_rtt_ns_p50"], link["pings"]) == (3 * MS, 4 * MS, 5)
    assert link["direct_rtt_ns_p50"] == 100_000 and link["bytes_down"] == 200
    assert in_words([link]) == "metro of host 1: round trip 3.00 ms, nominal 3.00 ms"
    unpinged = told(1, "10.0.0.2", "metro", Link(0, 0), [[], []], [], None)
    assert unpinged["measured_rtt_ns_p50"] is None and unpinged["bytes_up"] is None


@pytest.mark.parametrize(
    ("nominal_ms", "measured_ms", "is_off"),
    [(3, 3.49, False), (3, 3.51, True), (3, 2.4, True), (40, 43.9, False), (40, 44.1, True)],
)
def test_off_nominal_is_more_than_half_a_millisecond_and_ten_per_cent(nominal_ms, measured_ms, is_off):
    link = entry(Link(nominal_ms * MS, 0), [round(measured_ms * MS)] * 3, [])
    said = off_nominal([link])
    assert bool(said) == is_off
    if is_off:
        assert f"was {measured_ms:.2f} ms (past the link it takes 0.10 ms), nominal is {nominal_ms:.2f} ms" in said[0]


@pytest.mark.parametrize(
    ("counters", "word"),
    [({"delivered_late_ns_p50": 600_000}, "overloaded"), ({"descriptor_shortages": 1}, "no descriptors")],
)
def test_what_else_a_link_can_be_wrong_in_is_said(counters, word):
    assert word in off_nominal([entry(Link(MS, MS), [2 * MS], [], **counters)])[0]


def test_a_link_that_ended_is_said():
    said = off_nominal([told(0, "10.0.0.1", "metro", Link(0, 0), [[], []], [], None)])
    assert "its proxy ended" in said[0] and "no ping came back" in said[1]


def test_calm_and_crash_stand_side_by_side_for_each_link_in_the_table():
    found = calm_and_crash(Signalled(), latency(*ROWS), ["", "metro"], pings((0, "metro", 1_500 * MS, 90)), 50.0)
    rows = {row.name: row.value(found) for row in rows_for([found]) if "calm" in row.name}
    assert rows["Transit in calm → in the crash (p50 / p99), metro"] == "100 ns / 100 ns → 300 ns / 300 ns"
    assert rows["Round trip in calm → in the crash (p50 / p99), metro"] == "90 ns / 90 ns → –"
    plain = calm_and_crash(Signalled(), latency(*ROWS), ["", ""], pings(), 50.0)
    assert [row.name for row in rows_for([plain]) if "calm" in row.name] == [
        "Transit in calm → in the crash (p50 / p99)",
        "Venue in calm → in the crash (p50 / p99)",
    ]


def test_links_are_settings_and_a_setting_can_begin_one():
    scenario = load_scenario("exit-door", settings={**LINKS, "links.metro.rate_mbit": "100"})
    assert scenario.links["metro"].in_ns() == Link(MS // 2, 0, 0, 100.0)
    assert scenario.links["remote"].in_ns() == Link(0, 30 * MS)
    assert scenario.value_of("links.metro.up_ms") == 0.5 and scenario.value_of("links.far.up_ms") is None
    assert [scenario.link_of(name, 0) for name in ("crowd", "noise", "makers")] == ["metro", "remote", ""]


def test_a_host_has_a_link_for_those_whose_group_names_none():
    settings = {**LINKS, "node_links": '["", "metro", "remote"]'}
    scenario = load_scenario("exit-door", settings=settings)
    assert [scenario.link_of("makers", host) for host in range(4)] == ["", "metro", "remote", ""]
    assert [scenario.link_of("crowd", host) for host in range(4)] == ["metro"] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crowd.link": "metro"}, "crowd.link 'metro': there is no such link; there are: none"),
        ({**LINKS, "makers.link": "far"}, "makers.link 'far': .*metro, remote"),
        ({**LINKS, "node_links": '["far"]'}, "node_links 'far': .*metro, remote"),
        ({**LINKS, "node_links": "metro"}, "node_links"),
        ({"links.metro.up_ms": "-1", "crowd.link": "metro"}, r"links.metro.up_ms: .*greater than or equal to 0"),
        ({"links.metro.up_ms": "10001", "crowd.link": "metro"}, r"links.metro.up_ms: .*less than or equal to 10000"),
        ({"links.metro.up_ms": "nan", "crowd.link": "metro"}, "links.metro.up_ms"),
        ({"links.metro.delay_ms": "1"}, "unknown setting 'links.metro.delay_ms'.*up_ms, down_ms, jitter_ms, rate_mbit"),
        ({"links.metro": "1"}, "unknown setting 'links.metro'"),
        ({"links.a b.up_ms": "1", "crowd.link": "a b"}, "links.a b"),
        ({"links.direct.up_ms": "1", "crowd.link": "direct"}, "links.direct: .*choose another"),
        ({**LINKS, "links.mtero.up_ms": "1"}, "links.mtero: nobody uses such a link"),
    ],
)
def test_a_bad_link_is_one_line_that_names_it(settings, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_scenario("exit-door", settings=settings)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def linked(tmp_path_factory):
    directory = tmp_path_factory.mktemp("linked") / "run"
    settings = {"links.near.up_ms": "1", "links.far.up_ms": "25", "links.far.down_ms": "5", "noise.link": "near"}
    settings |= {"crowd.link": "far"}
    return directory, summary_of(aar(*small(40, **settings), "--breaker", "off", "--out", directory, "--json"))


def test_agents_behind_a_longer_link_are_later(linked):
    run = aar_swarm.load(linked[0])
    assert run.summary["agent_processes_lost"] == 0
    assert dict(run.agents.group_by("participants").agg(pl.col("link").unique().first()).rows()) == {
        "makers": "", "value": "", "noise": "near", "crowd": "far"
    }  # fmt: skip
    transit = run.latency.join(run.decisions.select("sequence", "participants"), on="sequence")
    least = dict(transit.group_by("participants").agg(pl.col("transit_ns").min()).rows())
    assert least["noise"] >= MS and least["crowd"] >= 25 * MS
    assert least["makers"] < least["noise"] < least["crowd"]


def test_news_reaches_agents_behind_a_longer_link_later(linked):
    run = aar_swarm.load(linked[0])
    heard = dict(run.agents.group_by("participants").agg(pl.col("signal_heard_ns").min()).rows())
    published_ns = run.events.filter(pl.col("kind") == EventKind.SIGNAL_PUBLISHED)["time_ns"][0]
    assert heard["crowd"] >= published_ns + 5 * MS
    assert published_ns <= heard["makers"] < heard["crowd"]


def test_the_links_of_a_run_are_measured_and_told(linked):
    directory, summary = linked
    links = {link["link"]: link for link in summary["links"]}
    assert set(links) == {"near", "far"}
    assert links["near"]["nominal_rtt_ns"] == MS and links["far"]["nominal_rtt_ns"] == 30 * MS
    assert all(link["measured_rtt_ns_min"] >= link["nominal_rtt_ns"] for link in links.values())
    assert links["near"]["measured_rtt_ns_min"] < links["far"]["measured_rtt_ns_min"]
    assert all(link["bytes_up"] and link["bytes_down"] and link["scheduling"] for link in links.values())
    assert links["far"]["connections"] == 3 * 26 + 3  # of each agent, and of the pings
    run = aar_swarm.load(directory)
    assert {link["link"] for link in run.manifest["links"]} == {"near", "far"}
    assert set(run.link_pings["link"]) == {"", "near", "far"}
    assert summary["latency_calm"]["links"]["far"]["round_trip_ns_p50"] >= 30 * MS
    assert (directory / results.REPORT).read_text().count("far of host 0: round trip") >= 1


def test_without_links_there_are_none_to_tell_of(finished):
    _, summary = finished
    assert summary["links"] is None and summary["links_off_nominal"] is None
    assert summary["latency_calm"]["links"] is None and summary["latency_crash"]["commands"] > 0
    assert "link_pings.parquet" not in {path.name for path in finished[0].iterdir()}
