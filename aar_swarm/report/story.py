"""What a run's figures say in a sentence: the captions under the plots, which are also what a screen reader hears.

Owns plain-text wording made from a Picture; nothing here is HTML. Must not draw, nor say more than the data does.
"""

from collections.abc import Sequence

import polars as pl

from aar_swarm.report import formats, ordered
from aar_swarm.report.picture import Picture
from aar_swarm.report.views import Views, fallen_within_ms, quotes_outside

_COMPARED = (("scenario", "scenario"), ("seed", "seed"), ("agents_requested", "number of agents"), ("hosts", "hosts"))
_CROWD = "crowd"


def outcome(picture: Picture) -> str:
    """The run in a few sentences."""
    summary = picture.summary
    parts = []
    if summary.get("drawdown_bps") is not None:
        parts.append(f"The price fell by {formats.bps(summary['drawdown_bps'])}")
        if (trough := picture.trough()) is not None:
            parts[0] += f" to {formats.price(trough[1], picture.tick_size)}, {_after(picture, trough[0])}"
    if picture.trip_ms is not None:
        trip = f"The breaker halted the market {_after(picture, picture.trip_ms)}"
        parts.append(trip + (f" ({picture.trip_text})" if picture.trip_text else ""))
    elif summary.get("halted") is not None:
        parts.append("The market was halted" if summary["halted"] else "Nothing halted the market")
    sold, planned = _crowd_sold(picture), summary.get("planned_lots")
    if sold is not None and planned is not None:
        parts.append(
            f"The crowd sold {formats.count(sold)} of the {formats.count(planned)} lots that it planned to sell"
        )
    said = ". ".join(parts or ["Nothing was measured"]) + "."
    order = ordered.in_words(summary)
    return said if order is None else f"{said} The stampede: {order[0].lower()}{order[1:]}"


def price(picture: Picture, views: Views) -> str:
    trades, parts = picture.trades, []
    if trades.is_empty():
        return "No trades."
    before = picture.before_anchor(trades)
    if before.height:
        parts.append(f"last trade before {picture.anchor_name} {_price(picture, before['price_ticks'][-1])}")
    parts.append(f"lowest {_price(picture, trades['price_ticks'].min())}")
    parts.append(f"highest {_price(picture, trades['price_ticks'].max())}")
    parts.append(f"last {_price(picture, trades['price_ticks'][-1])}")
    said = f"{formats.count(trades.height)} trades; {', '.join(parts)}."
    outside = quotes_outside(picture, views.price)
    if outside:
        of = formats.count(picture.book.height)
        said += f" {formats.count(outside)} of {of} quote updates lie outside the first view."
    return said


def depth(picture: Picture) -> str:
    if picture.book.is_empty():
        return "No quotes."
    said = []
    before, after = picture.before_anchor(picture.book), picture.after_anchor(picture.book)
    for side in ("bid", "ask"):
        column = f"{side}_depth_lots"
        usual, least = before[column].median(), after.sort(column, nulls_last=True, maintain_order=True).head(1)
        text = f"{side} depth"
        if usual is not None:
            text += f" {formats.count(usual)} lots before {picture.anchor_name} (median of updates)"
        if least.height and least[column][0] is not None:
            comma = "," if usual is not None else ""
            text += f"{comma} {formats.count(least[column][0])} at its least, {_after(picture, least['time_ms'][0])}"
        said.append(text)
    return _sentence("; ".join(said))


def load(picture: Picture, first_ms: int) -> str:
    if picture.load.is_empty():
        return "No orders."
    # The bin of the millisecond in which the signal came counts as after it.
    after = picture.load.filter(pl.col("time_ms") >= int(picture.anchor_ms))
    inside = after.filter(pl.col("time_ms") < picture.anchor_ms + first_ms)
    totals = ", ".join(f"{formats.count(inside[name].sum())} {name}" for name in ("orders", "trades", "rejects"))
    busiest = picture.load.sort("orders", descending=True, nulls_last=True, maintain_order=True).head(1)
    when = _after(picture, float(busiest["time_ms"][0]))
    return (
        f"Busiest millisecond: {formats.count(busiest['orders'][0])} orders, {when}. "
        f"In the {formats.count(first_ms)} ms after {picture.anchor_name}: {totals}."
    )


