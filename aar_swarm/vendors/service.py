"""What one vendor answers at a time: its model on its feed, sound, faulty, withdrawn, repaired. No socket, no clock.

Owns the vendor's life: from `fault_at_s` the raw feature arrives mis-scaled; `found_after_s` later the fault is found
and the vendor stands by no valuation; after `withdrawn_s` it serves the repaired pipeline as version 2. Funds are told
nothing but what they ask for, and the market nothing at all.
"""

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np

from aar_swarm.names import vendor_stream
from aar_swarm.vendors.config import Vendors
from aar_swarm.vendors.model import (
    FEATURES,
    Array,
    Model,
    World,
    calibrate_fault,
    error_correlations,
    fault_effects_bps,
    log_value,
    make_world,
    mis_scaled,
    train,
)
from exchange.clock import MS, SECOND
from exchange.errors import ConfigurationError

_COMMON = -1
_WORLD, _TRAINING, _TEST, _FEED = range(4)
"""Purposes of random streams; of the feed one an interval from there on."""
VALIDATION = 1 << 40
_TEST_ASSETS = 2000
SOUND, REPAIRED = 1, 2
"""Versions of a vendor's product. A faulty one does not know that it is."""


class Fault(NamedTuple):
    feature: int
    factor: float


class Answer(NamedTuple):
    value_ticks: float
    version: int
    withdrawn: bool


class VendorWorld:
    """Everything that derives from the settings and the seed: world, models (trained when asked for), fault."""

    def __init__(self, config: Vendors) -> None:
        assert config.seed is not None
        self.config = config
        self.seed = config.seed
        self.world: World = make_world(vendor_stream(self.seed, _COMMON, _WORLD))
        self._models: dict[int, Model] = {}

    def model(self, vendor: int) -> Model:
        if vendor not in self._models:
            self._models[vendor] = train(
                self.world,
                vendor_stream(self.seed, _COMMON, _TRAINING),
                vendor_stream(self.seed, vendor, _TRAINING),
                self.config.similarity,
                self.config.features_seen,
            )
        return self._models[vendor]

    @cached_property
    def fault(self) -> Fault | None:
        """Raises: ConfigurationError: no unit error makes fault_vendor's model err by fault_bps."""
        config = self.config
        if config.fault_factor is not None and config.fault_feature is not None:
            return Fault(config.fault_feature, config.fault_factor)
        if config.fault_bps == 0:
            return None
        found = calibrate_fault(self.model(config.fault_vendor), self.world.asset, config.fault_bps)
        if found is None:
            raise ConfigurationError(
                f"vendors.fault_bps {config.fault_bps:g}: no unit error makes vendor {config.fault_vendor}'s model "
                "err by so much; lower it, take another seed, or give fault_feature and fault_factor"
            )
        return Fault(*found)

    def is_faulty(self, vendor: int) -> bool:
        """Whether the fault reaches this vendor's valuations at some time."""
        if self.fault is None:
            return False
        if self.config.fault_in == "pipeline":
            return vendor == self.config.fault_vendor
        return bool(self.model(vendor).seen[self.fault.feature])

    def overvaluation_bps(self, vendor: int) -> float | None:
        """By how much the fault raises what this vendor says, by its model; None if it does not reach it."""
        if self.fault is None or not self.is_faulty(vendor):
            return None
        factors = np.array([self.fault.factor])
        return float(fault_effects_bps(self.model(vendor), self.world.asset, self.fault.feature, factors)[0])

    def correlations(self) -> Array:
        """[vendors, vendors]: of the models' errors on assets that none was trained on."""
        test = vendor_stream(self.seed, _COMMON, _TEST).normal(0, 1, (_TEST_ASSETS, FEATURES))
        return error_correlations(self.world, [self.model(vendor) for vendor in range(self.config.count)], test)


class Vendor:
    """One vendor's answers. Before the session it marks its model to the market: a constant makes its valuation of the
    asset the opening price, so that what it says afterwards is by how much fundamentals moved, in its model's eyes."""

    def __init__(self, world: VendorWorld, number: int, opening_ticks: int) -> None:
        self.number = number
        self.config = world.config
        self.seed = world.seed
        self.asset = world.world.asset
        self.model = world.model(number)
        self.fault = world.fault if world.is_faulty(number) else None
        self._interval = -1
        self._noise = np.zeros(FEATURES)
        self.scale = opening_ticks / math.exp(float(log_value(self.model, self.asset[None])[0]))

    def version(self, since_open_ns: int) -> int:
        """SOUND, 0 while withdrawn, or REPAIRED."""
        if self.fault is None or since_open_ns < self.config.found_at_s * SECOND:
            return SOUND
        repaired_s = self.config.found_at_s + self.config.withdrawn_s
        return 0 if since_open_ns < repaired_s * SECOND else REPAIRED

    def inputs(self, since_open_ns: int, count: int = 1) -> Array:
        """What its pipeline delivers at this time, [count, FEATURES], one row a question.

        The noise is the vendor's, whichever of its processes is asked, and the same throughout a feed interval.
        """
        if self.config.feed_stops_at_s is not None:
            since_open_ns = min(since_open_ns, int(self.config.feed_stops_at_s * SECOND))
        interval = max(0, since_open_ns) // round(self.config.feed_interval_ms * MS)
        if interval != self._interval:
            self._interval = interval
            self._noise = vendor_stream(self.seed, self.number, _FEED + interval).normal(0, 1, FEATURES)
        z = self.asset + self.config.observation_noise * self._noise
        begun = since_open_ns >= self.config.fault_at_s * SECOND
        if self.fault is not None and begun and self.version(since_open_ns) == SOUND:
            z = mis_scaled(z, *self.fault)
        return np.tile(z, (count, 1))

    def _is_stale(self, since_open_ns: int) -> bool:
        stops_at_s, after_ms = self.config.feed_stops_at_s, self.config.stale_after_ms
        return stops_at_s is not None and after_ms > 0 and since_open_ns > stops_at_s * SECOND + after_ms * MS

    def answers(self, since_open_ns: int, count: int) -> list[Answer]:
        """To `count` questions that wait: one forward pass over all of them. since_open_ns < 0: not open yet."""
        version = 0 if self._is_stale(since_open_ns) else self.version(since_open_ns)
        values = self.scale * np.exp(log_value(self.model, self.inputs(since_open_ns, count)))
        return [Answer(float(value) if version else 0.0, version, version == 0) for value in values]
