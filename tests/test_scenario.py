"""Scenarios and settings: what is accepted, and the one line that says why something is not."""

from pathlib import Path

import pytest

from aar_swarm.endowment import opening_commands, signal_commands
from aar_swarm.scenario import check_endowments, choices, load_scenario, scenario_names
from exchange.clock import MS
from exchange.config import EngineConfig
from exchange.errors import ConfigurationError
from exchange.types import CommandKind, SystemAccount

EVERYTHING = str(Path(__file__).parent / "money" / "everything.toml")
"""A scenario with every table there is."""


def everything(settings=None, size="default"):
    return load_scenario(EVERYTHING, "off", settings, size)


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
        ("loud", {}, "unknown breaker 'loud'.*default, kill, price-move, sell-volume, off"),
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


def test_weights_divide_what_fixed_counts_leave_by_largest_remainders():
    scenario = everything()  # quoters 1 and liquidators 3; weights 2, 1 and 1
    assert scenario.counts(40) == {"quoters": 1, "sitters": 18, "borrowers": 9, "liquidators": 3, "crowd": 9}
    assert scenario.counts(41) == {"quoters": 1, "sitters": 19, "borrowers": 9, "liquidators": 3, "crowd": 9}
    assert scenario.counts(42) == {"quoters": 1, "sitters": 19, "borrowers": 10, "liquidators": 3, "crowd": 9}
    assert all(sum(scenario.counts(agents).values()) == agents for agents in range(6, 200))


def test_who_would_get_too_few_by_weight_gets_at_least_that():
    scenario = everything({"borrowers.weight": "0.001"})
    assert scenario.counts(40) == {"quoters": 1, "sitters": 23, "borrowers": 2, "liquidators": 3, "crowd": 11}
    assert everything({"borrowers.at_least": "30"}).counts(40)["borrowers"] == 30
    with pytest.raises(ConfigurationError, match="--agents 5: .*at least 6 .*borrowers 2"):
        scenario.counts(5)


def test_weights_are_exact_and_the_first_of_equals_comes_first():
    even = {"sitters.weight": "0.1", "borrowers.weight": "0.1", "crowd.weight": "0.1"}
    counts = everything(even).counts(4 + 31)
    assert (counts["sitters"], counts["borrowers"], counts["crowd"]) == (11, 10, 10)
    nobody = everything({"sitters.weight": "0", "borrowers.weight": "0", "crowd.weight": "0"})
    assert nobody.counts(6)["borrowers"] == 2
    with pytest.raises(ConfigurationError, match="nobody takes 1 of the agents"):
        nobody.counts(7)


def test_a_weight_and_a_count_take_each_other_s_place():
    assert everything({"borrowers.count": "5"}).counts(40)["borrowers"] == 5
    weighed = load_scenario("exit-door", settings={"crowd.weight": "3", "noise.weight": "1"})
    assert weighed.counts(48) == {"makers": 16, "value": 12, "noise": 5, "crowd": 15}
    with pytest.raises(ConfigurationError, match="more than one group takes the rest"):
        load_scenario("exit-door", settings={"noise.weight": "1"}).counts(100)


def test_a_size_is_settings_that_come_before_yours():
    small = everything(size="small")
    assert (small.default_agents, small.duration_s, small.signal.at_s, small.size) == (20, 2.0, 1.0, "small")
    assert everything({"duration_s": "5"}, "small").duration_s == 5.0
    assert everything().default_agents == 40
    assert "small" in choices("exit-door")["sizes"] and load_scenario("exit-door", size="small").duration_s < 5
    with pytest.raises(ConfigurationError, match=r"unknown size 'tiny'.*default, small \(--size NAME\)"):
        everything(size="tiny")


def test_a_size_that_sets_the_breaker_leaves_an_absent_one_absent(tmp_path):
    path = tmp_path / "mine.toml"
    text = (Path(EVERYTHING)).read_text().replace("[sizes.small]", "[sizes.small]\nbreaker.sell_volume_lots = 7")
    path.write_text(text + "[breakers.default]\nsell_volume_lots = 50\nsell_window_ms = 10\n")
    assert load_scenario(str(path), "off", size="small").breaker is None
    assert load_scenario(str(path), "default", size="small").breaker.sell_volume_lots == 7


