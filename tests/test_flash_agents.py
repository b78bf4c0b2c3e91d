"""The rules of the flash crash's strategies, and that every strategy survives a halt; fed by hand."""

import pytest

from aar_swarm.agents.base import HALTED as HALT_KIND
from aar_swarm.agents.base import OPENED as OPEN_KIND
from aar_swarm.agents.base import PHASE_CHANGED, CancelOrder, PlaceOrder, Rule, Timer, Wake
from aar_swarm.agents.fundamental import Fundamental, FundamentalParams
from aar_swarm.agents.high_frequency import HighFrequency, HighFrequencyParams
from aar_swarm.agents.holder import Holder, HolderParams
from aar_swarm.agents.market_maker import MarketMaker, MarketMakerParams
from aar_swarm.agents.momentum import Momentum, MomentumParams
from aar_swarm.agents.noise_trader import NoiseTrader, NoiseTraderParams
from aar_swarm.agents.value_trader import ValueTrader, ValueTraderParams
from aar_swarm.agents.volume_seller import VolumeSeller, VolumeSellerParams
from exchange.clock import MS, SECOND
from exchange.types import EventKind, OrderType, Phase, Side
from exchange.wire import MessageKind, Notice, Report, TopOfBook
from tests.test_agents import filled, lots, make, orders, signal

OPENED = Notice(OPEN_KIND, 1, 0, -1, 0, 0, 0, 0, 0, 0)
HALTED = Notice(HALT_KIND, 9, 0, 0, 1, 500, 300, 1, 9000, 1)
AUCTION = Notice(PHASE_CHANGED, 10, 0, 0, 0, int(Phase.AUCTION), 1, 0, 0, 0)
RESUMED = Notice(PHASE_CHANGED, 11, 0, 0, 0, int(Phase.CONTINUOUS), 0, 0, 0, 0)


def seen(bid=9_999, ask=10_000, bid_lots=100, ask_lots=100, volume=0, time_ns=0) -> TopOfBook:
    return TopOfBook(
        int(MessageKind.TOP_OF_BOOK), 0, 1, 4, time_ns, 1, bid, bid_lots, ask, ask_lots, bid, volume, 1000, 1000
    )


def cancelled(order: PlaceOrder) -> Report:
    return Report(
        int(EventKind.ORDER_CANCELLED), 9, 0, 0, order.order_id, order.side, 0, order.quantity_lots, 0, 0, 0, 0
    )


class TestMomentum:
    params = MomentumParams(
        lookback_ms=1000, threshold_bps=20, spread_of_tastes=0, quantity_lots=5, position_limit_lots=12, reach_ticks=2
    )

    def falling(self) -> Momentum:
        trader = make(Momentum, self.params)
        trader.handle(seen(time_ns=0), 0)
        trader.handle(seen(bid=9_899, ask=9_900, time_ns=100 * MS), 0)
        return trader

    def test_sells_what_has_fallen_through_the_touch_until_its_limit(self):
        trader, sold = self.falling(), 0
        while placed := orders(trader.handle(Timer(0), 0)):
            assert (placed[0].side, placed[0].order_type, placed[0].price_ticks) == (Side.SELL, OrderType.IOC, 9_897)
            sold += placed[0].quantity_lots
            trader.handle(filled(placed[0], placed[0].quantity_lots, 0), 0)
        assert sold == 12

    def test_does_nothing_below_its_threshold(self):
        trader = make(Momentum, self.params)
        trader.handle(seen(), 0)
        trader.handle(seen(bid=9_989, ask=9_990, time_ns=100 * MS), 0)
        assert not orders(trader.handle(Timer(0), 0))

    def test_closes_its_position_once_the_trend_is_over(self):
        trader = self.falling()
        sold = orders(trader.handle(Timer(0), 0))[0]
        trader.handle(filled(sold, 5, 0), 0)
        trader.handle(seen(bid=9_899, ask=9_900, time_ns=20 * SECOND), 0)
        back = orders(trader.handle(Timer(0), 0))
        assert [(order.side, order.quantity_lots) for order in back] == [(Side.BUY, 5)]


