"""A finished run on the disk: its files by name, read when asked for. Writes nothing."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from exchange.errors import ConfigurationError
from exchange.state import Array

MANIFEST, SUMMARY, REPORT = "manifest.json", "summary.json", "report.html"
EVENTS, DECISIONS, LATENCY = "events.parquet", "decisions.parquet", "latency.parquet"
TRADES, BOOK, AGENTS, LOSSES = "trades.parquet", "book.parquet", "agents.parquet", "losses.parquet"
LOSERS, LIQUIDITY, LIQUIDATIONS = "losers.parquet", "liquidity.parquet", "liquidations.parquet"
COIN_BOOK = "coin_book.parquet"
RACES = "races.parquet"
VALIDATION = "validation.json"
NOTICES, ALERTS, JOURNAL, LOG = "notices.jsonl", "alerts.jsonl", "journal", "agents.log"


class Run:
    """A run directory. Tables are polars frames; columns are named with their units."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __repr__(self) -> str:
        return f"Run({str(self.directory)!r})"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return self._json(MANIFEST)

    @cached_property
    def summary(self) -> dict[str, Any]:
        return self._json(SUMMARY)

    @property
    def journal(self) -> Path:
        return self.directory / JOURNAL

    @property
    def report(self) -> Path:
        return self.directory / REPORT

    events = cached_property(lambda self: self._table(EVENTS))
    """Every event of the engine, a row each: the fields of exchange.types.EVENT."""
    trades = cached_property(lambda self: self._table(TRADES))
    """Every fill, of all instruments: 0 is the main one, 1 the stablecoin if there is one."""
    decisions = cached_property(lambda self: self._table(DECISIONS))
    """Every participant's command with its rule, its cause and its times."""
    latency = cached_property(lambda self: self._table(LATENCY))
    """decision_ns, transit_ns, hold_ns, match_ns and venue_ns of every participant's command."""
    book = cached_property(lambda self: self._table(BOOK))
    """The top of the main book and the depth within 1 % of the mid, after every command."""
    coin_book = cached_property(lambda self: self._table(COIN_BOOK))
    """The same of the stablecoin's book; only of a run with one."""
    agents = cached_property(lambda self: self._table(AGENTS))
    """One row an agent process: what it heard, planned and sent, and when."""
    losses = cached_property(lambda self: self._table(LOSSES))
    """Who lost what, by class of participants."""
    losers = cached_property(lambda self: self._table(LOSERS))
    """Who lost what, by class, leverage and speed: one row a bucket."""
    liquidity = cached_property(lambda self: self._table(LIQUIDITY))
    """Depth within 1 % and the mid over time, at 200 moments."""
    liquidations = cached_property(lambda self: self._table(LIQUIDATIONS))
    """One row an event of a liquidation: of a margin account, of the insurance fund's sales, or of a loan."""

    def _json(self, name: str) -> dict[str, Any]:
        return read_json(self.directory / name)

    def _table(self, name: str) -> pl.DataFrame:
        try:
            return pl.read_parquet(self.directory / name)
        except (OSError, PolarsError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigurationError(f"{self.directory / name}: {reason}; take another copy of the run") from None


def not_a_run(path: Path) -> str:
    """What to say of a directory that holds no run itself."""
    inside = sorted(entry.parent.name for entry in path.glob(f"*/{JOURNAL}")) if path.is_dir() else []
    if inside:
        return f"{path}: holds several runs; name one of them: {', '.join(str(path / name) for name in inside)}"
    return f"{path}: not the directory of a run (no {JOURNAL}/); name what `aar run` printed"


def read_json(path: Path) -> dict[str, Any]:
    """One of a run's JSON files. Raises: ConfigurationError: damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}; take another copy of the run") from None
    if not isinstance(found, dict) or not found:
        raise ConfigurationError(f"{path}: does not hold a run's figures; take another copy of the run")
    return found


def load(directory: str | Path) -> Run:
    """Open a run that was made before.

    Raises: ConfigurationError: the directory holds none, or one that did not finish.
    """
    path = Path(directory)
    if not (path / MANIFEST).is_file():
        raise ConfigurationError(not_a_run(path))
    if not (path / SUMMARY).is_file():
        raise ConfigurationError(f"{path}: that run did not finish (no {SUMMARY}); its journal can still be replayed")
    return Run(path)


def answered_ns(run: Run, commands: Array) -> Array:
    """int64[n]: of each command, when its answers were handed to the sockets; 0: not known."""
    found = np.zeros(len(commands), np.int64)
    latency = run.latency.filter(pl.col("sequence") <= int(commands["sequence"].max(initial=0)))
    at = np.searchsorted(commands["sequence"], latency["sequence"].to_numpy())
    found[at] = (latency["received_ns"] + latency["venue_ns"]).to_numpy()
    return found
