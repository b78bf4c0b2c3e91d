"""What each link of a run did against what it should: pings of the venue over it, its proxy's own figures. In ns."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.links import TOLERANCE_NS, TOLERANCE_SHARE, Link
from exchange.clock import MS

_COUNTED = ("scheduling", "connections", "bytes_up", "bytes_down", "descriptor_shortages", "turn_ns_p99", "turn_ns_max")
_LATE = tuple(f"delivered_late_ns_{label}" for label in ("p50", "p99", "max"))


def told(
    host: int,
    address: str,
    name: str,
    link: Link,
    pings: Sequence[Sequence[int]],
    direct: Sequence[int],
    counters: dict[str, Any] | None,
) -> dict[str, Any]:
    """One entry of the manifest's and the summary's `links`.

    Args: host: its number; pings: round trips over the link before the session, and after it; direct: past the link, at
    the same times; counters: of its proxy, None if that has ended. A figure that was not measured is null. Of what the
    proxy carried, the pings are a part, and three of its connections are theirs.
    """
    measured = [trip for each in pings for trip in each]
    quantiles = (("min", 0.0), ("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    return {
        "host": host,
        "address": address,
        "link": name,
        **link._asdict(),
        "nominal_rtt_ns": link.nominal_rtt_ns,
        "pings": len(measured),
        **{f"measured_rtt_ns_{label}": _quantile(measured, share) for label, share in quantiles},
        "before_rtt_ns_p50": _quantile(pings[0], 0.5),
        "after_rtt_ns_p50": _quantile(pings[1], 0.5),
        "direct_rtt_ns_p50": _quantile(direct, 0.5),
        **{key: None if counters is None else counters[key] for key in (*_LATE, *_COUNTED)},
    }


def off_nominal(links: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each way in which a link was not what it should be: its median round trip before and after the
    session, how late it was while it carried the session, connections that it could not take."""
    said = []
    for link in links:
        nominal_ns, measured_ns = link["nominal_rtt_ns"], link["measured_rtt_ns_p50"]
        where = f"Link {link['link']} of host {link['host']} ({link['address']})"
        if link["scheduling"] is None:
            said.append(f"{where}: its proxy ended before the session was over, and nothing passed it any more.")
        if (link["delivered_late_ns_p50"] or 0) > TOLERANCE_NS:
            late_ms = link["delivered_late_ns_p50"] / MS
            said.append(f"{where}: half of what it carried was more than {late_ms:.2f} ms too late; it was overloaded.")
        if link["descriptor_shortages"]:
            said.append(f"{where}: it had no descriptors left (ulimit -Hn), and connections had to wait.")
        if measured_ns is None:
            said.append(f"{where}: no ping came back, so its delay is not known.")
        elif abs(measured_ns - nominal_ns) > max(TOLERANCE_NS, TOLERANCE_SHARE * nominal_ns):
            direct_ns = link["direct_rtt_ns_p50"]
            past = "" if direct_ns is None else f" (past the link it takes {direct_ns / MS:.2f} ms)"
            said.append(
                f"{where}: the median round trip was {measured_ns / MS:.2f} ms{past}, nominal is "
                f"{nominal_ns / MS:.2f} ms."
            )
    return said


def in_words(links: Sequence[dict[str, Any]]) -> str:
    """Measured against nominal, of each."""
    return "; ".join(
        f"{link['link']} of host {link['host']}: round trip "
        f"{'unknown' if link['measured_rtt_ns_p50'] is None else format(link['measured_rtt_ns_p50'] / MS, '.2f')} ms, "
        f"nominal {link['nominal_rtt_ns'] / MS:.2f} ms"
        for link in links
    )


def _quantile(values_ns: Sequence[int], share: float) -> int | None:
    return int(np.quantile(values_ns, share, method="inverted_cdf")) if len(values_ns) else None
