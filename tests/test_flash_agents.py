"""The population of the flash crash, fed by hand: its four strategies, the withdrawals, and that a halt can end."""

import pytest

from aar_swarm.agents.base import CancelOrder, Rule, Strategy, Timer, Wake
from aar_swarm.agents.fundamental import Fundamental, FundamentalParams
from aar_swarm.agents.high_frequency import HighFrequency, HighFrequencyParams
from aar_swarm.agents.holder import Holder, HolderParams
from aar_swarm.agents.market_maker import MarketMaker, MarketMakerParams
from aar_swarm.agents.momentum import Momentum, MomentumParams
from aar_swarm.agents.noise_trader import NoiseTrader, NoiseTraderParams
from aar_swarm.agents.value_trader import ValueTrader, ValueTraderParams
from aar_swarm.agents.volume_seller import VolumeSeller, VolumeSellerParams
from exchange.clock import MS, SECOND
from exchange.types import EventKind, OrderType, Phase, Reason, Side
from exchange.wire import MessageKind, Notice, Report, TopOfBook
from tests.test_agents import HALTED, OPENED, filled, lots, make, orders, signal


def phase(new: Phase) -> Notice:
    return Notice(int(EventKind.PHASE_CHANGED), 10, 0, 0, 0, int(new), 0, 0, 0, 0, 0, 0)


def book(
    bid: int = 9_999, ask: int = 10_001, bid_lots: int = 100, ask_lots: int = 100, at_ms: float = 0, volume: int = 0
) -> TopOfBook:
    kind, now = int(MessageKind.TOP_OF_BOOK), int(at_ms * MS)
    return TopOfBook(kind, 0, 1, 4, now, 1, bid, bid_lots, ask, ask_lots, 10_000, volume, 3_000, 3_000)


def ended(order_id: int, quantity: int, kind: EventKind = EventKind.ORDER_CANCELLED) -> Report:
    return Report(int(kind), 8, 0, 0, order_id, int(Side.SELL), 0, quantity, 0, int(Reason.BREAKER), 0, 0)


def cancels(actions) -> set[int]:
    return {action.order_id for action in actions if isinstance(action, CancelOrder)}


def wakes(actions) -> list[Wake]:
    return [action for action in actions if isinstance(action, Wake)]


