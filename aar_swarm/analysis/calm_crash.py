"""Latency in the crash beside latency in calm, in ns. Users of simulators report that it spikes just then, so that
constants mislead (FACTS 1); here it is measured.

The calm is from the opening to the signal. The crash is from the signal to the first order to leave of the last agent
who leaves (`stampede_last_ms`); without a stampede there is none.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from aar_swarm.analysis.session import Session
from cluster.links import DIRECT, DIRECTLY
from exchange.clock import MS

PING_COLUMNS = {"host": pl.Int64, "link": pl.String, "venue_ns": pl.Int64, "round_trip_ns": pl.Int64}
_QUANTILES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


def calm_and_crash(
    session: Session, latency: pl.DataFrame, link_of: Sequence[str], pings: pl.DataFrame, stampede_last_ms: float | None
) -> dict[str, Any]:
    """latency_calm and latency_crash: commands, transit, venue time and round trip, of all and of each link.

    Args: latency: as `latency_table` makes it; link_of: of each account; pings: PING_COLUMNS, of the whole session. A
    round trip is a ping's, of the host and not of an agent: null without links.
    """
    if session.signal_ns is None or session.opened_ns is None:
        return {"latency_calm": None, "latency_crash": None}
    names = pl.Series("link", [name or DIRECTLY for name in link_of], pl.String)
    linked = latency.with_columns(link=names.gather(latency["account"]))
    pinged = pings.with_columns(link=pl.col("link").replace(DIRECT, DIRECTLY))
    spans: dict[str, tuple[int, int] | None] = {
        "latency_calm": (session.opened_ns, session.signal_ns),
        "latency_crash": None
        if stampede_last_ms is None
        else (session.signal_ns, session.signal_ns + int(stampede_last_ms * MS) + 1),
    }
    return {name: span and _of_span(linked, pinged, span) for name, span in spans.items()}


def _of_span(latency: pl.DataFrame, pings: pl.DataFrame, span: tuple[int, int]) -> dict[str, Any]:
    first_ns, end_ns = span
    sent = latency.filter(pl.col("received_ns").is_between(first_ns, end_ns, closed="left"))
    pinged = pings.filter(pl.col("venue_ns").is_between(first_ns, end_ns, closed="left"))
    links = latency["link"].unique().sort().to_list()
    by_link = {
        link: _figures(sent.filter(pl.col("link") == link), pinged.filter(pl.col("link") == link)) for link in links
    }
    # The round trips of several links together are nobody's.
    whole = _figures(sent, pinged.clear())
    return {
        "lasted_ms": round((end_ns - first_ns) / MS, 3),
        **(by_link[links[0]] if len(links) == 1 else whole),
        "links": None if set(links) <= {DIRECTLY} else by_link,
    }


def _figures(sent: pl.DataFrame, pinged: pl.DataFrame) -> dict[str, int | None]:
    found: dict[str, int | None] = {"commands": sent.height, "pings": pinged.height or None}
    for name, values in (
        ("transit", sent["transit_ns"]),
        ("venue", sent["venue_ns"]),
        ("round_trip", pinged["round_trip_ns"]),
    ):
        for label, quantile in _QUANTILES:
            value = values.quantile(quantile, "nearest")
            found[f"{name}_ns_{label}"] = None if value is None else int(value)
    return found
