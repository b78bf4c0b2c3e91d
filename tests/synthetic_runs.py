"""Made-up runs for the report's tests, and for a look at the page: `python -m tests.synthetic_runs /tmp/demo.html`.

Owns two pictures of one imagined exit: 1,000 agents sell 20 lots each after four calm seconds, without a breaker and
with one. The numbers are drawn, not measured; they are only shaped like a run's. Must not be used as a result.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from aar_swarm.report.page import Picture, write_report

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


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp/aar-report-demo.html")
    write_report(out, "Exit door: 1,000 agents (synthetic data)", pictures(), CONDITIONS)
    print(out)
