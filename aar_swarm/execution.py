"""Optimal execution: what it should cost to leave, alone or all together. Formulas and their vectors, nothing else.

Almgren and Chriss, *Optimal execution of portfolio transactions*, J. Risk 3 (2000). Units: lots, ticks, seconds; costs
in ticks × lots, the minor unit of cash.
"""

import math
from typing import NamedTuple

import numpy as np


class Impact(NamedTuple):
    """The linear impact model.

    half_spread: ε, ticks. permanent: γ, ticks a lot. temporary: η, ticks a (lot per second).
    """

    half_spread: float
    permanent: float
    temporary: float


def urgency(impact: Impact, volatility: float, risk_aversion: float, step_s: float) -> float:
    """κ of the optimal schedule, 1/s: κ = acosh(1 + κ̃²τ²/2)/τ with κ̃² = λσ²/(η − γτ/2).

    Args: volatility: σ, ticks/√s. risk_aversion: λ, 1/(ticks × lots). step_s: τ.
    Raises: ValueError: η ≤ γτ/2, where the model has no optimum.
    """
    adjusted = impact.temporary - impact.permanent * step_s / 2
    if adjusted <= 0:
        raise ValueError("temporary impact must exceed half the permanent impact of one step")
    squared = risk_aversion * volatility**2 / adjusted
    return math.acosh(1 + squared * step_s**2 / 2) / step_s


def schedule(lots: float, horizon_s: float, steps: int, kappa: float) -> np.ndarray:
    """What is still held after step 0 … steps: float[steps + 1], x(t) = X·sinh κ(T−t)/sinh κT; a line for κ → 0."""
    times = np.linspace(0.0, horizon_s, steps + 1)
    if kappa * horizon_s < 1e-6:
        return lots * (1 - times / horizon_s)
    # sinh a / sinh b by exponentials, which does not overflow for an urgent κT.
    left = kappa * (horizon_s - times)
    ratio = np.exp(-kappa * times) * (1 - np.exp(-2 * left)) / (1 - math.exp(-2 * kappa * horizon_s))
    held: np.ndarray = lots * ratio
    held[-1] = 0.0
    return held


def expected_cost(held: np.ndarray, impact: Impact, step_s: float) -> float:
    """E of a schedule: ½γX² + ε·X + (η − γτ/2)/τ · Σ n², in ticks × lots."""
    lots = float(held[0])
    sold = -np.diff(held)
    adjusted = impact.temporary - impact.permanent * step_s / 2
    return (
        0.5 * impact.permanent * lots**2
        + impact.half_spread * float(np.abs(sold).sum())
        + adjusted / step_s * float((sold**2).sum())
    )


def cost_deviation(held: np.ndarray, volatility: float, step_s: float) -> float:
    """Standard deviation of a schedule's cost: σ·√(τ Σ x_k²), k = 1 … N, in ticks × lots."""
    return volatility * math.sqrt(step_s * float((held[1:] ** 2).sum()))


def coordinated_cost(lots: float, horizon_s: float, steps: int, impact: Impact) -> float:
    """The least expected cost at which one planner could take the positions of all through the same door in time.

    A planner who only minds the cost sells evenly (κ = 0). This is the denominator of the AAR ratio.
    """
    return expected_cost(schedule(lots, horizon_s, steps, 0.0), impact, horizon_s / steps)


class ExitGame(NamedTuple):
    """The two-window exit game: n agents hold one unit each and choose how much to sell in the first window."""

    nash: float
    social: float
    nash_cost: float
    social_cost: float

    @property
    def aar_ratio(self) -> float:
        return self.nash_cost / self.social_cost


def exit_game(agents: int, slope: float, waiting_cost: float) -> ExitGame:
    """Closed form: Nash a = min(1, ½ + δ/(2η(n+1))), social a = min(1, ½ + δ/(4ηn)), C = η(A² + (n−A)²) + δ(n−A).

    Args: slope: η, price slope a window; waiting_cost: δ, of a unit that waits for the second window.
    """

    def cost(share: float) -> float:
        first = agents * share
        return slope * (first**2 + (agents - first) ** 2) + waiting_cost * (agents - first)

    nash = min(1.0, 0.5 + waiting_cost / (2 * slope * (agents + 1)))
    social = min(1.0, 0.5 + waiting_cost / (4 * slope * agents))
    return ExitGame(nash, social, cost(nash), cost(social))
