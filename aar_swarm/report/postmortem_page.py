"""The page of a post-mortem: one HTML file that opens offline, with the chain drawn.

Owns the order of the page and its tables. How a plot looks is in postmortem_plots, the words in postmortem_words.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from bokeh import __version__ as bokeh_version
from bokeh.embed import components
from bokeh.model import Model
from bokeh.resources import Resources

from aar_swarm.analysis.chain import RULES, Chain
from aar_swarm.analysis.session import Session
from aar_swarm.report import html
from aar_swarm.report import postmortem_plots as plots
from aar_swarm.report import postmortem_words as words
from aar_swarm.report.look import shared_range
from exchange.clock import MS
from exchange.types import DECISION_COMMANDS

_HOW = {
    "chain": "Read from left to right: decisions move the price, the price forces sales and makes others decide, and "
    "so on. Steps begin at what is named below them; the parts of a loss add up to the whole.",
    "price": "Each dot is a trade; the numbers are the beginnings of the steps.",
    "stops": "The loss still to come at each moment: what its accounts were worth then, at the mids, less what they "
    "were worth before the close.",
    "depth": "Each dot is a decision: how many links lie between it and the news that it goes back to. The line is the "
    "path to the trade at the trough.",
    "paths": "One line a link: what was done, and in brackets why it belongs to the line above it. “Had heard of it "
    "last” is what the participant had heard last when it decided; whether that was why, only its rule can say.",
    "decisions": "By participants, rule and root. The last three columns count until the trough only.",
    "defences": "",
}
_MOST_DECISIONS = 25


def write_page(path: Path, found: Mapping[str, Any], chain: Chain | None, session: Session) -> None:
    """Write the page, replacing the file if there is one. chain: None if nothing fell."""
    title = f"Post-mortem: {found['scenario']}"
    label = f"breaker {found.get('breaker')}, seed {found.get('seed')}, {found['commands']:,} commands"
    lead = f'<p class="finding">{escape(words.headline(found))}</p>'
    script = ""
    if chain is None:
        sections = [html.Section("chain", "Chain", "The chain", "", lead)]
    else:
        sections, script = _sections(found, chain, session, lead)
    head = Resources(mode="inline", components=["bokeh"]).render()
    path.write_text(html.page(title, label, head, sections, html.footer(bokeh_version), script), encoding="utf-8")


def _sections(found: Mapping[str, Any], chain: Chain, session: Session, lead: str) -> tuple[list[html.Section], str]:
    ends = plots.time_ends(found)
    x_range = shared_range(ends)
    tick_size = session.scenario.instrument.tick_size
    models: dict[str, Model] = {
        "chain": plots.chain_plot(found),
        "price": plots.price_plot(found, _trades(chain), x_range, ends, tick_size),
        "stops": plots.stops_plot(found, x_range, ends),
        "depth": plots.depth_plot(found, _commands(chain), x_range, ends),
        "saved": plots.saved_plot(found),
    }
    script, divs = components(models)
    section = html.Section
    said = html.bullets(words.cause(found))
    defences = f"<p>{escape(words.supervisor(found))}</p>{divs['saved']}{_defences(found)}"
    drawn = "".join(f'<p class="note">{escape(tag)}</p>' for tag in models["depth"].tags)
    steps = "".join(_step(step, found["subject"]) for step in found["chain"])
    by_defence = "What each defence would have done to the same messages"
    return [
        section("chain", "Chain", "The chain", _HOW["chain"], lead + said + divs["chain"]),
        section("price", "Price", "The price, and the loss still to come", _HOW["price"],
                f"{divs['price']}<p class=\"how\">{escape(_HOW['stops'])}</p>{divs['stops']}"),
        section("steps", "Steps", "Step by step", "", steps),
        section("defences", "Defences", by_defence, found["caveat"], defences),
        section("depth", "Depth", "Depth of causation", _HOW["depth"], divs["depth"] + drawn),
        section("paths", "Paths", "Link by link", _HOW["paths"], _paths(found)),
        section("decisions", "Decisions", "Who decided what", _HOW["decisions"], _decisions(found)),
        section("could", "Stops", "Where it could have been stopped", _HOW["stops"], _stops(found)),
    ], script  # fmt: skip


def _trades(chain: Chain) -> pl.DataFrame:
    fills = chain.session.fills
    zero_ns = int(chain.session.commands["received_ns"][chain.cause_sequence - 1])
    return pl.DataFrame({"time_ms": (fills["time_ns"] - zero_ns) / MS, "price_ticks": fills["price_ticks"]})


def _commands(chain: Chain) -> pl.DataFrame:
    session = chain.session
    commands = session.commands
    mine = np.isin(commands["kind"], DECISION_COMMANDS) & (commands["account"] < len(session.groups))
    zero_ns = int(commands["received_ns"][chain.cause_sequence - 1])
    return pl.DataFrame(
        {
            "sequence": commands["sequence"][mine],
            "ms": (commands["received_ns"][mine] - zero_ns) / MS,
            "depth": chain.causes.depth[mine],
            "participants": session.groups[commands["account"][mine]].tolist(),
            "rule": [RULES.get(rule, str(rule)) for rule in commands["rule"][mine].tolist()],
        }
    )


def _step(step: Mapping[str, Any], subject: str) -> str:
    lines = words.step_lines(step, subject)
    moved = [words.order_line(order) for order in step["orders_that_moved_it_most"] if order["bid_lowered_ticks"]]
    orders = ""
    if moved:
        orders = f'<p class="note">Orders that took the bids down furthest:</p>{html.bullets(moved)}'
    return f"<h3>{escape(words.step_title(step))}</h3>{html.bullets(lines)}{orders}"


def _paths(found: Mapping[str, Any]) -> str:
    parts = []
    for name, title in words.PATHS.items():
        links = found["paths"].get(name)
        if links:
            told = [
                f"… {len(links) - 30} more …" if link is None else words.link_line(link)
                for link in words.shortened(links, 30)
            ]
            parts.append(f"<h3>{escape(title)}: {escape(words.links(len(links) - 1))}</h3>{html.bullets(told)}")
    return "".join(parts)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="figures"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _defences(found: Mapping[str, Any]) -> str:
    heads = [head.format(found["subject"]) for head in words.DEFENCE_HEADS]
    settings = [f"{row['defence']}: {row['what']}" for row in found["defences"] if row["kind"] != "supervisor"]
    return _table(heads, words.defence_rows(found)) + html.bullets(settings)


def _decisions(found: Mapping[str, Any]) -> str:
    return _table(words.DECISION_HEADS, [words.decision_row(row) for row in found["decisions"][:_MOST_DECISIONS]])


def _stops(found: Mapping[str, Any]) -> str:
    heads = [head.format(found["subject"]) for head in words.STOP_HEADS]
    return _table(heads, [words.stop_row(stop) for stop in found["stops"] if stop["at"] is not None])
