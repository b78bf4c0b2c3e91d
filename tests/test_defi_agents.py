"""The strategies of a liquidation cascade, fed by hand: holders on margin, and those around the stablecoin."""

import math

import pytest

from aar_swarm.agents.base import Endowment, Market, PlaceOrder, Request, Rule, Strategy, Timer, Wake
from aar_swarm.agents.borrower import Borrower, BorrowerParams
from aar_swarm.agents.coin_arbitrageur import CoinArbitrageur, CoinArbitrageurParams
from aar_swarm.agents.coin_maker import CoinMaker, CoinMakerParams
from aar_swarm.agents.leveraged_holder import LeveragedHolder, LeveragedHolderParams
from aar_swarm.agents.liquidator import Liquidator, LiquidatorParams
from aar_swarm.agents.redeemer import Redeemer, RedeemerParams
from aar_swarm.names import agent_stream
from aar_swarm.theory import regime_threshold, tipping_point
from exchange.config import Config
from exchange.types import CommandKind, EventKind, OrderType, Phase, Reason, Side
from exchange.wire import Loan, MessageKind, Notice, Report, TopOfBook

ETH, COIN, PAR = 0, 1, 1000
MARKET = Market(
    instrument=ETH,
    opening_ticks=10_000,
    price_levels=16_384,
    initial_margin_bps=1000,
    maintenance_margin_bps=500,
    stablecoin=COIN,
    par_ticks=PAR,
    coin_levels=2048,
    max_ltv_bps=8000,
    liquidation_threshold_bps=8250,
    close_factor_bps=5000,
    bonus_bps=500,
    coin_initial_margin_bps=1000,
    coin_maintenance_margin_bps=500,
    reserves=500 * PAR,
    coin_supply_lots=1000,
    open_interest_lots=20_000,
)
OPENED = Notice(int(EventKind.SESSION_OPENED), 1, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0)


def rumour(bps: int, instrument: int = COIN) -> Notice:
    return Notice(int(EventKind.SIGNAL_PUBLISHED), 5, 0, instrument, 0, bps, 0, 0, 0, 0, 0, 0)


def oracle(price: int, instrument: int = ETH) -> Notice:
    return Notice(int(EventKind.ORACLE_UPDATED), 6, 0, instrument, 0, 0, 0, 0, price, 0, 0, 0)


def top(bid: int, ask: int, instrument: int = ETH, depth: int = 3000) -> TopOfBook:
    kind = int(MessageKind.SLOW_TOP_OF_BOOK)
    return TopOfBook(kind, instrument, 1, 4, 0, int(Phase.CONTINUOUS), bid, 100, ask, 100, bid, 0, depth, depth)


def report(kind: EventKind, quantity: int = 0, leaves: int = 0, **fields: int) -> Report:
    empty = Report(int(kind), 8, 0, ETH, 0, 0, 0, quantity, leaves, 0, 0, 0)
    return empty._replace(**fields)


def filled(order: PlaceOrder, quantity: int, price: int, leaves: int = 0) -> Report:
    return report(
        EventKind.ORDER_FILLED,
        quantity,
        leaves,
        instrument=order.instrument,
        order_id=order.order_id,
        side=order.side,
        price_ticks=price,
    )


def refused(kind: CommandKind, reason: Reason, target: int = 0) -> Report:
    return report(EventKind.REQUEST_REJECTED, instrument=-1, order_id=target, reason=int(reason), reference=int(kind))


def make(
    kind: type[Strategy], params: Config, shares=0, cash=0, coins=0, leverage=0.0, agent=1, market=MARKET
) -> Strategy:
    return kind(market, Endowment(cash, shares, coins, leverage), params, agent_stream(7, agent))


def orders(actions) -> list[PlaceOrder]:
    return [action for action in actions if isinstance(action, PlaceOrder)]


def requests(actions) -> list[tuple[int, int, int]]:
    return [(a.kind, a.quantity_lots, a.target) for a in actions if isinstance(a, Request)]


