"""What everyone knows the asset to be worth: the opening price, moved by each piece of public news.

Owns that sum, so that agents and those who measure them come to the very same number.
"""

from collections.abc import Iterable

from aar_swarm.agents.base import SIGNAL, Event, Market
from exchange.wire import Notice

BPS = 10_000


def moved(value_ticks: float, bps: int) -> float:
    """The value after one more piece of news."""
    return value_ticks * (1 + bps / BPS)


def path(opening_ticks: int, news_bps: Iterable[int]) -> list[float]:
    """The value before any news, then after each piece: one more than there is news."""
    found = [float(opening_ticks)]
    for bps in news_bps:
        found.append(moved(found[-1], bps))
    return found


class PublicValue:
    """The value as one participant knows it, ticks."""

    def __init__(self, market: Market) -> None:
        self.ticks = float(market.opening_ticks)
        self._instrument = market.instrument

    def hear(self, event: Event) -> bool:
        """Take a notice into account; whether it was news of this asset."""
        if not (isinstance(event, Notice) and event.kind == SIGNAL and event.instrument == self._instrument):
            return False
        self.ticks = moved(self.ticks, event.value)
        return True
