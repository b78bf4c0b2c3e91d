"""Stylised facts of markets, measured on a run: what the simulated book has in common with real ones, and what not.

The list is Vyetrenko et al., *Get Real: Realism Metrics for Robust Limit Order Book Market Simulations* (2019). Each
fact is a dictionary: `value` (the one number that decides), `expected` (in words), `holds` (None: too little data), and
what else was measured. Reads frames; knows nothing of processes. A band is ±1.96/√n, that of white noise at 5 %.
"""

import math
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from aar_swarm.analysis.price import two_sided_mids
from aar_swarm.results import Run
from exchange.clock import MS, SECOND
from exchange.errors import ConfigurationError
from exchange.types import EventKind, Side

_BAND = 1.96
_LAGS = 20
_FEWEST = 50
"""Observations below which nothing is said."""
_SCALES = (1, 2, 5, 10, 20)
_DISTANCES = 40
_SAMPLES = 40
_BINS = 8
_BUY = int(Side.BUY)

Fact = dict[str, Any]


def stylised_facts(
    events: pl.DataFrame,
    trades: pl.DataFrame,
    book: pl.DataFrame,
    start_ns: int,
    end_ns: int,
    interval_ms: float = 50.0,
) -> dict[str, Fact]:
    """All facts of one instrument between two moments.

    Args: the frames Run.events, Run.trades, Run.book; interval_ms: between the mids that returns are made of.
    """
    within = pl.col("time_ns").is_between(start_ns, end_ns)
    times, mids = two_sided_mids(book)
    grid = np.arange(start_ns, end_ns, int(interval_ms * MS))
    sampled = mids[np.maximum(np.searchsorted(times, grid, side="right") - 1, 0)] if len(mids) else np.zeros(0)
    returns = np.diff(np.log(sampled)) if len(sampled) else np.zeros(0)
    calm_trades, calm_events = trades.filter(within), events.filter(within)
    at = np.searchsorted(grid, calm_trades["time_ns"].to_numpy(), side="right") - 1
    traded = np.bincount(at, calm_trades["quantity_lots"].to_numpy(), len(grid))[: len(returns)]
    orders = _aggressors(calm_trades)
    return {
        "return_autocorrelation": return_autocorrelation(returns),
        "heavy_tails": heavy_tails(sampled, interval_ms),
        "volatility_clustering": volatility_clustering(returns),
        "volume_volatility": volume_volatility(returns, traded),
        "order_sign_autocorrelation": order_sign_autocorrelation(orders["sign"].to_numpy()),
        "inter_arrival_times": inter_arrival_times(_arrivals(calm_events)),
        "cancel_times": cancel_times(_lifetimes(calm_events)),
        "depth_profile": depth_profile(events, times, mids, np.linspace(start_ns, end_ns, _SAMPLES + 1)[1:]),
        "concave_impact": concave_impact(*_impacts(orders, book)),
    }


def of_run(run: Run, interval_ms: float = 50.0) -> dict[str, Fact]:
    """The facts of a run's calm part, on its main instrument: from one second after the opening (the book fills) to a
    signal that says something, or to the close.

    Raises: ConfigurationError: there is no such part.
    """
    kind = pl.col("kind")
    events = run.events
    opened = events.filter(kind == int(EventKind.SESSION_OPENED))["time_ns"]
    news = events.filter((kind == int(EventKind.SIGNAL_PUBLISHED)) & (pl.col("value") != 0))["time_ns"]
    closed = events.filter(kind == int(EventKind.SESSION_CLOSED))["time_ns"]
    ends = [*news.to_list()[:1], *closed.to_list()[:1]]
    if not len(opened) or not ends or ends[0] <= opened[0] + SECOND:
        raise ConfigurationError(f"{run.directory}: less than a second between its opening and its news or its close")
    main = pl.col("instrument") == 0
    return stylised_facts(
        events.filter(main), run.trades.filter(main), run.book, opened[0] + SECOND, ends[0], interval_ms
    )


