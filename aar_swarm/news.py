"""The times and the sizes of a session's public news: a compound Poisson process, drawn before the session opens.

Owns what is published when, relative to the opening. Each piece is one command of the operator's and one notice of the
venue's, so that all hear of it at one moment, each over its own way. Must not publish anything.
"""

from typing import NamedTuple

import numpy as np

from aar_swarm.agents.public_value import moved
from aar_swarm.scenario_tables import News

_FURTHEST = 0.5
"""The value stays within so much of the opening price; news that would lead beyond goes the other way."""


class Piece(NamedTuple):
    at_s: float
    """After the opening."""
    bps: int
    """Of the value before it; not 0."""


def drawn(news: News, from_s: float, until_s: float, rng: np.random.Generator) -> list[Piece]:
    """The pieces between two times, by time: exponential waits of mean 1 / rate_per_s, sizes normal with sd_bps.

    A size is rounded away from 0 to a whole number of bps, so that each piece is news.
    """
    found: list[Piece] = []
    value = 1.0
    at_s = from_s
    while news.rate_per_s:
        at_s += float(rng.exponential(1 / news.rate_per_s))
        if at_s >= until_s:
            break
        size = float(rng.normal(0.0, news.sd_bps))
        bps = int(np.ceil(abs(size)) or 1) * (1 if size >= 0 else -1)
        if abs(moved(value, bps) - 1) > _FURTHEST:
            bps = -bps
        value = moved(value, bps)
        found.append(Piece(at_s, bps))
    return found
