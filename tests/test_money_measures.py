"""The measures of margin accounts, loans and the stablecoin: hand-made sessions, end to end through the engine."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_swarm.analysis.ledger import follow
from aar_swarm.analysis.losses import losers_table
from aar_swarm.analysis.measures import NotConserved, Session, check_conservation
from aar_swarm.analysis.tables import decisions_table, liquidations_table
from exchange.clock import MS
from exchange.config import (
    EngineConfig,
    InstrumentConfig,
    LendingConfig,
    MarginConfig,
    OracleConfig,
    StablecoinConfig,
)
from exchange.engine import Engine
from exchange.types import NOBODY, CommandKind, EventKind, OrderType, Side, SystemAccount
from tests.hand_made import MARKET, board, command, measured, order, play, records_of, revalue

K = CommandKind
TICK = 0.01


def margin_session(fund_cash: int, short: bool = False, fee_bps: int = 0) -> tuple[Session, Engine, np.ndarray]:
    """Account 1 holds 10 lots at a leverage of five; account 2 sells 11 into bids of 990, 900 and 700."""
    config = EngineConfig(
        instruments=(InstrumentConfig(price_levels=16384, initial_margin_bps=2000, maintenance_margin_bps=1000),),
        accounts=4,
        max_orders=64,
        margin=MarginConfig(mark="last", fee_bps=fee_bps),
    )
    fund = 4 + SystemAccount.INSURANCE_FUND
    selling_short = [order(0, 1, Side.BUY, 1000, 10, 2), order(3, 1, Side.SELL, 1000, 10, 2)]
    commands = [
        command(K.PUBLISH_INDEX, 0, quantity_lots=1000),
        command(K.DEPOSIT_CASH, 0, account=0, quantity_lots=10**7),
        command(K.DEPOSIT_POSITION, 0, account=0, quantity_lots=100),
        command(K.SET_MARGIN, 0, account=1, quantity_lots=1),
        command(K.DEPOSIT_POSITION, 0, account=1, quantity_lots=10),
        command(K.WITHDRAW_CASH, 0, account=1, quantity_lots=8000),
        command(K.DEPOSIT_POSITION, 0, account=2, quantity_lots=11),
        command(K.SET_MARGIN, 0, account=3, quantity_lots=1),
        command(K.DEPOSIT_CASH, 0, account=3, quantity_lots=100_000),
        *([command(K.DEPOSIT_CASH, 0, account=fund, quantity_lots=fund_cash)] if fund_cash else []),
        command(K.OPEN_SESSION, 1),
        *(selling_short if short else []),
        order(0, 11, Side.SELL, 1010, 50, 2),
        order(0, 12, Side.BUY, 990, 5, 2),
        order(0, 13, Side.BUY, 900, 5, 2),
        order(0, 14, Side.BUY, 700, 100, 2),
        revalue(3),
        command(K.PUBLISH_SIGNAL, 10, quantity_lots=-50),
        order(2, 1, Side.SELL, 0, 10, 12, MARKET, rule=7),  # at 990 and 900: the mark is 900, and account 1 is called
        revalue(13),
        order(2, 2, Side.SELL, 0, 1, 14, MARKET, rule=7),  # at 700: below what account 1 owes
        revalue(15),
        command(K.CLOSE_SESSION, 100),
    ]  # fmt: skip
    return play(config, commands, ["makers", "holders", "crowd", "shorts"], leverages=[0, 5, 0, 1])


PLANS = board({1: (10, 500), 2: (11, 550)}, 4)


def test_a_bankrupt_account_is_sold_through_the_book_and_what_is_missing_is_bad_debt():
    session, engine, events = margin_session(fund_cash=100)
    check_conservation(engine, events)
    summary, losses = measured(session, PLANS)
    # 10 lots against 8,000 of debt go at 700: 1,000 are missing, of which the fund has 100.
    assert (summary["margin_calls"], summary["liquidations"]) == (1, 1)
    assert (summary["taken_over"], summary["deleveraged"], summary["liquidations_per_ms_peak"]) == (0, 0, 1)
    assert summary["bad_debt"] == pytest.approx(900 * TICK)
    assert summary["insurance_fund_used"] == pytest.approx(100 * TICK)
    assert summary["liquidation_notional_per_ms_peak"] == pytest.approx(7000 * TICK)
    assert summary["loan_liquidations"] is None and summary["redemptions"] is None
    # The liquidation engine's sale is part of account 1's exit.
    assert (summary["planned_lots"], summary["sold_lots"]) == (21, 21)
    paid = 5 * 10 + 5 * 100 + 1 * 300 + 10 * 300
    assert summary["exit_cost"] == pytest.approx(paid * TICK)
    assert summary["illusion_ratio"] == pytest.approx(paid / 1050, abs=1e-4)
    # It had 10 × 1000 − 8000 and has nothing.
    assert losses.row(by_predicate=pl.col("participants") == "holders", named=True)["loss"] == pytest.approx(
        2000 * TICK
    )
    at_five = losers_table(session).filter((pl.col("dimension") == "leverage") & (pl.col("bucket") == "3–5"))
    assert at_five["loss"].to_list() == pytest.approx([2000 * TICK])


def test_liquidated_lots_of_those_without_a_plan_are_not_part_of_the_exit():
    session, _, _ = margin_session(fund_cash=100)
    summary, _ = measured(session, board({2: (11, 550)}, 4))
    assert (summary["planned_lots"], summary["sold_lots"]) == (11, 11)
    assert summary["exit_cost"] == pytest.approx((5 * 10 + 5 * 100 + 300) * TICK)


def test_what_the_insurance_fund_takes_over_went_at_the_bankruptcy_price():
    session, engine, events = margin_session(fund_cash=100_000)
    check_conservation(engine, events)
    summary, _ = measured(session, PLANS)
    # It takes 10 lots at 800 and sells them at 700 in the same revaluation.
    assert (summary["taken_over"], summary["bad_debt"]) == (1, 0)
    assert summary["insurance_fund_used"] == pytest.approx(10 * (800 - 700) * TICK)
    assert summary["liquidation_notional_per_ms_peak"] == pytest.approx(8000 * TICK)  # the fund's sale is not one
    assert summary["sold_lots"] == 21
    assert summary["exit_cost"] == pytest.approx((5 * 10 + 5 * 100 + 300 + 10 * 200) * TICK)
    steps = liquidations_table(events, ["makers", "holders", "crowd", "shorts"], session.signal_ns or 0)
    told = list(zip(steps["event"], steps["participants"], steps["counterparties"], steps["reason"], strict=True))
    assert told == [
        ("MARGIN_CALLED", "holders", None, "NONE"),
        ("LIQUIDATION_STARTED", "holders", None, "NONE"),
        ("POSITION_TAKEN_OVER", "holders", "insurance_fund", "NONE"),
        ("LIQUIDATION_ENDED", "holders", None, "NONE"),
        ("ORDER_FILLED", "insurance_fund", "makers", "FUND_SALE"),
    ]
    assert steps["time_ms"].to_list() == [3, 5, 5, 5, 5]
    assert steps["side"].to_list() == [None, None, "SELL", None, "SELL"]


def test_a_deleveraged_counterparty_closes_at_the_bankruptcy_price():
    session, engine, events = margin_session(fund_cash=0, short=True)
    check_conservation(engine, events)
    summary, losses = measured(session, PLANS)
    assert (summary["deleveraged"], summary["taken_over"], summary["bad_debt"]) == (1, 0, 0)
    assert summary["exit_cost"] == pytest.approx((5 * 10 + 5 * 100 + 300 + 10 * 200) * TICK)
    shorts = losses.row(by_predicate=pl.col("participants") == "shorts", named=True)
    assert shorts["loss"] == pytest.approx(-10 * (1000 - 800) * TICK)  # a gain
    assert shorts["bought_lots"] == 10
    assert session.holdings(session.close_sequence).lots[3, 0] == 0
    assert session.holdings(session.signal_sequence or 0).lots[3, 0] == -10


def test_a_fee_goes_to_the_fund_and_is_followed():
    """At 850 the account can still pay: sold above its bankruptcy price, it pays a fee."""
    session, engine, events = margin_session(fund_cash=100, fee_bps=100)
    check_conservation(engine, events)  # bankrupt: nothing is left for a fee
    assert not (events["kind"] == EventKind.FEE_CHARGED).any()
    config = session.config
    deposits = [fields for fields in _as_fields(session.commands) if fields["received_ns"] <= MS]
    commands = [
        *deposits,
        order(0, 1, Side.SELL, 1010, 50, 2),
        order(0, 2, Side.BUY, 880, 100, 2),
        order(2, 1, Side.SELL, 0, 1, 3, MARKET),  # the mark is 880: equity 800, maintenance 880
        revalue(4),
        command(K.CLOSE_SESSION, 100),
    ]
    _, engine, events = play(config, commands, ["makers", "holders", "crowd", "shorts"])
    check_conservation(engine, events)
    fee = events[events["kind"] == EventKind.FEE_CHARGED]
    assert fee["value"].tolist() == [88]  # 1 % of 10 × 880
    assert follow(config, events).cash[4 + SystemAccount.INSURANCE_FUND] == 100 + 88


def _as_fields(records: np.ndarray) -> list[dict[str, int]]:
    names = [name for name in records.dtype.names or () if name not in ("sequence", "check")]
    return [{name: int(record[name]) for name in names} for record in records]


def lending_session() -> tuple[Session, Engine, np.ndarray]:
    """Account 1 borrows 80 coins on 100 lots; the price falls, and 2 and 3 race to liquidate it."""
    config = EngineConfig(
        instruments=(InstrumentConfig(price_levels=16384, oracle=OracleConfig()), InstrumentConfig(price_levels=16384)),
        accounts=4,
        max_orders=64,
        lending=LendingConfig(collateral_instrument=0, debt_instrument=1, debt_at_par=True),
        stablecoin=StablecoinConfig(instrument=1, par_ticks=1000),
    )
    pool, issuer = 4 + SystemAccount.LENDING_POOL, 4 + SystemAccount.ISSUER
    commands = [
        command(K.DEPOSIT_CASH, 0, account=0, quantity_lots=10**7),
        command(K.DEPOSIT_POSITION, 0, account=0, quantity_lots=100),
        command(K.DEPOSIT_POSITION, 0, account=0, instrument=1, quantity_lots=50),
        command(K.DEPOSIT_POSITION, 0, account=1, quantity_lots=100),
        command(K.DEPOSIT_POSITION, 0, account=2, instrument=1, quantity_lots=50),
        command(K.DEPOSIT_POSITION, 0, account=3, instrument=1, quantity_lots=60),
        command(K.DEPOSIT_POSITION, 0, account=3, quantity_lots=5),
        command(K.DEPOSIT_POSITION, 0, account=pool, instrument=1, quantity_lots=100),
        command(K.DEPOSIT_CASH, 0, account=issuer, quantity_lots=5000),
        command(K.OPEN_SESSION, 1),
        order(0, 1, Side.SELL, 1010, 50, 2),
        order(0, 2, Side.BUY, 990, 5, 2),
        order(0, 3, Side.BUY, 900, 50, 2),
        order(0, 4, Side.SELL, 1010, 20, 2, instrument=1),
        order(0, 5, Side.BUY, 990, 4, 2, instrument=1),
        order(0, 6, Side.BUY, 910, 20, 2, instrument=1),
        revalue(3),
        command(K.DEPOSIT_COLLATERAL, 4, account=1, quantity_lots=100),
        command(K.BORROW, 5, account=1, quantity_lots=80),
        command(K.PUBLISH_SIGNAL, 10, quantity_lots=-50),
        order(3, 1, Side.SELL, 0, 5, 11, MARKET),  # the bid is 900 now, the book's price 955
        revalue(12),
        command(K.LIQUIDATE, 13, account=2, quantity_lots=40, target_order_id=1),
        command(K.LIQUIDATE, 13.5, account=3, quantity_lots=40, target_order_id=1),  # too late: healthy again
        command(K.REDEEM, 14, account=3, quantity_lots=5),
        command(K.REDEEM, 15, account=3, quantity_lots=1),  # the reserves are gone
        order(3, 2, Side.SELL, 0, 10, 16, MARKET, instrument=1),  # 4 at 990, 6 at 910
        command(K.CLOSE_SESSION, 100),
    ]  # fmt: skip
    return play(config, commands, ["makers", "borrowers", "liquidators", "liquidators"])


def test_a_loans_liquidation_is_followed_and_its_lost_races_are_counted():
    session, engine, events = lending_session()
    check_conservation(engine, events)
    summary, _ = measured(session, board({}, 4))
    assert (summary["loan_liquidations"], summary["loan_liquidation_attempts"]) == (1, 2)
    assert summary["liquidations"] is None and summary["insurance_fund_used"] is None
    assert summary["bad_debt"] == 0
    # 40 coins of 1000 and 5 % of bonus, in lots of 955: 43.
    assert summary["liquidation_notional_per_ms_peak"] == pytest.approx(43 * 955 * TICK)
    has = session.holdings(session.close_sequence)
    assert (has.collateral[1], has.debt[1], has.lots[1].tolist()) == (57, 40, [0, 80])
    assert has.lots[2].tolist() == [43, 10]


def test_net_worth_counts_coins_collateral_and_debt_at_their_mids():
    session, _, _ = lending_session()
    _, losses = measured(session, board({}, 4))
    # Mids at the signal: 1000 and 1000; before the close (900 + 1010) / 2 = 955 and (910 + 1010) / 2 = 960.
    before = 100 * 1000 + 80 * 1000 - 80 * 1000
    after = 57 * 955 + 80 * 960 - 40 * 960
    assert losses.row(by_predicate=pl.col("participants") == "borrowers", named=True)["loss"] == pytest.approx(
        (before - after) * TICK
    )
    second = (50 * 1000) - (43 * 955 + 10 * 960)
    third = (60 * 1000 + 5 * 1000) - (5 * 990 + 5 * 1000 + 4 * 990 + 6 * 910 + 45 * 960)
    assert session.losses[2:].tolist() == pytest.approx([second * TICK, third * TICK])


def test_the_stablecoins_low_and_the_redemptions_that_were_refused():
    session, _, _ = lending_session()
    summary, _ = measured(session, board({}, 4))
    assert (summary["redemptions"], summary["redemptions_refused"]) == (1, 1)
    assert (summary["coin_low_ticks"], summary["coin_low_share_of_par"]) == (910, 0.91)
    assert summary["drawdown_bps"] == pytest.approx(100)  # of the main instrument only: 5 lots at 990
    assert summary["rejects"] == 2
    requests = decisions_table(session.commands, ["makers", "borrowers", "liquidators", "liquidators"])
    assert requests.filter(pl.col("kind") >= K.DEPOSIT_COLLATERAL).height == 6


def test_conservation_looks_at_every_account_and_loan():
    _, engine, events = lending_session()
    engine.state.loans["debt_lots"][1] += 1
    with pytest.raises(NotConserved, match="debt"):
        check_conservation(engine, events)
    engine.state.loans["debt_lots"][1] -= 1
    engine.state.accounts["cash"][0] += 1
    engine.state.accounts["cash"][1] -= 1  # the sum is right and two accounts are wrong
    with pytest.raises(NotConserved, match="cash"):
        check_conservation(engine, events)


ANYTHING = EngineConfig(
    instruments=(
        InstrumentConfig(
            price_levels=128, multiplier=3, initial_margin_bps=2000, maintenance_margin_bps=1000, oracle=OracleConfig()
        ),
        InstrumentConfig(price_levels=128, initial_margin_bps=2500, maintenance_margin_bps=1500, oracle=OracleConfig()),
    ),
    accounts=6,
    max_orders=64,
    margin=MarginConfig(mark="mid", fee_bps=50, slice_lots=7),
    lending=LendingConfig(collateral_instrument=0, debt_instrument=1, bonus_bps=1000),
    stablecoin=StablecoinConfig(instrument=1, par_ticks=60),
)
"""Accounts 2, 3 and 4 are margin accounts; 0, 1 and 5 borrow and liquidate."""
_START = [
    command(K.PUBLISH_INDEX, 0, quantity_lots=60),
    command(K.PUBLISH_INDEX, 0, instrument=1, quantity_lots=60),
    *(command(K.SET_MARGIN, 0, account=account, quantity_lots=1) for account in (2, 3, 4)),
    *(command(K.DEPOSIT_CASH, 0, account=account, quantity_lots=20_000) for account in (0, 1, 5)),
    *(command(K.DEPOSIT_CASH, 0, account=account, quantity_lots=1500) for account in (2, 3, 4)),
    *(command(K.DEPOSIT_POSITION, 0, account=account, quantity_lots=60) for account in (0, 1, 5)),
    *(
        command(K.DEPOSIT_POSITION, 0, account=account, instrument=1, quantity_lots=100)
        for account in (0, 1, 5, 6 + SystemAccount.LENDING_POOL)
    ),
    command(K.DEPOSIT_CASH, 0, account=6 + SystemAccount.INSURANCE_FUND, quantity_lots=300),
    command(K.DEPOSIT_CASH, 0, account=6 + SystemAccount.ISSUER, quantity_lots=2000),
    command(K.OPEN_SESSION, 1),
]


def _random_day(seed: int) -> list[dict[str, int]]:
    """200 actions about a price that wanders far enough to make margin accounts and loans fail."""
    rng = np.random.default_rng(seed)
    commands = list(_START)
    price = 60
    for number in range(200):
        at_ms, account = 2.0 * number + 2, int(rng.integers(0, 6))
        price = int(np.clip(price + rng.integers(-4, 5), 15, 110))
        if rng.random() < 0.75:
            side, instrument = Side(int(rng.random() < 0.5)), int(rng.random() < 0.3)
            limit = max(1, price + int(rng.integers(-6, 7)))
            kind = OrderType(int(rng.choice([0, 0, 0, 1, 2])))
            limit = 0 if kind == OrderType.MARKET else limit
            lots = int(rng.integers(1, 40))
            made = order(account, number + 1, side, limit, lots, at_ms, kind, instrument=instrument)
        else:
            kinds = (K.DEPOSIT_COLLATERAL, K.WITHDRAW_COLLATERAL, K.BORROW, K.REPAY, K.LIQUIDATE, K.REDEEM, K.MINT)
            kind, lots = kinds[int(rng.choice(7, p=[0.25, 0.05, 0.25, 0.05, 0.2, 0.1, 0.1]))], int(rng.integers(1, 30))
            account, target = (int(account) for account in rng.permutation([0, 1, 5])[:2])
            made = command(kind, at_ms, account=account, quantity_lots=lots, target_order_id=target)
        commands += [made, revalue(at_ms + 1)]
    return commands


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_the_events_say_who_has_what(seed):
    commands = _random_day(seed)
    records = records_of(commands)
    engine = Engine(ANYTHING)
    events = engine.apply(records)
    check_conservation(engine, events)
    has = follow(ANYTHING, events)
    deposited = events[events["kind"] == EventKind.POSITION_DEPOSITED]
    for instrument in (0, 1):
        assert has.lots[:, instrument].sum() == deposited["quantity_lots"][deposited["instrument"] == instrument].sum()
    assert has.cash.sum() == events["quantity_lots"][events["kind"] == EventKind.CASH_DEPOSITED].sum()
    deficits = events[(events["kind"] == EventKind.BAD_DEBT_BOOKED) & (events["instrument"] == NOBODY)]
    assert has.cash[6 + SystemAccount.DEFICIT] == -deficits["value"].sum()
    assert has.collateral.min() >= 0 and has.debt.min() >= 0
