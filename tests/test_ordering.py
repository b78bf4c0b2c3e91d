"""What ordered a stampede: cases in which the truth is known, made by hand and by random waits; and starvation."""

import numpy as np
import pytest

from aar_swarm.agents.base import Rule
from aar_swarm.analysis.host_clocks import host_clocks
from aar_swarm.analysis.ordering import (
    LEAST_RACERS,
    PARTS,
    Race,
    first_answers,
    ordering,
    race,
    reversed_without,
    stampede_order,
)
from aar_swarm.analysis.tables import latency_table
from aar_swarm.analysis.timing import latencies, starvation
from aar_swarm.report import ordered
from exchange.clock import MS
from exchange.config import EngineConfig, InstrumentConfig
from exchange.types import CommandKind, OrderType, Side
from tests.hand_made import board, command, order, play, timings_of

RACERS = 400
MANIFEST = {"clock_bound_ns": 0, "hosts": [{}]}


def race_of(**parts: np.ndarray) -> Race:
    """Parts in ms; those not given are small noise of their own."""
    rng = np.random.default_rng(5)
    found = {part: parts.get(part, rng.exponential(0.01, RACERS)) * MS for part in PARTS}
    return Race(np.arange(RACERS), sum(found.values()), **found)


def spread_over(most_ms: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, most_ms, RACERS)