class TestVolumeSeller:
    params = VolumeSellerParams(share=0.09, window_ms=1000, period_ms=50)

    def seller(self, shares=4860, **changes) -> VolumeSeller:
        made = make(VolumeSeller, self.params.model_copy(update=changes), shares=shares, cash=0)
        assert isinstance(made, VolumeSeller)
        return made

    def test_does_nothing_before_the_signal(self):
        seller = self.seller()
        assert not seller.handle(OPENED, 0)
        assert not seller.handle(book(at_ms=0), 0)
        assert not seller.handle(book(at_ms=500, volume=10_000), 500 * MS)

    @pytest.mark.parametrize("bps", [-50, 0, 50])
    def test_begins_at_the_first_signal_whatever_it_says(self, bps):
        seller = self.seller()
        (wake,) = seller.handle(signal(bps), 0)
        assert wake == Wake(50 * MS, 0)
        seller.handle(book(at_ms=0), 0)
        seller.handle(book(at_ms=10, volume=10_000), 10 * MS)
        (order,) = orders(seller.handle(Timer(0), 50 * MS))
        assert (order.side, order.order_type, order.rule) == (Side.SELL, OrderType.MARKET, Rule.FOLLOW_VOLUME)
        assert order.quantity_lots == int(0.09 * 10_000 * 50 / 1000)
        assert not seller.handle(signal(bps), 60 * MS)  # and another one changes nothing

    def test_sells_its_share_of_a_steady_market(self):
        seller = self.seller(shares=100_000)
        sold = 0
        for now_ms in range(0, 11_000, 10):
            now = now_ms * MS
            seller.handle(book(at_ms=now_ms, volume=now_ms), now)  # a lot a millisecond
            if now_ms == 1000:
                seller.handle(signal(0), now)
            elif now_ms > 1000 and now_ms % 50 == 0:
                for order in orders(seller.handle(Timer(0), now)):
                    sold += order.quantity_lots
                    seller.handle(filled(order, order.quantity_lots, 0, 10_000), now)
        assert sold == pytest.approx(0.09 * 9_950, abs=2)

    def test_counts_the_last_window_s_volume_and_no_older_one(self):
        seller = self.seller()
        for at_ms, volume in ((0, 0), (100, 700), (900, 1000), (1500, 1600)):
            seller.handle(book(at_ms=at_ms, volume=volume), at_ms * MS)
        assert seller.window_volume_lots(1500 * MS) == 900  # since 500 ms, when the volume was 700
        assert seller.window_volume_lots(1950 * MS) == 600
        assert seller.window_volume_lots(2600 * MS) == 0  # a quiet market

    def test_fractions_of_lots_are_carried_over(self):
        seller = self.seller()
        seller.handle(signal(0), 0)
        seller.handle(book(at_ms=0), 0)
        seller.handle(book(at_ms=1, volume=100), MS)  # 0.45 lots a slice
        sold = [lots(seller.handle(Timer(0), at * 50 * MS), Side.SELL) for at in range(1, 10)]
        assert sold == [0, 0, 1, 0, 1, 0, 1, 0, 1]

    def test_what_found_no_bids_is_sold_with_the_next_slice(self):
        seller = self.seller()
        seller.handle(signal(0), 0)
        seller.handle(book(at_ms=0), 0)
        seller.handle(book(at_ms=1, volume=1000), MS)  # 4.5 lots a slice
        (order,) = orders(seller.handle(Timer(0), 50 * MS))
        assert order.quantity_lots == 4
        seller.handle(ended(order.order_id, 4), 50 * MS)
        assert lots(seller.handle(Timer(0), 100 * MS), Side.SELL) == 9

    def test_a_late_slice_is_as_much_larger(self):
        seller = self.seller()
        seller.handle(signal(0), 0)
        seller.handle(book(at_ms=0), 0)
        seller.handle(book(at_ms=1, volume=1000), MS)
        assert lots(seller.handle(Timer(0), 200 * MS), Side.SELL) == 18

    def test_is_blind_to_the_price(self):
        sold = []
        for bid, ask in ((9_999, 10_001), (100, 16_000), (0, 16_384)):
            seller = self.seller()
            seller.handle(signal(0), 0)
            seller.handle(book(bid, ask, at_ms=0), 0)
            seller.handle(book(bid, ask, at_ms=10, volume=10_000), 10 * MS)
            sold += orders(seller.handle(Timer(0), 50 * MS))
        assert len({(order.quantity_lots, order.price_ticks) for order in sold}) == 1 and len(sold) == 3

    def test_never_offers_more_than_it_has_and_ends_when_all_is_sold(self):
        seller = self.seller(shares=10)
        seller.handle(signal(0), 0)
        seller.handle(book(at_ms=0), 0)
        seller.handle(book(at_ms=1, volume=10**6), MS)
        (order,) = orders(seller.handle(Timer(0), 50 * MS))
        assert order.quantity_lots == 10
        assert not orders(seller.handle(Timer(0), 100 * MS))  # all of it is under way
        seller.handle(filled(order, 10, 0, 10_000), 110 * MS)
        assert not seller.handle(Timer(0), 150 * MS)

    def test_waits_while_the_market_is_halted_and_goes_on_after(self):
        seller = self.seller()
        seller.handle(signal(0), 0)
        seller.handle(book(at_ms=0), 0)
        seller.handle(book(at_ms=1, volume=10_000), MS)
        seller.handle(HALTED, 10 * MS)
        actions = seller.handle(Timer(0), 50 * MS)
        assert not orders(actions) and wakes(actions)
        seller.handle(phase(Phase.CONTINUOUS), 60 * MS)
        assert orders(seller.handle(Timer(0), 100 * MS))


