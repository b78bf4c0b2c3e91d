"""Who races at public news: each strategy's decision rule, fed by hand, and the news itself."""

import numpy as np
import pytest

from aar_swarm.agents.base import CancelOrder, PlaceOrder, Rule, Timer, Wake
from aar_swarm.agents.investor import Investor, InvestorParams
from aar_swarm.agents.news_maker import NewsMaker, NewsMakerParams, quote_ticks
from aar_swarm.agents.public_value import path
from aar_swarm.agents.sniper import Sniper, SniperParams
from aar_swarm.names import agent_stream, news_stream
from aar_swarm.news import drawn
from aar_swarm.scenario_tables import News
from exchange.clock import MS, SECOND
from exchange.types import EventKind, OrderType, Side
from exchange.wire import Report
from tests.test_agents import HALTED, OPENED, filled, lots, make, orders, signal, top

_LOOK, _MARK, _RETRY = 0, 1, 2


def ended(order: PlaceOrder, kind: EventKind) -> Report:
    return Report(int(kind), 8, 0, 0, order.order_id, order.side, order.price_ticks, 0, 0, 0, 0, 0)


def maker(**params) -> NewsMaker:
    made = make(NewsMaker, NewsMakerParams(**params))
    made.half_spread_bps = 6.0
    return made


class TestNewsMaker:
    def test_quotes_its_half_spread_around_the_public_value(self):
        placed = orders(maker().handle(OPENED, 0))
        assert [(order.side, order.price_ticks) for order in placed] == [(Side.BUY, 9_994), (Side.SELL, 10_006)]
        assert all(order.order_type == OrderType.POST_ONLY and order.quantity_lots == 10 for order in placed)

    def test_a_coarse_tick_never_makes_it_quote_tighter_than_it_asks_for(self):
        for value in (1_000.0, 1_000.4, 999.9):
            assert quote_ticks(value, 6.0, 0.0, 1) <= value * (1 - 6e-4)
            assert quote_ticks(value, 6.0, 0.0, -1) >= value * (1 + 6e-4)

    def test_news_makes_it_withdraw_what_is_stale_before_it_quotes_anew(self):
        made = maker()
        old = orders(made.handle(OPENED, 0))
        actions = made.handle(signal(30), 1)
        assert [action.order_id for action in actions[:2]] == [order.order_id for order in old]
        assert all(isinstance(action, CancelOrder) for action in actions[:2])
        assert [order.price_ticks for order in orders(actions)] == [10_023, 10_037]  # of 10,030: 6.018 away

    def test_news_of_another_asset_moves_nothing(self):
        made = maker()
        made.handle(OPENED, 0)
        assert made.handle(signal(30)._replace(instrument=1), 1) == ()
        assert made.value.ticks == 10_000

    def test_what_would_have_crossed_is_tried_again_once(self):
        made = maker()
        placed = orders(made.handle(OPENED, 0))
        assert made.handle(ended(placed[0], EventKind.ORDER_REJECTED), 5 * MS) == [Wake(7 * MS, _RETRY)]
        assert made.handle(ended(placed[1], EventKind.ORDER_REJECTED), 5 * MS) == ()
        assert len(orders(made.handle(Timer(_RETRY), 7 * MS))) == 2

    @pytest.mark.parametrize(("bps", "wider"), [(40, True), (0, False)])
    def test_it_learns_its_spread_from_what_a_fill_was_worth(self, bps, wider):
        """Sold at 10,006: news of +40 bps makes that a loss of 33.9 bps, no news a gain of 6."""
        made = maker(learning=0.1)
        ask = orders(made.handle(OPENED, 0))[1]
        actions = made.handle(filled(ask, 10, 0), 1 * MS)
        assert Wake(51 * MS, _MARK) in actions
        if bps:
            made.handle(signal(bps), 2 * MS)
        made.handle(Timer(_MARK), 51 * MS)
        expected = 6.0 + 0.1 * (10_040 - 10_006) / 10_040 * 10_000 if wider else 6.0 - 0.1 * 6
        assert made.half_spread_bps == pytest.approx(expected)

    def test_it_does_not_look_at_a_fill_before_its_time(self):
        made = maker()
        ask = orders(made.handle(OPENED, 0))[1]
        made.handle(filled(ask, 10, 0), 1 * MS)
        made.handle(Timer(_MARK), 50 * MS)
        assert made.half_spread_bps == 6.0 and len(made.unmarked) == 1

    def test_who_trades_with_nobody_undercuts_but_not_below_its_least(self):
        made = maker(patience_ms=100.0, undercut_bps=0.25, least_bps=5.6)
        made.handle(OPENED, 0)
        made.handle(Timer(_LOOK), 99 * MS)
        assert made.half_spread_bps == 6.0
        made.handle(Timer(_LOOK), 101 * MS)
        assert made.half_spread_bps == 5.75
        made.handle(Timer(_LOOK), 150 * MS)  # its patience begins anew
        assert made.half_spread_bps == 5.75
        made.handle(Timer(_LOOK), 300 * MS)
        assert made.half_spread_bps == 5.6

    def test_it_leans_against_its_inventory_and_stops_at_its_limit(self):
        made = maker(inventory_limit_lots=20, lean_bps=10.0)
        bid = orders(made.handle(OPENED, 0))[0]
        placed = orders(made.handle(filled(bid, 10, 0), 1))
        assert (Side.BUY, 9_989) in [(order.side, order.price_ticks) for order in placed]  # 5 lower
        bid = next(order for order in placed if order.side == Side.BUY)
        assert lots(made.handle(filled(bid, 10, 0), 2), Side.BUY) == 0

    def test_does_nothing_in_a_halt(self):
        made = maker()
        made.handle(OPENED, 0)
        made.handle(HALTED, 1)
        assert made.handle(signal(30), 2) == []


