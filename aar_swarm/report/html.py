"""The pieces of the page around the plots: cards, tables, sections, glossary. Every text that comes in is escaped here.

Owns HTML. Must not know Bokeh: a plot is a string of HTML to it. Nothing it writes refers to anything outside the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import groupby

import polars as pl

from aar_swarm.report import formats, story, words
from aar_swarm.report.picture import Picture
from aar_swarm.report.rows import Row, rows_for

# The page may run its own scripts and show its own images; whatever would reach for the network is refused.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; connect-src data: blob:; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Section:
    """One part of the page, with its name in the navigation; `body` is HTML, the rest text."""

    name: str
    short: str
    heading: str
    how_to_read: str
    body: str


def page(title: str, labels: str, head: str, sections: Sequence[Section], notes: str, script: str) -> str:
    """The whole document. `head` and `script` are the plot library's, and already HTML."""
    nav = "".join(f'<a href="#{part.name}">{escape(part.short)}</a>' for part in sections)
    style = files("aar_swarm.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n{head}\n</head>\n"
        f'<body>\n<header><h1>{escape(title)}</h1><p class="sub">{escape(labels)}</p>'
        f'<nav aria-label="On this page">{nav}</nav></header>\n<main>\n'
        + "\n".join(_section(part) for part in sections)
        + f"\n</main>\n<footer>{notes}</footer>\n{script}\n</body>\n</html>\n"
    )


def _section(part: Section) -> str:
    intro = f'<p class="how">{escape(part.how_to_read)}</p>' if part.how_to_read else ""
    title = f'<h2 id="h-{part.name}">{escape(part.heading)}</h2>'
    return f'<section id="{part.name}" aria-labelledby="h-{part.name}">{title}{intro}{part.body}</section>'


def columns(cells: Sequence[str], most: int = 4) -> str:
    """Cells side by side; more than `most` go on in the next row, in rows as even as can be."""
    count = len(cells)
    wide = count if count <= most else 3 if count in (5, 6, 9) else most
    return f'<div class="columns n{wide}">{"".join(cells)}</div>'


def plot_cell(label: str, kind: str, plots: Sequence[str], caption: str, decimated: str = "", table: str = "") -> str:
    """One run's plot(s) under its label, with the caption that says in words what they show."""
    small = f' <span class="note">{escape(decimated)}</span>' if decimated else ""
    text = f"<figcaption>{escape(caption)}{small}</figcaption>" if caption or small else ""
    return (
        f'<figure aria-label="{escape(f"{kind}, {label}. {caption}")}"><h3>{escape(label)}</h3>'
        f"{''.join(plots)}{text}{table}</figure>"
    )


def card(picture: Picture) -> str:
    """A run at a glance: how it ended, and the four figures that say how bad it was."""
    summary = picture.summary
    halted = True if picture.trip_ms is not None else summary.get("halted")
    badge = ""
    if halted is not None:
        badge = f' <span class="badge {"halted" if halted else "open"}">{"halted" if halted else "not halted"}</span>'
    shown = {f"{row.group}/{row.name}": row.value(summary) for row in rows_for([summary])}
    figures = "".join(
        f"<div><dt>{name}</dt><dd>{escape(shown[f'Outcome/{name}'])}</dd></div>"
        for name in ("Drawdown", "Loss of the crowd", "AAR ratio", "Illusion ratio")
    )
    return (
        f'<article class="card"><h3>{escape(picture.label)}{badge}</h3><dl>{figures}</dl>'
        f"<p>{escape(story.outcome(picture))}</p></article>"
    )


def figures_table(pictures: Sequence[Picture]) -> str:
    """Rows are figures, columns are runs."""
    rows = rows_for([p.summary for p in pictures])
    head = "".join(f'<th scope="col">{escape(p.label)}</th>' for p in pictures)
    bodies = []
    for group, members in groupby(rows, key=lambda row: row.group):
        lines = "".join(_table_row(row, pictures) for row in members)
        bodies.append(
            f'<tbody><tr><th class="group" scope="rowgroup" colspan="{len(pictures) + 1}">{escape(group)}</th></tr>'
            f"{lines}</tbody>"
        )
    return (
        f'<div class="scroll"><table class="figures"><thead><tr><th scope="col">Figure</th>{head}</tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )


def _table_row(row: Row, pictures: Sequence[Picture]) -> str:
    name = f'<a href="#g-{row.term}">{escape(row.name)}</a>' if row.term else escape(row.name)
    code = ' class="code"' if row.keys == ("state_hash",) else ""
    cells = "".join(f"<td{code}>{_unbroken(row.value(p.summary))}</td>" for p in pictures)
    unit = ' <span class="unit">p50 / p99 / p99.9 / max</span>' if row.term == "quantiles" else ""
    return f'<tr><th scope="row">{name}{unit}</th>{cells}</tr>'


def _unbroken(value: str) -> str:
    """A number stays on one line with its unit; a list of them breaks between its parts."""
    return escape(value).replace(" ", "&nbsp;").replace("&nbsp;/&nbsp;", "&nbsp;/ ")


def losses_table(losses: pl.DataFrame) -> str:
    """The same as the bars, in figures, with the sum over everyone as a check."""
    if losses.is_empty():
        return ""
    heads = ("Participants", "Agents", "Lost", "Per agent", "Worst agent", "Sold, lots", "Bought, lots")
    columns = [[formats.text(name) for name in losses["participants"]], [formats.count(n) for n in losses["agents"]]]
    for name in ("loss", "loss_per_agent", "worst_loss"):
        decimals = formats.money_decimals(losses[name])
        columns.append([formats.money(amount, decimals) for amount in losses[name]])
    columns += [[formats.count(lots) for lots in losses[name]] for name in ("sold_lots", "bought_lots")]
    lines = zip(*columns, strict=True)
    sums = {name: losses[name].sum() for name in ("agents", "loss", "sold_lots", "bought_lots")}
    total = ["Sum", formats.count(sums["agents"]), formats.money(sums["loss"], formats.money_decimals(losses["loss"])),
             "", "", formats.count(sums["sold_lots"]), formats.count(sums["bought_lots"])]  # fmt: skip
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = "".join(_plain_row(line) for line in lines)
    return (
        f'<div class="scroll"><table class="losses"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        f"<tfoot>{_plain_row(total)}</tfoot></table></div>"
    )


def _plain_row(cells: Sequence[str]) -> str:
    rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells[1:])
    return f'<tr><th scope="row">{escape(cells[0])}</th>{rest}</tr>'


def bullets(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def definitions(conditions: Mapping[str, str]) -> str:
    """Name and value, side by side."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in conditions.items())
    return f'<dl class="conditions">{items}</dl>'


def glossary() -> str:
    entries = "".join(
        f'<div id="g-{name}"><dt>{escape(term)}</dt><dd>{escape(meaning)}</dd></div>'
        for name, term, meaning in words.GLOSSARY
    )
    return f'<dl class="glossary">{entries}</dl>'


def footer(plot_library_version: str) -> str:
    return (
        "<p>This page is complete in itself: it loads nothing from the network, and its security policy forbids it to. "
        f"Plots: Bokeh {escape(plot_library_version)}.</p>"
    )
