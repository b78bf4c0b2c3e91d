"""Each strategy's decision rule, fed by hand: no process, no socket."""

import pytest

from aar_swarm.agents.base import (
    Action,
    CancelOrder,
    Endowment,
    Market,
    PlaceOrder,
    Rule,
    Strategy,
    Timer,
    Wake,
)
from aar_swarm.agents.holder import Holder, HolderParams
from aar_swarm.agents.market_maker import MarketMaker, MarketMakerParams
from aar_swarm.agents.noise_trader import NoiseTrader, NoiseTraderParams
from aar_swarm.agents.value_trader import ValueTrader, ValueTraderParams
from aar_swarm.names import agent_stream
from exchange.clock import MS, SECOND
from exchange.config import Config
from exchange.types import EventKind, OrderType, Reason, Side
from exchange.wire import MessageKind, Notice, Report, TopOfBook

MARKET = Market(instrument=0, opening_ticks=10_000, price_levels=16_384)
OPENED = Notice(int(EventKind.SESSION_OPENED), 1, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0)
HALTED = Notice(int(EventKind.INSTRUMENT_HALTED), 9, 0, 0, 1, 500, 300, 1, 9000, 1, 9, 0)


def signal(bps: int) -> Notice:
    return Notice(int(EventKind.SIGNAL_PUBLISHED), 5, 0, 0, 0, bps, 0, 0, 0, 0, 0, 0)


def top(bid=9_996, ask=10_004, depth=3_000, time_ns=0) -> TopOfBook:
    return TopOfBook(
        int(MessageKind.SLOW_TOP_OF_BOOK), 0, 1, 4, time_ns, 1, bid, 100, ask, 100, 10_000, 0, depth, depth
    )


def filled(order: PlaceOrder, quantity: int, leaves: int, price: int | None = None) -> Report:
    return Report(
        int(EventKind.ORDER_FILLED),
        8,
        0,
        0,
        order.order_id,
        order.side,
        order.price_ticks if price is None else price,
        quantity,
        leaves,
        0,
        0,
        1,
    )


def make(kind: type[Strategy], params: Config, shares=10_000, cash=10**9, agent=1) -> Strategy:
    return kind(MARKET, Endowment(cash, shares), params, agent_stream(7, agent))


def orders(actions) -> list[PlaceOrder]:
    return [action for action in actions if isinstance(action, PlaceOrder)]


def lots(actions, side: Side) -> int:
    return sum(order.quantity_lots for order in orders(actions) if order.side == side)


class TestMarketMaker:
    params = MarketMakerParams(levels=3, quantity_lots=50, inventory_limit_lots=200, half_spread_ticks=4, step_ticks=8)

    def test_quotes_both_sides_around_the_opening_price_without_crossing(self):
        maker = make(MarketMaker, self.params)
        placed = orders(maker.handle(OPENED, 0))
        bids = [order.price_ticks for order in placed if order.side == Side.BUY]
        asks = [order.price_ticks for order in placed if order.side == Side.SELL]
        assert len(bids) == len(asks) == 3
        assert max(bids) < 10_000 < min(asks)
        assert all(order.order_type == OrderType.LIMIT for order in placed)

    def test_withdraws_its_bids_at_the_inventory_limit_and_only_those(self):
        maker = make(MarketMaker, self.params)
        placed = orders(maker.handle(OPENED, 0))
        bought = 0
        while bought < 200:
            bid = next(order for order in placed if order.side == Side.BUY)
            placed.remove(bid)
            bought += bid.quantity_lots
            placed += orders(maker.handle(filled(bid, bid.quantity_lots, 0), 0))
        assert bought == 200  # never beyond the limit
        assert not [o for o in maker.open_orders.values() if o.side == Side.BUY and not o.cancelling]
        assert [o for o in maker.open_orders.values() if o.side == Side.SELL and not o.cancelling]

    def test_never_offers_more_than_would_reach_the_limit(self):
        maker = make(MarketMaker, self.params.model_copy(update={"inventory_limit_lots": 70}))
        assert lots(maker.handle(OPENED, 0), Side.BUY) == 70

    def test_leans_away_from_its_inventory(self):
        maker = make(MarketMaker, self.params)
        placed = orders(maker.handle(OPENED, 0))
        bid = max((o for o in placed if o.side == Side.BUY), key=lambda o: o.price_ticks)
        after = orders(maker.handle(filled(bid, 50, 0), 0))
        assert after and max(o.price_ticks for o in after if o.side == Side.BUY) < bid.price_ticks

    def test_does_not_cross_the_price_it_last_saw(self):
        maker = make(MarketMaker, self.params)
        maker.handle(top(bid=9_000, ask=9_010), 0)
        bids = [order.price_ticks for order in orders(maker.handle(OPENED, 0)) if order.side == Side.BUY]
        assert max(bids) < 9_010

    def test_is_silent_once_halted(self):
        maker = make(MarketMaker, self.params)
        maker.handle(OPENED, 0)
        assert not maker.handle(HALTED, 0)
        assert not orders(maker.handle(Timer(0), 0))


