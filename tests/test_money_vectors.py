"""The engine's money against sessions worked out by hand: FACTS 4's vectors and property, and a whole cascade.

After every command cash and lots are counted over all accounts, the venue's own among them.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.config import (
    BreakerConfig,
    EngineConfig,
    InstrumentConfig,
    LendingConfig,
    MarginConfig,
    OracleConfig,
    StablecoinConfig,
)
from exchange.engine import Engine
from exchange.types import COMMAND, CommandKind, EventKind, OrderType, Phase, Reason, Side, SystemAccount, Trigger
from tests.comparison import apply_in_batches
from tests.oracle_records import NOBODY, Command, Event
from tests.scenario_parts import MS
from tests.workload import operator_command

INTERVAL_NS = MS
FUND, POOL, ISSUER, DEFICIT = SystemAccount


class Session:
    """A venue whose commands are given one by one; each returns its events."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.engine = Engine(config)
        self.now_ns = 0
        self.sequence = 0
        self.cash = 0
        self.lots = [0] * len(config.instruments)

    def system(self, account: SystemAccount) -> int:
        return self.config.accounts + account

    def do(
        self, kind: CommandKind, account: int = 0, instrument: int = 0, lots: int = 0, target: int = 0
    ) -> list[Event]:
        command = operator_command(kind, account, instrument, lots)
        return self._apply(command._replace(order_id=0, target_order_id=target))

    def order(self, account: int, side: Side, lots: int, price_ticks: int, instrument: int = 0) -> list[Event]:
        number = int(self.engine.state.accounts["last_order_id"][account]) + 1
        return self._apply(
            Command(
                0, CommandKind.PLACE_ORDER, account, instrument, number, 0, side, OrderType.LIMIT, price_ticks, lots
            )
        )

    def deposit(self, account: int, cash: int = 0, lots: int = 0, instrument: int = 0) -> None:
        if cash:
            [event] = self.do(CommandKind.DEPOSIT_CASH, account, 0, cash)
            assert event.kind == EventKind.CASH_DEPOSITED
        if lots:
            [event] = self.do(CommandKind.DEPOSIT_POSITION, account, instrument, lots)
            assert event.kind == EventKind.POSITION_DEPOSITED

    def margin_account(self, account: int, cash: int) -> None:
        [event] = self.do(CommandKind.SET_MARGIN, account, 0, 1)
        assert event.kind == EventKind.MARGIN_SET
        self.deposit(account, cash)

    def index(self, price_ticks: int, instrument: int = 0) -> None:
        [event] = self.do(CommandKind.PUBLISH_INDEX, 0, instrument, price_ticks)
        assert event.kind == EventKind.INDEX_PUBLISHED

    def revalue(self, at_ns: int | None = None) -> list[Event]:
        """At the given time, or one interval from now."""
        self.now_ns = self.now_ns + INTERVAL_NS if at_ns is None else at_ns
        return self.do(CommandKind.REVALUE, NOBODY, NOBODY)

    def account_cash(self, account: int) -> int:
        return int(self.engine.state.accounts["cash"][account])

    def position(self, account: int, instrument: int = 0) -> int:
        return int(self.engine.state.positions["quantity_lots"][account][instrument])

    def _apply(self, command: Command) -> list[Event]:
        self.sequence += 1
        stamped = command._replace(sequence=self.sequence, received_ns=self.now_ns)
        events = list(map(Event._make, apply_in_batches(self.engine, np.array([tuple(stamped)], COMMAND))))
        for event in events:
            self.cash += event.quantity_lots if event.kind == EventKind.CASH_DEPOSITED else 0
            self.cash -= event.quantity_lots if event.kind == EventKind.CASH_WITHDRAWN else 0
            if event.kind == EventKind.POSITION_DEPOSITED:
                self.lots[event.instrument] += event.quantity_lots
        assert int(self.engine.state.accounts["cash"].sum()) == self.cash
        assert self.engine.state.positions["quantity_lots"].sum(axis=0).tolist() == self.lots
        return events