class TestSniper:
    def sniper(self, **params) -> Sniper:
        made = make(Sniper, SniperParams(**params))
        made.handle(top(), 0)  # 9,996 / 10,004
        return made

    def test_takes_a_stale_ask_at_the_new_value_less_its_costs(self):
        placed = orders(self.sniper(quantity_lots=40, margin_bps=1.0).handle(signal(20), 1))
        assert [(o.side, o.order_type, o.price_ticks, o.quantity_lots) for o in placed] == [
            (Side.BUY, OrderType.IOC, 10_018, 40)
        ]
        assert placed[0].rule == Rule.SNIPE

    def test_takes_a_stale_bid(self):
        placed = orders(self.sniper().handle(signal(-20), 1))
        assert [(order.side, order.price_ticks) for order in placed] == [(Side.SELL, 9_981)]

    @pytest.mark.parametrize("bps", [4, -4, 0])
    def test_leaves_alone_what_is_not_stale_beyond_its_costs(self, bps):
        assert self.sniper(margin_bps=1.0).handle(signal(bps), 1) == []

    def test_takes_one_tick_beyond_its_costs(self):
        assert len(self.sniper(margin_bps=1.0).handle(signal(6), 1)) == 1  # 10,006 − 1.0006 is 10,004 and more

    def test_does_not_guess_before_it_has_seen_a_book(self):
        assert make(Sniper, SniperParams()).handle(signal(20), 1) == []

    def test_an_empty_side_is_no_quote(self):
        made = make(Sniper, SniperParams())
        made.handle(top()._replace(ask_lots=0), 0)
        assert made.handle(signal(20), 1) == []

    def test_holds_no_more_than_its_limit(self):
        made = self.sniper(quantity_lots=40, position_limit_lots=50)
        first = orders(made.handle(signal(20), 1))[0]
        made.handle(filled(first, 40, 0), 2)
        made.handle(top(10_010, 10_020), 3)
        assert lots(made.handle(signal(30), 4), Side.BUY) == 10

    def test_gives_back_what_it_took_and_then_rests(self):
        made = self.sniper(quantity_lots=40, reach_bps=100.0)
        taken = orders(made.handle(signal(20), 1))[0]
        wake = made.handle(filled(taken, 25, 0), 2)
        assert len(wake) == 1 and isinstance(wake[0], Wake)
        actions = made.handle(Timer(0), 400 * MS)
        back = orders(actions)
        assert [(o.side, o.order_type, o.quantity_lots, o.rule) for o in back] == [
            (Side.SELL, OrderType.IOC, 25, Rule.REDUCE_INVENTORY)
        ]
        assert back[0].price_ticks == 9_919  # 10,020 less 1 %
        made.handle(filled(back[0], 25, 0, 10_010), 401 * MS)
        assert made.inventory == 0
        assert made.handle(Timer(0), 800 * MS) == []

    def test_does_nothing_in_a_halt(self):
        made = self.sniper()
        made.handle(HALTED, 1)
        assert made.handle(signal(20), 2) == []


