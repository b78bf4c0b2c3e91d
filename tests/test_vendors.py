"""The vendors' models and settings; the service; and a vendor as a real process over real sockets."""

import math
from itertools import pairwise

import numpy as np
import pytest
import zmq
from pydantic import ValidationError

from aar_swarm.agent_process import ROW_FIELDS, TARGET
from aar_swarm.names import vendor_stream
from aar_swarm.runner import prepare
from aar_swarm.scenario import load_scenario
from aar_swarm.vendors.client import VendorClient, pack_question
from aar_swarm.vendors.config import Vendors
from aar_swarm.vendors.model import (
    FEATURES,
    LOG_VALUE_SD,
    calibrate_fault,
    effective_models,
    effective_vendors,
    errors,
    fault_effects_bps,
    log_value,
    make_world,
    mis_scaled,
    true_log_value,
)
from aar_swarm.vendors.placement import resolved
from aar_swarm.vendors.service import REPAIRED, SOUND, Vendor, VendorWorld
from cluster.host import AgentHost
from exchange import clock, wire
from exchange.clock import SECOND
from exchange.errors import ConfigurationError
from exchange.types import EventKind
from tests.processes import ROOT, wait_until

OPENING = 10_000
SEEDS = (1, 2, 3)


def settings(**changes) -> Vendors:
    return Vendors.model_validate({"seed": 1, "observation_noise": 0.0, **changes})


def mean_correlation(config: Vendors) -> float:
    correlations = VendorWorld(config).correlations()
    count = len(correlations)
    return float((correlations.sum() - count) / (count * (count - 1)))


class TestModel:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_model_that_sees_everything_errs_much_less_than_the_values_vary(self, seed):
        world = VendorWorld(settings(seed=seed, features_seen=FEATURES))
        test = vendor_stream(seed, 9, 9).normal(0, 1, (2000, FEATURES))
        error = errors(world.world, [world.model(0)], test)[0]
        assert np.std(true_log_value(world.world, test)) == pytest.approx(LOG_VALUE_SD, rel=0.1)
        assert np.sqrt(np.mean(error**2)) < 0.35 * LOG_VALUE_SD

    def test_a_model_reads_the_features_that_it_sees_and_no_other(self):
        model = VendorWorld(settings(features_seen=5)).model(0)
        assert model.seen.sum() == 5
        z = np.zeros((1, FEATURES))
        for feature in range(FEATURES):
            moved = z.copy()
            moved[0, feature] = 1.0
            assert (log_value(model, moved) != log_value(model, z))[0] == model.seen[feature]

    def test_the_same_seed_and_vendor_give_the_same_model_whatever_the_number_of_vendors(self):
        few, many = VendorWorld(settings(count=1)).model(0), VendorWorld(settings(count=8)).model(0)
        assert all(np.array_equal(one, other) for one, other in zip(few, many, strict=True))

    def test_similarity_one_is_one_model_and_below_it_the_measured_similarity_rises_with_the_setting(self):
        means = [
            np.mean([mean_correlation(settings(seed=seed, count=4, similarity=similarity)) for seed in SEEDS])
            for similarity in (0.0, 0.5, 0.9, 1.0)
        ]
        assert all(low < high for low, high in pairwise(means)), means
        assert means[0] < 0.5 and means[-1] == pytest.approx(1.0)

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("bps", [300.0, 1000.0])
    def test_the_fault_that_is_solved_for_moves_the_valuation_by_as_much_as_was_asked(self, seed, bps):
        world = VendorWorld(settings(seed=seed))
        found = calibrate_fault(world.model(0), world.world.asset, bps)
        assert found is not None
        feature, factor = found
        effect = fault_effects_bps(world.model(0), world.world.asset, feature, np.array([factor]))
        assert effect[0] == pytest.approx(bps, abs=0.01)

    def test_a_mis_scaled_feature_is_the_raw_one_times_the_factor(self):
        z = np.array([0.5, -1.0])
        wrong = mis_scaled(z, 0, 2.0)
        assert 1 + 0.2 * wrong[0] == pytest.approx(2.0 * (1 + 0.2 * 0.5)) and wrong[1] == -1.0

    def test_effective_numbers(self):
        equal = np.full(4, 0.25)
        assert effective_vendors(equal) == 4 and effective_vendors(np.array([1.0])) == 1
        assert effective_models(equal, np.eye(4)) == 4
        assert effective_models(equal, np.ones((4, 4))) == 1

    def test_the_world_has_values_on_both_sides(self):
        world = make_world(vendor_stream(1, -1, 0))
        values = true_log_value(world, vendor_stream(1, 0, 9).normal(0, 1, (500, FEATURES)))
        assert values.min() < -0.1 < 0.1 < values.max()


