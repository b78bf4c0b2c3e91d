"""The [vendors] table of a scenario: how many, how alike, who is asked by whom, and what goes wrong when."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aar_swarm.vendors.model import FEATURES
from exchange.config import Config

MAX_VENDORS = 256
_Seconds = Annotated[float, Field(ge=0, le=86_400)]


class Vendors(Config):
    """Times count from the opening of the session."""

    count: Annotated[int, Field(ge=1, le=MAX_VENDORS)] = 1
    shares: Literal["equal"] | Annotated[tuple[Annotated[float, Field(gt=0, le=1e9)], ...], Field(min_length=1)] = (
        "equal"
    )
    """How funds are divided among vendors: weights, one a vendor."""
    first_choice: Literal["dealt", "same"] = "dealt"
    """Whose model a fund asks for first: its own (by shares), or everybody the first vendor's, as the best known. Who
    is not admitted with it takes the next."""
    processes_per_vendor: Annotated[int, Field(ge=1, le=64)] = 1
    similarity: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of the vendors' models, see vendors/model.py; 1: one model for all."""
    features_seen: Annotated[int, Field(ge=1, le=FEATURES)] = 6
    """How many of the world's fundamentals each model reads."""
    observation_noise: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Standard deviation of what a vendor's feed adds to each fundamental (in standard units), anew every interval."""
    stale_after_ms: Annotated[float, Field(ge=0, le=3_600_000)] = 1000.0
    """A vendor whose feed has said nothing for so long stands by no valuation; 0: it goes on with what it has."""
    feed_interval_ms: Annotated[float, Field(ge=1, le=600_000)] = 200.0
    fault_vendor: Annotated[int, Field(ge=0, lt=MAX_VENDORS)] = 0
    fault_in: Literal["pipeline", "feed"] = "pipeline"
    """A unit error in this vendor's own pipeline, or upstream: then it reaches every vendor that reads the feature."""
    fault_bps: Annotated[float, Field(ge=0, le=5000)] = 1000.0
    """By how much fault_vendor overvalues the asset: the feature and factor are solved for; 0: no fault."""
    fault_factor: Annotated[float, Field(gt=0, le=1000)] | None = None
    """In place of fault_bps: how the raw feature is mis-scaled; needs fault_feature."""
    fault_feature: Annotated[int, Field(ge=0, lt=FEATURES)] | None = None
    fault_at_s: _Seconds = 4.0
    found_after_s: _Seconds = 4.0
    withdrawn_s: _Seconds = 3.0
    """From the discovery until the vendor serves its repaired model."""
    feed_stops_at_s: _Seconds | None = None
    """From then on no feed says anything new; none: they go on."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    """Of the world and the models; none: the run's."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Vendors":
        if self.shares != "equal" and len(self.shares) != self.count:
            raise ValueError(f"shares has {len(self.shares)} weights for {self.count} vendors; give one each, or equal")
        if self.fault_vendor >= self.count:
            raise ValueError(
                f"fault_vendor {self.fault_vendor} is not one of the {self.count} vendors (0 is the first)"
            )
        if (self.fault_factor is None) != (self.fault_feature is None):
            raise ValueError("fault_factor and fault_feature go together; leave both out to calibrate by fault_bps")
        return self

    @property
    def found_at_s(self) -> float:
        return self.fault_at_s + self.found_after_s

    @property
    def weights(self) -> tuple[float, ...]:
        """Shares that sum to 1."""
        given = (1.0,) * self.count if self.shares == "equal" else self.shares
        return tuple(share / sum(given) for share in given)

    def preferences(self, funds: int) -> list[list[int]]:
        """Of each fund: the vendors in the order in which it asks for a model."""
        found = []
        for dealt in self.deal(funds):
            others = [(dealt + step) % self.count for step in range(self.count)]
            if self.first_choice == "same":
                others.sort(key=lambda vendor: vendor != 0)  # the first vendor, then as dealt
            found.append(others)
        return found

    def deal(self, funds: int) -> list[int]:
        """The vendor of each fund: the next one goes to the vendor that is furthest behind its share (first of equals).

        So at every number of funds each vendor's count is within 1 of its share, and neighbours differ.
        """
        counts = [0] * self.count
        found = []
        for number in range(1, funds + 1):
            behind = [weight * number - count for weight, count in zip(self.weights, counts, strict=True)]
            vendor = max(range(self.count), key=behind.__getitem__)
            counts[vendor] += 1
            found.append(vendor)
        return found