def told(events: list[Event]) -> list[tuple[object, ...]]:
    """The kind of each event and what of it is not at rest, by name."""
    return [
        (
            EventKind(event.kind).name,
            {
                name: value
                for name, value in event._asdict().items()
                if name not in ("sequence", "kind", "time_ns") and value != Event._field_defaults[name]
            },
        )
        for event in events
    ]


# Margin


def margin_venue(
    accounts: int = 5, breaker: BreakerConfig | None = None, price_levels: int = 1_024, **rules: int
) -> Session:
    """One instrument, marked at its index; the margin's settings and the two rates (bps) as given."""
    initial_bps, maintenance_bps = rules.pop("initial_bps"), rules.pop("maintenance_bps")
    instrument = InstrumentConfig(
        price_levels=price_levels,
        initial_margin_bps=initial_bps,
        maintenance_margin_bps=maintenance_bps,
        breaker=breaker or BreakerConfig(),
    )
    margin = MarginConfig(mark="index", call_bps=rules.pop("call_bps", 10_000), **rules)
    return Session(EngineConfig(instruments=(instrument,), accounts=accounts, max_orders=64, margin=margin))


def test_a_short_of_effective_leverage_six_has_the_rank_of_the_published_rule() -> None:
    """FACTS 4: entry 100, mark 90, bankruptcy 105: leverage 90 / (105 − 90) = 6, profit 10 %, rank 0.6."""
    venue = margin_venue(initial_bps=500, maintenance_bps=250)
    venue.index(100)
    venue.margin_account(0, 50)
    venue.margin_account(1, 50)
    venue.do(CommandKind.OPEN_SESSION)
    venue.order(1, Side.SELL, 10, 100)
    venue.order(0, Side.BUY, 10, 100)
    assert [venue.account_cash(each) for each in (0, 1)] == [-950, 1_050]
    venue.index(90)
    assert told(venue.revalue()) == [
        ("LIQUIDATION_STARTED", {"value": -50, "threshold": 22}),
        (
            "DELEVERAGED",
            {
                "instrument": 0,
                "side": Side.SELL,
                "price_ticks": 95,  # where the long of 20 times is bankrupt
                "quantity_lots": 10,
                "maker_account": 1,
                "reason": Reason.LIQUIDATION,
                "value": 600_000,
            },
        ),
        ("LIQUIDATION_ENDED", {}),
    ]
    assert [venue.account_cash(each) for each in (0, 1)] == [0, 100]


def test_a_long_of_twenty_times_is_liquidated_at_the_first_mark_below_its_liquidation_price() -> None:
    """FACTS 4: long 100 at 20 times, 0.5 % maintenance: bankruptcy 95, liquidation 95.477387. A tick is 0.001."""
    venue = margin_venue(initial_bps=500, maintenance_bps=50, price_levels=131_072)
    venue.index(100_000)
    venue.margin_account(0, 5_000_000)
    venue.deposit(1, cash=200_000_000, lots=1_000)
    venue.do(CommandKind.OPEN_SESSION)
    venue.order(1, Side.SELL, 1_000, 100_000)
    venue.order(0, Side.BUY, 1_000, 100_000)
    venue.order(1, Side.BUY, 1_000, 95_200)
    venue.index(95_478)
    assert venue.revalue() == []
    venue.index(95_477)
    fill = {
        "instrument": 0,
        "side": Side.SELL,
        "price_ticks": 95_200,
        "quantity_lots": 1_000,
        "maker_account": 1,
        "maker_order_id": 2,
        "reason": Reason.LIQUIDATION,
        "value": 95_000,
    }
    assert told(venue.revalue()) == [
        ("LIQUIDATION_STARTED", {"value": 477_000, "threshold": 477_385}),
        ("ORDER_FILLED", fill),
        ("LIQUIDATION_ENDED", {"value": 200_000}),
    ]
    assert venue.account_cash(0) == 200_000


