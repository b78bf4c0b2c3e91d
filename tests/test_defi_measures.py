"""The measures of defi-cascade on a session small enough to compute by hand, and the scenario as it is written."""

import pytest

from aar_swarm.agents.base import Rule
from aar_swarm.analysis.defi import scenario_measures
from aar_swarm.endowment import opening_commands
from aar_swarm.scenario import load_scenario
from exchange.config import EngineConfig, InstrumentConfig, MarginConfig
from exchange.engine import Engine
from exchange.types import CommandKind, EventKind, OrderType, Side
from tests.hand_made import board, command, order, play, records_of, revalue
from tests.test_money_measures import lending_session


def test_the_chain_the_run_and_the_race_are_told():
    session, _, _ = lending_session()
    found = scenario_measures(session, board({}, 4))
    assert (found["race_attempts"], found["race_wins"], found["race_losses"]) == (2, 1, 1)
    assert (found["race_runners"], found["race_winners"]) == (2, 1)
    assert found["oracle_to_win_ms_p50"] == found["oracle_to_win_ms_max"] == pytest.approx(1.0)
    assert found["loans_closed"] == 0.5  # 40 of 80 coins
    assert found["oracle_low_ticks"] == 955 and found["pool_bad_debt_lots"] == 0
    assert (found["first_redemption_ms"], found["reserves_exhausted_ms"]) == (4.0, 5.0)
    assert found["first_rate_refusal_ms"] is None and found["first_margin_call_ms"] is None
    assert (found["redeemed_lots"], found["redeemers"], found["reserves_used"]) == (5, 1, 1.0)
    assert (found["asset_low_ms"], found["coin_low_ms"], found["first_loan_liquidation_ms"]) == (1.0, 6.0, 3.0)
    assert found["coins_sold_lots"] == 0  # nobody's rule said so


def test_who_left_early_was_called_and_was_liquidated_is_counted_once():
    instrument = InstrumentConfig(price_levels=16384, initial_margin_bps=1000, maintenance_margin_bps=500)
    config = EngineConfig(instruments=(instrument,), accounts=3, max_orders=64, margin=MarginConfig(mark="index"))
    session, _, events = play(
        config,
        [
            command(CommandKind.PUBLISH_INDEX, 0, quantity_lots=1000),
            command(CommandKind.SET_MARGIN, 0, account=1, quantity_lots=1),
            command(CommandKind.DEPOSIT_CASH, 0, account=0, quantity_lots=10**7),
            command(CommandKind.DEPOSIT_POSITION, 0, account=1, quantity_lots=100),
            command(CommandKind.DEPOSIT_POSITION, 0, account=2, quantity_lots=100),
            command(CommandKind.WITHDRAW_CASH, 0, account=1, quantity_lots=85_000),
            command(CommandKind.OPEN_SESSION, 1),
            order(0, 1, Side.BUY, 890, 200, 2),
            command(CommandKind.PUBLISH_SIGNAL, 10, quantity_lots=-50),
            order(2, 1, Side.SELL, 0, 10, 11, OrderType.MARKET, rule=Rule.LEAVE_EARLY),
            order(2, 2, Side.SELL, 0, 10, 12, OrderType.MARKET, rule=Rule.LEAVE_EARLY),
            command(CommandKind.PUBLISH_INDEX, 13, quantity_lots=910),
            revalue(14),
            command(CommandKind.PUBLISH_INDEX, 15, quantity_lots=880),
            revalue(16),
            command(CommandKind.CLOSE_SESSION, 100),
        ],
        ["makers", "crowd", "crowd"],
    )
    found = scenario_measures(session, board({}, 3))
    assert (found["left_early"], found["answered_call"], found["liquidated_accounts"]) == (1, 0, 1)
    assert (found["first_early_leaver_ms"], found["first_margin_call_ms"]) == (1.0, 4.0)
    assert found["first_liquidation_ms"] == 6.0
    assert found["redeemed_lots"] is None and "race_attempts" not in found
    assert (events["kind"] == EventKind.LIQUIDATION_STARTED).sum() == 1


@pytest.mark.parametrize("size", ["default", "small"])
def test_the_scenario_s_holders_can_be_endowed_and_begin_where_it_says(size):
    scenario = load_scenario("defi-cascade", "off", size=size)
    agents = scenario.default_agents
    commands = [
        command(CommandKind(kind), 0, account=account, instrument=instrument, quantity_lots=amount)
        for kind, account, instrument, amount in opening_commands(scenario, agents)
    ]
    events = Engine(scenario.engine_config(agents)).apply(records_of(commands))
    assert not (events["kind"] == EventKind.ORDER_REJECTED).any()
    par, opening = scenario.stablecoin.par_ticks, scenario.instrument.opening_ticks
    for each in scenario.endowments(agents):
        if each.leverage:
            equity = each.cash + each.shares * opening + each.coins * par
            assert each.shares * opening / equity == pytest.approx(each.leverage, rel=1e-3)
    market = scenario.market(agents)
    assert market.open_interest_lots == sum(e.shares for e in scenario.endowments(agents) if e.leverage)
    assert 0 < market.reserves < market.coin_supply_lots * par


def test_a_small_one_is_an_eighth_of_everything():
    whole, small = load_scenario("defi-cascade"), load_scenario("defi-cascade", size="small")
    for table, key in (
        ("stablecoin", "reserves"),
        ("stablecoin", "redemption_lots_per_s"),
        ("stablecoin", "redemption_burst_lots"),
        ("stablecoin", "treasury_lots"),
        ("lending", "pool_lots"),
        ("margin", "insurance_fund"),
    ):
        assert getattr(getattr(small, table), key) * 8 == getattr(getattr(whole, table), key)
    assert small.default_agents * 8 == whole.default_agents