class TestValueTrader:
    params = ValueTraderParams(opinion_bps=0, rungs_bps=(100.0, 1000.0), quantity_lots=10)

    def test_rests_rungs_on_both_sides_of_its_value(self):
        trader = make(ValueTrader, self.params)
        placed = {(order.side, order.price_ticks) for order in orders(trader.handle(OPENED, 0))}
        assert placed == {(Side.BUY, 9_900), (Side.BUY, 9_000), (Side.SELL, 10_101), (Side.SELL, 11_001)}

    def test_buys_what_is_offered_far_below_its_value_and_sells_far_above(self):
        for seen, side in ((top(bid=9_800, ask=9_850), Side.BUY), (top(bid=10_150, ask=10_200), Side.SELL)):
            trader = make(ValueTrader, self.params)
            trader.handle(seen, 0)
            taken = [order for order in orders(trader.handle(OPENED, 0)) if order.order_type == OrderType.IOC]
            assert [order.side for order in taken] == [side]

    def test_stops_buying_when_its_cash_is_spent(self):
        trader = make(ValueTrader, self.params, cash=99_000)
        bids = [order for order in orders(trader.handle(OPENED, 0)) if order.side == Side.BUY]
        assert [order.price_ticks for order in bids] == [9_900]

    def test_moves_its_rungs_after_a_signal(self):
        trader = make(ValueTrader, self.params)
        trader.handle(OPENED, 0)
        trader.handle(signal(-100), 0)
        actions = trader.handle(Timer(0), 0)
        assert sum(isinstance(action, CancelOrder) for action in actions) == 4
        assert 9_801 in {order.price_ticks for order in orders(actions)}

    def test_looks_only_once_a_period(self):
        trader = make(ValueTrader, self.params)
        wake = next(action for action in trader.handle(OPENED, 0) if isinstance(action, Wake))
        assert 250 * MS <= wake.at_ns <= 750 * MS
        assert not trader.handle(top(bid=5_000, ask=5_010), 0)


class TestNoiseTrader:
    def test_trades_both_sides_about_as_often_as_asked(self):
        trader = make(NoiseTrader, NoiseTraderParams(orders_per_s=10, largest_lots=5))
        now, placed = 0, []
        actions = trader.handle(OPENED, now)
        while len(placed) < 500:
            now = next(action for action in actions if isinstance(action, Wake)).at_ns
            actions = trader.handle(Timer(0), now)
            placed += orders(actions)
        assert 35 * SECOND < now < 65 * SECOND
        assert 200 < sum(order.side == Side.BUY for order in placed) < 300
        assert {order.quantity_lots for order in placed} == {1, 2, 3, 4, 5}


