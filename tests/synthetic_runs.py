"""Made-up runs for the report's tests, and for a look at the pages: `python -m tests.synthetic_runs /tmp/demo`.

Owns two pictures of one imagined exit: 1,000 agents sell 20 lots each after four calm seconds, without a breaker and
with one. The numbers are drawn, not measured; they are only shaped like a run's. Must not be used as a result.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from aar_swarm.comparison import Comparison, Trial, combinations, write
from aar_swarm.report.page import Picture, write_report
from aar_swarm.report.pictures import write_run_report
from aar_swarm.results import Run
from exchange.types import EventKind

SESSION_MS, SIGNAL_MS, AGENTS, LOTS_EACH = 10_000, 4_000.37, 1_000, 20
TRIP_MS = 4_036.81
CONDITIONS = {
    "Agents": "1,000 processes", "Hosts": "1 (AMD EPYC, 2 cores)", "Seed": "7", "Venue scheduling": "SCHED_FIFO 50",
    "Breaker": "SELL_VOLUME ≥ 8,000 lots within 100 ms", "Link delay": "0.5 ms each way",
    "Versions": "aar-swarm 0.1.0, Python 3.11.9, libzmq 4.3.5",
}  # fmt: skip


def picture(label: str = "breaker off", *, halted: bool = False, seed: int = 7) -> Picture:
    """One imagined run, whole: the price falls while the crowd sells, and recovers a part; or the breaker halts it."""
    rng = np.random.default_rng(seed)
    calm = np.sort(rng.uniform(0, SESSION_MS, 9_000))
    crowd = np.sort(SIGNAL_MS + 4 + rng.gamma(2.2, 28, AGENTS))
    times = np.concatenate([calm, crowd])
    sells = np.concatenate([rng.random(calm.size) < 0.5, np.ones(AGENTS, bool)])
    lots = np.concatenate([rng.integers(1, 9, calm.size), np.full(AGENTS, LOTS_EACH)])
    order = np.argsort(times, kind="stable")
    times, sells, lots = times[order], sells[order], lots[order]
    open_until = TRIP_MS if halted else SESSION_MS
    pressure, last_ms, wander = 0.0, 0.0, 0.0
    trades: list[tuple[float, int, int]] = []
    book: list[tuple[float, int | None, int | None, int, int]] = []
    for time_ms, sell, quantity in zip(times, sells, lots, strict=True):
        if time_ms >= open_until:
            break
        # Pressure decays in two parts: liquidity returns slowly, and not all of it within the session.
        pressure *= float(np.exp(-(time_ms - last_ms) / 4_000))
        pressure += float(quantity) if sell and quantity == LOTS_EACH else 0.0
        wander += rng.normal(0, 0.25)
        last_ms = float(time_ms)
        mid = 10_000 + wander - 1_250 * (1 - np.exp(-pressure / 11_000))
        half = 1 + 14 * (pressure / 20_000) ** 1.5 * float(rng.random() + 0.4)
        bid, ask = int(mid - half), int(mid + half) + 1
        thin = np.exp(-pressure / 2_600)
        empty = pressure > 18_500 and rng.random() < 0.1
        book.append((last_ms, None if empty else bid, ask, 0 if empty else int(6_200 * thin * rng.uniform(0.9, 1.1)),
                     int(6_000 * (0.35 + 0.65 * thin) * rng.uniform(0.9, 1.1))))  # fmt: skip
        for _ in range(1 + int(quantity == LOTS_EACH) * int(rng.integers(0, 4))):
            trades.append((last_ms, bid if sell else ask, max(1, int(quantity) // 3)))
    trade_frame = pl.DataFrame(trades, schema=["time_ms", "price_ticks", "quantity_lots"], orient="row")
    load = _load(times, np.array([t for t, _, _ in trades]), times[times >= open_until])
    fallen = trade_frame.filter(pl.col("time_ms") >= SIGNAL_MS)
    low = min(fallen["price_ticks"].to_list())
    loss = 2_216_480.25 if not halted else 611_902.0
    summary: dict[str, Any] = {
        "scenario": "exit-door", "seed": seed, "agents_requested": AGENTS, "agent_processes_started": AGENTS,
        "agent_processes_lost": 0, "hosts": 1, "commands": int(times.size), "events": int(times.size * 2.1),
        "trades": trade_frame.height, "rejects": int((times >= open_until).sum()),
        "state_hash": "5f2b9c0e7a41d3886c1e0f9ab2d47735" if halted else "c09a1d7744be2f10938e55aa01cd62ef",
        "halted": halted, "drawdown_bps": (10_000 - low) / 1.0,
        "trough_ms": float(fallen["time_ms"][fallen["price_ticks"].arg_min() or 0]) - SIGNAL_MS,
        "loss_total": loss * 1.04, "loss_crowd": loss, "aar_ratio": 1.62 if halted else 4.87,
        "illusion_ratio": 2.05 if halted else 7.41, "liquidations": None, "bad_debt": None, "trip": None,
        "trades_after_trip": None, "trip_to_last_notified_ms": None, "killed_processes": None,
        "kill_to_last_dead_ms": None,
        "decision_ns_p50": 812_345, "decision_ns_p99": 6_204_551, "decision_ns_p999": 9_812_004,
        "decision_ns_max": 11_040_120, "transit_ns_p50": 1_204_410, "transit_ns_p99": 48_112_200,
        "transit_ns_p999": 97_512_000, "transit_ns_max": 121_500_990, "venue_ns_p50": 4_120, "venue_ns_p99": 61_200,
        "venue_ns_p999": 204_100, "venue_ns_max": 911_004,
    }  # fmt: skip
    if halted:
        trip = {"trigger": "SELL_VOLUME", "observed": 8_012, "threshold": 8_000, "sequence": 10_233, "matched_ns": 1}
        summary |= {"trip": trip, "trades_after_trip": 0, "trip_to_last_notified_ms": 2.41}
    return Picture(
        label=label, summary=summary, tick_size=0.01, signal_ms=SIGNAL_MS, trip_ms=TRIP_MS if halted else None,
        trip_text="SELL_VOLUME 8,012 lots ≥ 8,000 within 100 ms, command 10,233" if halted else None,
        trades=trade_frame, load=load,
        book=pl.DataFrame(book, orient="row", schema={"time_ms": pl.Float64, "bid_ticks": pl.Int64,
                          "ask_ticks": pl.Int64, "bid_depth_lots": pl.Int64, "ask_depth_lots": pl.Int64}),
        losses=_losses(loss, 7_980 if halted else 20_000),
    )  # fmt: skip


def empty_picture(label: str = "nothing") -> Picture:
    """A run in which nothing happened: every summary figure null, every frame empty."""
    full = picture()
    return replace(
        full, label=label, summary=dict.fromkeys(full.summary), signal_ms=None, trip_ms=None, trip_text=None,
        trades=full.trades.clear(), book=full.book.clear(), load=full.load.clear(), losses=full.losses.clear(),
    )  # fmt: skip


def pictures() -> list[Picture]:
    return [picture("breaker off"), picture("breaker on", halted=True)]


def _load(orders: np.ndarray, trades: np.ndarray, rejects: np.ndarray) -> pl.DataFrame:
    bins = np.arange(SESSION_MS + 1)
    counts = {"orders": orders, "trades": trades, "rejects": rejects}
    frame = pl.DataFrame({"time_ms": bins[:-1]} | {name: np.histogram(t, bins)[0] for name, t in counts.items()})
    return frame.filter(pl.col("orders") + pl.col("trades") + pl.col("rejects") > 0)


def _losses(crowd: float, sold: int) -> pl.DataFrame:
    rows = [
        ("crowd", AGENTS, crowd, crowd / AGENTS, sold, 0, crowd / AGENTS * 2.3),
        ("market makers", 12, crowd * 0.04, crowd * 0.04 / 12, 3_100, 9_800, crowd * 0.011),
        ("dip buyers", 40, -crowd * 0.71, -crowd * 0.71 / 40, 1_900, 11_400, 310.5),
        ("background", 200, -crowd * 0.33, -crowd * 0.33 / 200, 20_400, 20_400 + sold - 16_200, 95.0),
    ]
    names = ["participants", "agents", "loss", "loss_per_agent", "sold_lots", "bought_lots", "worst_loss"]
    return pl.DataFrame(rows, schema=names, orient="row")


_OPENED_NS = 5_000_000_000


def write_run(directory: Path, *, fall: float = 1.0, halted: bool = False, seed: int = 7, crisis: bool = False) -> Run:
    """A run directory with the files that a report reads. fall: how many times as far the price falls as in `picture`;
    crisis: with liquidations, loans, a stablecoin and losers by leverage and speed."""
    rng = np.random.default_rng([seed, int(100 * fall)])
    fall *= 1.0 + rng.normal(0, 0.04)
    made = picture(halted=halted, seed=seed)
    deepen = lambda name: (10_000 - fall * (10_000 - pl.col(name))).round().cast(pl.Int64).clip(1)  # noqa: E731
    ns = (pl.col("time_ms") * 1e6).round().cast(pl.Int64) + _OPENED_NS
    trades = made.trades.select(
        pl.int_range(1, pl.len() + 1).alias("sequence"), ns.alias("time_ns"), pl.lit(0).alias("instrument"),
        deepen("price_ticks").alias("price_ticks"), "quantity_lots",
    )  # fmt: skip
    book = made.book.select(
        pl.int_range(1, pl.len() + 1).alias("sequence"), ns.alias("time_ns"),
        deepen("bid_ticks").fill_null(0).alias("bid_ticks"),
        pl.col("bid_ticks").is_not_null().cast(pl.Int64).alias("bid_lots"), deepen("ask_ticks").alias("ask_ticks"),
        pl.lit(5).alias("ask_lots"), "bid_depth_lots", "ask_depth_lots",
    )  # fmt: skip
    moments = [(EventKind.SESSION_OPENED, 0.0), (EventKind.SIGNAL_PUBLISHED, SIGNAL_MS)]
    moments += [(EventKind.ORDER_FILLED, t) for t in made.trades["time_ms"]]
    started = np.sort(SIGNAL_MS + 10 + rng.gamma(2, 20, int(60 * fall))) if crisis else np.empty(0)
    repaid = np.sort(SIGNAL_MS + 40 + rng.gamma(2, 25, int(25 * fall))) if crisis else np.empty(0)
    moments += [(EventKind.LIQUIDATION_STARTED, t) for t in started] + [(EventKind.LOAN_LIQUIDATED, t) for t in repaid]
    moments += [(EventKind.SESSION_CLOSED, float(SESSION_MS))]
    events = pl.DataFrame(
        {"kind": [int(kind) for kind, _ in moments], "time_ns": [round(t * 1e6) + _OPENED_NS for _, t in moments]}
    ).with_columns(pl.lit(1 << 40).alias("sequence"))
    summary = dict(made.summary) | {"breaker": "default" if halted else "off"}
    low = int(trades.filter(pl.col("time_ns") >= SIGNAL_MS * 1e6 + _OPENED_NS)["price_ticks"].to_numpy().min())
    crowd = float(made.losses["loss"][0]) * fall
    losses = made.losses.with_columns(pl.col("loss", "loss_per_agent", "worst_loss") * fall, losers_loss=pl.lit(0.0))
    summary |= {
        "drawdown_bps": float(10_000 - low), "loss_crowd": crowd, "aar_ratio": summary["aar_ratio"] * fall,
        "illusion_ratio": summary["illusion_ratio"] * fall, "exhausted_ms": None if halted else 70.0 / fall,
        "planned_lots": 20_000, "sold_lots": 7_980 if halted else 20_000, "early_price_bps": 120.0 * fall,
        "depth_low_share": 0.002, "recovered_bps": 310.0 * fall,
    }  # fmt: skip
    if halted:
        summary["trip"] |= {"window_ns": 100_000_000, "since_signal_ms": TRIP_MS - SIGNAL_MS,
                            "received_ns": round(TRIP_MS * 1e6) + _OPENED_NS}  # fmt: skip
    parts = [losses.select(pl.lit("class").alias("dimension"), pl.col("participants").alias("bucket"), "agents", "loss",
                           "loss_per_agent", pl.lit(0.9).alias("share_losing"))]  # fmt: skip
    stablecoin = None
    if crisis:
        summary |= {
            "margin_calls": 90, "liquidations": len(started), "loan_liquidations": len(repaid),
            "liquidations_per_ms_peak": int(3 * fall) + 1, "bad_debt": 12_000.0 * max(fall - 0.8, 0.0),
            "coin_low_share_of_par": 1 - 0.1 * fall, "scenario_measures": {"races_lost": 40 * fall, "tipping_bps": 7.0},
        }  # fmt: skip
        stablecoin = {"par_ticks": 1_000}
        times = np.sort(rng.uniform(0, SESSION_MS, 2_000))
        dip = np.where(times > SIGNAL_MS, np.exp(-(times - SIGNAL_MS) / 2_000), 0.0)
        coin = pl.DataFrame({"time_ms": times, "price_ticks": 1_000 - 100 * fall * dip + rng.normal(0, 2, 2_000)})
        trades = pl.concat([trades, coin.select(
            pl.int_range(1, pl.len() + 1).alias("sequence"), ns.alias("time_ns"), pl.lit(1).alias("instrument"),
            pl.col("price_ticks").round().cast(pl.Int64), pl.lit(3, pl.Int64).alias("quantity_lots"),
        )], how="vertical_relaxed")  # fmt: skip
        for dimension, buckets in (
            ("leverage", ("0", "1–2", "3–5", "5–10")),
            ("speed", ("first quarter", "second quarter", "third quarter", "last quarter")),
        ):
            lost = np.array([-300.0, 900.0, 2_100.0, 4_000.0]) * fall
            parts.append(pl.DataFrame({
                "dimension": [dimension] * 4, "bucket": list(buckets), "agents": [250] * 4, "loss": 250 * lost,
                "loss_per_agent": lost, "share_losing": [0.1, 0.5, 0.8, 0.99]}))  # fmt: skip
    manifest = {
        "scenario": {"title": "Exit door (synthetic data)", "stablecoin": stablecoin, "participants": {},
                     "instrument": {"tick_size": 0.01, "price_levels": 1 << 15, "opening_ticks": 10_000}},
        "seed": seed, "cores": 2, "scheduling": "SCHED_FIFO 50", "versions": {"aar-swarm": "0.1.0"},
        "started_utc": "20260101-000000",
    }  # fmt: skip
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "summary.json").write_text(json.dumps(summary))
    times_ns = (pl.col("time_ms") * 1_000_000 + _OPENED_NS + 5).repeat_by("orders").explode()
    decisions = made.load.filter(pl.col("orders") > 0).select(times_ns.alias("received_ns"))
    for name, frame in (("events", events), ("trades", trades), ("book", book), ("decisions", decisions),
                        ("losses", losses), ("losers", pl.concat(parts))):  # fmt: skip
        frame.write_parquet(directory / f"{name}.parquet")
    return Run(directory)


def comparison(directory: Path, vary: dict[str, list[str]], repeats: int, *, crisis: bool = False) -> Comparison:
    """A comparison of made-up runs: `leverage` deepens the fall, `breaker` other than off halts it. A leverage of 13
    fails."""
    trials = []
    for repeat in range(1, repeats + 1):
        for values in combinations(vary):
            place = directory / (",".join(f"{k}={v}" for k, v in values.items()) + f",seed={repeat}")
            leverage = float(values.get("leverage", "5"))
            if leverage == 13:
                trials.append(Trial(values, repeat, repeat, place, reason="the venue did not start"))
                continue
            halted = values.get("breaker", "off") != "off"
            made = write_run(place, fall=leverage / 5, halted=halted, seed=repeat, crisis=crisis)
            trials.append(Trial(values, repeat, repeat, place, made))
    return write(Comparison("exit-door", vary, repeats, trials, directory, directory / "report.html"))


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp/aar-report-demo")
    write_report(out.with_suffix(".html"), "Exit door: 1,000 agents (synthetic data)", pictures(), CONDITIONS)
    write_run_report(write_run(out / "run", crisis=True))
    comparison(out / "breaker", {"breaker": ["off", "default"]}, 1)
    comparison(out / "repeats", {"breaker": ["off", "default"]}, 5, crisis=True)
    comparison(out / "dial", {"leverage": ["1", "2", "5", "10", "20"]}, 5, crisis=True)
    comparison(out / "grid", {"breaker": ["off", "default"], "leverage": ["2", "5", "13"]}, 3)
    print(out)