def fall(picture: Picture) -> str:
    half, most = (fallen_within_ms(picture, part) for part in (0.5, 0.9))
    if half is None or most is None:
        return f"No fall after {picture.anchor_name}."
    return (
        f"Of the fall, half had happened {formats.milliseconds(half)} and 90 % {formats.milliseconds(most)} after "
        f"{picture.anchor_name}."
    )


def liquidations(picture: Picture) -> str:
    found = picture.liquidations
    if found.is_empty():
        return "No liquidations."
    said = []
    for column, name in (("margin", "margin accounts"), ("loans", "loans")):
        if total := found[column].sum():
            busiest = found.sort(column, descending=True, maintain_order=True).head(1)
            said.append(
                f"{formats.count(total)} {name}, {formats.count(busiest[column][0])} of them in the fullest "
                f"millisecond, {_after(picture, float(busiest['time_ms'][0]))}"
            )
    return _sentence("; ".join(said))


def coin(picture: Picture) -> str:
    if picture.coin.is_empty():
        return "No trades of the stablecoin."
    low = picture.coin.sort("price_ticks", maintain_order=True).head(1)
    share = f" ({low['price_ticks'][0] / picture.coin_par_ticks:.1%} of par)" if picture.coin_par_ticks else ""
    return f"Lowest trade {_price(picture, low['price_ticks'][0])}{share}, {_after(picture, low['time_ms'][0])}."


def cautions(pictures: Sequence[Picture]) -> list[str]:
    """What a sceptical reader should know before comparing these runs; each is a sentence."""
    said = []
    if len(pictures) > 1:
        values = {name: [formats.text(p.summary.get(key)) for p in pictures] for key, name in _COMPARED}
        same = [name for name, shown in values.items() if len(set(shown)) == 1]
        if same:
            said.append(f"The same in every run: {', '.join(same)}.")
        said += [f"Not the same: {name} ({'; '.join(shown)})." for name, shown in values.items() if name not in same]
    for picture in pictures:
        lost = picture.summary.get("agent_processes_lost")
        if lost:
            said.append(f"{picture.label}: {formats.count(lost)} agent processes were lost during the run.")
        said += [f"{picture.label}: {sentence}" for sentence in picture.summary.get("links_off_nominal") or ()]
        asked, began = (picture.summary.get(key) for key in ("agents_requested", "agent_processes_started"))
        if asked is not None and began is not None and began != asked:
            said.append(f"{picture.label}: {formats.count(began)} of {formats.count(asked)} agent processes started.")
    each = "This is one run" if len(pictures) == 1 else "Each column is one run"
    said.append(
        f"{each}. The agents are real processes that race for real, so another run, even of the same seed, may order "
        "them differently: repeat before you generalise. What a run did can be replayed "
        "exactly from its journal, and its state hash checked."
    )
    if any(p.trip_ms is not None or p.summary.get("halted") for p in pictures):
        said.append(
            "A halt that stops a fall also stops the exit: read losses together with the lots that each class sold. "
            "What was not sold is still held, and valued at the last middle price before the close."
        )
    return said


def _crowd_sold(picture: Picture) -> int | None:
    crowd = picture.losses.filter(pl.col("participants") == _CROWD)["sold_lots"]
    return None if crowd.is_empty() else int(crowd.sum())


def _price(picture: Picture, ticks: object) -> str:
    return formats.price(float(ticks) * picture.tick_size, picture.tick_size)  # type: ignore[arg-type]


def _after(picture: Picture, time_ms: float) -> str:
    since = time_ms - picture.anchor_ms
    if picture.anchor_name == "the session opened" or since < -1:
        return f"{formats.milliseconds(time_ms)} after the open"
    return f"{formats.milliseconds(max(since, 0.0))} after {picture.anchor_name}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