class TestMomentum:
    params = MomentumParams(
        lookback_ms=1000, threshold_bps=10, spread_of_tastes=0, quantity_lots=8, position_limit_lots=20, reach_ticks=2
    )

    def trader(self, seen: TopOfBook, **endowment) -> Momentum:
        made = make(Momentum, self.params, **endowment)
        made.handle(seen, 0)
        assert isinstance(made, Momentum)
        return made

    @pytest.mark.parametrize(
        ("mid", "side"),
        [(10_011, Side.BUY), (10_009, None), (10_000, None), (9_991, None), (9_989, Side.SELL)],
    )
    def test_acts_on_a_trend_beyond_its_threshold_only(self, mid, side):
        trader = self.trader(book(mid - 1, mid + 1))
        placed = orders(trader.handle(Timer(0), 0))
        assert [order.side for order in placed] == ([] if side is None else [side])
        for order in placed:
            reach = mid + 3 if side == Side.BUY else mid - 3
            assert (order.price_ticks, order.order_type) == (reach, OrderType.IOC)
            assert (order.quantity_lots, order.rule) == (8, Rule.FOLLOW_TREND)

    @pytest.mark.parametrize(("mid", "side"), [(10_100, Side.BUY), (9_900, Side.SELL)])
    def test_stops_at_its_position_limit(self, mid, side):
        trader = self.trader(book(mid - 1, mid + 1))
        taken = []
        for _ in range(5):
            for order in orders(trader.handle(Timer(0), 0)):
                assert order.side == side
                taken.append(order.quantity_lots)
                trader.handle(filled(order, order.quantity_lots, 0), 0)
        assert taken == [8, 8, 4]

    def test_closes_its_position_when_the_trend_is_over_and_no_more(self):
        trader = self.trader(book(10_099, 10_101))
        (bought,) = orders(trader.handle(Timer(0), 0))
        trader.handle(filled(bought, 8, 0), 0)
        trader.handle(book(10_099, 10_101, at_ms=60_000), 60 * SECOND)  # the average has come up
        assert abs(trader.trend_bps()) < 1
        (sold,) = orders(trader.handle(Timer(0), 60 * SECOND))
        assert (sold.side, sold.quantity_lots) == (Side.SELL, 8)
        trader.handle(filled(sold, 8, 0), 60 * SECOND)
        assert not orders(trader.handle(Timer(0), 60 * SECOND))

    def test_forgets_with_its_lookback(self):
        trader = self.trader(book())
        trader.handle(book(10_099, 10_101, at_ms=1000), SECOND)  # one time constant: 1/e of 100 ticks are left
        assert trader.average == pytest.approx(10_000 + 100 * (1 - 0.367879))

    def test_has_one_order_at_a_time(self):
        trader = self.trader(book(10_099, 10_101))
        assert orders(trader.handle(Timer(0), 0))
        assert not orders(trader.handle(Timer(0), 0))

    def test_does_not_buy_without_cash_nor_sell_what_it_has_not(self):
        assert lots(self.trader(book(10_099, 10_101), cash=3 * 10_103).handle(Timer(0), 0), Side.BUY) == 3
        assert not orders(self.trader(book(10_099, 10_101), cash=10_102).handle(Timer(0), 0))
        assert lots(self.trader(book(9_899, 9_901), shares=3).handle(Timer(0), 0), Side.SELL) == 3
        assert not orders(self.trader(book(9_899, 9_901), shares=0).handle(Timer(0), 0))

    def test_looks_every_period_also_through_a_halt_but_does_not_trade_in_it(self):
        trader = self.trader(book(10_099, 10_101))
        (wake,) = wakes(trader.handle(HALTED, 0) or trader.handle(Timer(0), 0))
        assert 250 * MS <= wake.at_ns <= 750 * MS and not trader.open_orders
        trader.handle(phase(Phase.CONTINUOUS), 0)
        assert orders(trader.handle(Timer(0), wake.at_ns))


