"""The vendor-driven fund's decision rule, fed by hand."""

import pytest

from aar_swarm.agents.base import AskVendor, Endowment, Market, Rule, Timer, Valuation, Wake
from aar_swarm.agents.vendor_fund import VendorFund, VendorFundParams
from aar_swarm.names import agent_stream
from exchange.clock import MS, SECOND
from exchange.types import OrderType, Side
from tests.test_agents import HALTED, OPENED, filled, orders, top

MARKET = Market(instrument=0, opening_ticks=10_000, price_levels=16_384)
PARAMS = VendorFundParams(tilt=10.0, spread_of_tastes=0.0, slice_lots=30, smallest_lots=3, slippage_bps=100.0)


def fund(shares: int = 60, cash: int = 10**9, **changes) -> VendorFund:
    made = VendorFund(MARKET, Endowment(cash, shares), PARAMS.model_copy(update=changes), agent_stream(7, 1))
    made.handle(top(bid=9_996, ask=10_004), 0)
    return made


def says(value: float, version: int = 1) -> Valuation:
    return Valuation(value, version, False)


WITHDRAWN = Valuation(0.0, 0, True)


def test_it_asks_within_the_first_period_and_then_every_period_with_jitter():
    made = fund()
    first = made.handle(OPENED, 0)
    wake = next(action for action in first if isinstance(action, Wake))
    assert wake.at_ns <= SECOND and not orders(first)
    for _ in range(20):
        actions = made.handle(Timer(0), 0)
        made.handle(says(10_000.0), 0)
        assert any(isinstance(action, AskVendor) for action in actions)
        again = next(action for action in actions if isinstance(action, Wake))
        assert 500 * MS <= again.at_ns <= 1500 * MS


@pytest.mark.parametrize(
    ("value", "target"), [(10_000, 60), (10_500, 90), (11_000, 120), (20_000, 150), (9_500, 30), (5_000, 0)]
)
def test_it_wants_more_the_more_the_valuation_exceeds_the_price_within_its_limits(value, target):
    assert fund().target_lots(float(value)) == target


def test_it_moves_by_one_bounded_order_limited_by_slippage_and_by_the_valuation():
    (bought,) = orders(fund().handle(says(11_000.0), 0))
    assert (bought.side, bought.quantity_lots, bought.order_type) == (Side.BUY, 30, OrderType.IOC)
    assert bought.price_ticks == 10_104 and bought.rule == Rule.ACT_ON_VALUATION
    (careful,) = orders(fund().handle(says(10_060.0), 0))
    assert careful.price_ticks == 10_060
    (sold,) = orders(fund().handle(says(9_000.0), 0))
    assert (sold.side, sold.quantity_lots, sold.price_ticks) == (Side.SELL, 30, 9_897)


def test_it_leaves_small_gaps_alone_buys_within_its_cash_and_waits_for_an_open_order():
    assert not orders(fund().handle(says(10_020.0), 0))
    (order,) = orders(fund(cash=101_040).handle(says(11_000.0), 0))
    assert order.quantity_lots == 10
    made = fund()
    assert orders(made.handle(says(11_000.0), 0)) and not orders(made.handle(says(11_000.0), 0))
    assert not orders(fund(cash=0).handle(says(11_000.0), 0))


def test_when_its_vendor_stands_by_nothing_it_goes_back_to_its_benchmark():
    made = fund()
    (bought,) = orders(made.handle(says(11_000.0), 0))
    made.handle(filled(bought, 30, 0, 10_004), 0)
    assert made.shares == 90
    (sold,) = orders(made.handle(WITHDRAWN, 0))
    assert (sold.side, sold.quantity_lots, sold.rule) == (Side.SELL, 30, Rule.RETURN_TO_BENCHMARK)
    made.handle(filled(sold, 30, 0, 9_996), 0)
    assert not orders(made.handle(WITHDRAWN, 0))


def test_a_vendor_that_does_not_answer_has_withdrawn():
    made = fund()
    (bought,) = orders(made.handle(says(11_000.0), 0))
    made.handle(filled(bought, 30, 0, 10_004), 0)
    sold = [orders(made.handle(Timer(0), 0)) for _ in range(PARAMS.silent_periods + 1)]
    assert not any(sold[:-1]) and sold[-1][0].rule == Rule.RETURN_TO_BENCHMARK


def test_a_new_version_is_asked_again_before_it_is_acted_on():
    made = fund()
    made.handle(says(10_000.0, version=1), 0)
    assert made.handle(says(11_000.0, version=2), 0) == [AskVendor()]
    assert orders(made.handle(says(11_000.0, version=2), 0))


def test_it_does_not_trade_in_a_halt_and_goes_on_asking():
    made = fund()
    made.handle(HALTED, 0)
    assert any(isinstance(action, AskVendor) for action in made.handle(Timer(0), 0))
    assert not orders(made.handle(says(11_000.0), 0))


def test_an_empty_side_of_the_book_is_no_market():
    made = fund()
    made.handle(top()._replace(bid_lots=0, ask_lots=0), 0)
    assert not orders(made.handle(says(11_000.0), 0)) and not orders(made.handle(says(9_000.0), 0))
