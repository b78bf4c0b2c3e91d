"""A finished run on the disk: its files by name, read when asked for. Writes nothing."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from exchange.errors import ConfigurationError

MANIFEST, SUMMARY, REPORT = "manifest.json", "summary.json", "report.html"
EVENTS, DECISIONS, LATENCY = "events.parquet", "decisions.parquet", "latency.parquet"
TRADES, BOOK, AGENTS, LOSSES = "trades.parquet", "book.parquet", "agents.parquet", "losses.parquet"
NOTICES, JOURNAL, LOG = "notices.jsonl", "journal", "agents.log"


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
    decisions = cached_property(lambda self: self._table(DECISIONS))
    """Every participant's command with its rule, its cause and its times."""
    latency = cached_property(lambda self: self._table(LATENCY))
    """decision_ns, transit_ns, match_ns and venue_ns of every participant's command."""
    book = cached_property(lambda self: self._table(BOOK))
    """The top of the book and the depth within 1 % of the mid, after every command."""
    agents = cached_property(lambda self: self._table(AGENTS))
    """One row an agent process: what it heard, planned and sent, and when."""
    losses = cached_property(lambda self: self._table(LOSSES))

    def _json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / name).read_text())
        return found

    def _table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.directory / name)


def load(directory: str | Path) -> Run:
    """Open a run that was made before.

    Raises: ConfigurationError: the directory holds none, or one that did not finish.
    """
    path = Path(directory)
    if not (path / MANIFEST).is_file():
        raise ConfigurationError(f"{path}: not the directory of a run (no {MANIFEST}); name what `aar run` printed")
    if not (path / SUMMARY).is_file():
        raise ConfigurationError(f"{path}: that run did not finish (no {SUMMARY}); its journal can still be replayed")
    return Run(path)