class TestHighFrequency:
    params = HighFrequencyParams(
        quantity_lots=10, inventory_limit_lots=30, hold_ms=200, take_imbalance=0.2, reach_ticks=2, pause_ms=5
    )

    def trader(self, inventory: int = 0) -> HighFrequency:
        """One that holds so much, and has not seen a market yet."""
        made = make(HighFrequency, self.params)
        assert isinstance(made, HighFrequency)
        if inventory:
            order = (made.buy if inventory > 0 else made.sell)(OrderType.LIMIT, 10_000, abs(inventory), Rule.QUOTE)
            made.handle(filled(order, abs(inventory), 0), 0)
            assert not made.open_orders and made.inventory == inventory
        return made

    def test_quotes_at_both_touches_without_taking(self):
        placed = orders(self.trader().handle(book(9_999, 10_001), 0))
        assert {(o.side, o.price_ticks, o.quantity_lots) for o in placed} == {
            (Side.BUY, 9_999, 10),
            (Side.SELL, 10_001, 10),
        }
        assert {(o.order_type, o.rule) for o in placed} == {(OrderType.POST_ONLY, Rule.QUOTE)}

    def test_goes_one_tick_better_where_the_spread_is_wide(self):
        placed = orders(self.trader().handle(book(9_990, 10_010), 0))
        assert {(o.side, o.price_ticks) for o in placed} == {(Side.BUY, 9_991), (Side.SELL, 10_009)}

    @pytest.mark.parametrize(
        ("inventory", "expected"),
        [(5, {(Side.BUY, 9_999), (Side.SELL, 10_000)}), (-5, {(Side.BUY, 10_000), (Side.SELL, 10_001)})],
    )
    def test_improves_a_spread_of_two_only_to_reduce_its_inventory(self, inventory, expected):
        placed = orders(self.trader(inventory).handle(book(9_999, 10_001), 0))
        assert {(o.side, o.price_ticks) for o in placed} == expected

    @pytest.mark.parametrize(("inventory", "side"), [(16, Side.SELL), (-16, Side.BUY)])
    def test_beyond_half_its_limit_it_quotes_the_reducing_side_only(self, inventory, side):
        assert [o.side for o in orders(self.trader(inventory).handle(book(), 0))] == [side]

    def test_cancels_the_quote_that_grows_an_inventory_beyond_half_its_limit(self):
        trader = self.trader(10)
        bid = next(o for o in orders(trader.handle(book(), 0)) if o.side == Side.BUY)
        assert bid.order_id in cancels(trader.handle(filled(bid, 6, 4), 0))

    def test_cancels_a_quote_that_the_market_has_left(self):
        trader = self.trader()
        first = {o.order_id for o in orders(trader.handle(book(9_999, 10_001), 0))}
        assert not trader.handle(book(9_999, 10_001), 0)
        actions = trader.handle(book(9_979, 9_981), MS)
        assert cancels(actions) == first
        assert {o.price_ticks for o in orders(actions)} == {9_979, 9_981}

    @pytest.mark.parametrize(
        ("inventory", "side", "price"), [(30, Side.SELL, 9_997), (37, Side.SELL, 9_997), (-30, Side.BUY, 10_003)]
    )
    def test_offloads_all_of_it_aggressively_at_its_limit(self, inventory, side, price):
        (order,) = orders(self.trader(inventory).handle(book(), MS))
        assert (order.side, order.price_ticks, order.quantity_lots) == (side, price, abs(inventory))
        assert (order.order_type, order.rule) == (OrderType.IOC, Rule.REDUCE_INVENTORY)

    def test_offloads_what_it_has_held_too_long_and_withdraws_its_quotes(self):
        trader = self.trader(3)
        quotes = orders(trader.handle(book(), 100 * MS))
        assert not cancels(trader.handle(book(), 299 * MS))
        actions = trader.handle(book(), 300 * MS)
        (order,) = orders(actions)
        assert cancels(actions) == {o.order_id for o in quotes}
        assert (order.order_type, order.side, order.quantity_lots) == (OrderType.IOC, Side.SELL, 3)

    def test_goes_on_offloading_until_nothing_is_left_and_quotes_again_then(self):
        trader = self.trader(30)
        (order,) = orders(trader.handle(book(), 0))
        assert not orders(trader.handle(book(), MS))  # one at a time, and nothing else
        trader.handle(filled(order, 20, 10), 2 * MS)
        trader.handle(ended(order.order_id, 10), 2 * MS)
        assert not orders(trader.handle(book(), 3 * MS))  # nobody was there: it waits a little
        (rest,) = orders(trader.handle(Timer(0), 6 * MS))
        assert (rest.order_type, rest.quantity_lots) == (OrderType.IOC, 10)
        placed = orders(trader.handle(filled(rest, 10, 0), 7 * MS))
        assert {(o.order_type, o.side) for o in placed} == {(OrderType.POST_ONLY, s) for s in (Side.BUY, Side.SELL)}

    def test_does_not_offload_at_any_price_when_it_sees_nobody(self):
        assert not orders(self.trader(30).handle(book(0, 10_001, bid_lots=0), MS))
        assert not orders(self.trader(-30).handle(book(9_999, 16_384, ask_lots=0), MS))

    @pytest.mark.parametrize(
        ("bid_lots", "ask_lots", "side", "price"), [(100, 7, Side.BUY, 10_001), (7, 100, Side.SELL, 9_999)]
    )
    def test_takes_the_rest_of_a_thin_touch(self, bid_lots, ask_lots, side, price):
        placed = orders(self.trader().handle(book(bid_lots=bid_lots, ask_lots=ask_lots), 10 * MS))
        (taken,) = (o for o in placed if o.rule == Rule.TAKE_TOUCH)
        assert (taken.side, taken.price_ticks, taken.quantity_lots) == (side, price, 7)
        assert taken.order_type == OrderType.IOC

    def test_does_not_take_an_even_touch_nor_more_than_a_quote_or_its_limit(self):
        def taken(inventory: int, bid_lots: int, ask_lots: int) -> int:
            placed = orders(self.trader(inventory).handle(book(bid_lots=bid_lots, ask_lots=ask_lots), 10 * MS))
            return sum(o.quantity_lots for o in placed if o.rule == Rule.TAKE_TOUCH)

        assert taken(0, 100, 21) == 0
        assert taken(0, 1000, 50) == 10
        assert taken(26, 1000, 50) == 4

    def test_does_not_take_a_thin_touch_that_is_its_own(self):
        trader = self.trader()
        trader.handle(book(), 0)
        placed = orders(trader.handle(book(bid_lots=100, ask_lots=10), 10 * MS))
        assert not [o for o in placed if o.rule == Rule.TAKE_TOUCH]

    def test_is_silent_in_a_halt_and_back_at_its_next_look(self):
        trader = self.trader()
        trader.handle(HALTED, 0)
        assert not trader.handle(book(), 0)
        trader.handle(phase(Phase.CONTINUOUS), 0)
        assert len(orders(trader.handle(book(), 0))) == 2


