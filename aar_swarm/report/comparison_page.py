"""The page of a comparison: the finding first, then the curves, the paths of all repeats and who lost.

Owns the order of the page and the file. Plots are in `comparison_plots`, sentences in `comparison_story`. Must not
compute what a figure means, nor load anything: every run's own report is beside it, and linked.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from bokeh import __version__ as bokeh_version
from bokeh.embed import components
from bokeh.models import Range1d
from bokeh.plotting import figure
from bokeh.resources import Resources

from aar_swarm.analysis.compared import (
    Estimate,
    Measure,
    Setting,
    dial_of,
    estimate,
    lines_of,
    measures_of,
)
from aar_swarm.analysis.statistics import interval
from aar_swarm.report import comparison_plots as plots
from aar_swarm.report import comparison_story as story
from aar_swarm.report import formats, html, look, words
from aar_swarm.report.picture import Picture
from aar_swarm.report.story import cautions
from aar_swarm.report.views import Range, views_of

_DIMENSIONS = (
    ("class", "loss", "By class", "Lost → (gained ←) by all of it, currency"),
    ("leverage", "loss_per_agent", "By leverage", "Lost → (gained ←) per agent, currency"),
    ("speed", "loss_per_agent", "By speed of the first command", "Lost → (gained ←) per agent, currency"),
)
_CARD_KEYS = ("drawdown_bps", "aar_ratio", "illusion_ratio", "liquidations", "loan_liquidations", "bad_debt",
              "loss_crowd")  # fmt: skip
_CARD_FIGURES, _MOST_CARDS = 4, 4


@dataclass(frozen=True)
class Shown:
    """One setting with the pictures of its repeats and the addresses of their own reports."""

    setting: Setting
    pictures: Sequence[Picture]
    reports: Sequence[str]
    """Relative to the page."""


def write_comparison_page(
    path: Path, title: str, vary: Mapping[str, Sequence[str]], shown: Sequence[Shown], conditions: Mapping[str, str]
) -> None:
    """Write the page, replacing the file if there is one.

    Raises: ValueError without a run.
    """
    pictures = [picture for each in shown for picture in each.pictures]
    if not pictures:
        raise ValueError(f"{path}: a comparison needs at least one run that finished")
    settings = [each.setting for each in shown]
    drawn: dict[str, figure] = {}
    holes: list[Callable[[Mapping[str, str]], html.Section]] = [
        _finding(vary, settings, shown),
        *_curves(drawn, vary, settings),
        *_paths(drawn, shown, pictures),
        _figures(settings),
        *_losers(drawn, vary, shown),
    ]
    script, divs = components({**drawn})
    sections = [hole(divs) for hole in holes]
    said = html.bullets([words.COMPARED, *cautions(pictures)[:-1]])
    sections += [
        html.Section("runs", "Runs", "The runs", words.HOW_RUNS, _runs(shown)),
        html.Section("conditions", "Conditions", "Conditions", "", said + html.definitions(conditions)),
        html.Section("glossary", "Glossary", "Glossary", "", html.glossary()),
    ]
    labels = " · ".join(f"{key}: {', '.join(values)}" for key, values in vary.items())
    head = Resources(mode="inline", components=["bokeh"]).render()
    path.write_text(html.page(title, labels, head, sections, html.footer(bokeh_version), script), encoding="utf-8")


Hole = Callable[[Mapping[str, str]], html.Section]
"""A section that still waits for the HTML of its plots, by their names."""


def _finding(vary: Mapping[str, Sequence[str]], settings: Sequence[Setting], shown: Sequence[Shown]) -> Hole:
    first, *more = story.finding(vary, settings)
    failed = [f"{setting.label}: {reason}" for setting in settings for reason in setting.failures]
    text = f'<p class="finding">{escape(first)}</p>' + (html.bullets(more) if more else "")
    if failed:
        text += f'<p class="failed">Failed, and left out: {escape("; ".join(failed))}</p>'
    if len(settings) <= _MOST_CARDS:
        text += html.columns([_card(each, settings) for each in shown])
    section = html.Section("finding", "Finding", "What was found", "", text)
    return lambda _: section


def _card(each: Shown, settings: Sequence[Setting]) -> str:
    """A setting at a glance: how often the market was halted, and its main figures."""
    halted = sum(1 for summary in each.setting.summaries if summary.get("halted"))
    count = len(each.setting.summaries)
    of = f" in {halted} of {count}" if count > 1 and halted else ""
    badge = f'<span class="badge {"halted" if halted else "open"}">{"halted" if halted else "not halted"}{of}</span>'
    applying = {measure.key: measure for measure in measures_of(settings)}
    cells = []
    for measure in [applying[key] for key in _CARD_KEYS if key in applying][:_CARD_FIGURES]:
        mean, rest = story.cell(each.setting, measure)
        unit = f" {measure.unit}" if measure.unit and mean != formats.DASH else ""
        small = f' <span class="note">{escape(rest)}</span>' if rest else ""
        cells.append(f"<div><dt>{escape(measure.name)}</dt><dd>{escape(mean + unit)}{small}</dd></div>")
    runs = f"{count} run{'' if count == 1 else 's'}"
    return (
        f'<article class="card"><h3>{escape(each.setting.label)} {badge if count else ""}</h3>'
        f"<dl>{''.join(cells)}</dl><p>{escape(runs)}</p></article>"
    )


def _curves(drawn: dict[str, figure], vary: Mapping[str, Sequence[str]], settings: Sequence[Setting]) -> list[Hole]:
    """A panel a measure: over the dial, or over the settings if none of them is a number."""
    if len(settings) < 3:
        return []
    dial = dial_of(vary)
    measures = [m for m in measures_of(settings) if story.differs(settings, m)]
    if not measures:
        return []
    cells, legend = [], ""
    for measure in measures:
        name = f"curve-{measure.key}"
        if dial is None:
            drawn[name] = _categorical_panel(measure, settings)
            cells.append((measure, name, ""))
            continue
        lines = lines_of(settings, dial)
        tints = plots.colours(len(lines), ordered=False)
        legend = _legend([line.label for line in lines], tints) if len(lines) > 1 else ""
        curves = [
            plots.Curve(line.label, tint, [(x, found, setting.figures(measure.key)) for x, setting in line.points
                                           if (found := estimate(setting, measure)) is not None])
            for line, tint in zip(lines, tints, strict=True)
        ]  # fmt: skip
        xs = sorted({x for line in lines for x, _ in line.points})
        drawn[name] = plots.panel(measure, curves, dial, xs)
        cells.append((measure, name, " ".join(story.dial_sentence(dial, line, measure) for line in lines)))
    heading = f"The dial: {dial}" if dial is not None else "Setting by setting"
    how = words.HOW_CURVES if dial is not None else words.HOW_PANELS

    def section(divs: Mapping[str, str]) -> html.Section:
        body = html.columns(
            [html.plot_cell(story.heading(m), "Means", [divs[name]], caption) for m, name, caption in cells], most=3
        )
        return html.Section("curves", "Dial" if dial is not None else "Settings", heading, how, legend + body)

    return [section]


def _categorical_panel(measure: Measure, settings: Sequence[Setting]) -> figure:
    places = [", ".join(setting.values.values()) for setting in settings]
    points = [(place, found, setting.figures(measure.key)) for place, setting in zip(places, settings, strict=True)
              if (found := estimate(setting, measure)) is not None]  # fmt: skip
    curve = plots.Curve("", look.BID, points)
    return plots.panel(measure, [curve], ", ".join(settings[0].values), places)


def _paths(drawn: dict[str, figure], shown: Sequence[Shown], pictures: Sequence[Picture]) -> list[Hole]:
    """Price, depth, orders, liquidations and the coin over time: one column a setting, the same scales in each."""
    views = views_of(pictures)
    session = _session(pictures)
    zoom = views.zoom_ms
    decimals = "0,0." + "0" * formats.tick_decimals(pictures[0].tick_size)
    holes = [
        _path_row(drawn, shown, "price", "Price", "Price paths", words.HOW_PATHS, plots.price_path, session,
                  _without_headroom(views.price), "Price", decimals, 300, _fell),
        _path_row(drawn, shown, "zoom", "First moments", f"The first {views.stampede_ms:,} ms", words.HOW_FIRST,
                  plots.price_path, zoom, _without_headroom(views.zoom_price), "Price", decimals, 260, lambda each: ""),
        _rate_row(drawn, shown, "load", "Order flow", "Orders at the door", words.HOW_ORDERS, "load",
                  (("orders", look.ORDERS, "Orders received"),), zoom),
        _path_row(drawn, shown, "depth", "Depth", "Bid depth", words.HOW_BID_DEPTH, plots.depth_path, session,
                  views.depth_lots, "Lots within 1 % of mid", "0,0", 240, lambda each: ""),
    ]  # fmt: skip
    if (window := _liquidation_window(pictures)) is not None:
        columns = (("margin", look.LOST, "Margin accounts"), ("loans", look.GAINED, "Loans"))
        holes.append(_rate_row(drawn, shown, "liquidations", "Liquidations", "Liquidations", words.HOW_LIQUIDATIONS,
                               "liquidations", columns, window))  # fmt: skip
    coins = [plots.coin_path(picture)[1] for picture in pictures if picture.coin.height and picture.coin_par_ticks]
    if coins:
        low, high = min(float(c.min()) for c in coins), max(float(c.max()) for c in coins)
        margin = 0.1 * ((high - low) or 0.01)
        holes.append(_path_row(drawn, shown, "coin", "Stablecoin", "Price of the stablecoin", words.HOW_COIN,
                               plots.coin_path, session, (low - margin, high + margin), "Share of par", "0.000", 240,
                               lambda each: ""))  # fmt: skip
    return holes


def _path_row(
    drawn: dict[str, figure], shown: Sequence[Shown], name: str, short: str, heading: str, how: str,
    path_of: Callable[[Picture], plots.Path], x: Range, y: Range, y_label: str, y_format: str, height: int,
    caption: Callable[[Shown], str],
) -> Hole:  # fmt: skip
    x_range, y_range = look.shared_range(x), look.shared_range(y)
    runs = sum(len(each.pictures) for each in shown)
    for at, each in enumerate(shown):
        paths = [path_of(picture) for picture in each.pictures]
        fig = plots.paths_plot(paths, x_range, y_range, y_label, height=height, runs=runs, y_format=y_format)
        _mark(fig, each.pictures, x_range)
        drawn[f"{name}-{at}"] = fig
    return _row(shown, name, short, heading, how, caption)


def _rate_row(
    drawn: dict[str, figure], shown: Sequence[Shown], name: str, short: str, heading: str, how: str, frame: str,
    columns: Sequence[tuple[str, str, str]], window: Range,
) -> Hole:  # fmt: skip
    found = [plots.rates(each.pictures, frame, column, window) for each in shown for column, _, _ in columns]
    most = max((float(heights.max()) for heights in found if heights is not None and len(heights)), default=0.0)
    x_range, y_range = look.shared_range(window), look.shared_range((0.0, 1.1 * max(most, 1.0)))
    for at, each in enumerate(shown):
        fig = plots.rate_plot(each.pictures, frame, columns, x_range, y_range)
        _mark(fig, each.pictures, x_range)
        drawn[f"{name}-{at}"] = fig

    def caption(each: Shown) -> str:
        fullest = [max((int(getattr(p, frame)[c].max() or 0) for c, _, _ in columns), default=0) for p in each.pictures]
        return f"Fullest ms of each run: {', '.join(f'{most:,}' for most in fullest)}." if fullest else ""

    return _row(shown, name, short, heading, how, caption)


def _row(
    shown: Sequence[Shown], name: str, short: str, heading: str, how: str, caption: Callable[[Shown], str]
) -> Hole:
    def section(divs: Mapping[str, str]) -> html.Section:
        cells = [html.plot_cell(each.setting.label, heading, [divs[f"{name}-{at}"]], caption(each))
                 for at, each in enumerate(shown)]  # fmt: skip
        return html.Section(name, short, heading, how, html.columns(cells))

    return section


def _mark(fig: figure, pictures: Sequence[Picture], x_range: Range1d) -> None:
    """The signal's line; and the halt's, at the median of the runs that were halted."""
    if any(picture.signal_ms is not None for picture in pictures):
        look.mark_time(fig, 0.0, "signal", look.SIGNAL, "dashed", left=_place(0.0, x_range) > 0.15)
    trips = [picture.trip_ms - picture.anchor_ms for picture in pictures if picture.trip_ms is not None]
    if trips:
        middle = float(np.median(trips))
        of = f" in {len(trips)} of {len(pictures)}" if len(pictures) > 1 else ""
        left = _place(middle, x_range) > 0.6
        look.mark_time(fig, middle, f"halt{of}\n+{formats.milliseconds(middle)}", look.TRIP, "solid", left=left,
                       lines_down=1 if left else 0)  # fmt: skip


def _place(x: float, x_range: Range1d) -> float:
    start, end = float(x_range.start), float(x_range.end)  # type: ignore[arg-type]
    return (x - start) / ((end - start) or 1.0)


def _fell(each: Shown) -> str:
    """How far it fell, in words."""
    measure = next(m for m in measures_of([each.setting]) or [Measure("drawdown_bps", "Drawdown", "bps")])
    return f"{measure.name}: {story.told(each.setting, measure)}." if each.setting.summaries else "No run finished."


def _figures(settings: Sequence[Setting]) -> Hole:
    """Every measure; one column a setting, or, of more than four, one row."""
    measures = measures_of(settings)
    across = len(settings) <= _MOST_CARDS

    def mean(setting: Setting, measure: Measure) -> str:
        text, rest = story.cell(setting, measure)
        small = f' <span class="note">{escape(rest)}</span>' if rest else ""
        return f"<td>{escape(text)}{small}</td>"

    def name(measure: Measure) -> str:
        text = escape(story.heading(measure))
        return f'<a href="#g-{measure.term}">{text}</a>' if measure.term else text

    if across:
        head = "".join(f'<th scope="col">{escape(setting.label)}</th>' for setting in settings)
        rows = [f'<tr><th scope="row">{name(m)}</th>{"".join(mean(s, m) for s in settings)}</tr>' for m in measures]
    else:
        head = "".join(f'<th scope="col">{name(measure)}</th>' for measure in measures)
        rows = [f'<tr><th scope="row">{escape(s.label)}</th>{"".join(mean(s, m) for m in measures)}</tr>'
                for s in settings]  # fmt: skip
    corner = "Figure" if across else "Setting"
    table = (
        f'<div class="scroll"><table class="figures compared"><thead><tr><th scope="col">{corner}</th>{head}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    section = html.Section("figures", "Figures", "Every measure", words.HOW_COMPARED, table)
    return lambda _: section


def _losers(drawn: dict[str, figure], vary: Mapping[str, Sequence[str]], shown: Sequence[Shown]) -> list[Hole]:
    tints = plots.colours(len(shown), ordered=dial_of(vary) is not None)
    cells: list[tuple[str, str]] = []
    for dimension, column, heading, x_label in _DIMENSIONS:
        buckets = list(dict.fromkeys(bucket for each in shown for p in each.pictures
                                     for bucket in p.losers.filter(dimension=dimension)["bucket"]))  # fmt: skip
        if not buckets or (dimension != "class" and len(buckets) < 2):
            continue
        bars = [plots.Bars(each.setting.label, tint, _loss_estimates(each.pictures, dimension, column))
                for each, tint in zip(shown, tints, strict=True)]  # fmt: skip
        drawn[f"losers-{dimension}"] = plots.losers_plot(buckets, bars, x_label)
        cells.append((heading, f"losers-{dimension}"))
    if not cells:
        return []
    legend = _legend([each.setting.label for each in shown], tints)

    def section(divs: Mapping[str, str]) -> html.Section:
        body = html.columns([html.plot_cell(heading, "Losses", [divs[name]], "") for heading, name in cells])
        return html.Section("losers", "Who lost", "Who lost", words.HOW_LOSERS, legend + body)

    return [section]


def _loss_estimates(pictures: Sequence[Picture], dimension: str, column: str) -> dict[str, Estimate]:
    """Bucket → the mean over the repeats that have it."""
    found: dict[str, list[float]] = {}
    for picture in pictures:
        rows = picture.losers.filter(dimension=dimension).drop_nulls(column)
        for bucket, value in zip(rows["bucket"], rows[column], strict=True):
            found.setdefault(bucket, []).append(float(value))
    return {bucket: Estimate(float(np.mean(values)), interval(values), len(values)) for bucket, values in found.items()}


def _legend(labels: Sequence[str], tints: Sequence[str]) -> str:
    items = "".join(f'<span><i style="background:{tint}"></i>{escape(label)}</span>'
                    for label, tint in zip(labels, tints, strict=True))  # fmt: skip
    return f'<p class="legend">{items}</p>'


def _runs(shown: Sequence[Shown]) -> str:
    """Every run with the way to its own report."""
    rows = []
    for each in shown:
        links = ", ".join(
            f'<a href="{escape(quote(address))}">seed {escape(formats.identifier(summary.get("seed")))}</a>'
            for address, summary in zip(each.reports, each.setting.summaries, strict=True)
        )
        failed = "".join(f'<li class="failed">failed: {escape(reason)}</li>' for reason in each.setting.failures)
        rows.append(f"<li>{escape(each.setting.label)}: {links or 'no run finished'}<ul>{failed}</ul></li>")
    return f"<ul>{''.join(rows)}</ul>"


def _session(pictures: Sequence[Picture]) -> Range:
    """From the first to the last moment of any run, in ms since the signal."""
    ends = [float(frame["time_ms"][-1]) - p.anchor_ms for p in pictures for frame in (p.trades, p.book) if frame.height]
    return -max(p.anchor_ms for p in pictures), max(ends, default=1_000.0)


def _without_headroom(data: Range) -> Range:
    """A view's range leaves room for a trip's reason, which is not written here."""
    return data[0], data[1] - 0.15 * (data[1] - data[0])


def _liquidation_window(pictures: Sequence[Picture]) -> Range | None:
    """From shortly before the first liquidation of any run (or the signal) to shortly after the last."""
    times = [float(t) - p.anchor_ms for p in pictures for t in p.liquidations["time_ms"]]
    if not times:
        return None
    first, last = min(0.0, *times), max(times)
    margin = max(10.0, 0.05 * (last - first))
    return first - margin, last + margin


def address_of(report: Path, page: Path) -> str:
    """The way from the page to a run's report."""
    return Path(os.path.relpath(report.resolve(), page.parent.resolve())).as_posix()
