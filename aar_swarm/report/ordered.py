"""What ordered a run's stampede, in words: for the page, and for the terminal under the table.

Owns the wording of summary.json's stampede_ordered_by. The definition is aar_swarm.analysis.ordering's; docs/time.md.
"""

from collections.abc import Mapping
from typing import Any

from aar_swarm.report import formats

_NAMES = {
    "network": "the links' delays",
    "scheduler": "the waits for a core",
    "computing": "the agents' own computing",
    "rest": "what is neither link, wait nor computing",
}


def in_words(summary: Mapping[str, Any]) -> str | None:
    """A sentence or three; None where nothing was found out."""
    order = summary.get("stampede_order")
    if not order:
        return None
    verdict, deciding = summary["stampede_ordered_by"], order["deciding"]
    shares = order["pairs_reversed_without"]
    if verdict == "scheduler":
        said = "Ordered by the scheduler rather than the network: who came first is who got a core first"
    elif verdict == "network":
        said = "Ordered by the network, not the scheduler"
    elif deciding:
        said = f"Ordered by {_and([_NAMES[part] for part in deciding])}"
    else:
        said = "Ordered the same whichever one part of the way is left out"
    told = ", ".join(f"{formats.share(shares[part])} without {_NAMES[part]}" for part in ("scheduler", "network"))
    pairs = f"Of all pairs of the {order['racers']:,} racers so many would have arrived the other way round"
    text = f"{said}. {pairs}: {told}."
    starved = summary.get("starvation")
    if starved:
        wait, longest = (formats.duration(starved[f"runqueue_wait_ns_{label}"]) for label in ("p50", "max"))
        text += f" An agent waited {wait} for a core before its first order (median; at most {longest})"
        if starved["agents_per_core"] is not None:
            text += f", with {formats.decimal(starved['agents_per_core'], 0)} agents a core"
        text += "."
    return text


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
