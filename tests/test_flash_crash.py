"""The flash crash's measures on a session small enough to compute by hand, and one small run from end to end."""

import json

import pytest

from aar_swarm.analysis.flash_crash import scenario_measures
from aar_swarm.scenario import load_scenario
from exchange.config import BreakerConfig, EngineConfig, InstrumentConfig
from exchange.types import CommandKind, Side
from tests.hand_made import MARKET, board, command, order, play
from tests.runs import aar, summary_of

GROUPS = ["program", "high_frequency", "high_frequency", "fundamental_buyers", "opportunistic"]
PROGRAM, FAST, FASTER, BUYER, OTHER = range(5)


def played(*commands, breaker: BreakerConfig | None = None):
    """A scaled minute is 1 s. Mid 1000 at the signal, which comes at 1 s; bids of 100 lots within 1 %."""
    opening = [
        *(command(CommandKind.DEPOSIT_CASH, 0, account=account, quantity_lots=10**9) for account in range(5)),
        *(command(CommandKind.DEPOSIT_POSITION, 0, account=account, quantity_lots=1000) for account in range(5)),
        command(CommandKind.OPEN_SESSION, 1),
        order(OTHER, 1, Side.SELL, 1005, 50, 2),
        order(FAST, 1, Side.BUY, 995, 100, 2),
        order(BUYER, 1, Side.BUY, 900, 100, 2),
        command(CommandKind.PUBLISH_SIGNAL, 1000, quantity_lots=0),
    ]
    config = EngineConfig(
        instruments=(InstrumentConfig(price_levels=8192, breaker=breaker or BreakerConfig()),),
        accounts=5,
        max_orders=64,
    )
    return play(config, [*opening, *commands], GROUPS, scenario=load_scenario("flash-crash-2010"))[0]


POTATO = (
    order(PROGRAM, 1, Side.SELL, 0, 40, 1100, MARKET),  # to FAST, at 995
    order(FASTER, 1, Side.BUY, 994, 60, 5000),
    order(FAST, 2, Side.SELL, 994, 110, 5100),  # 60 of it to itself at 995, 50 to FASTER: 110
    order(PROGRAM, 2, Side.SELL, 0, 20, 5200, MARKET),  # 10 to FASTER at 994, 10 to BUYER at 900
    order(OTHER, 2, Side.BUY, 1005, 20, 6000),  # from its own ask, at 1005
    command(CommandKind.CLOSE_SESSION, 25_000),
)


def test_each_target_beside_what_came_out():
    found = scenario_measures(played(*POTATO), board({}, 5))
    volume = 40 + 60 + 50 + 20 + 20
    assert found["volume_lots"] == volume
    assert found["participation"] == pytest.approx(60 / volume, abs=1e-4)
    assert found["participation_active"] == pytest.approx(60 / (volume - 20), abs=1e-4)
    assert found["participation_target"] == pytest.approx(0.0888, abs=1e-4)
    assert found["program_minutes"] == 4.2 and found["low_minutes"] == 4.2
    assert found["program_sold_share"] == pytest.approx(60 / 4860, abs=1e-4)
    assert found["drop_bps"] == pytest.approx((1 - 900 / 995) * 10_000, abs=0.1)
    assert found["fall_bps"] == 1000 and found["rebound"] == pytest.approx(1.05)
    assert (found["depth_before_lots"], found["depth_low_lots"], found["depth_low_share"]) == (100, 0, 0)


def test_the_hot_potato_is_who_trades_much_and_keeps_little():
    found = scenario_measures(played(*POTATO), board({}, 5))
    # Until the low: 170 lots. Fast traders bought 40 + 60 + 50 + 10 and sold 110.
    assert found["hft_share_crash"] == pytest.approx(270 / 340, abs=1e-4)
    assert found["hft_net_over_gross_crash"] == pytest.approx(50 / 270, abs=1e-4)
    # The busiest 233 ms: the 110 + 20 lots between 5.1 and 5.2 s.
    assert found["hft_share_busiest"] == pytest.approx((120 + 110) / 260, abs=1e-4)
    shares = [value for name, value in found.items() if name.startswith("volume_share") and "target" not in name]
    assert sum(shares) == pytest.approx(1, abs=1e-3)


def test_what_comes_after_the_programs_twenty_minutes_is_not_the_crash():
    late = order(OTHER, 3, Side.SELL, 900, 10, 22_000)
    found = scenario_measures(played(*POTATO[:1], late, POTATO[-1]), board({}, 5))
    assert found["fall_bps"] == 50 and found["volume_lots"] == 40


def test_a_pause_divides_the_fall():
    breaker = BreakerConfig(price_move_bps=300, price_window_ns=10**9, halt_ns=10**6, reopening_auction_ns=80 * 10**6)
    session = played(
        *POTATO[:4],
        command(CommandKind.TIMER, 5201),
        command(CommandKind.TIMER, 5281),
        order(OTHER, 3, Side.SELL, 0, 10, 5400, MARKET),
        command(CommandKind.CLOSE_SESSION, 25_000),
        breaker=breaker,
    )
    found = scenario_measures(session, board({}, 5))
    assert found["pauses"] == 1 and found["pause_minutes"] == 4.2 and found["pause_ms"] == 81
    assert found["fall_before_pause"] == pytest.approx(6 / 100, abs=1e-3)  # 994 of a fall from 1000 to 900
    assert found["fall_after_pause"] == pytest.approx(94 / 100, abs=1e-3)


def test_without_a_program_there_is_nothing_to_measure():
    session = played(*POTATO)
    session.groups[PROGRAM] = "small"
    assert scenario_measures(session, board({}, 5)) == {}


def test_the_population_is_in_the_records_proportions():
    counts = load_scenario("flash-crash-2010").counts(1000)
    assert sum(counts.values()) == 1000
    record = {"intermediaries": 179, "small": 6880, "fundamental_buyers": 1263, "opportunistic": 5808}
    held = {
        "intermediaries": counts["intermediaries"],
        "small": counts["small"],
        "fundamental_buyers": counts["fundamental_buyers"] + counts["bargain_hunters"],
        "opportunistic": counts["opportunistic"] + counts["trend_followers"] + counts["arbitrageurs"],
    }
    for name, accounts in record.items():
        assert held[name] == pytest.approx(1000 * accounts / 15_422, rel=0.03, abs=1)
    assert counts["program"] == 1 and counts["high_frequency"] == 6


@pytest.mark.slow
def test_a_small_run_from_end_to_end(tmp_path):
    arguments = ("run", "flash-crash-2010", "--size", "small", "--out", tmp_path / "run", "--json")
    summary = summary_of(aar(*arguments, timeout_s=580))
    assert summary["agent_processes_lost"] == 0
    found = summary["scenario_measures"]
    assert found["participation"] > 0 and 0 <= found["volume_share_high_frequency"] <= 1
    done = aar("stylised", tmp_path / "run", "--json")
    assert done.returncode == 0 and "heavy_tails" in json.loads(done.stdout)
