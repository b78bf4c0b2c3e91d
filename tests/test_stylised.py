"""The stylised facts on made-up data with known answers. Every stream is seeded."""

import numpy as np
import polars as pl
import pytest

from aar_swarm.analysis import stylised
from aar_swarm.names import agent_stream
from exchange.types import EventKind, Side

N = 4000


@pytest.fixture
def rng() -> np.random.Generator:
    return agent_stream(11, 0)


def test_autocorrelation_is_that_of_a_known_process(rng):
    noise = rng.normal(size=200_000)
    values = np.zeros_like(noise)
    for at in range(1, len(noise)):
        values[at] = 0.6 * values[at - 1] + noise[at]
    assert stylised.autocorrelation(values, 3) == pytest.approx([0.6, 0.36, 0.216], abs=0.01)
    assert not stylised.autocorrelation(np.ones(100)).any()


def test_white_noise_is_not_autocorrelated_and_a_trend_is(rng):
    noise = rng.normal(size=N)
    assert stylised.return_autocorrelation(noise)["holds"]
    assert stylised.return_autocorrelation(np.convolve(noise, np.ones(15), "valid"))["holds"] is False


def test_tails_are_heavy_only_if_they_are(rng):
    heavy = stylised.heavy_tails(np.exp(np.cumsum(rng.standard_t(3, N)) * 1e-4), 50.0)
    assert heavy["holds"] and heavy["value"] > 1
    assert list(heavy["by_scale_ms"]) == ["50", "100", "250", "500", "1000"]
    uniform = stylised.heavy_tails(np.exp(np.cumsum(rng.uniform(-1, 1, N)) * 1e-4), 50.0)
    assert uniform["holds"] is False and uniform["value"] == pytest.approx(-1.2, abs=0.1)


def test_volatility_clusters_only_if_it_does(rng):
    volatility = np.repeat(rng.lognormal(0, 1, N // 40), 40)
    assert stylised.volatility_clustering(volatility * rng.normal(size=N))["holds"]
    assert stylised.volatility_clustering(rng.normal(size=N))["holds"] is False


def test_volume_goes_with_volatility_only_if_it_does(rng):
    returns = rng.normal(size=N)
    assert stylised.volume_volatility(returns, 100 * np.abs(returns))["value"] == pytest.approx(1)
    assert stylised.volume_volatility(returns, rng.uniform(1, 9, N))["holds"] is False


def test_signs_persist_only_if_they_do(rng):
    assert stylised.order_sign_autocorrelation(np.repeat(rng.choice([-1, 1], N // 20), 20))["holds"]
    assert stylised.order_sign_autocorrelation(np.tile([-1, 1], N))["holds"] is False


def test_arrivals_are_clustered_poisson_or_regular(rng):
    def found(gaps):
        return stylised.inter_arrival_times(np.cumsum(gaps * 1e6).astype(np.int64))

    poisson = found(rng.exponential(5, N))
    assert poisson["value"] == pytest.approx(1, abs=0.05) and poisson["weibull_shape"] == pytest.approx(1, abs=0.05)
    assert poisson["mean_ms"] == pytest.approx(5, abs=0.3)
    clustered = found(rng.weibull(0.6, N) + 1e-3)
    assert clustered["holds"] and clustered["weibull_shape"] == pytest.approx(0.6, abs=0.05)
    assert found(np.full(N, 5.0) + rng.uniform(0, 1, N))["holds"] is False


def test_cancel_times_have_the_shape_they_were_drawn_with(rng):
    found = stylised.cancel_times((rng.weibull(0.5, N) * 1e9).astype(np.int64) + 1)
    assert found["holds"] and found["value"] == pytest.approx(0.5, abs=0.05)
    assert stylised.cancel_times((rng.weibull(2.0, N) * 1e9).astype(np.int64))["holds"] is False


@pytest.mark.parametrize(("exponent", "holds"), [(0.5, True), (1.5, False)])
def test_the_exponent_of_impact_is_found(rng, exponent, holds):
    sizes = rng.integers(1, 200, N).astype(float)
    found = stylised.concave_impact(sizes, 0.3 * sizes**exponent)
    assert found["value"] == pytest.approx(exponent, abs=0.08) and found["holds"] is holds


def test_nothing_is_said_of_too_little():
    for fact in (
        stylised.return_autocorrelation(np.zeros(3)),
        stylised.heavy_tails(np.ones(3), 50.0),
        stylised.concave_impact(np.ones(3), np.ones(3)),
        stylised.cancel_times(np.zeros(0)),
    ):
        assert fact["value"] is None and fact["holds"] is None


def event(kind, time_ns, account=0, order_id=0, side=0, price=0, lots=0, leaves=0, maker=(-1, 0)):
    return {
        "time_ns": time_ns, "kind": int(kind), "account": account, "order_id": order_id, "side": int(side),
        "price_ticks": price, "quantity_lots": lots, "leaves_lots": leaves, "maker_account": maker[0],
        "maker_order_id": maker[1],
    }  # fmt: skip


def test_depth_is_rebuilt_from_events_alone():
    accepted, filled, cancelled = EventKind.ORDER_ACCEPTED, EventKind.ORDER_FILLED, EventKind.ORDER_CANCELLED
    events = pl.DataFrame(
        [
            event(accepted, 1, 0, 1, Side.BUY, 99, 10),
            event(accepted, 1, 0, 2, Side.BUY, 97, 30),
            event(accepted, 1, 1, 1, Side.SELL, 101, 10),
            event(accepted, 2, 2, 1, Side.SELL, 99, 4),
            event(filled, 2, 2, 1, Side.SELL, 99, 4, 0, maker=(0, 1)),
            event(accepted, 3, 0, 3, Side.BUY, 98, 99),
            event(cancelled, 4, 0, 3, Side.BUY, 98, 99),
        ]
    )
    found = stylised.depth_profile(events, np.array([1]), np.array([100.0]), np.array([5]))
    assert found["lots_by_ticks"][:5] == [0, 8, 0, 15, 0]  # (6 + 10) / 2 one tick away, 30 / 2 three
    assert found["value"] == 3 and found["holds"]


def test_a_whole_set_of_frames_goes_through():
    """Three commands: too little for any fact, but each function gets what it needs from the frames."""
    events = pl.DataFrame([event(EventKind.ORDER_ACCEPTED, 10, 0, 1, Side.BUY, 99, 10)])
    trades = pl.DataFrame(
        {"sequence": [2, 2, 3], "time_ns": [20, 20, 30], "quantity_lots": [1, 2, 3], "taker_sells": [True, True, False]}
    )
    book = pl.DataFrame(
        {
            "sequence": [1, 2, 3], "time_ns": [10, 20, 30], "bid_ticks": [99, 98, 99], "bid_lots": [1, 1, 1],
            "ask_ticks": [101, 100, 103], "ask_lots": [1, 1, 1],
        }
    )  # fmt: skip
    found = stylised.stylised_facts(events, trades, book, 0, 100, 1e-5)
    assert len(found) == 9 and all(fact["holds"] is None for name, fact in found.items() if name != "depth_profile")
    orders = stylised._aggressors(trades)
    assert orders["lots"].to_list() == [3, 3] and orders["sign"].to_list() == [-1, 1]
    sizes, impacts = stylised._impacts(orders, book)
    assert sizes.tolist() == [3, 3] and impacts.tolist() == [1, 2]
