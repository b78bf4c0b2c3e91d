"""The validation gate and enforced diversity in a run: who passes, who is let in, and with whose model."""

import json
from pathlib import Path

import numpy as np
import pytest

from aar_swarm.scenario import load_scenario
from aar_swarm.vendors import placement
from aar_swarm.vendors.config import Vendors
from aar_swarm.vendors.model import log_value
from aar_swarm.vendors.service import Vendor, VendorWorld
from aar_swarm.vendors.validation import battery
from exchange.clock import MS, SECOND
from exchange.errors import ConfigurationError
from tests.runs import aar, summary_of


def vendors(**settings) -> Vendors:
    return Vendors.model_validate({"seed": 1, "fault_bps": 0.0, **settings})


def test_sound_models_pass_and_the_record_says_by_how_much():
    found = battery(vendors(count=4), 1)
    assert [(each.vendor, each.model, each.model_version) for each in found] == [(n, 1, 1) for n in range(1, 5)]
    assert all(each.passed and 0.7 <= each.concordance <= 1 and 0 < each.error_log_p95 <= 0.5 for each in found)


def test_a_model_that_sees_little_fails_on_its_errors():
    first, second = battery(vendors(count=2, features_seen=1), 1)
    assert not second.passed and (second.concordance < 0.7 or second.error_log_p95 > 0.5)
    assert second.error_log_p95 > first.error_log_p95 and second.silent_when_stale


def test_a_vendor_that_goes_on_with_stale_input_fails_on_that_alone():
    (found,) = battery(vendors(stale_after_ms=0.0), 1)
    assert not found.silent_when_stale and not found.passed and found.concordance >= 0.7 and found.error_log_p95 <= 0.5


def test_a_model_upside_down_fails(monkeypatch):
    monkeypatch.setattr("aar_swarm.vendors.validation.log_value", lambda model, z: -log_value(model, z))
    (found,) = battery(vendors(), 1)
    assert found.concordance < 0.3 and not found.passed


def test_a_feed_that_stops_repeats_itself_until_the_vendor_is_silent():
    world = VendorWorld(vendors(feed_stops_at_s=1.0, stale_after_ms=500.0))
    vendor = Vendor(world, 0, 10_000)
    at_stop, later, stale = (vendor.answers(int(s * SECOND), 1)[0] for s in (1.0, 1.4, 1.51))
    assert at_stop.value_ticks == later.value_ticks > 0 and not later.withdrawn
    assert (stale.withdrawn and stale.value_ticks > 0) or stale.withdrawn
    flowing = Vendor(VendorWorld(vendors()), 0, 10_000)
    steps = [flowing.answers(n * 200 * MS, 1)[0].value_ticks for n in range(5)]
    assert len(set(steps)) == 5


def test_a_fault_that_comes_after_the_session_opened_passes_the_gate():
    scenario = load_scenario("shared-brain", settings={"admission.validated": "true", "vendors.count": "2"})
    resolved = placement.resolved(scenario, seed=1)
    verdicts = placement.examined(resolved)
    assert resolved.vendors is not None and VendorWorld(resolved.vendors).is_faulty(0)
    assert all(verdict.passed for verdict in verdicts)
    config = resolved.engine_config(152, [verdict.declaration for verdict in verdicts]).admission
    assert config is not None and config.validated == ((1, 1, 1), (2, 1, 1))


def test_without_a_gate_nothing_is_examined():
    scenario = load_scenario("shared-brain")
    assert placement.examined(scenario) == [] and scenario.engine_config(152).admission is None


@pytest.mark.parametrize(
    ("name", "settings", "word"),
    [
        ("exit-door", {"admission.validated": "true"}, "no \\[vendors\\]"),
        ("shared-brain", {"funds.vendor": "3"}, "declares"),
        ("shared-brain", {"noise.vendor": "1"}, "first numbers"),
        ("exit-door", {"admission.vendor_flow_bps": "100"}, "go together"),
        ("exit-door", {"admission.flow_floor": "100"}, "could never refuse"),
        ("exit-door", {"admission.vendor_agents_bps": "10000"}, "vendor_agents_bps: Input should be less than 10000"),
        ("exit-door", {"admission.nothing": "1"}, "unknown setting"),
        ("exit-door", {"explanations": "perhaps"}, "explanations"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_line(name, settings, word):
    with pytest.raises(ConfigurationError, match=word) as raised:
        load_scenario(name, settings=settings)
    assert "\n" not in str(raised.value)


def test_preferences_begin_with_the_own_or_with_everybodys_choice():
    dealt = Vendors.model_validate({"count": 3}).preferences(4)
    assert dealt == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]
    same = Vendors.model_validate({"count": 3, "first_choice": "same"}).preferences(3)
    assert same == [[0, 1, 2], [0, 1, 2], [0, 2, 1]]


@pytest.mark.usefixtures("nothing_left")
def test_a_cap_sends_the_funds_of_one_vendor_to_the_others(tmp_path: Path):
    capped = {
        "vendors.count": "4",
        "vendors.first_choice": "same",
        "admission.vendor_agents_bps": "2500",
        "admission.validated": "true",
        "duration_s": "2.5",
        "signal.at_s": "1.5",
        "vendors.fault_at_s": "0.5",
        "vendors.found_after_s": "1.0",
    }
    sets = [part for key, value in capped.items() for part in ("--set", f"{key}={value}")]
    out = tmp_path / "run"
    summary = summary_of(aar("run", "shared-brain", "--size", "small", *sets, "--out", out, "--json"))
    assert summary["agents_not_admitted"] == 0 and summary["largest_vendor_share"] <= 0.25
    assert set(summary["refused_by_reason"]) == {"VENDOR_AGENTS_CAP"}
    assert summary["refused_logons"] >= 68 - 20  # 68 funds want the first; 20 of 80 may
    told = json.loads((out / "validation.json").read_text())
    assert len(told) == 4 and all(verdict["passed"] for verdict in told)
    measured = summary["scenario_measures"]
    assert np.isclose(measured["share_of_funds_at_faulty_vendors"], 20 / 68) and measured["vendors_faulty"] == 1
    assert summary["agent_processes_lost"] == 0