def test_a_cascade_of_take_over_deleveraging_and_bad_debt_keeps_every_unit() -> None:
    """Three longs of 20 times fall 10 %: the fund takes the first, a short the second, and the third is not covered."""
    venue = margin_venue(initial_bps=500, maintenance_bps=250)
    fund, deficit = venue.system(FUND), venue.system(DEFICIT)
    venue.index(100)
    for account, cash in ((0, 50), (1, 50), (2, 50), (3, 60)):
        venue.margin_account(account, cash)
    venue.deposit(4, cash=2_000, lots=18)
    venue.deposit(fund, cash=100)
    venue.do(CommandKind.OPEN_SESSION)
    venue.order(3, Side.SELL, 12, 100)
    venue.order(4, Side.SELL, 18, 100)
    for account in (0, 1, 2):
        venue.order(account, Side.BUY, 10, 100)
    venue.order(4, Side.BUY, 20, 60)
    assert [venue.position(each) for each in range(5)] == [10, 10, 10, -12, 0]
    venue.index(90)
    sold = {"instrument": 0, "side": Side.SELL}
    maker = {"maker_account": 4, "maker_order_id": 2}
    assert told(venue.revalue()) == [
        ("LIQUIDATION_STARTED", {"value": -50, "threshold": 22}),
        # With it the fund has 100 − 950 + 900 = 50, and needs 45.
        ("POSITION_TAKEN_OVER", {**sold, "price_ticks": 95, "quantity_lots": 10, "maker_account": fund}),
        ("LIQUIDATION_ENDED", {}),
        ("LIQUIDATION_STARTED", {"account": 1, "value": -50, "threshold": 22}),
        (
            "DELEVERAGED",
            {
                **sold,
                "account": 1,
                "price_ticks": 95,
                "quantity_lots": 10,
                "maker_account": 3,
                "reason": Reason.LIQUIDATION,
                "value": 600_000,
            },
        ),
        ("LIQUIDATION_ENDED", {"account": 1}),
        ("LIQUIDATION_STARTED", {"account": 2, "value": -50, "threshold": 22}),
        (
            "DELEVERAGED",
            {
                **sold,
                "account": 2,
                "price_ticks": 95,
                "quantity_lots": 2,
                "maker_account": 3,
                "reason": Reason.LIQUIDATION,
                "value": 138_461,  # 10 % profit × 180 / 130
            },
        ),
        (
            "ORDER_FILLED",
            {
                **sold,
                **maker,
                "account": 2,
                "price_ticks": 60,
                "quantity_lots": 8,
                "maker_leaves_lots": 12,
                "reason": Reason.LIQUIDATION,
                "value": 1,
            },
        ),
        ("BAD_DEBT_BOOKED", {"account": 2, "value": 280}),
        ("LIQUIDATION_ENDED", {"account": 2}),
        (
            "ORDER_FILLED",
            {
                **sold,
                **maker,
                "account": fund,
                "price_ticks": 60,
                "quantity_lots": 10,
                "maker_leaves_lots": 2,
                "reason": Reason.FUND_SALE,
                "value": 1,
            },
        ),
    ]
    expected = {0: 0, 1: 0, 2: 0, 3: 120, 4: 2_720, fund: -250, deficit: -280}
    assert {account: venue.account_cash(account) for account in expected} == expected
    assert sum(expected.values()) == 3 * 50 + 60 + 2_000 + 100
    assert [venue.position(each) for each in range(5)] == [0, 0, 0, 0, 18]