class TestVolumeSeller:
    params = VolumeSellerParams(share=0.1, window_ms=1000, period_ms=100)

    def test_waits_for_the_signal_and_then_sells_its_share_of_the_windows_volume(self):
        seller = make(VolumeSeller, self.params, shares=1000)
        assert not seller.handle(OPENED, 0)
        for tenth in range(21):
            seller.handle(seen(volume=100 * tenth, time_ns=tenth * 100 * MS), 0)
        start = 2 * SECOND
        assert not orders(seller.handle(signal(0), start))  # no time has passed
        placed = orders(seller.handle(Timer(0), start + 100 * MS))
        assert [(order.side, order.order_type, order.rule) for order in placed] == [
            (Side.SELL, OrderType.MARKET, Rule.FOLLOW_VOLUME)
        ]
        assert placed[0].quantity_lots == 9  # a tenth of what traded from 1.1 s to 2 s (900), for a tenth of the window

    def test_is_blind_to_price(self):
        sold = []
        for price in (9_999, 100):
            seller = make(VolumeSeller, self.params, shares=1000)
            seller.handle(seen(bid=price, ask=price + 1), 0)
            seller.handle(seen(bid=price, ask=price + 1, volume=5000, time_ns=500 * MS), 0)
            seller.handle(signal(0), 500 * MS)
            sold.append(lots(seller.handle(Timer(0), 600 * MS), Side.SELL))
        assert sold == [50, 50]

    def test_carries_over_what_found_no_buyer_and_stops_when_all_is_sold(self):
        seller = make(VolumeSeller, self.params, shares=60)
        seller.handle(seen(), 0)
        seller.handle(seen(volume=5000, time_ns=500 * MS), 0)
        seller.handle(signal(0), 500 * MS)
        first = orders(seller.handle(Timer(0), 600 * MS))[0]
        seller.handle(cancelled(first), 600 * MS)
        second = orders(seller.handle(Timer(0), 601 * MS))[0]
        assert (first.quantity_lots, second.quantity_lots) == (50, 50)
        seller.handle(filled(second, 50, 0), 601 * MS)
        last = orders(seller.handle(Timer(0), 700 * MS))[0]
        assert last.quantity_lots == 10
        seller.handle(filled(last, 10, 0), 700 * MS)
        assert not seller.handle(Timer(0), 800 * MS)


class TestHighFrequency:
    params = HighFrequencyParams(
        quantity_lots=4, inventory_limit_lots=10, take_imbalance=0.1, reach_ticks=3, hold_ms=200, pause_ms=5
    )

    def trader(self) -> HighFrequency:
        return make(HighFrequency, self.params)

    def test_joins_both_touches_and_never_takes_by_accident(self):
        placed = orders(self.trader().handle(seen(), 0))
        assert [(order.side, order.price_ticks) for order in placed] == [(Side.BUY, 9_999), (Side.SELL, 10_000)]
        assert all(order.order_type == OrderType.POST_ONLY for order in placed)

    def test_improves_where_the_spread_is_wide(self):
        placed = orders(self.trader().handle(seen(bid=9_990, ask=10_000), 0))
        assert [order.price_ticks for order in placed] == [9_991, 9_999]

    def test_takes_the_rest_of_a_touch_that_is_about_to_go(self):
        placed = orders(self.trader().handle(seen(ask_lots=3), 0))
        assert (placed[0].side, placed[0].order_type, placed[0].quantity_lots) == (Side.BUY, OrderType.IOC, 3)
        assert placed[0].rule == Rule.TAKE_TOUCH

    def test_offloads_everything_at_its_limit_and_quotes_nothing_more(self):
        trader = self.trader()
        bid = next(order for order in orders(trader.handle(seen(), 0)) if order.side == Side.BUY)
        actions = trader.handle(filled(bid._replace(quantity_lots=10), 10, 0), 0)
        placed = orders(actions)
        assert [(order.side, order.order_type, order.quantity_lots) for order in placed] == [
            (Side.SELL, OrderType.IOC, 10)
        ]
        assert placed[0].price_ticks == 9_999 - 3 and placed[0].rule == Rule.REDUCE_INVENTORY
        assert any(isinstance(action, CancelOrder) for action in actions)  # its ask

    def test_offloads_what_it_has_held_too_long(self):
        trader = self.trader()
        bid = next(order for order in orders(trader.handle(seen(), 0)) if order.side == Side.BUY)
        assert not [o for o in orders(trader.handle(filled(bid, 4, 0), 0)) if o.order_type == OrderType.IOC]
        later = [o for o in orders(trader.handle(seen(), 200 * MS)) if o.order_type == OrderType.IOC]
        assert [(order.side, order.quantity_lots) for order in later] == [(Side.SELL, 4)]

    def test_quotes_beyond_half_its_limit_only_to_reduce(self):
        trader = self.trader()
        placed = orders(trader.handle(seen(), 0))
        after = trader.handle(filled(placed[0]._replace(quantity_lots=6), 6, 0), 0)
        assert not [order for order in orders(after) if order.side == Side.BUY]