def autocorrelation(values: np.ndarray, lags: int = _LAGS) -> np.ndarray:
    """At lags 1 … lags, each over the whole variance (the usual biased estimate); zeros for constant values."""
    centred = values - values.mean()
    variance = float(centred @ centred)
    if variance == 0:
        return np.zeros(lags)
    return np.array([float(centred[lag:] @ centred[:-lag]) / variance for lag in range(1, lags + 1)])


def _unknown(expected: str, n: int) -> Fact:
    return {"value": None, "expected": expected, "holds": None, "n": n}


def return_autocorrelation(returns: np.ndarray) -> Fact:
    """value: share of lags 1 … 20 at which the returns' autocorrelation is inside the band."""
    expected = "returns are not autocorrelated: at least 9 of 10 lags inside the band"
    if len(returns) < _FEWEST or not returns.any():
        return _unknown(expected, len(returns))
    found = autocorrelation(returns)
    band = _BAND / math.sqrt(len(returns))
    share = float((np.abs(found) <= band).mean())
    return {"value": round(share, 3), "expected": expected, "holds": share >= 0.9, "n": len(returns),
            "band": round(band, 4), "by_lag": _rounded(found)}  # fmt: skip


def heavy_tails(sampled: np.ndarray, interval_ms: float) -> Fact:
    """value: excess kurtosis of returns over one interval; by_scale_ms: over 1, 2, 5, 10, 20 intervals."""
    expected = "excess kurtosis above 0 at the shortest scale, and less at the longest"
    by_scale: dict[str, float | None] = {}
    for scale in _SCALES:
        returns = np.diff(np.log(sampled[::scale])) if len(sampled) > scale else np.zeros(0)
        known = len(returns) >= _FEWEST / 2 and returns.any()
        by_scale[f"{scale * interval_ms:g}"] = round(float(stats.kurtosis(returns)), 3) if known else None
    known_ones = [value for value in by_scale.values() if value is not None]
    if len(sampled) <= _FEWEST or len(known_ones) < 2 or by_scale[f"{interval_ms:g}"] is None:
        return _unknown(expected, len(sampled))
    holds = known_ones[0] > 0 and known_ones[-1] < known_ones[0]
    return {"value": known_ones[0], "expected": expected, "holds": holds, "n": len(sampled) - 1,
            "by_scale_ms": by_scale}  # fmt: skip


def volatility_clustering(returns: np.ndarray) -> Fact:
    """value: mean autocorrelation of |returns| over lags 1 … 10."""
    expected = "absolute returns are positively autocorrelated: the mean of lags 1 to 10 above the band"
    if len(returns) < _FEWEST or not returns.any():
        return _unknown(expected, len(returns))
    return _positive(np.abs(returns), expected)


def volume_volatility(returns: np.ndarray, traded_lots: np.ndarray) -> Fact:
    """value: correlation of |return| and lots traded in the same interval."""
    expected = "more is traded when prices move more: correlation above the band"
    if len(returns) < _FEWEST or not returns.any() or not traded_lots.any() or np.ptp(traded_lots) == 0:
        return _unknown(expected, len(returns))
    value = float(np.corrcoef(np.abs(returns), traded_lots)[0, 1])
    band = _BAND / math.sqrt(len(returns))
    return {"value": round(value, 4), "expected": expected, "holds": value > band, "n": len(returns),
            "band": round(band, 4)}  # fmt: skip


def order_sign_autocorrelation(signs: np.ndarray) -> Fact:
    """value: mean autocorrelation of the signs of aggressive orders (+1 buys) over lags 1 … 10."""
    expected = "buys follow buys and sells sells: the mean of lags 1 to 10 above the band"
    if len(signs) < _FEWEST or abs(float(signs.mean())) == 1:
        return _unknown(expected, len(signs))
    return _positive(signs.astype(float), expected)


def _positive(values: np.ndarray, expected: str) -> Fact:
    found = autocorrelation(values)
    band = _BAND / math.sqrt(len(values))
    value = float(found[:10].mean())
    return {"value": round(value, 4), "expected": expected, "holds": value > band, "n": len(values),
            "band": round(band, 4), "by_lag": _rounded(found)}  # fmt: skip


