"""What calm cost, and what was refused: on a session small enough to compute by hand."""

import json

import pytest

from aar_swarm.analysis.calm import calm, refusals
from aar_swarm.scenario import load_scenario
from exchange.config import BreakerConfig, EngineConfig, InstrumentConfig
from exchange.types import CommandKind, Side
from tests.hand_made import MARKET, command, order, play

GROUPS = ["makers", "crowd"]
SIGNAL = command(CommandKind.PUBLISH_SIGNAL, 1001, quantity_lots=-50)
CLOSE = command(CommandKind.CLOSE_SESSION, 2001)


def played(*commands: dict[str, int], breaker: BreakerConfig | None = None, scenario: str = "exit-door"):
    opening = [
        command(CommandKind.DEPOSIT_CASH, 0, account=0, quantity_lots=10**9),
        command(CommandKind.DEPOSIT_POSITION, 0, account=0, quantity_lots=1000),
        command(CommandKind.DEPOSIT_POSITION, 0, account=1, quantity_lots=100),
        command(CommandKind.OPEN_SESSION, 1),
    ]
    instrument = InstrumentConfig(price_levels=16384, breaker=breaker or BreakerConfig())
    config = EngineConfig(instruments=(instrument,), accounts=2, max_orders=64)
    return play(config, [*opening, *commands], GROUPS, scenario=load_scenario(scenario))[0]


QUOTES = (
    order(0, 1, Side.SELL, 1010, 50, 101),
    order(0, 2, Side.BUY, 990, 50, 201),
)


def test_means_are_over_time_and_only_before_the_signal():
    session = played(*QUOTES, order(1, 1, Side.SELL, 0, 10, 601, MARKET), SIGNAL,
                     order(1, 2, Side.SELL, 0, 10, 1101, MARKET), CLOSE)  # fmt: skip
    found = calm(session)
    assert found["seconds"] == 1.0 and (found["trades"], found["lots"]) == (1, 10)
    assert (found["trades_per_s"], found["lots_per_s"]) == (1.0, 10.0)
    assert found["spread_bps"] == 200.0  # 20 ticks of 1,000
    assert found["two_sided_share"] == 0.8  # from 200 ms after the opening
    # Within 1 %: 50 lots of asks alone for 0.1 s, 100 of both for 0.4 s, 90 for the last 0.4 s.
    assert found["depth_lots"] == pytest.approx(0.1 * 50 + 0.4 * 100 + 0.4 * 90, abs=0.1)
    assert (found["rejects"], found["halts"], found["alerts"]) == (0, 0, None)
    since = refusals(session)
    assert (since["trades_since_calm"], since["lots_since_calm"], since["refused_by_reason"]) == (1, 10, {})


def test_without_a_signal_all_is_calm_and_without_an_opening_nothing_is():
    session = played(*QUOTES, order(1, 1, Side.SELL, 0, 10, 601, MARKET), CLOSE)
    assert calm(session)["seconds"] == 2.0 and refusals(session)["trades_since_calm"] == 0
    one_sided = played(QUOTES[0], CLOSE)
    assert calm(one_sided)["spread_bps"] is None and calm(one_sided)["two_sided_share"] == 0
    config = EngineConfig(instruments=(InstrumentConfig(price_levels=16384),), accounts=2)
    never, _, _ = play(config, [command(CommandKind.DEPOSIT_CASH, 0, account=0, quantity_lots=5)], GROUPS)
    assert calm(never) is None


def test_halts_and_what_they_refuse_are_told_apart_from_other_rejects():
    breaker = BreakerConfig(sell_volume_lots=15, sell_window_ns=10**9)
    session = played(
        *QUOTES,
        order(1, 1, Side.SELL, 0, 500, 301, MARKET),  # more than it has
        order(1, 2, Side.SELL, 0, 10, 601, MARKET),
        order(1, 3, Side.SELL, 0, 10, 701, MARKET),  # trips, and is cut short
        order(1, 4, Side.SELL, 0, 10, 801, MARKET),  # halted
        SIGNAL,
        order(1, 5, Side.SELL, 0, 10, 1101, MARKET),  # halted
        CLOSE,
        breaker=breaker,
    )
    found, over_all = calm(session), refusals(session)
    assert (found["halts"], found["refused_orders"], found["rejects"]) == (1, 2, 2)
    assert (over_all["halts"], over_all["refused_orders"], over_all["refused_logons"]) == (1, 3, 0)
    assert over_all["refused_by_reason"] == {"HALTED": 2, "BREAKER": 1}


def test_a_vendor_s_fault_ends_the_calm():
    shared = load_scenario("shared-brain")
    assert shared.vendors is not None
    session = played(*QUOTES, command(CommandKind.PUBLISH_SIGNAL, 10_001, quantity_lots=0), CLOSE | {
        "received_ns": 12_000_000_000}, scenario="shared-brain")  # fmt: skip
    assert calm(session)["seconds"] == shared.vendors.fault_at_s
    said = {"told": "".join(json.dumps({"received_ns": ms * 10**6}) + "\n" for ms in (900, 3999, 4001, 4002))}
    assert calm(session, said)["alerts"] == 2  # the opening was at 1 ms, so that the fault is at 4,001
    assert calm(session, said | {"error": "killed"})["alerts"] is None