class TestFundamental:
    buyer = FundamentalParams(
        side="buy", opinion_bps=0, margin_bps=100, quantity_lots=10, eager_bps=100, largest_orders=3, reach_bps=10,
        think_ms=1000, attention=1.0,
    )  # fmt: skip

    def look(self, trader: Fundamental, top: TopOfBook) -> tuple[list[Wake], list[PlaceOrder]]:
        trader.handle(top, 0)
        wakes = [action for action in trader.handle(Timer(0), 0) if isinstance(action, Wake)]
        return wakes, orders(trader.handle(Timer(1), 2 * SECOND))

    def test_buys_only_below_its_limit_and_more_the_further(self):
        assert self.look(make(Fundamental, self.buyer), seen(bid=9_940, ask=9_950))[1] == []
        bought = [
            lots(self.look(make(Fundamental, self.buyer), seen(bid=ask - 1, ask=ask))[1], Side.BUY)
            for ask in (9_900, 9_801, 9_000)
        ]
        assert bought == [10, 20, 30]

    def test_thinks_before_it_acts_and_does_not_sweep_a_thin_book(self):
        wakes, placed = self.look(make(Fundamental, self.buyer), seen(bid=8_999, ask=9_000))
        assert 500 * MS <= max(wake.at_ns for wake in wakes if wake.tag == 1) <= 1500 * MS
        assert placed[0].order_type == OrderType.LIMIT and placed[0].price_ticks == 9_009

    def test_a_seller_is_the_mirror_image_and_sells_no_more_than_it_has(self):
        seller = make(Fundamental, self.buyer.model_copy(update={"side": "sell"}), shares=15)
        assert lots(self.look(seller, seen(bid=11_000, ask=11_001))[1], Side.SELL) == 15

    def test_cancels_at_its_next_look_what_it_did_not_get(self):
        trader = make(Fundamental, self.buyer)
        self.look(trader, seen(bid=9_899, ask=9_900))
        assert [action for action in trader.handle(Timer(0), 3 * SECOND) if isinstance(action, CancelOrder)]

    def test_joins_a_reopening_auction_if_it_pays_attention(self):
        for attention, joins in ((1.0, True), (0.0, False)):
            trader = make(Fundamental, self.buyer.model_copy(update={"attention": attention}))
            trader.handle(seen(bid=8_999, ask=9_000), 0)
            trader.handle(HALTED, 1)
            assert bool(orders(trader.handle(AUCTION, 2))) == joins

    def test_does_not_react_to_a_signal_without_content(self):
        trader = make(Fundamental, self.buyer)
        before = trader.value
        assert not trader.handle(signal(0), 0) and trader.value == before