def test_every_table_of_money_reaches_the_engine():
    config = everything().engine_config(40)
    main, coin = config.instruments
    assert config.revalue_interval_ns == 2 * MS
    assert (main.initial_margin_bps, main.maintenance_margin_bps, main.oracle.source) == (2000, 1000, "other_venue")
    assert (coin.price_levels, coin.initial_margin_bps, coin.oracle.source) == (256, 10_000, "own_book")
    assert not coin.breaker.armed
    assert (config.margin.mark, config.margin.fee_bps, config.lending.debt_at_par) == ("index", 10, True)
    assert (config.lending.collateral_instrument, config.lending.debt_instrument) == (0, 1)
    assert (config.stablecoin.par_ticks, config.stablecoin.redemption_lots_per_s) == (100, 1000)
    assert EngineConfig.model_validate(config.model_dump()) == config
    plain = load_scenario("exit-door", settings={}).engine_config(40)
    assert plain.lending is None and plain.stablecoin is None and len(plain.instruments) == 1


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("margin.slice_lots", "7", lambda config: config.margin.slice_lots == 7),
        ("margin.mark", "mid", lambda config: config.margin.mark == "mid"),
        ("lending.bonus_bps", "700", lambda config: config.lending.bonus_bps == 700),
        ("stablecoin.par_ticks", "90", lambda config: config.stablecoin.par_ticks == 90),
        ("stablecoin.maintenance_margin_bps", "50", lambda c: c.instruments[1].maintenance_margin_bps == 50),
        ("instrument.oracle_heartbeat_ms", "3", lambda c: c.instruments[0].oracle.heartbeat_ns == 3 * MS),
        ("revalue_interval_ms", "4", lambda config: config.revalue_interval_ns == 4 * MS),
    ],
)
def test_money_can_be_set_by_its_path(key, value, read):
    assert read(everything({key: value}).engine_config(40))
    assert not read(everything().engine_config(40))


