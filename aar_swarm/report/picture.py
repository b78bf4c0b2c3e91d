"""What one run shows: the contract between whoever computes a report's figures and whoever draws them.

Owns the record and the few facts that every plot reads off it. Must not draw, and must not compute what `summary` says.
"""

from dataclasses import dataclass, field
from typing import Any

import polars as pl

LIQUIDATIONS = {"time_ms": pl.Int64, "margin": pl.Int64, "loans": pl.Int64}
COIN = {"time_ms": pl.Float64, "price_ticks": pl.Int64, "quantity_lots": pl.Int64}
LOSERS = {
    "dimension": pl.String, "bucket": pl.String, "agents": pl.Int64, "loss": pl.Float64, "loss_per_agent": pl.Float64,
    "share_losing": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """Everything one run shows. Times are in ms since the session opened; frames may be empty, never missing."""

    label: str
    """What tells this run from the others beside it: "breaker off"."""
    summary: dict[str, Any]
    """The run's summary.json; its trough_ms counts from the signal, its money is in currency."""
    tick_size: float
    """Currency per tick."""
    signal_ms: float | None
    trip_ms: float | None
    trip_text: str | None
    """Why the breaker tripped: "SELL_VOLUME 8,012 lots ≥ 8,000 within 100 ms, command 10,233"."""
    trades: pl.DataFrame
    """time_ms f64, price_ticks i64, quantity_lots i64; in the order in which they happened."""
    book: pl.DataFrame
    """time_ms f64, bid_ticks and ask_ticks i64 or null, bid_depth_lots and ask_depth_lots i64 (within 1 % of mid)."""
    load: pl.DataFrame
    """time_ms i64, orders, trades and rejects i64: bins of 1 ms, those with anything in them."""
    losses: pl.DataFrame
    """participants str, agents i64, loss and loss_per_agent f64 (positive = lost), sold_lots and bought_lots i64,
    worst_loss f64."""
    losers: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LOSERS))
    """One row a bucket of a dimension (class, leverage, speed); loss is net of all its agents, positive = lost."""
    liquidations: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LIQUIDATIONS))
    """Liquidations of margin accounts begun and of loans carried out, in bins of 1 ms, those with anything in them."""
    coin: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=COIN))
    """Trades of the stablecoin; empty without one."""
    coin_par_ticks: int | None = None

    @property
    def anchor_ms(self) -> float:
        """Where the event begins: the signal, else the trip, else the busiest millisecond, else the open."""
        if self.signal_ms is not None:
            return self.signal_ms
        if self.trip_ms is not None:
            return self.trip_ms
        if self.load.is_empty():
            return 0.0
        return float(self.load["time_ms"][self.load["orders"].fill_null(0).arg_max() or 0])

    @property
    def anchor_name(self) -> str:
        if self.signal_ms is not None:
            return "the signal"
        if self.trip_ms is not None:
            return "the trip"
        return "the session opened" if self.load.is_empty() else "the busiest millisecond"

    def trough(self) -> tuple[float, float] | None:
        """(ms since the open, price) of the summary's trough; the price is that of the lowest trade within 1 ms of it,
        else of the last trade before it. None where the summary has no trough, or no trade is there to mark."""
        since_signal_ms = self.summary.get("trough_ms")
        if since_signal_ms is None or self.signal_ms is None:
            return None
        time_ms = self.signal_ms + since_signal_ms
        near = self.trades.filter((pl.col("time_ms") - time_ms).abs() <= 1.0)
        if near.is_empty():
            near = self.trades.filter(pl.col("time_ms") <= time_ms).tail(1)
        if near.is_empty():
            return None
        return float(time_ms), float(near["price_ticks"].min()) * self.tick_size  # type: ignore[arg-type]

    def before_anchor(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col("time_ms") < self.anchor_ms)

    def after_anchor(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col("time_ms") >= self.anchor_ms)
