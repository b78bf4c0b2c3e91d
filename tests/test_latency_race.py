"""What a latency race takes and costs, on sessions small enough to compute by hand."""

import numpy as np
import pytest

from aar_swarm.agents.base import Rule
from aar_swarm.analysis.latency_race import legs_of, scenario_measures, values_at
from aar_swarm.scenario import load_scenario
from exchange.config import EngineConfig, InstrumentConfig
from exchange.types import CommandKind, OrderType, Side
from tests.hand_made import board, command, order, play

GROUPS = ["makers_colocated", "makers_remote", "snipers_colocated", "snipers_remote", "investors"]
MAKER, FAR, SNIPER, LATE, INVESTOR = range(5)
IOC = OrderType.IOC


def played(*commands, batch_ns: int = 0):
    opening = [
        *(command(CommandKind.DEPOSIT_CASH, 0, account=account, quantity_lots=10**9) for account in range(5)),
        *(command(CommandKind.DEPOSIT_POSITION, 0, account=account, quantity_lots=1000) for account in range(5)),
        command(CommandKind.OPEN_SESSION, 1),
    ]
    config = EngineConfig(
        instruments=(InstrumentConfig(price_levels=16_384, batch_interval_ns=batch_ns),), accounts=5, max_orders=64
    )
    return play(config, [*opening, *commands], GROUPS, scenario=load_scenario("latency-race"))[0]


def news(bps: int, at_ms: float):
    return command(CommandKind.PUBLISH_SIGNAL, at_ms, quantity_lots=bps)


def quote(account: int, number: int, side: Side, price: int, lots: int, at_ms: float):
    return order(account, number, side, price, lots, at_ms, OrderType.POST_ONLY, Rule.QUOTE)


RACE = (
    quote(MAKER, 1, Side.SELL, 10_010, 10, 2),
    quote(MAKER, 2, Side.BUY, 9_990, 10, 2),
    news(0, 1000),  # the signal: measures count from here
    order(INVESTOR, 1, Side.BUY, 10_100, 4, 1500, IOC, Rule.TRADE_AT_RANDOM),  # pays 10 a lot
    news(50, 2000),  # 10,050
    order(SNIPER, 1, Side.BUY, 10_049, 40, 2001, IOC, Rule.SNIPE),  # 6 lots, 40 better than the value
    quote(FAR, 1, Side.BUY, 10_040, 10, 2002),
    order(SNIPER, 2, Side.SELL, 9_950, 6, 3000, IOC, Rule.REDUCE_INVENTORY),  # gives back, at 10 a lot
    command(CommandKind.CLOSE_SESSION, 4000),
)
TRADED = 10_010 * 4 + 10_010 * 6 + 10_040 * 6


def test_gains_are_by_the_public_value_of_the_moment():
    found = scenario_measures(played(*RACE), board({}, 5))
    assert found["news"] == 1 and found["lots_traded"] == 16
    assert found["snipers_tax_bps"] == pytest.approx(240 / TRADED * 1e4, abs=1e-4)
    assert found["snipe_share"] == pytest.approx(6 / 16)
    assert found["makers_sniped_bps"] == pytest.approx(-240 / TRADED * 1e4, abs=1e-4)
    assert found["makers_earned_bps"] == pytest.approx((40 + 60) / TRADED * 1e4, abs=1e-4)
    assert found["makers_net_bps"] == pytest.approx(-140 / TRADED * 1e4, abs=1e-4)
    assert found["effective_spread_bps"] == pytest.approx(20)
    assert found["snipes_snipers_colocated"] == 1 and found["snipes_snipers_remote"] == 0


def test_what_all_groups_gained_sums_to_nothing():
    found = scenario_measures(played(*RACE), board({}, 5))
    profits = {name.removeprefix("profit_"): value for name, value in found.items() if name.startswith("profit_")}
    assert profits == {
        "makers_colocated": -2.0, "makers_remote": 0.6, "snipers_colocated": 1.8, "snipers_remote": 0.0,
        "investors": -0.4,
    }  # fmt: skip
    assert sum(profits.values()) == pytest.approx(0)


def test_the_quoted_spread_is_a_mean_over_the_time_with_two_sides():
    """20 ticks from the signal to the snipe at 2001 ms, then no ask."""
    found = scenario_measures(played(*RACE), board({}, 5))
    assert found["quoted_spread_bps"] == pytest.approx(20, abs=0.01)
    assert found["quoted_share"] == pytest.approx(1001 / 3000, abs=1e-4)


def test_news_counts_for_what_the_venue_sequenced_after_it():
    session = played(*RACE)
    published = session.events[session.events["kind"] == 13]["sequence"]
    before, after = int(published[1]) - 1, int(published[1])
    assert values_at(session, np.array([before, after])).tolist() == pytest.approx([10_000, 10_050])


def test_a_batch_is_valued_alike_and_snipers_compete_in_price():
    """Two snipers bid 10,049 and 10,048 for one stale offer of 10 lots: the clearing price leaves them 2 and less."""
    session = played(
        quote(MAKER, 1, Side.SELL, 10_010, 10, 2),
        quote(MAKER, 2, Side.BUY, 9_990, 10, 2),
        command(CommandKind.TIMER, 101),
        news(0, 1000),
        news(50, 2000),
        order(SNIPER, 1, Side.BUY, 10_049, 40, 2001, IOC, Rule.SNIPE),
        order(LATE, 1, Side.BUY, 10_048, 40, 2050, IOC, Rule.SNIPE),
        command(CommandKind.TIMER, 2101),
        command(CommandKind.CLOSE_SESSION, 4000),
        batch_ns=100_000_000,
    )
    found = scenario_measures(session, board({}, 5))
    legs = legs_of(session)
    assert found["lots_traded"] == 10
    price = int(legs.price_ticks[0])
    assert found["snipers_tax_bps"] == pytest.approx((10_050 - price) / price * 1e4, abs=1e-3)
    assert found["snipes_snipers_colocated"] == 1  # the better price, not the earlier order
    assert 10_048 <= price <= 10_049


def test_without_a_signal_there_is_nothing_to_measure():
    assert scenario_measures(played(command(CommandKind.CLOSE_SESSION, 4000)), board({}, 5)) == {}


def test_without_trades_nothing_is_a_number():
    found = scenario_measures(played(news(0, 1000), command(CommandKind.CLOSE_SESSION, 4000)), board({}, 5))
    assert found["snipers_tax_bps"] is None and found["effective_spread_bps"] is None
    assert found["quoted_spread_bps"] is None and found["quoted_share"] == 0