class TestInvestor:
    def test_trades_either_side_within_its_reach_of_the_value(self):
        made = make(Investor, InvestorParams(orders_per_s=2.0, largest_lots=8, reach_bps=50.0))
        made.handle(OPENED, 0)
        made.handle(signal(100), 1)
        placed = [order for n in range(200) for order in orders(made.handle(Timer(0), n * SECOND))]
        assert {(order.side, order.price_ticks) for order in placed} == {(Side.BUY, 10_151), (Side.SELL, 10_049)}
        assert {order.order_type for order in placed} == {OrderType.IOC}
        assert {order.quantity_lots for order in placed} == set(range(1, 9))

    def test_waits_as_a_poisson_process(self):
        made = make(Investor, InvestorParams(orders_per_s=4.0))
        waits = [action.at_ns for n in range(2000) for action in made.handle(Timer(0), 0) if isinstance(action, Wake)]
        assert np.mean(waits) == pytest.approx(SECOND / 4, rel=0.1)

    def test_buys_only_with_the_cash_for_it(self):
        made = make(Investor, InvestorParams(), cash=10)
        sides = {order.side for n in range(50) for order in orders(made.handle(Timer(0), n))}
        assert sides == {Side.SELL}


class TestNews:
    def test_is_a_poisson_process_of_jumps_that_are_never_nothing(self):
        pieces = drawn(News(rate_per_s=20.0, sd_bps=10.0), 2.0, 102.0, news_stream(1))
        assert len(pieces) == pytest.approx(2000, rel=0.1)
        assert all(2.0 <= piece.at_s < 102.0 and piece.bps != 0 for piece in pieces)
        assert [piece.at_s for piece in pieces] == sorted(piece.at_s for piece in pieces)
        assert np.std([piece.bps for piece in pieces]) == pytest.approx(10.5, rel=0.1)
        assert abs(np.mean([piece.bps for piece in pieces])) < 1.0

    def test_is_the_same_for_a_seed_and_not_that_of_an_agent(self):
        news = News(rate_per_s=20.0, sd_bps=10.0)
        assert (
            drawn(news, 0, 5, news_stream(7)) == drawn(news, 0, 5, news_stream(7)) != drawn(news, 0, 5, news_stream(8))
        )
        assert drawn(news, 0, 5, news_stream(7)) != drawn(news, 0, 5, agent_stream(7, 0))

    def test_no_rate_is_no_news(self):
        assert drawn(News(rate_per_s=0.0, sd_bps=10.0), 0, 100, news_stream(1)) == []

    def test_the_value_stays_within_half_of_the_opening(self):
        pieces = drawn(News(rate_per_s=1000.0, sd_bps=1000.0), 0, 10, news_stream(3))
        values = path(10_000, [piece.bps for piece in pieces])
        assert min(values) > 4_000 and max(values) < 15_500