def inter_arrival_times(arrivals_ns: np.ndarray) -> Fact:
    """value: coefficient of variation of the times between orders (1: Poisson); weibull_shape: maximum likelihood."""
    expected = "orders come in clusters: coefficient of variation above 1 (Poisson), Weibull shape below 1"
    gaps = np.diff(np.sort(arrivals_ns)).astype(float)
    gaps = gaps[gaps > 0]
    if len(gaps) < _FEWEST:
        return _unknown(expected, len(gaps))
    value = float(gaps.std() / gaps.mean())
    shape = _weibull_shape(gaps)
    return {"value": round(value, 4), "expected": expected, "holds": value > 1 and shape < 1, "n": len(gaps),
            "weibull_shape": round(shape, 4), "mean_ms": round(float(gaps.mean()) / MS, 4)}  # fmt: skip


def cancel_times(lifetimes_ns: np.ndarray) -> Fact:
    """value: Weibull shape of the time from acceptance to cancellation of orders that rested (1: exponential)."""
    expected = "many cancels soon, few very late: Weibull shape below 1"
    lived = lifetimes_ns[lifetimes_ns > 0].astype(float)
    if len(lived) < _FEWEST:
        return _unknown(expected, len(lived))
    shape = _weibull_shape(lived)
    median, p90 = np.quantile(lived, [0.5, 0.9]) / MS
    return {"value": round(shape, 4), "expected": expected, "holds": shape < 1, "n": len(lived),
            "median_ms": round(float(median), 3), "p90_ms": round(float(p90), 3)}  # fmt: skip


def _weibull_shape(values: np.ndarray) -> float:
    shape, _, _ = stats.weibull_min.fit(values / values.mean(), floc=0)
    return float(shape)


def depth_profile(events: pl.DataFrame, times: np.ndarray, mids: np.ndarray, samples_ns: np.ndarray) -> Fact:
    """value: ticks from the mid at which most lots rest, on average over sampled moments and both sides."""
    expected = "depth has its peak away from the best price and falls off beyond it"
    orders, changes = _order_book(events)
    total = np.zeros(_DISTANCES)
    used = 0
    for moment in samples_ns:
        at = int(np.searchsorted(times, moment, side="right")) - 1
        if at < 0 or not len(orders):
            continue
        past = changes["time_ns"] <= moment
        leaves = np.bincount(changes["order"][past], changes["lots"][past], len(orders["side"]))
        distance = np.abs(orders["price_ticks"] - mids[at])
        resting = (leaves > 0) & (distance < _DISTANCES)
        total += np.bincount(distance[resting].astype(int), leaves[resting], _DISTANCES)[:_DISTANCES]
        used += 1
    if not used or not total.any():
        return _unknown(expected, used)
    profile = total / (2 * used)
    peak = int(profile.argmax())
    holds = peak > 0 and float(profile[peak:].min()) < float(profile[peak])
    return {"value": peak, "expected": expected, "holds": holds, "n": used, "lots_by_ticks": _rounded(profile, 1)}


def concave_impact(sizes_lots: np.ndarray, impacts_ticks: np.ndarray) -> Fact:
    """value: exponent b of mean impact = a × size^b, by least squares over the means of equally full size classes.

    Impact: the mid after an aggressive order less the mid before it, in its direction.
    """
    expected = "impact is concave in size: exponent above 0 and below 1"
    if len(sizes_lots) < _FEWEST:
        return _unknown(expected, len(sizes_lots))
    edges = np.unique(np.quantile(sizes_lots, np.linspace(0, 1, _BINS + 1)))
    at = np.clip(np.searchsorted(edges, sizes_lots, side="right") - 1, 0, max(len(edges) - 2, 0))
    sizes, impacts = [], []
    for number in np.unique(at):
        size, impact = float(sizes_lots[at == number].mean()), float(impacts_ticks[at == number].mean())
        if impact > 0:
            sizes.append(size)
            impacts.append(impact)
    if len(sizes) < 3:
        return _unknown(expected, len(sizes_lots))
    exponent = float(stats.linregress(np.log(sizes), np.log(impacts)).slope)
    return {"value": round(exponent, 4), "expected": expected, "holds": 0 < exponent < 1, "n": len(sizes_lots),
            "lots": _rounded(np.array(sizes), 2), "ticks": _rounded(np.array(impacts), 4)}  # fmt: skip


