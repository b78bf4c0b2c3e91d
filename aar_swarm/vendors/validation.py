"""The validation gate: the published battery that a vendor's model passes before agents may log on with it.

On assets and a stopped feed of the venue's own, never the vendor's: what is asked is order, size of error and silence
on stale data. It says nothing of data that goes wrong later, in the pipeline of a sound model: such a fault
passes (docs/diversity.md). Supervisors ask for as much of models that are sold (SR 11-7: outcomes analysis and
benchmarking before use; the FSB's substitutability needs that others have passed, too).
"""

from typing import NamedTuple

import numpy as np

from aar_swarm.names import vendor_stream
from aar_swarm.vendors.config import Vendors
from aar_swarm.vendors.model import FEATURES, log_value, true_log_value
from aar_swarm.vendors.service import VALIDATION, Vendor, VendorWorld
from exchange.clock import SECOND

ASSETS = 400
MARGIN_LOG = 0.1
"""Pairs of assets whose true values are less apart (log units) are too close to ask about."""
LEAST_CONCORDANCE = 0.7
"""Of the other pairs, valued in the right order: monotone in what the asset is worth."""
LARGEST_ERROR_LOG = 0.5
"""95th percentile over assets of |model's value − true value|, in log units."""
SILENT_WITHIN_S = 2.0
"""After its feed stopped, it stands by no valuation."""
_FEED_STOPS_S = 1.0
_OPENING_TICKS = 10_000


class Verdict(NamedTuple):
    """What one model was found to be; kept in validation.json."""

    vendor: int
    """As declared at logon: from 1."""
    model: int
    model_version: int
    concordance: float
    error_log_p95: float
    silent_when_stale: bool
    passed: bool

    @property
    def declaration(self) -> tuple[int, int, int]:
        return self.vendor, self.model, self.model_version


def examine(world: VendorWorld, number: int, version: int) -> Verdict:
    """Put vendor `number` (from 0) to the battery."""
    z = vendor_stream(world.seed, number, VALIDATION).normal(0, 1, (ASSETS, FEATURES))
    true, valued = true_log_value(world.world, z), log_value(world.model(number), z)
    first, second = np.triu_indices(ASSETS, 1)
    apart = np.abs(true[first] - true[second]) > MARGIN_LOG
    alike = np.sign(valued[first] - valued[second]) == np.sign(true[first] - true[second])
    concordance = float(alike[apart].mean())
    error = float(np.quantile(np.abs(valued - true), 0.95))
    stopped = VendorWorld(world.config.model_copy(update={"feed_stops_at_s": _FEED_STOPS_S, "fault_bps": 0.0}))
    late_ns = int((_FEED_STOPS_S + SILENT_WITHIN_S) * SECOND)
    silent = Vendor(stopped, number, _OPENING_TICKS).answers(late_ns, 1)[0].withdrawn
    passed = concordance >= LEAST_CONCORDANCE and error <= LARGEST_ERROR_LOG and silent
    return Verdict(number + 1, 1, version, round(concordance, 4), round(error, 4), silent, passed)


def battery(settings: Vendors, version: int) -> list[Verdict]:
    """All vendors' models."""
    world = VendorWorld(settings)
    return [examine(world, number, version) for number in range(settings.count)]