class TestLeveragedHolder:
    sure = LeveragedHolderParams(
        anticipating_share=1.0, noise_sd=1e-6, conviction_bps=50, conviction_spread_bps=0, spread_of_tastes=0
    )

    def holder(self, leverage: float, params=sure, **more) -> LeveragedHolder:
        """20 shares worth 200,000 at `leverage`, half of the equity in coins."""
        coins = int(200_000 / leverage / 2 / PAR)
        cash = int(200_000 / leverage) - 200_000 - coins * PAR
        made = make(LeveragedHolder, params, shares=20, cash=cash, coins=coins, leverage=leverage, **more)
        assert isinstance(made, LeveragedHolder)
        made.handle(top(9_996, 10_004), 0)
        return made

    def test_the_strength_of_the_market_is_the_share_of_all_that_can_leave_before_it_is_liquidated(self):
        holder = self.holder(10)
        equity, coin_margin = 20_000, 0.05 * 10 * PAR
        fall = ((equity - coin_margin) / 200_000 - 0.05) / 0.95
        assert holder.strength() == pytest.approx(3000 * fall / 0.01 / 20_000)
        assert self.holder(2).strength() > 5 > 1 > self.holder(10).strength()
        nobody = MARKET._replace(open_interest_lots=0)
        assert self.holder(10, market=nobody).strength() == math.inf

    def test_leaves_at_the_news_exactly_below_the_threshold_of_the_global_game(self):
        for depth in range(500, 6000, 250):
            holder = self.holder(10)
            holder.handle(top(9_996, 10_004, depth=depth), 0)
            holder.coin_news_ticks *= 0.97
            cost = (4 + 50) / (holder._equity(10_000) / 20)
            expected = holder.strength() < regime_threshold(cost, 1e-6).signal
            fresh = self.holder(10)
            fresh.handle(top(9_996, 10_004, depth=depth), 0)
            assert bool(orders(fresh.handle(rumour(-300), 0))) == expected
        assert expected is False  # and deep enough a market holds

    def test_its_plan_is_all_it_holds_at_what_that_costs_alone(self):
        holder = self.holder(10)
        sold = orders(holder.handle(rumour(-300), 0))
        assert [order.rule for order in sold] == [Rule.LEAVE_EARLY]
        assert holder.plan is not None and holder.plan.lots == 20
        assert 0 < holder.plan.expected_cost < 20 * 10  # ticks: it is no news of the asset

    def test_less_leverage_no_news_or_no_thought_of_others_keeps_it_in(self):
        assert not self.holder(2).handle(rumour(-300), 0)
        assert not self.holder(10).handle(rumour(0), 0)
        assert not self.holder(10).handle(rumour(300), 0)
        blind = self.sure.model_copy(update={"anticipating_share": 0.0})
        assert not self.holder(10, blind).handle(rumour(-300), 0)

    def test_leaves_later_when_the_coin_falls_and_counts_what_the_price_lost_meanwhile(self):
        holder = self.holder(10)
        deep = 8_000
        holder.handle(top(9_996, 10_004, depth=deep), 0)
        assert not holder.handle(rumour(-300), 0)
        assert not holder.handle(top(9_896, 9_904, depth=deep), 0)
        holder.handle(top(400, 410, COIN), 0)
        assert holder.held is not None and holder.plan is not None
        assert holder.plan.expected_cost > 20 * 100

    def test_about_the_asked_share_anticipates(self):
        half = self.sure.model_copy(update={"anticipating_share": 0.5})
        assert 70 < sum(self.holder(5, half, agent=n).anticipates for n in range(200)) < 130

    def test_answers_a_margin_call_by_selling_what_restores_the_initial_margin(self):
        blind = self.sure.model_copy(update={"anticipating_share": 0.0})
        holder = self.holder(10, blind)
        (order,) = orders(holder.handle(report(EventKind.MARGIN_CALLED, reference=13_000), 0))
        keep = (13_000 - 0.1 * 10 * PAR) // (0.1 * 10_000)
        assert (order.rule, order.quantity_lots) == (Rule.ANSWER_MARGIN_CALL, 20 - keep)
        assert order.order_type == OrderType.MARKET

    def test_does_not_answer_a_call_when_it_is_leaving_or_is_being_liquidated(self):
        leaving = self.holder(10)
        leaving.handle(rumour(-300), 0)
        assert not leaving.handle(report(EventKind.MARGIN_CALLED, reference=13_000), 0)
        taken = self.holder(10)
        taken.handle(report(EventKind.LIQUIDATION_STARTED, reference=900), 0)
        assert not taken.handle(report(EventKind.MARGIN_CALLED, reference=13_000), 0)

    def test_sells_nothing_while_the_venue_liquidates_it(self):
        holder = self.holder(10)
        actions = holder.handle(rumour(-300), 0)
        holder.handle(filled(orders(actions)[0], orders(actions)[0].quantity_lots, 9_990), 0)
        holder.handle(report(EventKind.LIQUIDATION_STARTED, reference=900), 0)
        wake = next(a for a in actions if isinstance(a, Wake))
        assert not orders(holder.handle(Timer(wake.tag), wake.at_ns))