def test_a_liquidation_in_slices_stops_at_the_initial_margin() -> None:
    venue = margin_venue(initial_bps=1_000, maintenance_bps=500, slice_lots=4, fee_bps=100)
    fund = venue.system(FUND)
    venue.index(100)
    venue.margin_account(0, 100)
    venue.deposit(1, cash=10_000, lots=10)
    venue.do(CommandKind.OPEN_SESSION)
    venue.order(1, Side.SELL, 10, 100)
    venue.order(0, Side.BUY, 10, 100)
    venue.order(1, Side.BUY, 20, 94)
    venue.index(94)
    sold = {"instrument": 0, "side": Side.SELL, "price_ticks": 94, "quantity_lots": 4, "reason": Reason.LIQUIDATION}
    maker = {"maker_account": 1, "maker_order_id": 2}
    fee = ("FEE_CHARGED", {"instrument": 0, "maker_account": fund, "value": 3})
    assert told(venue.revalue()) == [
        ("LIQUIDATION_STARTED", {"value": 40, "threshold": 47}),
        ("ORDER_FILLED", {**sold, **maker, "maker_leaves_lots": 16, "value": 90}),
        fee,
    ]
    [rejected] = venue.order(0, Side.SELL, 1, 94)
    assert rejected.reason == Reason.IN_LIQUIDATION
    # 37 of equity, and 6 lots need 56; with 2 lots 34 are more than the 18 needed.
    assert told(venue.revalue()) == [
        ("ORDER_FILLED", {**sold, **maker, "maker_leaves_lots": 12, "value": 88}),
        fee,
        ("LIQUIDATION_ENDED", {"value": -154}),
    ]
    assert (venue.position(0), venue.account_cash(0), venue.account_cash(fund)) == (2, -154, 6)
    assert [event.kind for event in venue.order(0, Side.SELL, 2, 94)] == [
        EventKind.ORDER_ACCEPTED,
        EventKind.ORDER_FILLED,
    ]


def test_a_breaker_stops_a_liquidation_which_goes_on_after_the_halt() -> None:
    breaker = BreakerConfig(price_move_bps=500, price_window_ns=10**9, halt_ns=MS, reopening_auction_ns=MS)
    venue = margin_venue(initial_bps=1_000, maintenance_bps=500, breaker=breaker)
    venue.index(100)
    venue.margin_account(0, 100)
    venue.deposit(1, cash=10_000, lots=10)
    venue.do(CommandKind.OPEN_SESSION)
    venue.order(1, Side.SELL, 10, 100)
    venue.order(0, Side.BUY, 10, 100)
    venue.order(1, Side.BUY, 4, 97)
    venue.order(1, Side.BUY, 10, 90)
    venue.index(94)
    sold = {"instrument": 0, "side": Side.SELL}
    assert told(venue.revalue()) == [
        ("LIQUIDATION_STARTED", {"value": 40, "threshold": 47}),
        (
            "ORDER_FILLED",
            {
                **sold,
                "price_ticks": 97,
                "quantity_lots": 4,
                "leaves_lots": 6,
                "maker_account": 1,
                "maker_order_id": 2,
                "reason": Reason.LIQUIDATION,
                "value": 90,
            },
        ),
        (
            "INSTRUMENT_HALTED",
            {
                **sold,
                "price_ticks": 90,
                "quantity_lots": 6,
                "leaves_lots": 6,
                "maker_order_id": 8,  # the evidence: the fill at 100
                "reason": Trigger.PRICE_MOVE,
                "value": 1_000,
                "threshold": 500,
                "window_ns": 10**9,
            },
        ),
        (
            "PHASE_CHANGED",
            {"instrument": 0, "account": NOBODY, "value": Phase.HALTED, "threshold": venue.now_ns + MS},
        ),
    ]
    for _ in range(2):
        venue.now_ns += MS
        events = venue.do(CommandKind.TIMER, NOBODY)
    assert events[-1].value == Phase.CONTINUOUS
    assert told(venue.revalue()) == [
        (
            "ORDER_FILLED",
            {
                **sold,
                "price_ticks": 90,
                "quantity_lots": 6,
                "maker_account": 1,
                "maker_order_id": 3,
                "maker_leaves_lots": 4,
                "reason": Reason.LIQUIDATION,
                "value": 86,
            },
        ),
        ("LIQUIDATION_ENDED", {"value": 28}),
    ]