class TestSettings:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"count": 2, "shares": [1.0]},
            {"count": 2, "fault_vendor": 2},
            {"fault_factor": 2.0},
            {"similarity": 1.5},
            {"nobody_knows_this": 1},
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, wrong):
        with pytest.raises(ValidationError):
            Vendors.model_validate(wrong)

    def test_funds_are_dealt_by_shares_and_neighbours_mixed(self):
        dealt = settings(count=3, shares=[2.0, 1.0, 1.0]).deal(100)
        assert [dealt.count(vendor) for vendor in range(3)] == [50, 25, 25]
        assert {*dealt[:4]} == {0, 1, 2}
        assert settings(count=4).deal(6) == [0, 1, 2, 3, 0, 1]

    def test_every_setting_can_be_set(self):
        scenario = load_scenario("shared-brain", settings={"vendors.count": "2", "vendors.shares": "[3, 1]"})
        assert scenario.vendors is not None and scenario.vendors.weights == (0.75, 0.25)
        asked = scenario.vendors_of(152)
        assert asked[0] == [] and (asked.count([0, 1]), asked.count([1, 0])) == (75, 25)

    def test_the_manifest_s_scenario_says_the_fault_as_it_was(self):
        vendors = resolved(load_scenario("shared-brain"), seed=3).vendors
        assert vendors is not None and vendors.seed == 3
        assert vendors.fault_factor is not None and vendors.fault_feature is not None

    def test_a_fault_that_no_unit_error_makes_is_told_before_anything_starts(self):
        with pytest.raises(ConfigurationError, match="lower it"):
            _ = VendorWorld(settings(seed=2, fault_bps=5000)).fault
        with pytest.raises(ConfigurationError, match="lower it"):
            prepare("shared-brain", seed=2, settings={"vendors.fault_bps": 5000})

    def test_a_strategy_that_asks_a_vendor_needs_the_table(self, tmp_path):
        whole = (ROOT / "aar_swarm" / "scenarios" / "shared-brain.toml").read_text()
        parts = [whole[: whole.index("[vendors]")], whole[whole.index("[breakers") : whole.index("[dials]")]]
        mine = tmp_path / "mine.toml"
        mine.write_text("".join(parts))
        with pytest.raises(ConfigurationError, match=r"no \[vendors\] table"):
            load_scenario(str(mine))


