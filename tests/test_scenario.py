"""Scenarios and settings: what is accepted, and the one line that says why something is not."""

import pytest

from aar_swarm.scenario import check_endowments, load_scenario, scenario_names
from exchange.clock import MS
from exchange.errors import ConfigurationError


def test_exit_door_is_there_and_its_crowd_is_whatever_the_agents_leave():
    assert "exit-door" in scenario_names()
    scenario = load_scenario("exit-door")
    counts = scenario.counts(1000)
    assert sum(counts.values()) == 1000
    assert counts == {"makers": 16, "value": 12, "noise": 12, "crowd": 960}
    assert scenario.counts(136)["crowd"] == 96  # a tenth


def test_settings_reach_the_place_that_their_path_names():
    scenario = load_scenario(
        "exit-door",
        settings={
            "duration_s": "3",
            "signal.bps": "-10",
            "signal.at_s": "1.5",
            "makers.count": "4",
            "makers.levels": "2",
            "value.rungs_bps": "[50, 60]",
            "crowd.shares": "7",
            "breaker.price_window_ms": "20",
        },
    )
    assert (scenario.duration_s, scenario.signal.bps, scenario.signal.at_s) == (3.0, -10, 1.5)
    assert scenario.participants["makers"].count == 4
    assert scenario.participants["makers"].params["levels"] == 2
    assert tuple(scenario.participants["value"].params["rungs_bps"]) == (50.0, 60.0)
    assert scenario.participants["crowd"].shares == 7
    breaker = scenario.engine_config(100).instruments[0].breaker
    assert breaker.price_window_ns == 20 * MS and breaker.price_move_bps == 300


def test_the_breaker_can_be_chosen_or_switched_off():
    assert load_scenario("exit-door", "off").breaker is None
    assert not load_scenario("exit-door", "off").engine_config(100).instruments[0].breaker.armed
    chosen = load_scenario("exit-door", "price-move").engine_config(100).instruments[0].breaker
    assert chosen.price_move_bps and not chosen.sell_volume_lots


@pytest.mark.parametrize(
    ("breaker", "settings", "message"),
    [
        ("loud", {}, "unknown breaker 'loud'.*default, price-move, sell-volume, off"),
        ("default", {"sginal.bps": "1"}, "unknown setting 'sginal.bps'.*signal"),
        ("default", {"signal.bsp": "1"}, "unknown setting 'signal.bsp'.*at_s, bps"),
        ("default", {"makers.leverages": "1"}, "unknown setting 'makers.leverages'.*levels"),
        ("default", {"participants.makers": "1"}, "unknown setting"),
        ("default", {"name": "x"}, "unknown setting"),
        ("default", {"signal.bps": "-99999"}, r"signal.bps: .*greater than or equal to -9000 \(given: -99999\)"),
        ("default", {"signal.bps": "much"}, "signal.bps: .*integer.*'much'"),
        ("default", {"makers.levels": "0"}, "makers.levels: .*greater than or equal to 1"),
        ("default", {"crowd.count": "many"}, "crowd.count"),
        ("default", {"duration_s": "nan"}, "duration_s"),
        ("default", {"duration_s": "2"}, "signal.at_s 4.0 is not before the end"),
        ("default", {"instrument.price_levels": "100"}, "multiple of 64"),
        ("default", {"instrument.opening_ticks": "20000"}, "must be below instrument.price_levels"),
        ("off", {"breaker.price_move_bps": "1"}, "the breaker is off"),
        ("price-move", {"breaker.price_window_ms": "0"}, "give it a window"),
        ("price-move", {"breaker.price_move_bps": "0"}, "could never trip"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(breaker, settings, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_scenario("exit-door", breaker, settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_scenario_names_those_there_are():
    with pytest.raises(ConfigurationError, match="unknown scenario 'exit-window'.*exit-door"):
        load_scenario("exit-window")


def test_too_few_agents_name_what_is_needed():
    scenario = load_scenario("exit-door")
    with pytest.raises(ConfigurationError, match="--agents 20: .*at least 40.*makers 16"):
        scenario.counts(20)


def test_more_cash_than_the_engine_can_count_is_refused():
    scenario = load_scenario("exit-door", settings={"crowd.cash": str(1 << 50)})
    with pytest.raises(ConfigurationError, match="cash sums to"):
        check_endowments(scenario, 10_000)


def test_a_user_s_own_scenario_and_strategy_are_used_by_name(tmp_path):
    text = (
        'title = "mine"\nduration_s = 1.0\ndefault_agents = 2\n'
        "[signal]\nat_s = 0.5\nbps = -1\n"
        "[instrument]\nopening_ticks = 100\nprice_levels = 256\ntick_size = 1.0\nmax_quantity_lots = 10\n"
        "[market_data]\ninterval_ms = 20.0\nslow_interval_ms = 100.0\n"
        "[breakers.default]\nprice_move_bps = 100\nprice_window_ms = 10.0\n"
        '[participants.me]\nstrategy = "aar_swarm.agents.noise_trader:NoiseTrader"\ncount = "rest"\n'
        "cash = 1\nshares = 1\n"
    )
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert load_scenario(str(path)).counts(2) == {"me": 2}
    path.write_text(text.replace("NoiseTrader", "NobodyKnows"))
    with pytest.raises(ConfigurationError, match="NobodyKnows"):
        load_scenario(str(path))
    path.write_text(text.replace("noise_trader:NoiseTrader", "base:Rule"))
    with pytest.raises(ConfigurationError, match="not a subclass"):
        load_scenario(str(path))
    for wrong in ("breakers = 5\n", "[[participants]]\n", '[breakers]\ndefault = "loud"\n'):
        path.write_text(wrong + text.replace("[breakers.default]", "[market]").replace("[participants.me]", "[me]"))
        with pytest.raises(ConfigurationError, match=r"mine.toml: it needs"):
            load_scenario(str(path))
    path.write_text("title = ")
    with pytest.raises(ConfigurationError, match="mine.toml"):
        load_scenario(str(path))