# Loans


def pool_venue(
    threshold_bps: int = 8_250, ltv_bps: int = 8_000, bonus_bps: int = 500, close_factor_bps: int = 5_000
) -> Session:
    """Instrument 0 is collateral, 1 is owed; both are priced at their index, every interval."""
    instrument = InstrumentConfig(price_levels=4_096, oracle=OracleConfig(source="other_venue"))
    lending = LendingConfig(
        collateral_instrument=0,
        debt_instrument=1,
        max_ltv_bps=ltv_bps,
        liquidation_threshold_bps=threshold_bps,
        bonus_bps=bonus_bps,
        close_factor_bps=close_factor_bps,
    )
    config = EngineConfig(instruments=(instrument, instrument), accounts=4, max_orders=64, lending=lending)
    return Session(config)


def borrow(
    venue: Session, collateral_lots: int, debt_lots: int, price_ticks: int, later_ticks: int, debt_ticks: int
) -> None:
    """Account 0 borrows at one price; the price goes to another, and accounts 1 to 3 have what it owes."""
    venue.index(price_ticks, 0)
    venue.index(debt_ticks, 1)
    venue.do(CommandKind.OPEN_SESSION)
    venue.revalue()
    venue.deposit(0, lots=collateral_lots)
    venue.deposit(venue.system(POOL), lots=debt_lots, instrument=1)
    for account in (1, 2, 3):
        venue.deposit(account, lots=debt_lots, instrument=1)
    venue.do(CommandKind.DEPOSIT_COLLATERAL, 0, 0, collateral_lots)
    [borrowed] = venue.do(CommandKind.BORROW, 0, 0, debt_lots)
    assert borrowed.kind == EventKind.BORROWED
    venue.index(later_ticks, 0)
    [updated] = venue.revalue()
    assert (updated.kind, updated.price_ticks) == (EventKind.ORACLE_UPDATED, later_ticks)


def test_the_health_factor_vector_and_the_race_for_it() -> None:
    """FACTS 4: 10 ETH at 1900, threshold 0.825, bonus 5 %, debt 16,000: health 0.979688, then 1.093125.

    A lot of collateral is 10^-6 ETH, one of debt 0.001, so 1900 and 1000 ticks. The first of three liquidators repays
    8,000 and gets 4.421053 ETH (rounded down to a lot); for the others there is nothing left to do.
    """
    venue = pool_venue()
    borrow(venue, 10_000_000, 16_000_000, 2_500, 1_900, 1_000)
    events = [venue.do(CommandKind.LIQUIDATE, account, 0, 16_000_000, target=0) for account in (1, 2, 3)]
    won = {
        "account": 1,
        "instrument": 0,
        "price_ticks": 1_900,
        "quantity_lots": 8_000_000,
        "leaves_lots": 4_421_052,
        "maker_account": 0,
        "maker_leaves_lots": 8_000_000,
        "value": 979_687,
        "threshold": 1_000,
    }
    assert told(events[0]) == [("LOAN_LIQUIDATED", won)]
    for account in (2, 3):
        lost = {
            "account": account,
            "quantity_lots": 16_000_000,
            "reason": Reason.LOAN_HEALTHY,
            "value": CommandKind.LIQUIDATE,
        }
        assert told(events[account - 1]) == [("REQUEST_REJECTED", lost)]
    health = (10_000_000 - 4_421_052) * 1_900 * 0.825 / (8_000_000 * 1_000)
    assert health == pytest.approx(1.093125, abs=5e-7)
    assert (venue.position(1, 0), venue.position(1, 1)) == (4_421_052, 8_000_000)