class TestService:
    def test_it_is_sound_then_wrong_then_silent_then_repaired(self):
        config = settings(fault_at_s=1.0, found_after_s=2.0, withdrawn_s=1.0)
        vendor = Vendor(VendorWorld(config), 0, OPENING)
        heard = {second: vendor.answers(int(second * SECOND), 3) for second in (0.0, 0.9, 1.0, 2.9, 3.0, 3.9, 4.0)}
        assert all(len(answers) == 3 for answers in heard.values())
        first = {second: answers[0] for second, answers in heard.items()}
        assert first[0.0].value_ticks == pytest.approx(OPENING) and first[0.9].version == SOUND
        for second in (1.0, 2.9):
            assert first[second].value_ticks == pytest.approx(OPENING * 1.1, rel=1e-6)
            assert first[second].version == SOUND and not first[second].withdrawn
        assert first[3.0].withdrawn and first[3.9].withdrawn
        assert first[4.0].value_ticks == pytest.approx(OPENING) and first[4.0].version == REPAIRED

    def test_a_fault_in_its_pipeline_is_one_vendor_s_and_one_in_the_feed_is_of_all_who_read_the_feature(self):
        own = VendorWorld(settings(count=8))
        assert [own.is_faulty(number) for number in range(8)] == [True] + 7 * [False]
        upstream = VendorWorld(settings(count=8, fault_in="feed"))
        assert upstream.fault is not None
        reads = [bool(upstream.model(number).seen[upstream.fault.feature]) for number in range(8)]
        assert [upstream.is_faulty(number) for number in range(8)] == reads and 1 < sum(reads) < 8
        alike = VendorWorld(settings(count=4, fault_in="feed", similarity=1.0))
        assert [alike.overvaluation_bps(number) for number in range(4)] == pytest.approx([1000.0] * 4)

    def test_noise_is_the_vendor_s_own_and_holds_for_an_interval_in_each_of_its_processes(self):
        config = settings(count=2, observation_noise=0.05, feed_interval_ms=100.0)
        one, twin, other = (Vendor(VendorWorld(config), number, OPENING) for number in (0, 0, 1))
        at = [vendor.answers(SECOND // 2, 1)[0].value_ticks for vendor in (one, twin, other)]
        assert at[0] == at[1] != at[2]
        assert one.answers(SECOND // 2 + 90_000_000, 1)[0].value_ticks == at[0]
        assert one.answers(SECOND // 2 + 110_000_000, 1)[0].value_ticks != at[0]

    def test_before_the_opening_it_marks_to_the_market(self):
        assert Vendor(VendorWorld(settings()), 0, OPENING).answers(-1, 1)[0].value_ticks == pytest.approx(OPENING)


@pytest.mark.usefixtures("nothing_left")
def test_a_vendor_process_answers_over_sockets_and_ends_with_the_session(tmp_path):
    context: zmq.Context = zmq.Context()
    notices = context.socket(zmq.PUB)
    port = notices.bind_to_random_port("tcp://127.0.0.1")
    host = AgentHost(TARGET, [], ROW_FIELDS, capacity=1, log_path=str(tmp_path / "log"))
    try:
        config = settings(fault_at_s=0.0, found_after_s=3600.0)
        spec = {
            "is_vendor": True,
            "vendors": config.model_dump(),
            "number": 0,
            "host": "127.0.0.1",
            "keys": None,
            "lease_ns": 60 * SECOND,
            "market": {"opening_ticks": OPENING},
            "endpoints": {"notices": f"tcp://127.0.0.1:{port}"},
        }
        host.spawn([(7, spec)])
        wait_until(lambda: host.rows()["port"][0] > 0, "listening", timeout_s=60)
        client = VendorClient(context, f"tcp://127.0.0.1:{host.rows()['port'][0]}")

        def answer():
            asked_ns = clock.monotonic_ns()
            client.ask(asked_ns)
            assert client.socket.poll(10_000)
            (found,) = client.answers()
            assert found.asked_ns == asked_ns
            return found.valuation

        sound = answer()
        assert sound.value_ticks == pytest.approx(OPENING) and (sound.version, sound.withdrawn) == (SOUND, False)
        client.socket.send(b"nonsense is not answered, and harms nobody")
        opened = wire.pack(int(EventKind.SESSION_OPENED), *[0] * 11)

        def faulty() -> bool:
            notices.send(opened)
            return math.isclose(answer().value_ticks, 1.1 * OPENING, rel_tol=1e-6)

        wait_until(faulty, "heard of the opening, and wrong since")
        for number in range(50):
            client.socket.send(pack_question(number))
        heard = []
        wait_until(lambda: heard.extend(client.answers()) or len(heard) == 50, "all answered")
        assert [one.asked_ns for one in heard] == list(range(50))  # in the order of asking
        row = host.rows()[0]
        assert row["valuations"] >= 52 and 0 < row["batches"] <= row["valuations"] and row["valuation_ns"] > 0

        def ended() -> bool:
            notices.send(wire.pack(int(EventKind.SESSION_CLOSED), *[0] * 11))
            return host.status()["alive"] == 0

        wait_until(ended, "ended with the session")
        assert host.status()["finished"] == 1
    finally:
        host.stop()
        context.destroy(linger=0)


@pytest.mark.usefixtures("nothing_left")
def test_a_vendor_process_ends_by_itself_when_the_venue_is_silent(tmp_path):
    host = AgentHost(TARGET, [], ROW_FIELDS, capacity=1, log_path=str(tmp_path / "log"))
    try:
        spec = {
            "is_vendor": True,
            "vendors": settings().model_dump(),
            "number": 0,
            "host": "127.0.0.1",
            "keys": None,
            "lease_ns": SECOND // 2,
            "market": {"opening_ticks": OPENING},
            "endpoints": {"notices": "tcp://127.0.0.1:9"},
        }
        host.spawn([(7, spec)])
        wait_until(lambda: host.status()["alive"] == 0, "gone", timeout_s=60)
        assert host.rows()["lease_expired"][0] == 1
    finally:
        host.stop()
