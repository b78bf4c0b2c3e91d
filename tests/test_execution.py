"""The formulas against their published or separately computed vectors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aar_swarm.agents.holder import book_impact
from aar_swarm.execution import (
    Impact,
    coordinated_cost,
    cost_deviation,
    exit_game,
    expected_cost,
    schedule,
    urgency,
)
from exchange.wire import MessageKind, TopOfBook

# Almgren and Chriss (2000), their numerical example.
LOTS, HORIZON, STEPS, VOLATILITY, RISK_AVERSION = 1e6, 5.0, 5, 0.95, 1e-6
IMPACT = Impact(half_spread=0.0625, permanent=2.5e-7, temporary=2.5e-6)


def test_almgren_and_chriss_schedule_and_costs_match_the_vector():
    kappa = urgency(IMPACT, VOLATILITY, RISK_AVERSION, 1.0)
    assert kappa == pytest.approx(0.607076, abs=5e-7)
    held = schedule(LOTS, HORIZON, STEPS, kappa)
    assert held == pytest.approx([1e6, 541956, 289854, 147897, 62142, 0], abs=0.5)
    assert expected_cost(held, IMPACT, 1.0) == pytest.approx(911_227, abs=0.5)
    assert cost_deviation(held, VOLATILITY, 1.0) == pytest.approx(603_431, abs=0.5)


def test_a_seller_who_fears_nothing_sells_evenly():
    assert schedule(100, 2.0, 4, 0.0) == pytest.approx([100, 75, 50, 25, 0])


def test_a_very_urgent_schedule_does_not_overflow():
    held = schedule(100, 1.0, 10, 5000.0)
    assert held[0] == 100 and np.isfinite(held).all() and held[1:].max() < 1e-6


@given(st.floats(0, 50), st.integers(1, 50))
def test_every_schedule_starts_full_ends_empty_and_never_buys(kappa, steps):
    held = schedule(1000.0, 2.0, steps, kappa)
    assert held[0] == pytest.approx(1000.0) and held[-1] == 0.0
    assert (np.diff(held) <= 1e-9).all()


@given(st.floats(0.01, 20))
def test_the_even_schedule_is_the_cheapest(kappa):
    impact = Impact(half_spread=3.0, permanent=0.001, temporary=0.02)
    uneven = expected_cost(schedule(1000.0, 2.0, 10, kappa), impact, 0.2)
    assert coordinated_cost(1000.0, 2.0, 10, impact) <= uneven + 1e-9


def test_without_an_optimum_there_is_an_error():
    with pytest.raises(ValueError, match="temporary impact"):
        urgency(Impact(0.0, permanent=1.0, temporary=0.4), 1.0, 1.0, 1.0)


def test_exit_game_matches_its_closed_form_vectors():
    assert exit_game(10, 1.0, 10.0).aar_ratio == pytest.approx(1.095632, abs=5e-7)
    assert exit_game(1, 1.0, 0.7).aar_ratio == pytest.approx(1.0)


def test_exit_game_is_what_a_search_over_all_strategies_finds():
    agents, slope, waiting = 10, 1.0, 10.0

    def own_cost(mine: float, others: float) -> float:
        first = mine + (agents - 1) * others
        return slope * (mine * first + (1 - mine) * (agents - first)) + waiting * (1 - mine)

    shares = np.linspace(0, 1, 2001)
    nash = exit_game(agents, slope, waiting).nash
    best_answer = shares[np.argmin([own_cost(share, nash) for share in shares])]
    assert best_answer == pytest.approx(nash, abs=1e-3)


@given(st.integers(1, 1000), st.floats(0.01, 100), st.floats(0, 1000))
def test_selfish_exits_never_cost_less_than_the_best_and_at_most_eight_sevenths(agents, slope, waiting):
    assert 1 - 1e-9 <= exit_game(agents, slope, waiting).aar_ratio <= 8 / 7 + 1e-9


def test_the_coordinated_exit_is_cheaper_with_more_time_and_the_same_however_finely_sliced():
    """Else the AAR ratio would be decided by a discretisation."""
    top = TopOfBook(int(MessageKind.SLOW_TOP_OF_BOOK), 0, 1, 1, 0, 1, 9996, 100, 10004, 100, 10000, 0, 3000, 3000)

    def cost(horizon_s: float, steps: int) -> float:
        impact = book_impact(top, 10_000.0, permanent_share=0.1, recovery_s=0.15, step_s=horizon_s / steps)
        return coordinated_cost(50_000.0, horizon_s, steps, impact)

    assert cost(0.5, 10) > cost(1.5, 10) > cost(5.0, 10) > cost(60.0, 10)
    assert cost(1.5, 1) == pytest.approx(cost(1.5, 10)) == pytest.approx(cost(1.5, 1000))