def test_a_loan_without_collateral_left_is_booked_as_bad_debt() -> None:
    """10 ETH at 1,500 are worth 15,000 against 16,000: a liquidator pays 15,000 / 1.05 for all, the rest is lost."""
    venue = pool_venue()
    borrow(venue, 10_000_000, 16_000_000, 2_500, 1_500, 1_000)
    repaid = math.ceil(15_000_000_000 * 10_000 // 10_500 / 1_000)
    liquidated, booked = venue.do(CommandKind.LIQUIDATE, 1, 0, 16_000_000, target=0)
    assert (liquidated.quantity_lots, liquidated.leaves_lots) == (repaid, 10_000_000) == (14_285_715, 10_000_000)
    left = 16_000_000 - repaid
    assert told([booked]) == [
        ("BAD_DEBT_BOOKED", {"instrument": 1, "quantity_lots": left, "value": left * 1_000}),
    ]
    [gone] = venue.do(CommandKind.LIQUIDATE, 2, 0, 1, target=0)
    assert gone.reason == Reason.UNKNOWN_LOAN


@settings(max_examples=60, deadline=None)
@given(
    collateral_lots=st.integers(1_000, 1_000_000),
    price_ticks=st.integers(30, 300),
    debt_ticks=st.sampled_from([1, 7, 100]),
    health=st.floats(0.35, 0.999),
    threshold_bps=st.sampled_from([6_000, 8_250, 9_500]),
    bonus_bps=st.sampled_from([0, 500, 1_000, 5_000]),
    part=st.floats(0.01, 0.9),
)
def test_a_liquidation_moves_health_as_the_closed_form_says(
    collateral_lots: int,
    price_ticks: int,
    debt_ticks: int,
    health: float,
    threshold_bps: int,
    bonus_bps: int,
    part: float,
) -> None:
    """FACTS 4: HF′ − HF = r (HF − LT (1 + b)) / (D − r), up to the lot by which the seizure is rounded down.

    With D and r as values. What is rounded: the seized lots (by less than one lot and one unit of bonus, in favour of
    the loan), so HF′ may be higher by at most LT (p + 1) / (D − r), and never lower.
    """
    threshold_value = collateral_lots * price_ticks * threshold_bps // 10_000
    debt_lots = int(threshold_value / health) // debt_ticks + 1
    venue = pool_venue(threshold_bps, threshold_bps, bonus_bps, close_factor_bps=10_000)
    borrow(venue, collateral_lots, debt_lots, 1_000, price_ticks, debt_ticks)
    [event, *booked] = venue.do(CommandKind.LIQUIDATE, 1, 0, max(1, int(debt_lots * part)), target=0)
    if event.kind == EventKind.REQUEST_REJECTED:
        assert event.reason == Reason.LOAN_HEALTHY
        assert debt_lots * debt_ticks <= threshold_value + debt_ticks
        return
    after_lots = collateral_lots - event.leaves_lots
    if after_lots == 0 or booked:
        return  # the seizure was cut short: that is another rule
    assert event.maker_leaves_lots == debt_lots - event.quantity_lots
    threshold, bonus = threshold_bps / 10_000, bonus_bps / 10_000
    debt, repaid = debt_lots * debt_ticks, event.quantity_lots * debt_ticks
    before = collateral_lots * price_ticks * threshold / debt
    after = after_lots * price_ticks * threshold / (debt - repaid)
    predicted = repaid * (before - threshold * (1 + bonus)) / (debt - repaid)
    rounding = threshold * (price_ticks + 1) / (debt - repaid)
    assert predicted - 1e-9 <= after - before <= predicted + rounding + 1e-9
    if before < threshold * (1 + bonus) - rounding * (debt - repaid) / repaid:
        assert after < before, "below the threshold times one plus the bonus a liquidation makes health worse"
    if before > threshold * (1 + bonus):
        assert after > before
    # The threshold's value is rounded down to a unit, then the parts per million are.
    assert -(1e6 / debt + 1) - 1e-3 <= event.value - before * 1e6 <= 1e-3


# The stablecoin


def test_redemption_is_at_par_up_to_the_rate_and_until_the_reserves_are_out() -> None:
    coin = StablecoinConfig(instrument=0, par_ticks=100, redemption_lots_per_s=1_000, redemption_burst_lots=5)
    venue = Session(
        EngineConfig(instruments=(InstrumentConfig(price_levels=256),), accounts=2, max_orders=8, stablecoin=coin)
    )
    issuer = venue.system(ISSUER)
    venue.deposit(issuer, cash=700, lots=50)
    venue.deposit(0, lots=20)

    def redeem(lots: int) -> tuple[object, ...]:
        [event] = venue.do(CommandKind.REDEEM, 0, 0, lots)
        return (EventKind(event.kind).name, event.reason or event.value)

    assert redeem(21) == ("REQUEST_REJECTED", Reason.INSUFFICIENT_POSITION)
    assert redeem(8) == ("REQUEST_REJECTED", Reason.RESERVES_EXHAUSTED)
    assert redeem(6) == ("REQUEST_REJECTED", Reason.REDEMPTION_RATE)
    assert redeem(5) == ("REDEEMED", 200)
    assert redeem(1) == ("REQUEST_REJECTED", Reason.REDEMPTION_RATE)
    venue.now_ns += MS - 1
    assert redeem(1) == ("REQUEST_REJECTED", Reason.REDEMPTION_RATE)
    venue.now_ns += 1
    assert redeem(1) == ("REDEEMED", 100)
    venue.now_ns += MS
    assert redeem(1) == ("REDEEMED", 0)
    venue.now_ns += MS
    assert redeem(1) == ("REQUEST_REJECTED", Reason.RESERVES_EXHAUSTED)
    assert (venue.account_cash(0), venue.account_cash(issuer)) == (700, 0)
    assert (venue.position(0), venue.position(issuer)) == (13, 57)
    [minted] = venue.do(CommandKind.MINT, 0, 0, 7)
    assert told([minted]) == [
        ("MINTED", {"instrument": 0, "price_ticks": 100, "quantity_lots": 7, "value": 700}),
    ]


# Oracles


def test_an_oracle_speaks_at_its_deviation_its_heartbeat_and_after_its_delay() -> None:
    rules = (
        OracleConfig(deviation_bps=100),
        OracleConfig(deviation_bps=10_000, heartbeat_ns=5 * MS),
        OracleConfig(source="delayed", delay_ns=2 * MS),
    )
    instruments = tuple(InstrumentConfig(price_levels=4_096, oracle=each) for each in rules)
    venue = Session(EngineConfig(instruments=instruments, accounts=1, max_orders=8))

    def spoken(at_ns: int) -> list[tuple[int, int, int]]:
        """(instrument, price, price before) of a REVALUE at this time."""
        events = venue.revalue(at_ns)
        assert all(event.kind == EventKind.ORACLE_UPDATED for event in events), told(events)
        return [(event.instrument, event.price_ticks, event.value) for event in events]

    for number in range(3):
        venue.index(1_000, number)
    venue.do(CommandKind.OPEN_SESSION)
    [early] = venue.revalue(MS - 1)
    assert told([early]) == [("ORDER_REJECTED", {"account": NOBODY, "reason": Reason.TIMER_NOT_DUE})]
    assert spoken(MS) == [(0, 1_000, 0), (1, 1_000, 0), (2, 1_000, 0)]
    venue.now_ns = 3 * MS // 2
    for number in range(3):
        venue.index(1_009, number)
    # 0.9 % is not enough, and the delayed one does not yet know.
    assert spoken(5 * MS // 2) == []
    venue.now_ns = 3 * MS
    venue.index(1_010, 0)
    assert spoken(4 * MS) == [(0, 1_010, 1_000)]
    [early] = venue.revalue(6 * MS - 1)
    assert early.reason == Reason.TIMER_NOT_DUE
    assert spoken(6 * MS) == [(1, 1_009, 1_000), (2, 1_009, 1_000)]
    [early] = venue.revalue(11 * MS - 1)
    assert early.reason == Reason.TIMER_NOT_DUE
    assert spoken(11 * MS) == [(1, 1_009, 1_009)]
