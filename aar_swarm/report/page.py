"""The report page of one run, or of several side by side: one HTML file that opens offline.

Owns the order of the page and the file. How a plot looks is in `plots`, the words in `story` and `words`. Must not
compute what a figure means (a `Picture` brings it), nor load anything, from the network or from the run directory.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bokeh import __version__ as bokeh_version
from bokeh.embed import components
from bokeh.model import Model
from bokeh.models import FactorRange, Range1d
from bokeh.plotting import figure
from bokeh.resources import Resources

from aar_swarm.report import html, plots, story, words
from aar_swarm.report.decimate import bins_for
from aar_swarm.report.look import shared_range
from aar_swarm.report.picture import Picture
from aar_swarm.report.views import Views, views_of

__all__ = ["Picture", "write_report"]


def write_report(
    path: Path, title: str, pictures: Sequence[Picture], conditions: Mapping[str, str] | None = None
) -> None:
    """Write the page, replacing the file if there is one.

    Args: pictures: one or more runs, left to right. conditions: name -> value, what the numbers were measured under.
    Raises: ValueError without a picture.
    """
    if not pictures:
        raise ValueError(f"{path}: a report needs at least one run, got none")
    views = views_of(pictures)
    plot_of = _plots(pictures, views)
    models: dict[str, Model] = {**plot_of}
    script, divs = components(models)

    def row(kind: str, names: Sequence[str], caption: Callable[[Picture], str], tables: bool = False) -> str:
        """One cell a run: the plots of these names, one above the other, and what they say."""
        cells = []
        for i, p in enumerate(pictures):
            keys = [f"{name}-{i}" for name in names]
            drawn = _drawn([plot_of[key] for key in keys])
            table = html.losses_table(p.losses) if tables else ""
            cells.append(html.plot_cell(p.label, kind, [divs[key] for key in keys], caption(p), drawn, table))
        return html.columns(cells)

    first_ms = views.stampede_ms
    glance = html.columns([html.card(p) for p in pictures]) + html.figures_table(pictures)
    section = html.Section
    sections = [
        section("figures", "What happened", "What happened", words.HOW_FIGURES, glance),
        section("price", "Price", "Price path", words.HOW_PRICE,
                row("Price path", ["price"], lambda p: story.price(p, views))),
        section("depth", "Depth", "Depth", words.HOW_DEPTH, row("Depth", ["depth"], story.depth)),
        section("load", "Order flow", f"Order flow around {pictures[0].anchor_name}", words.HOW_LOAD,
                row("Order flow", ["load"], lambda p: story.load(p, first_ms))),
        section("zoom", "First moments", f"The first {first_ms:,} ms", words.HOW_ZOOM,
                row("Price and order flow, enlarged", ["zoom-price", "zoom-load"], story.fall)),
        section("losses", "Who lost what", "Who lost what", words.HOW_LOSSES,
                row("Loss by class of participants", ["loss"], lambda p: "", tables=True)),
    ]  # fmt: skip
    if "liquidations-0" in plot_of:
        body = row("Liquidations", ["liquidations"], story.liquidations)
        sections.append(section("liquidations", "Liquidations", "Liquidations", words.HOW_LIQUIDATIONS, body))
    if "coin-0" in plot_of:
        body = row("Price of the stablecoin", ["coin"], story.coin)
        sections.append(section("coin", "Stablecoin", "Price of the stablecoin", words.HOW_COIN, body))
    parts = [name for name in ("losers-leverage", "losers-speed") if f"{name}-0" in plot_of]
    if parts:
        body = row("Loss by leverage and by speed", parts, lambda p: "")
        heading = "Who lost, by " + " and ".join(name.removeprefix("losers-") for name in parts)
        sections.append(section("losers", "By leverage, speed", heading, words.HOW_LOSERS, body))
    said = html.bullets(story.cautions(pictures)) + html.definitions(conditions or {})
    sections += [
        section("conditions", "Conditions", "Conditions", "", said),
        section("glossary", "Glossary", "Glossary", "", html.glossary()),
    ]
    labels = " · ".join(p.label for p in pictures)
    head = Resources(mode="inline", components=["bokeh"]).render()
    path.write_text(html.page(title, labels, head, sections, html.footer(bokeh_version), script), encoding="utf-8")


def _plots(pictures: Sequence[Picture], views: Views) -> dict[str, figure]:
    """Every plot by its name. The runs of a row share both ranges; price and depth share the time as well."""
    session, wide, zoom = (shared_range(ends) for ends in (views.session_ms, views.wide_ms, views.zoom_ms))
    price, depth, zoom_price = (shared_range(ends) for ends in (views.price, views.depth_lots, views.zoom_price))
    load, zoom_load, loss = (shared_range(ends) for ends in (views.wide_load, views.zoom_load, views.loss))
    who = list(dict.fromkeys(name for p in pictures for name in p.losses["participants"]))
    classes = FactorRange(factors=who[::-1])
    bins = bins_for(len(pictures))
    event = views.zoom_ms
    made: dict[str, figure] = {}
    for i, p in enumerate(pictures):
        made[f"price-{i}"] = plots.price_plot(p, session, price, height=390, bins=bins, event_ms=event, zoom=False)
        made[f"depth-{i}"] = plots.depth_plot(p, session, depth, height=270, bins=bins, event_ms=event)
        made[f"load-{i}"] = plots.load_plot(p, wide, load, height=290, bins=bins, window_ms=views.wide_ms)
        made[f"zoom-price-{i}"] = plots.price_plot(
            p, zoom, zoom_price, height=340, bins=bins, event_ms=event, zoom=True
        )
        made[f"zoom-load-{i}"] = plots.load_plot(p, zoom, zoom_load, height=270, bins=bins, window_ms=event)
        made[f"loss-{i}"] = plots.loss_plot(p, loss, classes)
    made.update(_crisis_plots(pictures, session))
    return made


def _crisis_plots(pictures: Sequence[Picture], session: Range1d) -> dict[str, figure]:
    """What only some runs have: liquidations, a stablecoin, losses by leverage and speed."""
    made: dict[str, figure] = {}
    if any(p.liquidations.height for p in pictures):
        most = max(float(p.liquidations[name].max() or 0) for p in pictures for name in ("margin", "loans"))  # type: ignore[arg-type]
        counts = shared_range((0.0, 1.3 * max(most, 1.0)))
        made.update({f"liquidations-{i}": plots.liquidations_plot(p, session, counts) for i, p in enumerate(pictures)})
    if any(p.coin.height for p in pictures):
        prices = [price * p.tick_size for p in pictures for price in p.coin["price_ticks"]]
        margin = 0.15 * ((max(prices) - min(prices)) or 0.01)
        ends = shared_range((min(prices) - margin, max(prices) + 2 * margin))
        made.update({f"coin-{i}": plots.coin_plot(p, session, ends) for i, p in enumerate(pictures)})
    for dimension in ("leverage", "speed"):
        tables = [p.losers.filter(dimension=dimension) for p in pictures]
        buckets = list(dict.fromkeys(bucket for table in tables for bucket in table["bucket"]))
        if len(buckets) < 2:
            continue
        for i, (p, table) in enumerate(zip(pictures, tables, strict=True)):
            made[f"losers-{dimension}-{i}"] = plots.losers_plot(p, table, buckets, dimension)
    return made


def _drawn(figures: Sequence[figure]) -> str:
    """How much of each decimated series is drawn; empty where all of it is."""
    cut = [tag for fig in figures for tag in fig.tags]
    return f"Drawn: {', '.join(cut)}; {words.DECIMATED}." if cut else ""