class TestFundamental:
    params = FundamentalParams(
        side="buy", opinion_bps=0, margin_bps=100, quantity_lots=20, eager_bps=100, largest_orders=4, reach_bps=10
    )

    def trader(self, agent=1, cash=10**9, **changes) -> Fundamental:
        made = make(Fundamental, self.params.model_copy(update=changes), agent=agent, cash=cash)
        assert isinstance(made, Fundamental)
        return made

    def decide(self, trader: Fundamental, seen: TopOfBook) -> Wake | None:
        """The timer of its decision, if it came to one."""
        trader.handle(seen, 0)
        decided = [wake for wake in wakes(trader.handle(Timer(0), 0)) if wake.tag]
        return decided[0] if decided else None

    def demand(self, trader: Fundamental, seen: TopOfBook) -> int:
        wake = self.decide(trader, seen)
        placed = orders(trader.handle(Timer(wake.tag), wake.at_ns)) if wake else []
        return sum(order.quantity_lots for order in placed)

    def test_demand_grows_with_the_mispricing_up_to_a_limit(self):
        found = [self.demand(self.trader(), book(ask - 2, ask)) for ask in (9_901, 9_900, 9_801, 9_702, 9_500, 5_000)]
        assert found == [0, 20, 40, 60, 80, 80]  # its limit is 9 900; eager_bps of it are 99 ticks

    def test_supply_of_a_seller_is_the_mirror_image(self):
        found = [self.demand(self.trader(side="sell"), book(bid, bid + 2)) for bid in (10_099, 10_101, 10_203, 11_000)]
        assert found[0] == 0 and found[1] == 20 and found[2] in (40, 41) and found[3] == 80

    def test_thinks_before_it_acts(self):
        seen = book(9_798, 9_800)
        found = [self.decide(self.trader(agent=agent, think_ms=1000), seen).at_ns for agent in range(20)]
        assert min(found) >= 500 * MS and max(found) <= 1500 * MS and len(set(found)) > 10
        trader = self.trader(think_ms=1000)
        trader.handle(seen, 0)
        assert not orders(trader.handle(Timer(0), 0))

    def test_buys_what_it_decided_on_though_the_price_has_moved_meanwhile(self):
        trader = self.trader()
        wake = self.decide(trader, book(9_798, 9_801))
        trader.handle(book(9_998, 10_000), 0)
        (order,) = orders(trader.handle(Timer(wake.tag), wake.at_ns))
        assert order.quantity_lots == 40
        assert (order.order_type, order.rule) == (OrderType.LIMIT, Rule.BUY_FUNDAMENTAL)
        assert order.price_ticks == round(9_801 * 1.001)  # a little beyond what it saw

    def test_never_pays_more_than_its_limit(self):
        trader = self.trader(reach_bps=500)
        wake = self.decide(trader, book(9_888, 9_890))
        (order,) = orders(trader.handle(Timer(wake.tag), wake.at_ns))
        assert order.price_ticks == 9_900

    def test_does_not_decide_again_while_it_thinks_and_withdraws_what_is_left_at_its_next_look(self):
        trader = self.trader()
        wake = self.decide(trader, book(9_798, 9_801))
        assert all(not again.tag for again in wakes(trader.handle(Timer(0), 0)))
        (order,) = orders(trader.handle(Timer(wake.tag), wake.at_ns))
        assert cancels(trader.handle(Timer(0), 2 * SECOND)) == {order.order_id}

    def test_ignores_a_signal_of_nothing_and_believes_another_in_full(self):
        trader = self.trader()
        assert not trader.handle(signal(0), 0) and trader.limit_ticks == 9_900
        assert not trader.handle(signal(-200), 0) and trader.limit_ticks == 9_702

    def test_its_cash_and_its_shares_are_its_limit(self):
        assert self.demand(self.trader(cash=3 * 9_810), book(9_798, 9_800)) == 3
        seller = make(Fundamental, self.params.model_copy(update={"side": "sell"}), shares=3)
        assert self.demand(seller, book(10_202, 10_204)) == 3

    def test_looks_at_poisson_times(self):
        trader = self.trader(period_ms=100)
        now, seen = 0, 0
        actions = trader.handle(OPENED, 0)
        while seen < 1000:
            now = next(wake.at_ns for wake in wakes(actions) if not wake.tag)
            actions, seen = trader.handle(Timer(0), now), seen + 1
        assert 85 * SECOND < now < 115 * SECOND

    def test_joins_the_reopening_auction_if_it_pays_attention(self):
        joined = []
        for attention in (0.0, 1.0):
            trader = self.trader(attention=attention)
            trader.handle(book(9_798, 9_801), 0)
            trader.handle(HALTED, 0)
            joined.append(lots(trader.handle(phase(Phase.AUCTION), 0), Side.BUY))
        assert joined == [0, 40]

    def test_an_opening_auction_is_not_one_that_reopens(self):
        trader = self.trader(attention=1)
        trader.handle(book(9_798, 9_801), 0)
        assert not trader.handle(phase(Phase.AUCTION), 0)

    def test_decides_again_after_a_halt_in_which_its_decision_fell_due(self):
        trader = self.trader(attention=0)
        wake = self.decide(trader, book(9_798, 9_801))
        trader.handle(HALTED, 0)
        assert not orders(trader.handle(Timer(wake.tag), wake.at_ns))
        trader.handle(phase(Phase.AUCTION), wake.at_ns)
        trader.handle(phase(Phase.CONTINUOUS), wake.at_ns)
        assert self.demand(trader, book(9_798, 9_801)) == 40


