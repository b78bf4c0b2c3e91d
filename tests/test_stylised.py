"""Stylised facts of series and books whose answers are known."""

import math

import numpy as np
import polars as pl
import pytest

from aar_swarm.analysis import stylised
from exchange.clock import MS
from exchange.types import EventKind, Side

BUY, SELL = int(Side.BUY), int(Side.SELL)
RNG = 20100506


def noise(count: int = 2000) -> np.ndarray:
    return np.random.default_rng(RNG).normal(0, 1e-4, count)


def persistent(count: int = 2000) -> np.ndarray:
    """Calm and wild spells of 50 returns each."""
    return noise(count) * np.where(np.arange(count) // 50 % 2, 5.0, 1.0)


class TestAutocorrelation:
    def test_of_an_alternating_series(self):
        found = stylised.autocorrelation(np.tile([1.0, -1.0], 50), 3)
        assert found == pytest.approx([-0.99, 0.98, -0.97])

    def test_of_three_values_by_hand(self):
        assert stylised.autocorrelation(np.array([1.0, 2.0, 6.0]), 2) == pytest.approx([-1 / 14, -6 / 14])

    def test_of_a_constant_is_nothing(self):
        assert stylised.autocorrelation(np.full(30, 3.0), 5).tolist() == [0] * 5


class TestReturns:
    def test_white_noise_is_not_autocorrelated_and_a_moving_average_is(self):
        white = stylised.return_autocorrelation(noise())
        assert white["holds"] and white["value"] >= 0.9 and len(white["by_lag"]) == 20
        assert white["band"] == pytest.approx(1.96 / math.sqrt(2000), abs=1e-4)
        smooth = stylised.return_autocorrelation(np.convolve(noise(), np.ones(15) / 15, "valid"))
        assert not smooth["holds"] and smooth["value"] < 0.9 and smooth["by_lag"][0] > 0.8

    def test_two_lags_outside_are_allowed_and_three_are_not(self, monkeypatch):
        for outside, holds in ((2, True), (3, False)):
            lags = np.where(np.arange(20) < outside, -0.9, 0.0)
            monkeypatch.setattr(stylised, "autocorrelation", lambda _, found=lags: found)
            assert stylised.return_autocorrelation(noise())["holds"] is holds

    def test_student_s_returns_have_heavy_tails_that_aggregation_thins(self):
        draws = np.random.default_rng(RNG).standard_t(4, 8000) * 1e-4
        found = stylised.heavy_tails(100 * np.exp(np.cumsum(draws)), 50.0)
        assert found["holds"] and found["value"] > 1
        assert list(found["by_scale_ms"]) == ["50", "100", "250", "500", "1000"]
        assert found["by_scale_ms"]["1000"] < found["value"] == found["by_scale_ms"]["50"]

    def test_returns_of_one_size_have_none(self):
        signs = np.where(np.random.default_rng(RNG).random(2000) < 0.5, 1e-4, -1e-4)
        found = stylised.heavy_tails(100 * np.exp(np.cumsum(signs)), 50.0)
        assert found["value"] == pytest.approx(-2, abs=0.02) and not found["holds"]

    def test_volatility_clusters_where_calm_and_wild_spells_alternate(self):
        assert stylised.volatility_clustering(persistent())["holds"]
        assert not stylised.volatility_clustering(noise())["holds"]

    def test_volume_follows_the_size_of_returns_not_their_sign(self):
        returns = noise()
        assert stylised.volume_volatility(returns, np.abs(returns))["value"] == 1
        assert not stylised.volume_volatility(returns, returns - returns.min())["holds"]
        assert stylised.volume_volatility(returns, 1 - np.abs(returns))["value"] == -1
        assert not stylised.volume_volatility(returns, 1 - np.abs(returns))["holds"]


class TestOrders:
    def test_runs_of_one_sign_are_autocorrelated_and_alternation_is_the_opposite(self):
        runs = np.where(np.arange(1000) // 40 % 2, 1, -1)
        found = stylised.order_sign_autocorrelation(runs)
        assert found["holds"] and found["value"] > 0.5 and found["by_lag"][0] == pytest.approx(0.95, abs=0.01)
        assert not stylised.order_sign_autocorrelation(np.where(np.arange(1001) % 2, 1, -1))["holds"]
        coins = np.where(np.random.default_rng(RNG).random(1000) < 0.5, 1, -1)
        assert not stylised.order_sign_autocorrelation(coins)["holds"]

    def test_only_buyers_say_nothing(self):
        assert stylised.order_sign_autocorrelation(np.ones(500))["holds"] is None

    @pytest.mark.parametrize(("shape", "clustered"), [(0.5, True), (2.0, False)])
    def test_the_shape_of_inter_arrival_times_is_recovered(self, shape, clustered):
        gaps = np.random.default_rng(RNG).weibull(shape, 2000) * 10 * MS
        found = stylised.inter_arrival_times(np.cumsum(gaps).astype(np.int64)[::-1])  # in any order
        assert found["weibull_shape"] == pytest.approx(shape, rel=0.1)
        assert found["holds"] is clustered and (found["value"] > 1) is clustered
        assert found["mean_ms"] == pytest.approx(gaps.mean() / MS, rel=0.01)

    def test_a_metronome_does_not_vary(self):
        found = stylised.inter_arrival_times(np.arange(200) * MS + np.arange(200) % 2)
        assert found["value"] == pytest.approx(0, abs=1e-4) and not found["holds"]

    @pytest.mark.parametrize(("shape", "holds"), [(0.6, True), (1.7, False)])
    def test_the_shape_of_cancel_times_is_recovered_from_those_that_rested(self, shape, holds):
        lives = np.random.default_rng(RNG).weibull(shape, 2000) * 10 * MS
        found = stylised.cancel_times(np.concatenate([lives, np.zeros(500)]))
        assert found["value"] == pytest.approx(shape, rel=0.1) and found["holds"] is holds
        assert found["n"] == 2000
        assert found["median_ms"] == pytest.approx(10 * math.log(2) ** (1 / shape), rel=0.15)


class TestImpact:
    sizes = np.repeat([1.0, 2, 4, 8, 16, 32, 64, 128], 10)

    @pytest.mark.parametrize(("exponent", "holds"), [(0.5, True), (0.2, True), (1.3, False), (-0.4, False)])
    def test_the_exponent_of_a_power_law_is_recovered(self, exponent, holds):
        found = stylised.concave_impact(self.sizes, 3 * self.sizes**exponent)
        assert found["value"] == pytest.approx(exponent, abs=1e-4) and found["holds"] is holds
        assert found["lots"] == [1, 2, 4, 8, 16, 32, 64, 128]

    def test_orders_of_one_size_have_no_exponent(self):
        assert stylised.concave_impact(np.ones(200), np.ones(200))["holds"] is None

    def test_classes_that_moved_nothing_do_not_count(self):
        impacts = np.where(self.sizes < 4, 0.0, self.sizes**0.5)
        found = stylised.concave_impact(self.sizes, impacts)
        assert found["value"] == pytest.approx(0.5, abs=1e-4) and found["lots"][0] == 4


def events(*rows: tuple[EventKind, float, int, int, dict[str, int]]) -> pl.DataFrame:
    """rows: (kind, ms, account, order id, more)."""
    names = ("side", "price_ticks", "quantity_lots", "leaves_lots", "maker_account", "maker_order_id")
    return pl.DataFrame(
        [
            {"kind": int(kind), "time_ns": int(at_ms * MS), "account": account, "order_id": number}
            | {name: int(more.get(name, 0)) for name in names}
            for kind, at_ms, account, number, more in rows
        ]
    )


def accepted(at_ms: float, account: int, number: int, side: int, price: int, lots: int):
    return EventKind.ORDER_ACCEPTED, at_ms, account, number, {"side": side, "price_ticks": price, "quantity_lots": lots}


def cancelled(at_ms: float, account: int, number: int, lots: int, leaves: int = 0):
    return EventKind.ORDER_CANCELLED, at_ms, account, number, {"quantity_lots": lots, "leaves_lots": leaves}


BOOK = events(
    accepted(1, 0, 1, BUY, 98, 10),
    accepted(1, 0, 2, BUY, 95, 40),
    accepted(1, 0, 3, SELL, 102, 30),
    accepted(1, 1, 1, SELL, 105, 60),
    accepted(1, 1, 2, SELL, 300, 999),  # too far away
    accepted(3, 2, 1, BUY, 102, 20),
    (
        EventKind.ORDER_FILLED,
        3,
        2,
        1,
        {"side": BUY, "price_ticks": 102, "quantity_lots": 20, "maker_account": 0, "maker_order_id": 3},
    ),
    cancelled(5, 1, 1, 25, leaves=35),
    cancelled(7, 1, 1, 35),
)
MIDS = np.array([1 * MS]), np.array([100.0])


class TestBook:
    def profile(self, *moments_ms: float) -> dict:
        return stylised.depth_profile(BOOK, *MIDS, np.array(moments_ms) * MS)

    def test_depth_is_what_is_left_of_every_order_at_its_distance_from_the_mid(self):
        for moment_ms, at_two, at_five in ((2, 20, 50), (4, 10, 50), (6, 10, 37.5), (8, 10, 20)):
            lots = self.profile(moment_ms)["lots_by_ticks"]
            assert (lots[2], lots[5]) == (at_two, at_five), moment_ms
            assert sum(lots) == at_two + at_five

    def test_it_is_the_mean_over_the_moments_that_have_a_mid(self):
        found = self.profile(0, 2, 8)
        assert found["n"] == 2
        assert (found["lots_by_ticks"][2], found["lots_by_ticks"][5]) == (15, 35)
        assert found["value"] == 5 and found["holds"]

    def test_a_book_that_is_deepest_at_the_mid_has_no_hump(self):
        at_mid = events(accepted(1, 0, 1, BUY, 100, 50), accepted(1, 0, 2, SELL, 103, 10))
        found = stylised.depth_profile(at_mid, *MIDS, np.array([2 * MS]))
        assert found["value"] == 0 and not found["holds"]

    def test_no_book_says_nothing(self):
        assert self.profile(0)["holds"] is None

    def test_lifetimes_are_those_of_orders_that_were_cancelled_whole(self):
        assert stylised._lifetimes(BOOK).tolist() == [6 * MS]

    def test_arrivals_are_accepted_orders(self):
        assert stylised._arrivals(BOOK).tolist() == [MS] * 5 + [3 * MS]


def trades(*rows: tuple[int, float, int, bool]) -> pl.DataFrame:
    """rows: (sequence, ms, lots, taker sells)."""
    return pl.DataFrame(
        {
            "sequence": [row[0] for row in rows],
            "time_ns": [int(row[1] * MS) for row in rows],
            "quantity_lots": [row[2] for row in rows],
            "taker_sells": [row[3] for row in rows],
        },
        schema={"sequence": pl.Int64, "time_ns": pl.Int64, "quantity_lots": pl.Int64, "taker_sells": pl.Boolean},
    )


def tops(*rows: tuple[int, float, int, int]) -> pl.DataFrame:
    """rows: (sequence, ms, bid, ask); 0: none."""
    return pl.DataFrame(
        {
            "sequence": [row[0] for row in rows],
            "time_ns": [int(row[1] * MS) for row in rows],
            "bid_ticks": [row[2] for row in rows],
            "bid_lots": [5 if row[2] else 0 for row in rows],
            "ask_ticks": [row[3] for row in rows],
            "ask_lots": [5 if row[3] else 0 for row in rows],
        }
    )


class TestAggressors:
    def test_one_order_that_matched_several_is_one(self):
        found = stylised._aggressors(trades((7, 1, 3, True), (7, 1, 4, True), (9, 2, 5, False)))
        assert found.to_dict(as_series=False) == {"sequence": [7, 9], "lots": [7, 5], "sign": [-1, 1]}

    def test_impact_is_the_move_of_the_mid_in_the_order_s_direction(self):
        orders = stylised._aggressors(trades((1, 1, 9, True), (2, 2, 7, True), (3, 3, 5, False), (4, 4, 3, False)))
        book = tops((1, 1, 99, 101), (2, 2, 95, 101), (3, 3, 95, 107), (4, 4, 95, 0), (5, 5, 95, 107))
        lots, impact = stylised._impacts(orders, book)
        # The first has no mid before it, and the last none after it.
        assert lots.tolist() == [7, 5] and impact.tolist() == [2, 3]


def test_a_whole_market_is_sampled_traded_and_named():
    """The mid moves with every 50 ms' trade, up and down by turns, more where more is traded."""
    count = 400
    lots = np.random.default_rng(RNG).integers(1, 50, count)
    mids = 10_000 + 2 * np.cumsum(lots * np.where(np.arange(count) % 2, -1, 1))
    book = tops(*((at + 1, 50 * at + 10, mid - 1, mid + 1) for at, mid in enumerate(mids.tolist())))
    deals = trades(*((at + 1, 50 * at + 10, each, at % 2 == 1) for at, each in enumerate(lots.tolist())))
    outside = trades((count + 1, 50 * count + 1000, 10**6, False))
    found = stylised.stylised_facts(BOOK, pl.concat([deals, outside]), book, 0, 50 * count * MS, 50.0)
    assert set(found) == {
        "return_autocorrelation",
        "heavy_tails",
        "volatility_clustering",
        "volume_volatility",
        "order_sign_autocorrelation",
        "inter_arrival_times",
        "cancel_times",
        "depth_profile",
        "concave_impact",
    }
    for fact in found.values():
        assert {"value", "expected", "holds", "n"} <= set(fact)
    assert not found["return_autocorrelation"]["holds"]
    assert not found["order_sign_autocorrelation"]["holds"]
    assert found["order_sign_autocorrelation"]["n"] == count
    assert found["concave_impact"]["value"] == pytest.approx(1.0, abs=0.01)  # 2 ticks a lot
    assert found["inter_arrival_times"]["holds"] is None and found["cancel_times"]["holds"] is None


def test_volume_is_counted_in_the_interval_whose_return_it_made():
    count = 200
    jumps = np.arange(count) % 7 == 3
    mids = 10_000 + 10 * np.cumsum(np.where(jumps, np.where(np.arange(count) % 2, 1, -1), 0))
    book = tops(*((at + 1, 50 * at + 10, mid - 1, mid + 1) for at, mid in enumerate(mids.tolist())))
    deals = trades(*((at + 1, 50 * at + 10, 5, False) for at in np.flatnonzero(jumps).tolist()))
    found = stylised.stylised_facts(BOOK, deals, book, 0, 50 * count * MS, 50.0)
    assert found["volume_volatility"]["value"] > 0.99


def test_too_little_data_says_nothing_rather_than_no():
    few = np.ones(49)
    short = [
        stylised.return_autocorrelation(noise(49)),
        stylised.return_autocorrelation(np.zeros(500)),
        stylised.heavy_tails(100 + noise(50), 50.0),
        stylised.volatility_clustering(noise(49)),
        stylised.volume_volatility(noise(49), few),
        stylised.volume_volatility(noise(500), np.ones(500)),
        stylised.order_sign_autocorrelation(np.where(np.arange(49) % 2, 1, -1)),
        stylised.inter_arrival_times(np.arange(50)),
        stylised.cancel_times(few),
        stylised.concave_impact(few, few),
    ]
    for fact in short:
        assert fact["value"] is None and fact["holds"] is None and fact["expected"]
    empty = stylised.stylised_facts(BOOK.clear(), trades(), tops((1, 1, 0, 0)), 0, 1000 * MS)
    assert {fact["holds"] for fact in empty.values()} == {None}
