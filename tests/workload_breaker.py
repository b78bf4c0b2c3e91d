"""Random breakers for `tests.comparison` and `tests.workload_money`: triggers, actions, halts, reopenings.

Kills are rare, and most venues have none: where everybody has been killed nothing is compared any more.
"""

from typing import Any

import numpy as np

from exchange.config import BreakerConfig, MarginConfig, MarketBreakerConfig

MS = 1_000_000
DEPTHS_BPS = (0, 1, 100, 1_000, 1_000, 5_000, 10_000)
IMBALANCES_BPS = (1, 2_000, 5_000, 5_000, 8_000, 10_000)


class Breakers:
    """Draws the breakers of one venue."""

    def __init__(self, rng: np.random.Generator, instruments: int) -> None:
        self.rng = rng
        self.instruments = instruments
        self.drawn = 0
        self.actions = [
            ["halt"],
            ["halt", "halt_market"],
            ["halt", "kill_participant"],
            ["halt", "kill_vendor"],
            ["halt", "halt", "halt_market", "kill_participant", "kill_vendor"],
        ][int(rng.choice([0, 0, 1, 2, 3, 3, 4]))]
        # At most one instrument kills all.
        self.kills_all = int(rng.integers(instruments)) if rng.random() < 0.05 else -1
        self.armed = 0
        """Instruments drawn so far that have a breaker."""
        self.rich = float(rng.choice([0.0, 0.0, 0.15, 0.3]))
        """Share of instruments with each of the triggers that look at the book and at both sides."""
        self.public, self.reducing, self.collars = (float(rng.choice([0.0, 0.3, 1.0])) for _ in range(3))

    def _one_of(self, *values: int) -> int:
        return int(self.rng.choice(values))

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def next(self, *, batches: bool, windows_ns: tuple[int, ...], **settings: Any) -> BreakerConfig:
        """The next instrument's. settings: what the caller has drawn itself; windows_ns: to draw from."""
        if not batches and self._chance(self.rich):
            settings.update(depth_lots=self._one_of(1, 1, 5, 20, 60), depth_bps=self._one_of(*DEPTHS_BPS))
        if not batches and self._chance(self.rich):
            settings.update(
                imbalance_bps=self._one_of(*IMBALANCES_BPS),
                imbalance_lots=self._one_of(0, 5, 20, 100, 400),
                imbalance_window_ns=self._one_of(*windows_ns),
            )
        settings["action"] = str(self.rng.choice(self.actions))
        if settings.get("liquidation_window_ns") and self._chance(0.3):
            settings["action"] = "kill_vendor" if self._chance(0.3) else "kill_participant"
        if self.drawn == self.kills_all:
            settings["action"] = "kill_all"
        elif batches and settings["price_move_bps"] and self._chance(0.5):
            # Of nobody: then it is a halt.
            settings["action"] = "kill_vendor"
        self.drawn += 1
        settings["publish_thresholds"] = self._chance(self.public)
        settings["risk_reducing_while_halted"] = self._chance(self.reducing)
        if settings["halt_ns"] and self._chance(self.collars):
            settings.update(
                collar_bps=self._one_of(1, 50, 200, 200, 500, 1_000, 10_000),
                collar_widening_bps=self._one_of(0, 1, 100, 500, 10_000),
                collar_extensions=self._one_of(1, 2, 2, 3, 1_000),
            )
        made = BreakerConfig(**settings)
        self.armed += made.armed
        return made

    def liquidation_triggers(self, margin: MarginConfig, interval_ns: int) -> dict[str, int]:
        """Settings of an instrument's or of the market's, one trigger or both, that can just trip."""
        window_ns = self._one_of(1, MS, 5 * MS, 50 * MS)
        most = (window_ns // interval_ns + 1) * min(margin.accounts_per_revaluation, 3)  # of the fewest accounts
        found, which = {"liquidation_window_ns": window_ns}, self._one_of(1, 1, 2, 2, 3)
        if which & 1:
            found["liquidations"] = min(most, self._one_of(1, 2, 2, 3, 3, 5))
        if which & 2:
            found["liquidation_notional"] = self._one_of(1, 500, 2_000, 5_000, 20_000, 100_000, 10**9)
        return found

    def market(
        self, share: float, margin: MarginConfig | None = None, interval_ns: int = 0
    ) -> MarketBreakerConfig | None:
        """The whole market's; None most of the time."""
        if not self._chance(share):
            return None
        settings = self.liquidation_triggers(margin, interval_ns) if margin else {}
        if (not settings or self._chance(0.5)) and self.armed:
            settings["halted_instruments"] = min(self.armed, self._one_of(1, 2, 2, 3))
        if not settings:
            return None
        return MarketBreakerConfig(**settings, action="kill_all" if self._chance(0.12) else "halt_market")