def _rounded(values: np.ndarray, digits: int = 4) -> list[float]:
    return [round(float(value), digits) for value in values]


def _aggressors(trades: pl.DataFrame) -> pl.DataFrame:
    """One row an aggressive order (a command that traded): sequence, lots, sign."""
    return trades.group_by("sequence", maintain_order=True).agg(
        pl.col("quantity_lots").sum().alias("lots"),
        pl.when(pl.col("taker_sells").first()).then(-1).otherwise(1).alias("sign"),
    )


def _arrivals(events: pl.DataFrame) -> np.ndarray:
    return events.filter(pl.col("kind") == int(EventKind.ORDER_ACCEPTED))["time_ns"].to_numpy()


def _lifetimes(events: pl.DataFrame) -> np.ndarray:
    """ns from acceptance to cancellation; 0 for what ended within its own command (IOC remainders)."""
    keys = ["account", "order_id"]
    born = events.filter(pl.col("kind") == int(EventKind.ORDER_ACCEPTED)).select(*keys, pl.col("time_ns").alias("born"))
    gone = events.filter((pl.col("kind") == int(EventKind.ORDER_CANCELLED)) & (pl.col("leaves_lots") == 0))
    both = gone.join(born, on=keys, how="inner")
    return (both["time_ns"] - both["born"]).to_numpy()


def _order_book(events: pl.DataFrame) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every accepted order (side, price), and every change of its leaves (time, order, ±lots), from the events
    alone."""
    kind = pl.col("kind")
    accepted = events.filter(kind == int(EventKind.ORDER_ACCEPTED)).with_row_index("order")
    filled = events.filter(kind == int(EventKind.ORDER_FILLED))
    cancelled = events.filter(kind == int(EventKind.ORDER_CANCELLED))
    columns = ["time_ns", "account", "order_id", "quantity_lots"]
    taken = filled.select(columns)
    maker = (pl.col("maker_account").alias("account"), pl.col("maker_order_id").alias("order_id"))
    made = filled.select("time_ns", *maker, "quantity_lots")
    less = pl.concat([taken, made, cancelled.select(columns)]).join(
        accepted.select("order", "account", "order_id"), on=["account", "order_id"], how="inner"
    )
    orders = {name: accepted[name].to_numpy() for name in ("side", "price_ticks")}
    changes = {
        "time_ns": np.concatenate([accepted["time_ns"].to_numpy(), less["time_ns"].to_numpy()]),
        "order": np.concatenate([accepted["order"].to_numpy(), less["order"].to_numpy()]).astype(np.int64),
        "lots": np.concatenate([accepted["quantity_lots"].to_numpy(), -less["quantity_lots"].to_numpy()]).astype(float),
    }
    return orders, changes


def _impacts(orders: pl.DataFrame, book: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(lots, change of the mid in the order's direction, ticks) of every aggressive order with a mid before and
    after."""
    sequences = book["sequence"].to_numpy()
    both = ((book["bid_lots"] > 0) & (book["ask_lots"] > 0)).to_numpy()
    mids = ((book["bid_ticks"] + book["ask_ticks"]) / 2).to_numpy()
    after = np.searchsorted(sequences, orders["sequence"].to_numpy())
    known = (after > 0) & (after < len(sequences))
    after = np.where(known, after, 1)
    known &= both[after] & both[after - 1] if len(both) > 1 else False
    change = (mids[after] - mids[after - 1]) * orders["sign"].to_numpy() if len(both) > 1 else np.zeros(len(after))
    return orders["lots"].to_numpy()[known].astype(float), change[known]
