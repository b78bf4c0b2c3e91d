"""From run directories to the pictures of a report. Draws nothing and measures nothing: it reads tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from aar_swarm.analysis import link_check
from aar_swarm.analysis.compared import Setting
from aar_swarm.analysis.measures import RECORDING
from aar_swarm.report.comparison_page import Shown, address_of, write_comparison_page
from aar_swarm.report.page import write_report
from aar_swarm.report.picture import LOSERS, Picture
from aar_swarm.results import Run
from exchange.clock import MS
from exchange.types import EventKind

_LOSERS = "losers.parquet"
_UNITS = {
    "SELL_VOLUME": "lots",
    "PRICE_MOVE": "bps",
    "LIQUIDATIONS": "",
    "LIQUIDATION_NOTIONAL": "ticks x lots",
    "DEPTH": "lots",
    "IMBALANCE": "bps",
}


def picture(run: Run, label: str | None = None) -> Picture:
    """Everything that one run shows; times in ms since the session opened."""
    summary, instrument = run.summary, run.manifest["scenario"]["instrument"]
    events = run.events
    opened = events.filter(pl.col("kind") == EventKind.SESSION_OPENED)["time_ns"]
    opened_ns = opened[0] if len(opened) else 0
    signal = events.filter(pl.col("kind") == EventKind.SIGNAL_PUBLISHED)["time_ns"]
    ms = ((pl.col("time_ns") - opened_ns) / MS).alias("time_ms")
    levels = instrument["price_levels"]
    closed = events.filter(pl.col("kind") == EventKind.SESSION_CLOSED)["sequence"]
    # The close empties the book: from there on it is no picture of the market.
    end = closed[0] if len(closed) else events["sequence"].max()
    in_session = run.book.filter((pl.col("time_ns") >= opened_ns) & (pl.col("sequence") < end))
    book = in_session.select(
        ms,
        pl.when(pl.col("bid_lots") > 0).then(pl.col("bid_ticks")).alias("bid_ticks"),
        pl.when((pl.col("ask_lots") > 0) & (pl.col("ask_ticks") < levels)).then(pl.col("ask_ticks")).alias("ask_ticks"),
        "bid_depth_lots",
        "ask_depth_lots",
    )
    trip = summary.get("trip")
    trades = run.trades.select(ms, "price_ticks", "quantity_lots", _instrument(run.trades))
    coin = run.manifest["scenario"].get("stablecoin") or {}
    return Picture(
        label=label or f"breaker {summary['breaker']}",
        summary=summary,
        tick_size=instrument["tick_size"],
        signal_ms=(signal[0] - opened_ns) / MS if len(signal) else None,
        trip_ms=(trip["received_ns"] - opened_ns) / MS if trip else None,
        trip_text=_trip_text(trip) if trip else None,
        trades=trades.filter(pl.col("instrument") == 0).drop("instrument"),
        book=book,
        load=_load(events, run.decisions, opened_ns),
        losses=run.losses.drop("losers_loss"),
        losers=_losers(run),
        liquidations=_liquidations(events, opened_ns),
        coin=trades.filter(pl.col("instrument") == 1).drop("instrument"),
        coin_par_ticks=coin.get("par_ticks"),
    )


def _instrument(frame: pl.DataFrame) -> pl.Expr:
    """The instrument of each row: 0 in the tables of runs that knew one only."""
    return pl.col("instrument") if "instrument" in frame.columns else pl.lit(0).alias("instrument")


def _losers(run: Run) -> pl.DataFrame:
    """losers.parquet, or, of an older run, the losses by class."""
    path = run.directory / _LOSERS
    if path.is_file():
        return pl.read_parquet(path).select(*LOSERS)
    return run.losses.select(
        pl.lit("class").alias("dimension"), pl.col("participants").alias("bucket"), "agents", "loss", "loss_per_agent",
        pl.lit(None, pl.Float64).alias("share_losing"),
    )  # fmt: skip


def _liquidations(events: pl.DataFrame, opened_ns: int) -> pl.DataFrame:
    """Of margin accounts, when they begin; of loans, when a liquidator's message is carried out."""
    margin, loans = int(EventKind.LIQUIDATION_STARTED), int(EventKind.LOAN_LIQUIDATED)
    found = events.filter(pl.col("kind").is_in([margin, loans])).select(
        ((pl.col("time_ns") - opened_ns) // MS).cast(pl.Int64).alias("time_ms"), "kind"
    )
    return (
        found.group_by("time_ms")
        .agg(
            (pl.col("kind") == margin).sum().cast(pl.Int64).alias("margin"),
            (pl.col("kind") == loans).sum().cast(pl.Int64).alias("loans"),
        )
        .sort("time_ms")
    )


def _trip_text(trip: dict[str, Any]) -> str:
    where = f"at command {trip['sequence']:,}"
    if trip["trigger"] not in _UNITS:  # ordered by a supervisor, or by another instrument's trip
        return f"{trip['trigger']}, {where}"
    unit = f" {_UNITS[trip['trigger']]}".rstrip()
    than = "<" if trip["trigger"] == "DEPTH" else "≥"
    within = f" within {trip['window_ns'] / MS:g} ms" if trip["window_ns"] else ""
    return f"{trip['trigger']} {trip['observed']:,}{unit} {than} {trip['threshold']:,}{unit}{within}, {where}"


def _load(events: pl.DataFrame, decisions: pl.DataFrame, opened_ns: int) -> pl.DataFrame:
    """Orders and cancels received, trades and rejects, in bins of 1 ms."""
    rejects = (EventKind.ORDER_REJECTED, EventKind.CANCEL_REJECTED)
    parts = {
        "orders": decisions.select(pl.col("received_ns").alias("time_ns")),
        "trades": events.filter((pl.col("kind") == EventKind.ORDER_FILLED) & (_instrument(events) == 0)).select(
            "time_ns"
        ),
        "rejects": events.filter(pl.col("kind").is_in([int(kind) for kind in rejects])).select("time_ns"),
    }
    counted = pl.concat([frame.with_columns(pl.lit(name).alias("what")) for name, frame in parts.items()])
    bins = counted.select(((pl.col("time_ns") - opened_ns) // MS).alias("time_ms"), "what").filter(
        pl.col("time_ms") >= 0
    )
    return (
        bins.group_by("time_ms")
        .agg(*((pl.col("what") == name).sum().cast(pl.Int64).alias(name) for name in parts))
        .sort("time_ms")
    )


def conditions(runs: Sequence[Run]) -> dict[str, str]:
    """Under what circumstances the runs' times were measured; where they differ, one after the other."""
    each = [_conditions(run) for run in runs]
    return {name: "; ".join(dict.fromkeys(found[name] for found in each)) for name in each[0]}


def _conditions(run: Run) -> dict[str, str]:
    manifest, summary = run.manifest, run.summary
    market = "makers, value and noise traders"
    if recorded := summary.get("background"):
        speed = manifest["scenario"]["participants"][RECORDING]["params"]["speed"]
        market = (
            f"recorded day {recorded['file']}, {speed:g} times as fast: {recorded['rows_replayed']:,} of "
            f"{recorded['rows']:,} rows sent; of {recorded['rows_compared']:,} compared before the crowd, the best bid "
            f"was the exchange's own on {recorded['best_bid_agrees'] or 0:.2%}, the best ask on "
            f"{recorded['best_ask_agrees'] or 0:.2%}"
        )
    return {
        "market": market,
        "agents": f"{summary['agent_processes_started']:,} processes on {summary['hosts']} host(s), "
        f"{manifest['cores']} cores",
        "links": link_check.in_words(summary.get("links") or []) or "none",
        "seed": str(manifest["seed"]),
        "venue's scheduling": manifest["scheduling"],
        "versions": ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
        "started (UTC)": manifest["started_utc"],
    }


def write_run_report(run: Run) -> None:
    """report.html of one run."""
    write_report(run.report, run.manifest["scenario"]["title"], [picture(run)], conditions([run]))


def write_comparison(path: Path, vary: Mapping[str, Sequence[str]], found: Sequence[tuple[Setting, list[Run]]]) -> None:
    """One page with all settings side by side, each with its repeats. At least one run finished."""
    shown = [
        Shown(
            setting,
            [picture(run, setting.label) for run in runs],
            [address_of(run.report, path) for run in runs],
        )
        for setting, runs in found
    ]
    every = [run for _, runs in found for run in runs]
    write_comparison_page(path, every[0].manifest["scenario"]["title"], vary, shown, conditions(every))
