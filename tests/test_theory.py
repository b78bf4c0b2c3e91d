"""Runs in closed form against their vectors, and against agents who look for the best answer by themselves."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from aar_swarm.theory import (
    early_payment,
    health_factor,
    late_payment,
    regime_threshold,
    seized,
    tipping_point,
)

NORMAL = NormalDist()


def test_diamond_and_dybvig_match_the_vector():
    assert late_payment(2.0, 0.25, 1.28) == pytest.approx(1.8133, abs=5e-5)
    assert tipping_point(2.0, 1.28) == pytest.approx(0.5625)
    assert early_payment(2.0, 0.25) == pytest.approx(1.28, abs=5e-3)


@given(st.floats(1.05, 5), st.floats(0.05, 0.95))
def test_no_other_contract_gives_depositors_more_than_the_best_one(long_return, early_share):
    def utility(early: float) -> float:
        return early_share * (1 - 1 / early) + (1 - early_share) * (
            1 - 1 / late_payment(long_return, early_share, early)
        )

    best = early_payment(long_return, early_share)
    others = np.linspace(0.9, min(1 / early_share, long_return) * 0.999, 50)
    assert max(utility(early) for early in others) <= utility(best) + 1e-12


@given(st.floats(1.05, 5), st.floats(0.02, 0.98))
def test_depositors_who_compare_run_exactly_beyond_the_tipping_point(long_return, place):
    """A bank of 10,000 pays in the order of arrival; one more depositor asks itself what waiting would bring."""
    early = 1 + place * (long_return - 1)
    depositors = 10_000

    def waiting(running: int) -> float:
        left = max(0.0, depositors - running * early)  # each put in 1; served first come, first served
        return left * long_return / (depositors - running)

    runs = [waiting(running) < early for running in range(depositors)]
    first = runs.index(True)
    assert all(runs[first:])
    assert first / depositors == pytest.approx(tipping_point(long_return, early), abs=2 / depositors)


def test_the_global_game_matches_the_vector():
    threshold = regime_threshold(0.4, 0.1)
    assert threshold.state == pytest.approx(0.6)
    assert threshold.signal == pytest.approx(0.625335, abs=5e-7)


@given(st.floats(0.05, 0.95), st.floats(0.02, 0.5), st.booleans())
def test_best_answers_to_best_answers_end_at_the_threshold(cost, noise_sd, from_above):
    """Start where all attack (or nobody does) and answer again and again: the dominated strategies go one by one."""
    cut = 1 + 20 * noise_sd if from_above else -20 * noise_sd
    for _ in range(400):
        state = brentq(lambda state, cut=cut: NORMAL.cdf((cut - state) / noise_sd) - state, -1, 2)  # falls in all below
        cut = state - noise_sd * NORMAL.inv_cdf(cost)  # where P(θ ≤ state | x) = cost
    assert cut == pytest.approx(regime_threshold(cost, noise_sd).signal, abs=2e-3)


def test_simulated_agents_earn_by_attacking_below_the_threshold_and_lose_above():
    cost, noise_sd = 0.4, 0.1
    rng = np.random.default_rng(1)
    threshold = regime_threshold(cost, noise_sd).signal
    states = rng.uniform(-1, 2, 1_000_000)
    falls = norm.cdf((threshold - states) / noise_sd) > states
    seen = states + noise_sd * rng.standard_normal(len(states))
    for offset, earns in ((-0.05, True), (0.05, False)):
        near = np.abs(seen - threshold - offset) < 0.01
        assert (falls[near].mean() - cost > 0) == earns


@pytest.mark.parametrize("cost", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_cost_that_decides_alone_has_no_threshold(cost):
    with pytest.raises(ValueError, match="between 0 and 1"):
        regime_threshold(cost, 0.1)


def test_health_and_seizure_match_the_vector():
    """10 ETH at 1,900, threshold 0.825, debt 16,000, bonus 5 %; the close factor is a half."""
    assert health_factor(10, 1900, 0.825, 16_000) == pytest.approx(0.979688, abs=5e-7)
    taken = seized(8000, 0.05, 1900)
    assert taken == pytest.approx(4.421053, abs=5e-7)
    assert health_factor(10 - taken, 1900, 0.825, 8000) == pytest.approx(1.093125, abs=5e-7)
    assert health_factor(1, 1, 1, 0) == math.inf


@given(st.floats(1, 100), st.floats(0.5, 1.1), st.floats(0.5, 0.9), st.floats(0, 0.1), st.floats(0.01, 0.5))
def test_a_liquidation_helps_exactly_above_threshold_times_bonus(collateral, health, threshold, bonus, part):
    debt = collateral * threshold / health  # at price 1
    repaid = part * debt
    after = health_factor(collateral - seized(repaid, bonus, 1.0), 1.0, threshold, debt - repaid)
    assert after - health == pytest.approx(repaid * (health - threshold * (1 + bonus)) / (debt - repaid), abs=1e-9)
