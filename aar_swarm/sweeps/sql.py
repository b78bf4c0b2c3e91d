"""SQL over everything that was ever run: `trials` of sweeps, `runs`, and the tables of each run with a column `run`.

Owns finding what there is below some directories and what a query may do: read it, nothing else. DuckDB reads the
Parquet files where they are, and of them only the columns and pieces that the query needs.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from aar_swarm.results import MANIFEST, SUMMARY
from aar_swarm.sweeps import table
from aar_swarm.sweeps.experiment import flat
from aar_swarm.sweeps.records import PART
from exchange.errors import ConfigurationError

TABLES = ("events", "decisions", "latency", "trades", "book", "coin_book", "agents", "losses", "losers", "liquidity",
          "liquidations", "races")  # fmt: skip
"""Of a run: NAME.parquet in its directory."""
_OF_MANIFEST = ("started_utc", "driver_host", "cores")


def query(sql: str, directories: Sequence[str | Path] = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The names of the columns, and the rows.

    Args: directories: where runs and sweeps are looked for, at any depth (none: runs/ here).
    Raises: ConfigurationError: no such directory, nothing in it of what the query names, or what DuckDB says of it.
    """
    roots = [Path(each) for each in directories] or [Path("runs")]
    for root in roots:
        if not root.is_dir():
            raise ConfigurationError(f"{root}: is no directory; name one that holds runs or sweeps")
    with tempfile.TemporaryDirectory(prefix="aar-") as scratch, _connected() as connection:
        _only_reads(connection, sql)
        missing: list[str] = []
        allowed = [str(root.resolve()) + os.sep for root in roots] + [scratch + os.sep]
        try:
            missing = _make_views(connection, sql, roots, Path(scratch))
            connection.execute(f"SET allowed_directories = {_listed(allowed)}")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            found = connection.execute(sql)
            names = [column[0] for column in found.description or []]
            return names, found.fetchall()
        except duckdb.Error as error:
            absent = [name for name in missing if f"name {name} does not exist" in str(error)]
            told = f"no {absent[0]} below {', '.join(map(str, roots))}" if absent else _one_line(error)
            raise ConfigurationError(f"SQL: {told}") from None


def _connected() -> duckdb.DuckDBPyConnection:
    """In memory, and without what DuckDB would fetch from the network."""
    return duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )


def _only_reads(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """One statement that changes nothing. Raises: ConfigurationError."""
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise ConfigurationError(f"SQL: {_one_line(error)}") from None
    if len(statements) != 1:
        raise ConfigurationError(f"SQL: {len(statements)} statements; write one")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:  # EXPLAIN ANALYZE does what it explains, as COPY
        raise ConfigurationError(f"SQL: {kind.name} is not for here: nothing is changed; write a SELECT")


def _make_views(connection: duckdb.DuckDBPyConnection, sql: str, roots: Sequence[Path], scratch: Path) -> list[str]:
    """Of what the query names, so that a thousand runs cost nothing where nobody asks for them; returns the names of
    which there is none (such a word may be a column's)."""
    words = {word.lower() for word in re.findall(r"\w+", sql)}
    found = {place for root in roots for place in _directories(root)}
    runs = sorted(place for place in found if (place / SUMMARY).is_file() and (place / MANIFEST).is_file())
    missing = []
    for name in ("trials", "runs", *TABLES):
        if name not in words:
            continue
        columns = "regexp_replace(filename, '/[^/]*$', '') AS run, * EXCLUDE (filename)"
        if name == "trials":
            paths = sorted(place / table.TABLE for place in found if (place / table.TABLE).is_file())
            columns = columns.replace("AS run", "AS sweep")
        elif name == "runs":
            rows = [row for place in runs if (row := _run_row(place)) is not None]
            paths = [scratch / "runs.parquet"] if rows else []
            if rows:
                table.frame(rows, {"run": pl.String}).write_parquet(paths[0])
            columns = "* EXCLUDE (filename)"
        else:
            paths = [place / f"{name}.parquet" for place in runs if (place / f"{name}.parquet").is_file()]
        if paths:
            files = _listed([str(path.resolve()) for path in paths])
            source = f"read_parquet({files}, union_by_name = true, filename = true)"
            connection.execute(f'CREATE VIEW "{name}" AS SELECT {columns} FROM {source}')
        else:
            missing.append(name)
    return missing


def _directories(root: Path) -> Iterator[Path]:
    for place, inner, _ in os.walk(root):
        inner[:] = [name for name in inner if name != "journal" and not name.endswith(PART)]
        yield Path(place)


def _run_row(place: Path) -> dict[str, Any] | None:
    """A run's summary, its keys dotted; None for one that cannot be read, as it is being written."""
    try:
        summary, manifest = (json.loads((place / name).read_bytes()) for name in (SUMMARY, MANIFEST))
        told = {name: manifest.get(name) for name in _OF_MANIFEST}
        found = {"run": str(place.resolve()), **flat(summary)}
    except (OSError, ValueError, AttributeError):
        return None
    found |= {name: value for name, value in told.items() if name not in found}
    return {key: value for key, value in found.items() if value is None or isinstance(value, bool | int | float | str)}


def _listed(texts: Sequence[str]) -> str:
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def _one_line(error: Exception) -> str:
    """What is wrong, without the picture of the query that follows."""
    return " ".join(str(error).partition("\n\nLINE ")[0].split())
