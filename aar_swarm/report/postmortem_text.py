"""A post-mortem in the terminal: the chain as a tree, then where it could have been stopped, then the defences."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from aar_swarm.report import postmortem_words as words

_MOST_DECISIONS = 10
_TOP_SHOWN = 3


def parts(found: Mapping[str, Any]) -> Iterator[Any]:
    """What to print, one after the other."""
    yield Text(words.headline(found), style="bold")
    if not found["fell"]:
        return
    yield _chain(found)
    for name, title in words.PATHS.items():
        if name in found["paths"]:
            yield _path(title, found["paths"][name])
    yield _decisions(found)
    yield _stops(found)
    yield Text(words.supervisor(found))
    yield _defences(found)
    yield Text(found["caveat"], style="italic")


def _chain(found: Mapping[str, Any]) -> Tree:
    tree = Tree(Text("First cause: " + words.cause(found)[0], style="bold"))
    for line in words.cause(found)[1:]:
        tree.add(Text(line))
    for step in found["chain"]:
        branch = tree.add(Text(words.step_title(step), style="bold"))
        for line in words.step_lines(step, found["subject"]):
            branch.add(Text(line))
        moved = [order for order in step["orders_that_moved_it_most"] if order["bid_lowered_ticks"]]
        if moved:
            leaves = branch.add(Text("Orders that took the bids down furthest:"))
            for order in moved[:_TOP_SHOWN]:
                leaves.add(Text(words.order_line(order)))
    return tree


def _path(title: str, links: list[Mapping[str, Any]]) -> Tree:
    tree = Tree(Text(f"{title}: {words.links(len(links) - 1)}", style="bold"))
    for link in words.shortened(links):
        tree.add(Text(f"… {len(links) - 10} more …" if link is None else words.link_line(link)))
    return tree


def _table(title: str, heads: list[str], left: int = 1, whole: bool = False) -> Table:
    """left: how many columns are text; whole: whether the first one keeps to one line in a narrow terminal."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for number, head in enumerate(heads):
        table.add_column(
            head, justify="left" if number < left else "right", overflow="fold", no_wrap=whole and number == 0
        )
    return table


def _decisions(found: Mapping[str, Any]) -> Table:
    title = "Who decided what, by rule and root; the last three columns until the trough"
    table = _table(title, list(words.DECISION_HEADS), 3)
    for row in found["decisions"][:_MOST_DECISIONS]:
        table.add_row(*words.decision_row(row))
    return table


def _stops(found: Mapping[str, Any]) -> Table:
    heads = [head.format(found["subject"]) for head in words.STOP_HEADS]
    table = _table("Where it could have been stopped, and what was still to come", heads)
    for stop in found["stops"]:
        if stop["at"] is not None:
            table.add_row(*words.stop_row(stop))
    return table


def _defences(found: Mapping[str, Any]) -> Table:
    heads = [head.format(found["subject"]) for head in words.DEFENCE_HEADS]
    table = _table("What each defence would have done to the same messages", heads, whole=True)
    for row in words.defence_rows(found):
        table.add_row(*row)
    return table