class TestRedeemer:
    calm = RedeemerParams(credence_spread=0, expected_run_share=0.2, run_share_spread=0, request_lots=30)

    def test_runs_exactly_beyond_its_tipping_point(self):
        for bps in (-100, -300, -600, -700, -727, -730, -800, -900):
            holder = make(Redeemer, self.calm, coins=100)
            asked = requests(holder.handle(rumour(bps), 0))
            backing = 1 + bps / 10_000
            assert bool(asked) == (tipping_point(1.1, 1 / backing) < 0.2)
        assert asked == [(CommandKind.REDEEM, 30, 0)]

    def test_no_rumour_takes_away_what_the_issuer_has_in_cash(self):
        full = MARKET._replace(reserves=1000 * PAR)
        holder = make(Redeemer, self.calm, coins=100, market=full)
        assert not holder.handle(rumour(-5000), 0)
        assert not holder.handle(top(600, 610, COIN), 0)

    def test_a_falling_price_tells_it_that_others_run(self):
        holder = make(Redeemer, self.calm, coins=100)
        assert not holder.handle(rumour(-400), 0)  # tipping point 0.56
        assert not holder.handle(top(989, 991, COIN), 0)
        assert requests(holder.handle(top(974, 978, COIN), 0))

    def test_redeems_request_by_request_until_it_has_none(self):
        holder = make(Redeemer, self.calm, coins=70)
        actions, asked = holder.handle(rumour(-900), 0), []
        while requests(actions):
            ((_, lots, _),) = requests(actions)
            asked.append(lots)
            actions = holder.handle(
                report(EventKind.REDEEMED, lots, instrument=COIN, price_ticks=PAR, reference=10**6), 0
            )
        assert asked == [30, 30, 10] and holder.coins == 0 and holder.cash == 70 * PAR

    def test_sells_down_to_its_backing_when_the_rate_refuses_and_asks_again(self):
        holder = make(Redeemer, self.calm, coins=70)
        holder.handle(rumour(-900), 0)
        actions = holder.handle(refused(CommandKind.REDEEM, Reason.REDEMPTION_RATE), 0)
        (order,) = orders(actions)
        assert (order.instrument, order.order_type, order.side) == (COIN, OrderType.IOC, Side.SELL)
        assert (order.price_ticks, order.quantity_lots) == (910, 70)
        holder.handle(filled(order, 50, 950, leaves=20), 0)
        cancelled = report(EventKind.ORDER_CANCELLED, 20, instrument=COIN, order_id=order.order_id)
        holder.handle(cancelled, 0)
        wake = next(a for a in actions if isinstance(a, Wake))
        assert requests(holder.handle(Timer(wake.tag), wake.at_ns)) == [(CommandKind.REDEEM, 20, 0)]

    def test_sells_down_to_what_may_be_recovered_when_the_reserves_are_gone(self):
        holder = make(Redeemer, self.calm, coins=70)
        holder.handle(rumour(-900), 0)
        actions = holder.handle(refused(CommandKind.REDEEM, Reason.RESERVES_EXHAUSTED), 0)
        (order,) = orders(actions)
        assert order.price_ticks == round((0.91 - 0.5) / 0.5 * PAR)  # half of the coins were covered by cash

    def test_takes_the_better_door(self):
        holder = make(Redeemer, self.calm, coins=70)
        holder.handle(top(1001, 1003, COIN), 0)
        actions = holder.handle(rumour(-900), 0)
        assert not requests(actions) and orders(actions)[0].price_ticks == PAR


class TestCoinArbitrageur:
    params = CoinArbitrageurParams(margin_bps=50, risk_share=0.5, trade_lots=100, request_lots=60)

    def test_buys_below_par_as_far_as_its_cash_goes_and_redeems_what_it_got(self):
        trader = make(CoinArbitrageur, self.params, cash=80_000)
        assert not trader.handle(top(994, 996, COIN), 0)
        (order,) = orders(trader.handle(top(980, 990, COIN), 0))
        assert (order.price_ticks, order.quantity_lots) == (995, 80)
        assert requests(trader.handle(filled(order, 70, 990, leaves=10), 0)) == [(CommandKind.REDEEM, 60, 0)]
        redeemed = report(EventKind.REDEEMED, 60, instrument=COIN, price_ticks=PAR)
        assert requests(trader.handle(redeemed, 0)) == [(CommandKind.REDEEM, 10, 0)]

    def test_wants_more_for_the_risk_after_a_rumour(self):
        trader = make(CoinArbitrageur, self.params, cash=80_000)
        trader.handle(rumour(-400), 0)
        assert not trader.handle(top(970, 980, COIN), 0)
        assert orders(trader.handle(top(960, 970, COIN), 0))

    def test_mints_above_par_and_sells(self):
        trader = make(CoinArbitrageur, self.params, cash=80_000)
        assert requests(trader.handle(top(1010, 1012, COIN), 0)) == [(CommandKind.MINT, 80, 0)]
        (order,) = orders(trader.handle(report(EventKind.MINTED, 80, instrument=COIN, price_ticks=PAR), 0))
        assert (order.side, order.quantity_lots, order.price_ticks) == (Side.SELL, 80, 1005)

    def test_waits_for_the_rate_and_stops_believing_when_the_reserves_are_gone(self):
        trader = make(CoinArbitrageur, self.params, cash=200_000)
        (order,) = orders(trader.handle(top(980, 990, COIN), 0))
        trader.handle(filled(order, 100, 990), 0)
        (wake,) = trader.handle(refused(CommandKind.REDEEM, Reason.REDEMPTION_RATE), 0)
        assert requests(trader.handle(Timer(wake.tag), wake.at_ns))
        assert not trader.handle(refused(CommandKind.REDEEM, Reason.RESERVES_EXHAUSTED), 0)
        assert not trader.handle(top(500, 510, COIN), 0)


