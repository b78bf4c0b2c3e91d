"""Intervals and trends against values from tables and textbooks."""

import math

import pytest

from aar_swarm.analysis.statistics import Interval, interval, spearman, trend


def test_interval_is_student_s() -> None:
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451052 * math.sqrt(2.5 / 5)  # t(0.975; 4), from the table
    assert found is not None and (found.mean, found.n) == (3.0, 5)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-9)
    wider = interval([1.0, 2.0, 3.0, 4.0, 5.0], confidence=0.99)
    assert wider is not None and wider.high == pytest.approx(3 + 4.6040948713 * math.sqrt(0.5), abs=1e-9)


def test_one_value_has_no_interval_and_equal_values_one_without_width() -> None:
    assert interval([]) is None and interval([3.0]) is None
    assert interval([2.0, 2.0]) == Interval(2.0, 2.0, 2.0, 2)


def test_spearman_with_ties_is_the_textbook_s() -> None:
    # IQ against hours of television (the worked example of the usual encyclopaedia): ρ = −29/165.
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    found = spearman(iq, hours)
    assert found is not None and found.n == 10
    assert found.rho == pytest.approx(-29 / 165) and found.p_value == pytest.approx(0.627188, abs=1e-5)


def test_spearman_says_nothing_of_too_little() -> None:
    assert spearman([1, 2, 3], [1, 2, 3]) is None
    assert spearman([1, 1, 1, 1], [1, 2, 3, 4]) is None and spearman([1, 2, 3, 4], [5, 5, 5, 5]) is None
    with pytest.raises(ValueError, match="give pairs"):
        spearman([1], [1, 2])


def test_monotone_curve_in_any_order_of_its_points() -> None:
    found = trend([(5, [9.0, 11.0]), (1, [1.0, 3.0]), (2, [4.0, 6.0])])
    assert found is not None and (found.direction, found.monotone, found.violations) == (1, True, ())
    assert found.ranks is not None and found.ranks.rho == pytest.approx(0.9561829, abs=1e-6) and found.ranks.n == 6


def test_a_step_back_is_named_and_weighed() -> None:
    noisy = trend([(1, [1.0, 3.0]), (2, [0.0, 3.0]), (3, [50.0, 50.2])])
    assert noisy is not None and noisy.direction == 1 and not noisy.monotone
    (step,) = noisy.violations
    assert (step.from_x, step.to_x, step.step, step.within_intervals) == (1, 2, pytest.approx(-0.5), True)
    sharp = trend([(1, [1.0, 1.1]), (2, [-9.0, -9.1]), (3, [50.0, 50.2])])
    assert sharp is not None and sharp.violations[0].within_intervals is False
    once = trend([(1, [1.0]), (2, [0.0]), (3, [5.0])])
    assert once is not None and once.violations[0].within_intervals is None and once.ranks is None


def test_flat_and_returning_curves() -> None:
    flat = trend([(1, [2.0, 2.0]), (2, [2.0, 2.0])])
    assert flat is not None and (flat.direction, flat.monotone, flat.ranks) == (0, True, None)
    hump = trend([(1, [0.0]), (2, [5.0]), (3, [0.0])])
    assert hump is not None and hump.direction == 0 and not hump.monotone and len(hump.violations) == 2
    assert trend([(1, [1.0]), (2, [])]) is None