@pytest.mark.parametrize(
    ("parts", "verdict", "deciding"),
    [
        ({"network": spread_over(20, 1)}, "network", ["network"]),
        ({"scheduler": spread_over(20, 1)}, "scheduler", ["scheduler"]),
        ({"network": spread_over(20, 1), "scheduler": spread_over(20, 2)}, "mixed", ["network", "scheduler"]),
        ({"network": spread_over(20, 1), "scheduler": spread_over(1, 2)}, "network", ["network"]),
        ({"network": spread_over(1, 1), "scheduler": spread_over(20, 2)}, "scheduler", ["scheduler"]),
        ({"computing": spread_over(20, 1)}, "neither", ["computing"]),
        ({"rest": spread_over(20, 1)}, "neither", ["rest"]),
        ({"scheduler": spread_over(20, 1), "rest": spread_over(20, 2)}, "mixed", ["scheduler", "rest"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_verdict_is_what_was_made(parts, verdict, deciding):
    found = ordering(race_of(**parts))
    assert found["stampede_ordered_by"] == verdict
    evidence = found["stampede_order"]
    assert evidence["deciding"] == deciding and evidence["racers"] == RACERS
    assert sum(evidence["share_of_variance"].values()) == pytest.approx(1, abs=1e-3)
    if verdict == "scheduler":
        assert evidence["tau_of_wait"] > 0.9 > evidence["tau_of_nominal_order"]
    if verdict == "network":
        assert evidence["tau_of_nominal_order"] > 0.9


def test_two_classes_of_links_order_between_them_and_the_scheduler_within():
    """Half co-located, half 5 ms away: of all pairs half are of one class, and among those the wait decides."""
    far = np.where(np.arange(RACERS) % 2 == 0, 5.0, 0.0)
    found = ordering(race_of(network=far, scheduler=spread_over(1, 3)))
    assert found["stampede_ordered_by"] == "mixed"
    shares = found["stampede_order"]["pairs_reversed_without"]
    assert shares["network"] == pytest.approx(0.25, abs=0.03)
    assert shares["scheduler"] == pytest.approx(0.25, abs=0.03)


def test_a_wait_that_only_stretches_the_order_decided_nothing():
    """All wait in the order in which they would have arrived anyway."""
    fan_out = np.arange(RACERS) * 0.01
    found = ordering(
        race_of(rest=fan_out, scheduler=fan_out * 50, network=np.zeros(RACERS), computing=np.zeros(RACERS))
    )
    assert found["stampede_ordered_by"] == "mixed" and found["stampede_order"]["deciding"] == []
    assert found["stampede_order"]["share_of_variance"]["scheduler"] > 0.9  # and is not taken for the cause of order


def test_pairs_reversed_is_counted_right():
    rng = np.random.default_rng(11)
    for _ in range(20):
        arrival, part = rng.permutation(30)[:25].astype(float), rng.integers(0, 20, 25).astype(float)
        rest = arrival - part
        counted = total = 0.0
        for i in range(25):
            for j in range(i):
                agree = np.sign(arrival[i] - arrival[j]) * np.sign(rest[i] - rest[j])
                counted += 1.0 if agree < 0 else 0.5 if agree == 0 else 0.0
                total += 1
        assert reversed_without(arrival, part) == pytest.approx(counted / total)
    assert reversed_without(np.arange(5.0), np.zeros(5)) == pytest.approx(0)
    assert reversed_without(np.arange(5.0), np.arange(5.0)) == 0.5  # without it all would be level


def test_of_few_racers_nothing_is_said():
    few = race_of(network=spread_over(20, 1))
    few = Race(*(part[: LEAST_RACERS - 1] for part in few))
    assert ordering(few) == ordering(None) == {"stampede_ordered_by": None, "stampede_order": None}


# ── from a session's commands and scoreboard ─────────────────────────────────────────────────────────────────────────


def stampede(waits_ms: list[float], up_ms: list[float], known: int = 1):
    """Accounts that all hear the signal of 1 ms after their link and their wait, and answer it at once; the sending of
    each order waits 0.1 ms. The last account sends at that time what it would have sent anyway."""
    count = len(waits_ms)
    heard = [1 + up + wait for wait, up in zip(waits_ms, up_ms, strict=True)]
    places = []
    for account in range(count):
        received = heard[account] + 0.2 + 0.1 + up_ms[account]
        places.append(
            order(account, 1, Side.SELL, 900, 1, received, OrderType.IOC, rule=Rule.EXIT)
            | {"heard_ns": round(heard[account] * MS), "sent_ns": round((heard[account] + 0.2) * MS)}
        )
    other = order(count, 1, Side.SELL, 990, 1, 3) | {"heard_ns": 2 * MS, "sent_ns": 3 * MS, "rule": int(Rule.QUOTE)}
    later = order(0, 2, Side.SELL, 900, 1, 500, OrderType.IOC, rule=Rule.EXIT)
    commands = [
        command(CommandKind.OPEN_SESSION, 0.5, account=-1),
        command(CommandKind.PUBLISH_SIGNAL, 1, account=-1, quantity_lots=-50),
        *sorted([*places, other], key=lambda fields: fields["received_ns"]),
        later,
    ]
    config = EngineConfig(instruments=(InstrumentConfig(price_levels=2048),), accounts=count + 1)
    session, _, _ = play(config, commands, ["crowd"] * count + ["noise"])
    rows = board({}, count + 1)
    rows["signal_heard_ns"] = [round(each * MS) for each in [*heard, 1.5]]
    rows["decided_ns"] = [round((each + 0.2) * MS) for each in heard] + [3 * MS]
    rows["waits_known"] = known
    rows["stampede_waited_ns"][:count] = [round(wait * MS) for wait in waits_ms]
    rows["stampede_on_core_ns"][:count] = round(0.2 * MS)
    rows["sending_waited_ns"][:count] = 9 * MS  # most of it on the way back
    rows["session_waited_ns"][:count] = 40 * MS
    return session, rows


def test_the_parts_of_a_way_are_taken_from_the_commands_and_the_scoreboard():
    session, rows = stampede(waits_ms=[4, 2] * 10, up_ms=[0.5, 1] * 10)
    answers = first_answers(session, rows)
    assert sorted(answers["account"].tolist()) == list(range(20))  # neither the second order of 0 nor what is no answer
    delays = np.array([0.5 * MS, 1 * MS] * 10 + [0], np.int64)
    found = race(session, rows, 1 * MS, delays, delays, np.zeros(21, np.int64))
    assert found is not None
    at = found.accounts.tolist().index(0)
    assert found.arrival[at] == (0.5 + 4 + 0.2 + 0.1 + 0.5) * MS
    assert found.network[at] == 1 * MS
    assert found.scheduler[at] == pytest.approx(4.1 * MS)  # of the wait in sending only what the way has room for
    assert found.computing[at] == pytest.approx(0.2 * MS) and found.rest[at] == pytest.approx(0, abs=1)
    assert np.allclose(found.network + found.scheduler + found.computing + found.rest, found.arrival)


def test_a_stampede_ordered_by_waits_says_so_and_where_waits_are_not_counted_nothing_is_said():
    waits = np.random.default_rng(2).uniform(0, 30, 30).round(3).tolist()
    session, rows = stampede(waits, [0.0] * 30)
    clocks = host_clocks(MANIFEST, 31)
    found = stampede_order(session, rows, timings_of(session), clocks, [(0, 0)] * 31)
    assert found["stampede_ordered_by"] == "scheduler" and found["stampede_order"]["racers"] == 30
    _, unknown = stampede(waits, [0.0] * 30, known=0)
    assert stampede_order(session, unknown, timings_of(session), clocks, [(0, 0)] * 31)["stampede_ordered_by"] is None
    assert starvation(unknown, MANIFEST["hosts"], 2) is None


def test_starvation_and_the_way_to_the_agents_are_in_the_summary():
    session, rows = stampede([4.0, 2.0, 6.0], [0.0] * 3)
    found = starvation(rows, [{"cores": 2, "agents": [0, 3]}, {"cores": 4, "agents": [3, 4]}], None)
    assert found is not None
    assert (found["runqueue_wait_ns_max"], found["session_wait_ns_p50"]) == (6 * MS, 40 * MS)
    assert (found["cores"], found["agents_per_core"]) == (2, 1.5)  # of the fullest host
    timings = timings_of(session)
    told = latencies(latency_table(session.commands, timings), session, rows, timings)
    assert told["notice_ns_max"] == 6 * MS - 5  # matched 5 ns after its receipt
    assert told["decision_stampede_ns_p50"] == round(0.2 * MS)
    assert told["decision_calm_ns_p50"] is None  # nobody sent anything before the signal


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"scheduler": spread_over(20, 1)}, "Ordered by the scheduler rather than the network"),
        ({"network": spread_over(20, 1)}, "Ordered by the network, not the scheduler"),
        (
            {"network": spread_over(20, 1), "scheduler": spread_over(20, 2)},
            "the links' delays and the waits for a core",
        ),
        ({"computing": spread_over(20, 1)}, "Ordered by the agents' own computing"),
    ],
    ids=["scheduler", "network", "mixed", "neither"],
)
def test_a_summary_says_in_words_what_ordered_its_stampede(parts, said):
    _, rows = stampede([4.0, 2.0], [0.0] * 2)
    summary = ordering(race_of(**parts)) | {"starvation": starvation(rows, [{"cores": 1}], 1)}
    words = ordered.in_words(summary)
    assert words is not None and said in words and "400 racers" in words and "2.00 ms for a core" in words
    assert ordered.in_words(ordering(None) | {"starvation": None}) is None