class TestCoinMaker:
    params = CoinMakerParams(levels=2, quantity_lots=10, inventory_limit_lots=100, half_spread_ticks=1, step_ticks=2)

    def test_quotes_the_coin_around_par_from_its_coins(self):
        maker = make(CoinMaker, self.params, cash=10**6, coins=500)
        placed = orders(maker.handle(OPENED, 0))
        assert {order.instrument for order in placed} == {COIN}
        bids = [order.price_ticks for order in placed if order.side == Side.BUY]
        asks = [order.price_ticks for order in placed if order.side == Side.SELL]
        assert len(bids) == len(asks) == 2 and 990 < max(bids) < min(asks) < 1010
        maker.handle(filled(placed[0], 10, placed[0].price_ticks), 0)
        assert maker.coins == 510 and maker.holdings[ETH] == 0

    def test_believes_a_part_of_a_rumour_about_the_coin_and_ignores_news_of_the_asset(self):
        maker = make(CoinMaker, self.params.model_copy(update={"credence": 0.25}), cash=10**6, coins=500)
        maker.handle(OPENED, 0)
        before = maker.fair
        assert not maker.handle(rumour(-1000, ETH), 0)
        maker.handle(rumour(-1000), 0)
        assert maker.fair == pytest.approx(0.975 * before)


class TestBorrower:
    params = BorrowerParams(ltv_bps=7000, ltv_spread_bps=0, sold_share=0.5, kept_share=0.4, attentive_share=1)

    def borrower(self, params=params) -> Borrower:
        made = make(Borrower, params, shares=20, cash=0)
        assert isinstance(made, Borrower)
        assert requests(made.handle(OPENED, 0)) == [(CommandKind.DEPOSIT_COLLATERAL, 20, 0)]
        assert not requests(made.handle(report(EventKind.COLLATERAL_DEPOSITED, 20, 20), 0))
        assert requests(made.handle(oracle(10_000), 0)) == [(CommandKind.BORROW, 140, 0)]
        return made

    def test_borrows_its_target_when_the_oracle_has_spoken_and_sells_a_part_near_par(self):
        borrower = self.borrower()
        actions = borrower.handle(report(EventKind.BORROWED, 140, 140, instrument=COIN), 0)
        (order,) = orders(actions)
        assert (order.quantity_lots, order.price_ticks, order.instrument) == (70, 997, COIN)
        assert borrower.debt == 140 and borrower.coins == 140 and borrower.collateral == 20

    def test_tries_again_when_the_pool_refuses(self):
        borrower = self.borrower()
        (wake,) = borrower.handle(refused(CommandKind.BORROW, Reason.INSUFFICIENT_COLLATERAL), 0)
        assert requests(borrower.handle(Timer(wake.tag), wake.at_ns)) == [(CommandKind.BORROW, 140, 0)]

    def test_defends_its_loan_with_its_coins_and_then_with_what_it_kept(self):
        borrower = self.borrower()
        (order,) = orders(borrower.handle(report(EventKind.BORROWED, 140, 140, instrument=COIN), 0))
        borrower.handle(filled(order, 70, 1000), 0)
        assert not borrower.handle(oracle(9_900), 0)
        excess = 140 - int(20 * 8000 * 0.825 / (1.15 * PAR))
        assert requests(borrower.handle(oracle(8_000), 0)) == [(CommandKind.REPAY, excess, 0)]
        assert not requests(borrower.handle(oracle(7_990), 0))  # one question at a time
        borrower.handle(report(EventKind.REPAID, excess, 140 - excess, instrument=COIN), 0)
        actions = borrower.handle(oracle(3_000), 0)
        (bought,) = orders(actions)
        assert requests(actions)[0][1] == 70 - excess
        assert bought.side == Side.BUY and bought.quantity_lots == int(0.4 * 70 * 1000) // 1003

    def test_who_is_not_attentive_does_not_defend_its_loan(self):
        asleep = self.borrower(self.params.model_copy(update={"attentive_share": 0.0}))
        asleep.handle(report(EventKind.BORROWED, 140, 140, instrument=COIN), 0)
        assert not asleep.handle(oracle(5_000), 0)

    def test_a_liquidated_loan_is_smaller(self):
        borrower = self.borrower()
        borrower.handle(report(EventKind.BORROWED, 140, 140, instrument=COIN), 0)
        borrower.handle(report(EventKind.LOAN_LIQUIDATED, 70, 10, liquidity=2), 0)
        assert (borrower.debt, borrower.collateral, borrower.shares) == (70, 10, 0)