class TestToxicity:
    params = MarketMakerParams(
        levels=1,
        quantity_lots=50,
        inventory_limit_lots=400,
        toxicity_limit=0.6,
        toxicity_inventory_share=0.25,
        toxicity_memory_ms=1000,
    )

    def hit(self, maker: Strategy, side: Side, lots_wanted: int, now_ns: int = 0) -> None:
        """Others trade so much with its quotes of one side."""
        while lots_wanted:
            number, order = next((n, o) for n, o in maker.open_orders.items() if o.side == side and not o.cancelling)
            quantity = min(order.leaves_lots, lots_wanted)
            lots_wanted -= quantity
            kind, leaves = int(EventKind.ORDER_FILLED), order.leaves_lots - quantity
            maker.handle(
                Report(kind, 8, 0, 0, number, order.side, order.price_ticks, quantity, leaves, 0, 2, 1), now_ns
            )
            for n, o in list(maker.open_orders.items()):
                if o.cancelling:
                    gone = Report(int(EventKind.ORDER_CANCELLED), 8, 0, 0, n, o.side, 0, o.leaves_lots, 0, 0, 0, 0)
                    maker.handle(gone, now_ns)

    def maker(self, **changes) -> MarketMaker:
        made = make(MarketMaker, self.params.model_copy(update=changes))
        made.handle(OPENED, 0)
        assert isinstance(made, MarketMaker)
        return made

    def quoted(self, maker: Strategy) -> set[int]:
        return {order.side for order in maker.open_orders.values() if not order.cancelling}

    @pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
    def test_one_sided_flow_and_an_inventory_make_it_withdraw_that_side(self, side):
        maker = self.maker()
        self.hit(maker, side, 100)  # 100 / 150 > 0.6, but the inventory is not above a quarter of the limit
        assert not maker.is_toxic(side) and self.quoted(maker) == {Side.BUY, Side.SELL}
        self.hit(maker, side, 1)
        assert maker.is_toxic(side) and not maker.is_toxic(Side(1 - side))
        assert self.quoted(maker) == {1 - side}

    def test_an_inventory_from_balanced_flow_is_not_toxic(self):
        maker = self.maker(inventory_limit_lots=4000, toxicity_inventory_share=0.01)
        for _ in range(10):
            self.hit(maker, Side.BUY, 55)
            self.hit(maker, Side.SELL, 45)
        assert maker.shares - maker.target == 100 and not maker.is_toxic(Side.BUY)

    def test_never_by_default(self):
        maker = self.maker(toxicity_limit=MarketMakerParams().toxicity_limit)
        self.hit(maker, Side.BUY, 300)
        assert not maker.is_toxic(Side.BUY) and Side.BUY in self.quoted(maker)

    def test_comes_back_as_it_forgets_the_flow(self):
        maker = self.maker()
        self.hit(maker, Side.BUY, 150)
        assert Side.BUY not in self.quoted(maker)
        maker.handle(Timer(0), 100 * MS)
        assert Side.BUY not in self.quoted(maker)
        maker.handle(Timer(0), 3 * SECOND)  # 150 e⁻³ ≈ 7 lots against its 50
        assert Side.BUY in self.quoted(maker)


