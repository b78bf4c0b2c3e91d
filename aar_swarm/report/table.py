"""The figures of one or more runs as a terminal table.

Owns the terminal's look. The rows are those of the report page (`rows`), so the two never disagree.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from aar_swarm.report.rows import rows_for


def summary_table(labels: Sequence[str], summaries: Sequence[Mapping[str, Any]]) -> Table:
    """One row a figure, one right-aligned column a run.

    Args: labels: the name of each run; summaries: their summary.json, in the same order.
    Raises: ValueError when there is not one label a summary.
    """
    if len(labels) != len(summaries):
        raise ValueError(f"{len(labels)} labels for {len(summaries)} summaries: give one label a run")
    table = Table(box=box.SIMPLE_HEAD, caption="– does not apply   latencies: p50 / p99 / p99.9 / max")
    table.add_column("Figure", justify="left", no_wrap=True)
    for label in labels:
        table.add_column(Text(label), justify="right", overflow="fold")
    group = None
    for row in rows_for(summaries):
        if row.group != group:
            if group is not None:
                table.add_section()
            table.add_row(Text(row.group, style="bold"))
            group = row.group
        table.add_row(Text("  " + row.name), *(Text(_compact(row.value(summary))) for summary in summaries))
    return table


def _compact(value: str) -> str:
    """Several figures in one cell, without the space before each unit: so a narrow terminal breaks between them."""
    parts = value.split(" / ")
    return value if len(parts) == 1 else " / ".join(part.replace(" ", "") for part in parts)