class TestLiquidator:
    def liquidator(self, coins=1000, **params) -> Liquidator:
        made = make(Liquidator, LiquidatorParams(slippage_bps=0, **params), coins=coins)
        assert isinstance(made, Liquidator)
        made.handle(top(7_990, 8_010), 0)
        for account, debt in ((11, 120), (12, 140), (13, 160)):
            made.handle(Loan(int(MessageKind.LOAN), ETH, 1, 3, 0, account, 20, debt), 0)
        return made

    def test_asks_for_the_unhealthy_loans_most_gainful_first(self):
        liquidator = self.liquidator()
        assert not liquidator.handle(oracle(10_000), 0)
        asked = requests(liquidator.handle(oracle(8_000), 0))  # threshold: 132 coins
        assert asked == [(CommandKind.LIQUIDATE, 80, 13), (CommandKind.LIQUIDATE, 70, 12)]

    def test_its_coins_are_its_limit_and_unanswered_questions_take_them_up(self):
        liquidator = self.liquidator(coins=100)
        asked = requests(liquidator.handle(oracle(8_000), 0))
        assert asked == [(CommandKind.LIQUIDATE, 80, 13), (CommandKind.LIQUIDATE, 20, 12)]
        assert not liquidator.handle(oracle(7_500), 0)

    def test_the_loser_of_a_race_has_its_coins_again(self):
        liquidator = self.liquidator(coins=100)
        liquidator.handle(oracle(8_000), 0)
        liquidator.handle(refused(CommandKind.LIQUIDATE, Reason.LOAN_HEALTHY, target=13), 0)
        liquidator.handle(refused(CommandKind.LIQUIDATE, Reason.UNKNOWN_LOAN, target=12), 0)
        assert len(requests(liquidator.handle(oracle(7_900), 0))) == 2

    def test_sells_what_it_seized_at_once(self):
        liquidator = self.liquidator()
        liquidator.handle(oracle(8_000), 0)
        (order,) = orders(liquidator.handle(report(EventKind.LOAN_LIQUIDATED, 80, 10, liquidity=1), 0))
        assert (order.rule, order.quantity_lots, order.order_type) == (Rule.SELL_SEIZED, 10, OrderType.MARKET)
        assert liquidator.coins == 920 and liquidator.asked == {12: 70}

    def test_does_not_pay_more_than_the_collateral_fetches(self):
        liquidator = self.liquidator()
        liquidator.handle(top(7_500, 7_510), 0)  # the oracle lags: 5 % of bonus do not make up for it
        assert not liquidator.handle(oracle(8_000), 0)

    def test_a_loan_that_changes_is_looked_at_again(self):
        liquidator = self.liquidator()
        liquidator.handle(oracle(8_000), 0)
        grown = Loan(int(MessageKind.LOAN), ETH, 9, 9, 0, 11, 20, 150)
        assert requests(liquidator.handle(grown, 0)) == [(CommandKind.LIQUIDATE, 75, 11)]


def test_news_of_the_coin_does_not_reach_who_does_not_care_for_it():
    class Deaf(Strategy):
        def on_event(self, event, now_ns):
            raise AssertionError(event)

    assert not make(Deaf, Config()).handle(rumour(-300), 0)


@pytest.mark.parametrize("kind", [LeveragedHolder, Redeemer, CoinArbitrageur, CoinMaker, Borrower, Liquidator])
def test_settings_out_of_range_or_unknown_are_refused(kind):
    with pytest.raises(ValueError):
        kind.Params.model_validate({"nobody_knows_this": 1})