class TestPause:
    params = ValueTraderParams(
        opinion_bps=0, rungs_bps=(1000.0,), quantity_lots=10, pause_move_bps=50, pause_window_ms=1000, pause_ms=1000
    )

    def trader(self, **changes) -> ValueTrader:
        made = make(ValueTrader, self.params.model_copy(update=changes))
        assert isinstance(made, ValueTrader)
        if made.pause_move_bps:
            made.pause_move_bps = 50.0  # the median's, whatever it drew
        assert len(orders(made.handle(OPENED, 0))) == 2
        return made

    @pytest.mark.parametrize("mid", [9_940, 10_060])
    def test_cancels_everything_at_once_when_the_mid_has_moved_too_far(self, mid):
        trader = self.trader()
        resting = set(trader.open_orders)
        assert not trader.handle(book(at_ms=0), 0)
        assert cancels(trader.handle(book(mid - 1, mid + 1, at_ms=500), 500 * MS)) == resting

    def test_a_smaller_or_a_slower_move_does_not_make_it_pause(self):
        trader = self.trader()
        trader.handle(book(at_ms=0), 0)
        assert not trader.handle(book(9_959, 9_961, at_ms=500), 500 * MS)
        assert not trader.handle(book(9_929, 9_931, at_ms=1400), 1400 * MS)  # 70 bps, but within 1400 ms
        assert trader.handle(book(9_899, 9_901, at_ms=1450), 1450 * MS)  # 60 within 950

    def test_stays_away_and_comes_back(self):
        trader = self.trader()
        trader.handle(book(at_ms=0), 0)
        trader.handle(book(9_939, 9_941, at_ms=500), 500 * MS)
        for number in list(trader.open_orders):
            trader.handle(ended(number, 10), 500 * MS)
        back_ns = trader.away_until_ns
        assert back_ns > 500 * MS
        away = trader.handle(Timer(0), back_ns - 1)
        assert not orders(away) and wakes(away)
        back = orders(trader.handle(Timer(0), back_ns))
        assert sum(order.rule == Rule.REST_AT_VALUE for order in back) == 2

    def test_its_absence_has_the_mean_that_was_asked_for(self):
        lengths = []
        for agent in range(400):
            trader = make(ValueTrader, self.params, agent=agent)
            trader.handle(book(at_ms=0), 0)
            trader.handle(book(4_999, 5_001, at_ms=500), 0)
            lengths.append(trader.away_until_ns)
        assert 850 * MS < sum(lengths) / 400 < 1150 * MS

    def test_thresholds_differ_over_traders_around_the_median(self):
        found = sorted(make(ValueTrader, self.params, agent=agent).pause_move_bps for agent in range(400))
        assert 45 < found[200] < 55 and found[40] < 30 and found[360] > 85

    def test_never_by_default(self):
        trader = self.trader(pause_move_bps=0)
        trader.handle(book(at_ms=0), 0)
        assert not trader.handle(book(4_999, 5_001, at_ms=1), MS) and trader.away_until_ns == 0

    def test_does_not_join_the_reopening_auction_while_it_is_away(self):
        trader = self.trader()
        for number in list(trader.open_orders):
            trader.handle(ended(number, 10), 0)
        trader.handle(HALTED, 0)
        trader.away_until_ns = 100
        assert not trader.handle(phase(Phase.AUCTION), 99)
        assert len(orders(trader.handle(phase(Phase.AUCTION), 100))) == 2


