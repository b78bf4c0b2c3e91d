"""The table of a sweep: one row a trial, its settings and every single figure of its summary as columns.

Owns column names and types, so that tables of many sweeps go together: a column of whole numbers is Int64, of numbers
Float64, of truth values Boolean, of anything else text; one that applies to no trial is Float64 and null.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from aar_swarm.sweeps.experiment import flat

TABLE = "trials.parquet"
OWN = {
    "trial": pl.String,
    "status": pl.String,
    "reason": pl.String,
    "seed": pl.Int64,
    "seconds": pl.Float64,
    "host": pl.String,
    "cores": pl.Int64,
    "started_utc": pl.String,
    "directory": pl.String,
}
"""Columns of every table. cores: how many the trial had to itself."""


def row(record: Mapping[str, Any], summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """One trial's: what is known of it (OWN), its arguments and settings, then its summary.

    Of one name the first wins: a figure of the summary that is called as something asked for, as `agents`, is left out.
    """
    found = {name: record.get(name) for name in OWN}
    found["cores"] = None if record.get("cores") is None else len(record["cores"])
    asked = {**record["arguments"], **record["settings"]}
    for key, value in {**asked, **{k: v for k, v in flat(summary or {}).items() if k not in asked}}.items():
        if key not in found and (key in asked or value is None or isinstance(value, bool | int | float | str)):
            found[key] = value
    return found


def frame(rows: Sequence[Mapping[str, Any]], own: Mapping[str, type[pl.DataType]] = OWN) -> pl.DataFrame:
    """All rows, a missing figure null; the columns `own`, with their types, first."""
    names = dict.fromkeys([*own, *(name for each in rows for name in each)])
    inner = {name.rpartition(".")[0] for name in names}
    columns = []
    for name in names:
        values = [each.get(name) for each in rows]
        if name in inner and not any(value is not None for value in values):
            continue  # a table that some summaries have, and others null in its place
        kind = own.get(name) or _kind(values)
        if kind == pl.String:
            values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
        elif kind == pl.Float64:
            values = [None if v is None else float(v) for v in values]
        columns.append(pl.Series(name, values, dtype=kind))
    return pl.DataFrame(columns)


def _kind(values: Sequence[Any]) -> type[pl.DataType]:
    there = [value for value in values if value is not None]
    if there and all(isinstance(value, bool) for value in there):
        return pl.Boolean
    if any(not isinstance(value, int | float) or isinstance(value, bool) for value in there):
        return pl.String
    if there and all(isinstance(value, int) and -(1 << 63) <= value < 1 << 63 for value in there):
        return pl.Int64
    return pl.Float64


def write(directory: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Whole or not at all: a reader never sees half a table."""
    path = directory / TABLE
    part = path.with_suffix(".part")
    frame(rows).write_parquet(part)
    os.replace(part, path)
    return path
