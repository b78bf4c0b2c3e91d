"""Concentration, herding and the audit by behaviour, against numbers worked out by hand or published."""

import numpy as np
import pytest

from aar_swarm.analysis.diversity import (
    _between_names,
    _herding,
    agreement,
    clusters,
    effective_number,
    herfindahl,
    homogenisation,
    losses_in_windows,
    lsv,
    of_run,
)
from aar_swarm.results import load
from exchange.errors import ConfigurationError
from tests.runs import summary_of


def test_concentration_of_equal_ones_and_of_one():
    assert herfindahl([5, 5, 5, 5]) == pytest.approx(2500) and effective_number([5, 5, 5, 5]) == pytest.approx(4)
    assert herfindahl([7]) == pytest.approx(10_000)
    assert herfindahl([50, 30, 20, 0]) == pytest.approx(2500 + 900 + 400)
    assert herfindahl([]) is None and effective_number([0, 0]) is None


def test_nine_buyers_of_ten_are_the_published_vector():
    assert _herding(9, 10, 0.5) == pytest.approx(0.276953, abs=1e-6)


def test_herding_is_far_from_chance_where_windows_are_one_sided_and_not_where_they_are_drawn():
    rng = np.random.Generator(np.random.PCG64(1))
    active = np.full(400, 20)
    drawn = lsv(rng.binomial(20, 0.5, 400), active)
    assert drawn is not None and abs(drawn["mean"]) < 0.01 and drawn["p_value"] > 0.001
    assert drawn["dispersion"] == pytest.approx(1, abs=0.25)
    herds = lsv(rng.binomial(20, rng.choice([0.2, 0.8], 400)), active)
    assert herds is not None and herds["mean"] > 0.1 and herds["p_value"] < 1e-6 and herds["dispersion"] > 3


def test_herding_of_one_side_alone_is_not_defined():
    assert lsv(np.array([5, 5]), np.array([5, 5])) is None and lsv(np.array([3]), np.array([5])) is None


def test_failing_together_is_told_from_failing_alone():
    together = np.array([[True, True], [False, False]])
    alone = np.array([[True, True], [True, False], [False, True], [False, False]])
    assert homogenisation(together) == 2 and homogenisation(alone) == 1
    assert homogenisation(np.array([[True, False], [False, False]])) is None


def test_a_loss_is_of_what_one_held_and_of_what_one_paid_too_much():
    mids = np.array([100.0, 90.0, 90.0, 95.0])
    held = np.array([10, 0, -10])
    lots = np.array([[0, 0, 0], [0, 2, 0], [0, 0, 10]])
    paid = np.array([[0, 0, 0], [0, 2 * 91, 0], [0, 0, 10 * 96]])  # bought above the mid
    expected = [[True, False, False], [False, True, False], [False, False, True]]
    assert losses_in_windows(held, lots, paid, mids).tolist() == expected


def test_agreement_counts_the_last_answer_to_each_common_message():
    accounts = np.array([7, 9, 7, 9, 7, 9, 9])
    causes = np.array([1, 1, 2, 2, 3, 3, 3])
    actions = np.array([0, 0, 1, 1, 0, 0, 1])  # on the third, 9 first does what 7 does and then the contrary
    names, common, alike = agreement(accounts, causes, actions)
    assert names.tolist() == [7, 9]
    assert common.toarray().tolist() == [[3, 3], [3, 3]] and alike.toarray().tolist() == [[3, 2], [2, 3]]


def test_clones_are_found_whatever_else_there_is():
    rng = np.random.Generator(np.random.PCG64(2))
    answers = rng.integers(0, 2, (6, 40))
    answers[3] = answers[1]  # a clone
    answers[5] = answers[1]
    answers[5, 0] ^= 1  # and one that errs once in forty
    rows = [(account, cause, answers[account, cause]) for account in range(6) for cause in range(40)]
    _, common, alike = agreement(*(np.array(column) for column in zip(*rows, strict=True)))
    found = clusters(common, alike, 0.95, 5)
    assert found[1] == found[3] == found[5] and len(set(found.tolist())) == 4
    assert len(set(clusters(common, alike, 0.95, 41).tolist())) == 6  # too little in common to say


def test_two_names_for_one_model_are_found_and_two_models_are_not():
    rng = np.random.Generator(np.random.PCG64(3))
    models = rng.integers(0, 2, (2, 300))  # what each model answers to 300 messages
    names, answers = [], []
    for name, model in (("a", 0), ("b", 0), ("c", 1)):
        for _ in range(6):
            mistakes = rng.random(300) < 0.1
            names.append(name)
            answers.append(np.where(mistakes, 1 - models[model], models[model]))
    rows = [(account, cause, answers[account][cause]) for account in range(18) for cause in range(300)]
    _, common, alike = agreement(*(np.array(column) for column in zip(*rows, strict=True)))
    found = _between_names(names, common.toarray(), alike.toarray())
    assert [pair["names"] for pair in found["one_model"]] == [["a", "b"]]
    assert all(each["agreement"] == pytest.approx(0.9**2 + 0.1**2, abs=0.06) for each in found["by_name"])


@pytest.mark.usefixtures("nothing_left")
def test_a_run_is_audited(finished, aar_here):
    directory, _ = finished
    found = of_run(load(directory))
    assert found["declared"]["largest"] == "crowd of vendor 1"
    assert found["declared"]["hhi"] == pytest.approx(herfindahl([6, 4, 4, 26]), abs=0.1)  # of the forty
    outcomes = found["outcomes"]
    assert outcomes["windows"] >= 2 and outcomes["names"] >= 2 and outcomes["pairs"] > 0
    assert found["order_flow"]["largest"] in ("crowd of vendor 1", "makers", "value", "noise")
    with pytest.raises(ConfigurationError, match="--window-ms"):
        of_run(load(directory), window_ms=0)
    done = aar_here("diversity", directory, "--window-ms", "250", "--whole")
    assert summary_of(done)["window_ms"] == 250
