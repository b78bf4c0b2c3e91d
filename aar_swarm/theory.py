"""Runs and liquidations in closed form: when it is rational to leave because the others leave. Formulas only.

Diamond and Dybvig, *Bank runs, deposit insurance, and liquidity*, JPE 91(3), 1983; Morris and Shin, *Unique
equilibrium in a model of self-fulfilling currency attacks*, AER 88(3), 1998; Aave v3's health factor. The engine's own
rules for loans are in integers, in docs/money.md.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

_NORMAL = NormalDist()


def early_payment(long_return: float, early_share: float) -> float:
    """r₁ of the best deposit contract for U(c) = 1 − 1/c (Diamond, *Banks and liquidity creation*, 2007).

    The bank maximises t·U(r₁) + (1 − t)·U(r₂) under t·r₁ + (1 − t)·r₂/R = 1; the first-order condition U′(r₁) =
    R·U′(r₂) gives r₂ = √R·r₁, and the constraint r₁ = 1 / (t + (1 − t)/√R).

    Args: long_return: R > 1; early_share: t.
    """
    return 1 / (early_share + (1 - early_share) / math.sqrt(long_return))


def late_payment(long_return: float, early_share: float, early: float) -> float:
    """r₂ of those who wait, if only the share t withdraws r₁ early: what is left, (1 − t·r₁), grows to R for 1 − t."""
    return (1 - early_share * early) * long_return / (1 - early_share)


def tipping_point(long_return: float, early: float) -> float:
    """f* of Diamond–Dybvig: whoever could wait runs if more than this share of all depositors withdraws.

    With a share f gone, who waits gets (1 − f·r₁)·R / (1 − f); that is r₁ at f* = (R − r₁) / (r₁·(R − 1)). It is not
    cut to 0 … 1: at f* ≥ 1 nobody ever runs, at f* ≤ 0 running is best whatever others do.

    Args: long_return: R > 1; early: r₁ > 0.
    """
    return (long_return - early) / (early * (long_return - 1))


class Threshold(NamedTuple):
    """The one equilibrium of the global game of regime change."""

    state: float
    """θ*: the regime falls in every weaker state."""
    signal: float
    """x*: whoever sees less than this attacks."""


def regime_threshold(cost: float, noise_sd: float) -> Threshold:
    """θ* and x* of the global game in which a regime of strength θ falls if the share that attacks exceeds θ.

    Each sees x = θ + noise_sd·N(0, 1) and knows nothing else of θ; attacking earns 1 − cost if the regime falls and
    −cost if not. All attack below x*: the share is Φ((x* − θ)/σ), which is θ at θ*; at x* one is indifferent:
    P(θ ≤ θ* | x*) = Φ((θ* − x*)/σ) = cost. Together θ* = 1 − cost and x* = θ* + σ·Φ⁻¹(θ*).

    Raises: ValueError: cost is not between 0 and 1, where one of the two actions is always best.
    """
    if not 0 < cost < 1:
        raise ValueError(f"cost is {cost}: it must be between 0 and 1")
    state = 1 - cost
    return Threshold(state, state + noise_sd * _NORMAL.inv_cdf(state))


def health_factor(collateral: float, price: float, threshold: float, debt: float) -> float:
    """C·p·LT / D: below 1 a loan may be liquidated; without debt it is ∞. D in the unit of C·p."""
    return collateral * price * threshold / debt if debt > 0 else math.inf


def seized(repaid: float, bonus: float, price: float, debt_price: float = 1.0) -> float:
    """What a liquidator takes for what it repays: repaid·(1 + b)·p_d/p_c, in units of the collateral.

    Of the health: HF′ − HF = r·(HF − LT·(1 + b)) / (D − r), so below HF = LT·(1 + b) a liquidation makes it worse.
    """
    return repaid * (1 + bonus) * debt_price / price