def test_a_halt_can_end_and_only_the_main_instrument_has_a_breaker():
    changes = {"breaker.halt_ms": "500", "breaker.reopening_auction_ms": "20", "breaker.cancels_while_halted": "true"}
    breaker = load_scenario("exit-door", settings=changes).engine_config(100).instruments[0].breaker
    assert (breaker.halt_ns, breaker.reopening_auction_ns, breaker.cancels_while_halted) == (500 * MS, 20 * MS, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sitters.leverage": "0.5"}, "sitters: leverage must be 0 .* or at least 1"),
        ({"sitters.leverage": "[]"}, "sitters.leverage"),
        ({"sitters.leverage": "6"}, "sitters.leverage 6: instrument.initial_margin_bps 2000 allows at most 5"),
        ({"sitters.at_least": "-1"}, "sitters.at_least"),
        ({"quoters.at_least": "1"}, "quoters: at_least goes with a weight"),
        ({"instrument.initial_margin_bps": "900"}, "instrument: maintenance_margin_bps is above"),
        ({"instrument.oracle_source": "delayed"}, "instrument.oracle: .*delay_ms"),
        ({"instrument.oracle_source": "rumour"}, "instrument.oracle_source"),
        ({"instrument.oracle_source": "delayed", "instrument.oracle_delay_ms": "60000"}, "more than 4096 revaluations"),
        ({"stablecoin.redemption_burst_lots": "0"}, "stablecoin: redemption_lots_per_s and redemption_burst_lots"),
        ({"stablecoin.opening_ticks": "256"}, "stablecoin.opening_ticks must be below stablecoin.price_levels"),
        ({"lending.max_ltv_bps": "9000"}, "lending: max_ltv_bps is above"),
        ({"margin.mark": "hope"}, "margin.mark"),
        ({"signal.instrument": "2"}, "signal.instrument"),
        ({"vault.doors": "2"}, "settings start with: .*margin.…, stablecoin.…, lending.…, .*breaker.…, quoters.…"),
    ],
)
def test_money_that_cannot_be_is_one_line(settings, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        everything(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("without", "settings", "message"),
    [
        ("stablecoin", {}, r"it needs a \[stablecoin\] table"),
        ("lending", {}, r"instrument.oracle_deviation_bps is set but there is no \[lending\] table"),
        ("margin", {}, r"instrument.initial_margin_bps is set but there is no \[margin\] table"),
        ("margin", {"margin.mark": "mid"}, r"margin.mark: scenario mine has no \[margin\] table"),
        ("market_data", {}, r"mine.toml: it needs a \[market_data\] table"),
    ],
)
def test_a_table_that_others_need_is_missed(tmp_path, without, settings, message):
    path = tmp_path / "mine.toml"
    head, _, tail = Path(EVERYTHING).read_text().partition(f"[{without}]")
    path.write_text(head + tail[tail.index("\n[") :])
    with pytest.raises(ConfigurationError, match=message):
        load_scenario(str(path), "off", settings)


def test_leverage_is_dealt_round_robin_and_financed_by_the_venue():
    scenario = everything()
    assert scenario.leverages(40)[1:7] == [1.0, 5.0, 4.5, 1.0, 5.0, 4.5]
    assert scenario.leverages(40)[0] == scenario.leverages(40)[-1] == 0.0
    endowments = scenario.endowments(40)
    owners = [name for name, _ in scenario.members(40)]
    for each, name in zip(endowments, owners, strict=True):
        value = each.shares * 1000
        if name == "sitters":
            assert value / (value + each.cash) == pytest.approx(each.leverage, rel=1e-3)
            assert value <= each.leverage * (value + each.cash)  # rounded to where the venue allows it
        else:
            assert each.cash == scenario.participants[name].cash
    assert endowments[0].coins == 1000


def test_the_opening_commands_endow_accounts_and_the_venue_s_own():
    scenario = everything()
    commands = opening_commands(scenario, 40)
    fund, pool, issuer = (40 + each for each in list(SystemAccount)[:3])
    assert commands[:2] == [(CommandKind.PUBLISH_INDEX, 0, 0, 1000), (CommandKind.PUBLISH_INDEX, 0, 1, 100)]
    assert commands[2] == (CommandKind.SET_MARGIN, 1, 0, 1)
    assert (CommandKind.WITHDRAW_CASH, 2, 0, 8000) in commands  # ten shares at 1,000, five times the equity
    assert not [each for each in commands if each[:2] == (CommandKind.WITHDRAW_CASH, 1)]  # once: nothing is borrowed
    assert commands[-4:] == [
        (CommandKind.DEPOSIT_CASH, fund, 0, 5000),
        (CommandKind.DEPOSIT_POSITION, pool, 1, 100_000),
        (CommandKind.DEPOSIT_CASH, issuer, 0, 1500),
        (CommandKind.DEPOSIT_POSITION, issuer, 1, 50),
    ]
    kinds = [kind for kind, *_ in commands]
    assert kinds.index(CommandKind.DEPOSIT_CASH) > max(i for i, k in enumerate(kinds) if k == CommandKind.SET_MARGIN)
    plain = load_scenario(str(Path(EVERYTHING)), "off").model_copy(
        update={"margin": None, "lending": None, "stablecoin": None}
    )
    assert not [each for each in signal_commands(plain) if each[0] == CommandKind.PUBLISH_INDEX]


def test_another_venue_hears_the_signal_too():
    assert signal_commands(everything()) == [
        (CommandKind.PUBLISH_SIGNAL, 0, 0, -2000),
        (CommandKind.PUBLISH_INDEX, 0, 0, 800),
    ]
    about_the_coin = everything({"signal.instrument": "1", "signal.bps": "9000", "stablecoin.price_levels": "128"})
    assert signal_commands(about_the_coin) == [
        (CommandKind.PUBLISH_SIGNAL, 0, 1, 9000),
        (CommandKind.PUBLISH_INDEX, 0, 1, 127),  # the highest price there is
    ]
    assert signal_commands(everything({"signal.bps": "0"}))[1] == (CommandKind.PUBLISH_INDEX, 0, 0, 1000)


def test_what_everyone_knows_comes_from_the_tables():
    market = everything().market(40)
    assert (market.initial_margin_bps, market.maintenance_margin_bps) == (2000, 1000)
    assert (market.stablecoin, market.par_ticks, market.coin_levels) == (1, 100, 256)
    assert (market.max_ltv_bps, market.liquidation_threshold_bps) == (8000, 8250)
    assert (market.close_factor_bps, market.bonus_bps) == (5000, 500)
    assert load_scenario("exit-door").market(100).stablecoin == -1


def test_the_venue_s_own_cash_counts_too():
    with pytest.raises(ConfigurationError, match="cash sums to"):
        check_endowments(everything({"stablecoin.reserves": str(1 << 60)}), 40)


def test_only_the_crowd_rehearses_unless_others_ask_to():
    scenario = everything({"sitters.rehearse": "true"})
    assert {name for name, group in scenario.participants.items() if group.rehearse} == {"sitters", "crowd"}


@pytest.mark.parametrize("name", scenario_names())
def test_the_dials_of_our_scenarios_are_settings_that_there_are(name):
    """A user who puts a strategy of their own into a copy need not mend the list."""
    scenario = load_scenario(name)
    for key in scenario.dials:
        assert scenario.value_of(key) is not None, key
    for size in choices(name)["sizes"]:
        load_scenario(name, size=size)


def test_a_setting_s_value_is_found_by_its_path():
    scenario = load_scenario("exit-door", settings={"crowd.shares": "7"})
    assert scenario.value_of("crowd.shares") == 7 and scenario.value_of("signal.bps") == -50
    assert scenario.value_of("crowd.horizon_s") == 1.5 and scenario.value_of("duration_s") == 10
    assert scenario.value_of("crowd.leverage") == 0
    assert load_scenario("exit-door", "off").value_of("breaker.halt_ms") is None