class TestHolder:
    sure = HolderParams(conviction_bps=20, conviction_spread_bps=0, spread_of_tastes=0)

    def exit_all(self, holder: Strategy, actions) -> list[tuple[int, int]]:
        """Fill every order at once; returns (time, lots) of each."""
        sold = []
        now = 0
        while True:
            for order in orders(actions):
                sold.append((now, order.quantity_lots))
                holder.handle(filled(order, order.quantity_lots, 0, 9_950), now)
            wakes = [action for action in actions if isinstance(action, Wake)]
            if not wakes or not holder.shares:
                return sold
            now = wakes[0].at_ns
            actions = holder.handle(Timer(wakes[0].tag), now)

    def test_does_nothing_until_it_hears_a_signal_that_outweighs_its_conviction(self):
        holder = make(Holder, self.sure, shares=60)
        assert not holder.handle(OPENED, 0)
        assert not holder.handle(top(), 0)
        assert not holder.handle(signal(-10), 0) and holder.plan is None
        assert orders(holder.handle(signal(-15), 0)) and holder.plan is not None

    def test_sells_exactly_what_it_has_front_loaded_within_its_horizon(self):
        holder = make(Holder, self.sure, shares=60)
        holder.handle(top(), 0)
        sold = self.exit_all(holder, holder.handle(signal(-50), 0))
        assert sum(quantity for _, quantity in sold) == 60
        assert sold[0][1] >= sold[-1][1]
        assert sold[-1][0] < 1.5 * SECOND

    def test_a_more_fearful_holder_sells_faster(self):
        first = []
        for fear in (1e-6, 1.0):
            holder = make(Holder, self.sure.model_copy(update={"risk_aversion": fear}), shares=100)
            holder.handle(top(), 0)
            first.append(orders(holder.handle(signal(-50), 0))[0].quantity_lots)
        assert first[0] == 10 and first[1] > 50  # evenly over ten steps, and nearly at once

    def test_expects_little_cost_alone_beside_the_news(self):
        holder = make(Holder, self.sure, shares=60)
        holder.handle(top(depth=6_000), 0)
        holder.handle(signal(-50), 0)
        assert holder.plan is not None and holder.plan.lots == 60
        news = 60 * 10_000 * 50 / 10_000
        assert news < holder.plan.expected_cost < news + 60 * 10

    def test_sells_what_a_slice_could_not_with_the_next(self):
        holder = make(Holder, self.sure, shares=60)
        holder.handle(top(), 0)
        actions = holder.handle(signal(-50), 0)
        order = orders(actions)[0]
        unsold = Report(
            int(EventKind.ORDER_CANCELLED), 8, 0, 0, 1, 1, 0, order.quantity_lots, 0, Reason.NO_LIQUIDITY, 0, 0
        )
        holder.handle(unsold, 0)
        (wake,) = (action for action in actions if isinstance(action, Wake))
        later = orders(holder.handle(Timer(wake.tag), 10))[0]
        assert later.quantity_lots > order.quantity_lots and later.rule == Rule.EXIT_OVERDUE

    def test_does_not_sell_while_an_order_is_still_working(self):
        holder = make(Holder, self.sure.model_copy(update={"risk_aversion": 1e3}), shares=60)
        holder.handle(top(), 0)
        assert lots(holder.handle(signal(-50), 0), Side.SELL) == 60
        assert not orders(holder.handle(Timer(1), 10))

    def test_stops_when_the_market_is_halted(self):
        holder = make(Holder, self.sure, shares=60)
        holder.handle(top(), 0)
        holder.handle(signal(-50), 0)
        holder.handle(HALTED, 1)
        assert not holder.handle(Timer(1), 2)

    def test_decides_by_what_it_sees_and_its_own_stream_alone(self):
        """The crowd's plans differ only by their streams; the same agent of the same seed plans the same again."""
        plans = []
        for agent in (1, 1, 2):
            holder = make(Holder, HolderParams(conviction_spread_bps=0), shares=60, agent=agent)
            holder.handle(top(), 0)
            holder.handle(signal(-50), 0)
            plans.append(holder.plan)
        assert plans[0] == plans[1] != plans[2]


def test_streams_of_agents_are_independent_and_repeatable():
    draws = {(seed, agent): agent_stream(seed, agent).random(4).tolist() for seed in (1, 2) for agent in (0, 1, 2)}
    assert len({tuple(values) for values in draws.values()}) == 6
    assert draws[1, 2] == agent_stream(1, 2).random(4).tolist()


@pytest.mark.parametrize("kind", [MarketMaker, ValueTrader, NoiseTrader, Holder])
def test_settings_out_of_range_or_unknown_are_refused(kind):
    with pytest.raises(ValueError):
        kind.Params.model_validate({"nobody_knows_this": 1})


def test_there_are_five_kinds_of_action():
    kinds = {"PlaceOrder", "CancelOrder", "Request", "AskVendor", "Wake"}
    assert {kind.__name__ for kind in Action.__args__} == kinds
