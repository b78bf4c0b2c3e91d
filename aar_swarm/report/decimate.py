"""Fewer points for a plot, and still every extreme of it.

Owns which rows of a long series are drawn. It only ever drops rows: it never averages, moves or invents one.
"""

from collections.abc import Sequence

import polars as pl


def bins_for(pictures_count: int) -> int:
    """How many bins a plot has: more than one a pixel of its column, and a page of a few MB for any number of runs."""
    return max(500, min(2_000, 3_000 // max(pictures_count, 1)))


def decimate(frame: pl.DataFrame, columns: Sequence[str], bins: int, time: str = "time_ms") -> pl.DataFrame:
    """Cut the time span into equal bins and keep, in each, the rows that its drawing depends on.

    Kept of every bin: the first and the last row, and for each column the rows of its smallest and its largest value,
    and the first and the last row where it is null (a side of the book that is empty is an extreme too). So a line
    drawn through the rows kept covers the same pixels as one through all of them.

    Args: frame: sorted by `time`; columns: the ones that are drawn.
    Returns: the frame itself when it is short already, else the rows kept, in their order.
    """
    if frame.height <= 4 * bins:
        return frame
    start, end = float(frame[time][0]), float(frame[time][-1])
    width = (end - start) / bins or 1.0
    bin_of_row = ((pl.col(time).cast(pl.Float64) - start) / width).floor().clip(0, bins - 1).cast(pl.Int64)
    row = pl.col("_row")
    kept = [row.first().alias("first"), row.last().alias("last")]
    for name in columns:
        column = pl.col(name)
        kept.append(row.filter(column == column.min()).first().alias(f"{name} min"))
        kept.append(row.filter(column == column.max()).first().alias(f"{name} max"))
        kept.append(row.filter(column.is_null()).first().alias(f"{name} first null"))
        kept.append(row.filter(column.is_null()).last().alias(f"{name} last null"))
    chosen = frame.with_row_index("_row").with_columns(_bin=bin_of_row).group_by("_bin").agg(kept).drop("_bin")
    rows = pl.concat([chosen[name] for name in chosen.columns]).drop_nulls().unique().sort()
    return frame[rows]


def decimate_around(
    frame: pl.DataFrame, columns: Sequence[str], bins: int, event_ms: tuple[float, float], time: str = "time_ms"
) -> pl.DataFrame:
    """As `decimate`, in three parts: before, during and after an event, each with half as many bins. The event may be
    short against the rest; who enlarges it still finds its detail."""
    before, after = pl.col(time) < event_ms[0], pl.col(time) > event_ms[1]
    parts = (frame.filter(before), frame.filter(~before & ~after), frame.filter(after))
    return pl.concat([decimate(part, columns, bins // 2, time) for part in parts])


def with_ends(frame: pl.DataFrame, columns: Sequence[str], time: str) -> pl.DataFrame:
    """Say a value once more where null follows it, so that a line of steps shows it for as long as it was in force.

    Args: columns: drawn as steps, each value in force until the next row.
    Returns: the frame with one row more before each row where one of the columns becomes null.
    """
    ends = pl.any_horizontal(pl.col(name).is_null() & pl.col(name).shift(1).is_not_null() for name in columns)
    indexed = frame.with_row_index("_row").cast({"_row": pl.Int64}).with_columns(_row=2 * pl.col("_row"))
    again = indexed.with_columns(pl.col(name).shift(1) for name in frame.columns if name != time)
    again = again.with_columns(_row=pl.col("_row") - 1).filter(indexed.select(ends).to_series().fill_null(False))
    return pl.concat([indexed, again]).sort("_row").drop("_row")