class TestAHaltThatEnds:
    def halted(self, trader: Strategy) -> Wake:
        """Halt it, as the venue does: its orders are cancelled; returns what it asks to be woken for in the halt."""
        trader.handle(HALTED, 0)
        for number, order in list(trader.open_orders.items()):
            trader.handle(ended(number, order.leaves_lots), 0)
        actions = trader.handle(Timer(0), 0)
        assert not orders(actions) and not trader.open_orders
        (wake,) = wakes(actions)
        return wake

    @pytest.mark.parametrize(
        ("kind", "params"),
        [
            (MarketMaker, MarketMakerParams(levels=2)),
            (ValueTrader, ValueTraderParams(opinion_bps=0, rungs_bps=(100.0, 200.0))),
        ],
    )
    def test_who_makes_a_market_is_back_with_all_its_orders(self, kind, params):
        trader = make(kind, params)
        before = len(orders(trader.handle(OPENED, 0)))
        wake = self.halted(trader)
        trader.handle(phase(Phase.CONTINUOUS), 1)
        assert len(orders(trader.handle(Timer(wake.tag), wake.at_ns))) == before == 4

    def test_a_noise_trader_trades_on(self):
        trader = make(NoiseTrader, NoiseTraderParams())
        trader.handle(OPENED, 0)
        wake = self.halted(trader)
        trader.handle(phase(Phase.CONTINUOUS), 1)
        assert len(orders(trader.handle(Timer(wake.tag), wake.at_ns))) == 1

    def test_only_continuous_trading_ends_it(self):
        for kind, params in ((MarketMaker, MarketMakerParams()), (NoiseTrader, NoiseTraderParams())):
            trader = make(kind, params)
            trader.handle(OPENED, 0)
            self.halted(trader)
            trader.handle(phase(Phase.AUCTION), 1)
            assert not orders(trader.handle(Timer(0), 2))

    sure = HolderParams(conviction_bps=20, conviction_spread_bps=0, spread_of_tastes=0, steps=4)

    def test_a_holder_goes_on_where_it_was_and_once_only(self):
        holder = make(Holder, self.sure, shares=80)
        holder.handle(book(), 0)
        first = holder.handle(signal(-50), 0)
        (order,) = orders(first)
        holder.handle(filled(order, order.quantity_lots, 0, 9_990), 0)
        holder.handle(HALTED, 1)
        assert not holder.handle(Timer(wakes(first)[0].tag), 2)
        again = holder.handle(phase(Phase.CONTINUOUS), 3)
        (later,) = orders(again)
        assert 0 < later.quantity_lots <= 80 - order.quantity_lots
        assert not holder.handle(Timer(wakes(first)[0].tag), 4)  # a timer from before the halt
        holder.handle(filled(later, later.quantity_lots, 0, 9_990), 4)
        left = holder.shares
        actions = again
        while wakes(actions):
            (wake,) = wakes(actions)
            actions = holder.handle(Timer(wake.tag), wake.at_ns)
            for due in orders(actions):
                holder.handle(filled(due, due.quantity_lots, 0, 9_990), wake.at_ns)
        assert left > 0 and holder.shares == 0

    def test_a_holder_who_hears_the_news_in_the_halt_leaves_when_it_ends(self):
        holder = make(Holder, self.sure, shares=80)
        holder.handle(book(), 0)
        holder.handle(HALTED, 0)
        assert not holder.handle(signal(-50), 1) and holder.plan is None
        assert lots(holder.handle(phase(Phase.CONTINUOUS), 2), Side.SELL) > 0
        assert holder.plan is not None and holder.plan.lots == 80

    def test_a_holder_without_news_stays(self):
        holder = make(Holder, self.sure, shares=80)
        holder.handle(HALTED, 0)
        assert not holder.handle(phase(Phase.CONTINUOUS), 1)


@pytest.mark.parametrize("kind", [Momentum, VolumeSeller, HighFrequency, Fundamental])
def test_settings_out_of_range_or_unknown_are_refused(kind):
    for wrong in ({"nobody_knows_this": 1}, {"side": "buy", "period_ms": 0, "quantity_lots": 0}):
        with pytest.raises(ValueError):
            kind.Params.model_validate(wrong)