class TestToxicity:
    params = MarketMakerParams(quantity_lots=10, inventory_limit_lots=100, toxicity_limit=0.5)

    def bought(self, params: MarketMakerParams, times: int) -> MarketMaker:
        maker = make(MarketMaker, params)
        placed = orders(maker.handle(OPENED, 0))
        for _ in range(times):
            bid = next(order for order in placed if order.side == Side.BUY)
            placed.remove(bid)
            placed += orders(maker.handle(filled(bid, bid.quantity_lots, 0), 0))
        return maker

    def test_withdraws_the_side_that_one_sided_flow_hits_once_it_also_holds_much(self):
        assert not self.bought(self.params, 4).is_toxic(Side.BUY)  # one-sided, but little inventory
        maker = self.bought(self.params, 6)
        assert maker.is_toxic(Side.BUY) and not maker.is_toxic(Side.SELL)
        assert not [o for o in maker.open_orders.values() if o.side == Side.BUY and not o.cancelling]

    def test_comes_back_when_the_flow_is_forgotten(self):
        maker = self.bought(self.params, 6)
        for number, order in list(maker.open_orders.items()):
            if order.cancelling:
                maker.handle(Report(int(EventKind.ORDER_CANCELLED), 9, 0, 0, number, 0, 0, 10, 0, 0, 0, 0), 1)
        placed = orders(maker.handle(Timer(0), 5 * SECOND))
        assert [order for order in placed if order.side == Side.BUY]

    def test_is_off_by_default(self):
        assert not self.bought(MarketMakerParams(quantity_lots=10, inventory_limit_lots=100), 9).is_toxic(Side.BUY)


class TestPause:
    params = ValueTraderParams(opinion_bps=0, pause_move_bps=50, pause_window_ms=1000, pause_ms=1000)

    def test_a_value_trader_cancels_everything_when_the_market_moves_too_fast_and_returns_later(self):
        trader = make(ValueTrader, self.params)
        trader.handle(OPENED, 0)
        trader.handle(seen(), 0)
        assert not trader.handle(seen(time_ns=500 * MS), 500 * MS)
        left = trader.handle(seen(bid=8_999, ask=9_000, time_ns=600 * MS), 600 * MS)
        assert len(left) == len(trader.open_orders) and all(isinstance(action, CancelOrder) for action in left)
        assert not orders(trader.handle(Timer(0), 601 * MS))
        assert orders(trader.handle(Timer(0), 60 * SECOND))

    def test_one_without_the_check_never_does(self):
        trader = make(ValueTrader, ValueTraderParams())
        trader.handle(seen(), 0)
        assert not trader.handle(seen(bid=4_999, ask=5_000, time_ns=MS), MS)


PARAMS = {
    MarketMaker: MarketMakerParams(),
    ValueTrader: ValueTraderParams(),
    NoiseTrader: NoiseTraderParams(),
    Momentum: MomentumParams(),
    Fundamental: FundamentalParams(side="buy"),
}


@pytest.mark.parametrize("kind", PARAMS, ids=lambda kind: kind.__name__)
def test_a_halt_silences_and_its_end_brings_back(kind):
    """The chain of timers must not break in a halt, and nothing is sent while it lasts."""
    strategy = make(kind, PARAMS[kind])
    strategy.handle(OPENED, 0)
    strategy.handle(HALTED, 1)
    for now in range(2, 10):
        actions = strategy.handle(Timer(0), now)
        assert [type(action) for action in actions] == [Wake]
    strategy.handle(RESUMED, 10)
    assert not strategy.halted
    assert any(isinstance(action, Wake) for action in strategy.handle(Timer(0), 11))


class TestHolderInAHalt:
    sure = HolderParams(conviction_bps=20, conviction_spread_bps=0, spread_of_tastes=0)

    def test_goes_on_where_it_was_and_old_timers_no_longer_count(self):
        holder = make(Holder, self.sure, shares=60)
        first = holder.handle(signal(-50), 0)
        old = next(action for action in first if isinstance(action, Wake))
        holder.handle(filled(orders(first)[0], orders(first)[0].quantity_lots, 0), 0)
        holder.handle(HALTED, 1)
        assert not holder.handle(Timer(old.tag), 2)
        again = holder.handle(RESUMED, 3)
        assert orders(again) and not holder.handle(Timer(old.tag), 4)

    def test_makes_its_plan_at_the_end_of_the_halt_in_which_it_heard_the_news(self):
        holder = make(Holder, self.sure, shares=60)
        holder.handle(HALTED, 1)
        assert not holder.handle(signal(-50), 2) and holder.plan is None
        assert orders(holder.handle(RESUMED, 3)) and holder.plan is not None

    def test_does_not_leave_at_the_opening_for_want_of_conviction(self):
        holder = make(Holder, self.sure.model_copy(update={"conviction_bps": -10.0}), shares=60)
        assert not holder.handle(RESUMED, 0)
