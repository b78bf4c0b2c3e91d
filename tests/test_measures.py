"""The measures on a session small enough to compute by hand."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import aar_swarm
from aar_swarm.analysis.load import load
from aar_swarm.analysis.losses import losers_table
from aar_swarm.analysis.measures import NotConserved, Session, check_conservation, own_measures
from aar_swarm.analysis.price import liquidity_table
from aar_swarm.analysis.session import most_within
from aar_swarm.analysis.tables import decisions_table, trades_table
from aar_swarm.scenario import load_scenario
from aar_swarm.write_up import write_notices
from exchange.clock import MS
from exchange.config import BreakerConfig, EngineConfig, InstrumentConfig
from exchange.engine import Engine
from exchange.errors import ConfigurationError
from exchange.types import CommandKind, Side
from tests.hand_made import MARKET, board, command, measured, order, play, timings_of

GROUPS = ["makers", "crowd", "crowd"]


def played(*commands: dict[str, int], breaker: BreakerConfig | None = None) -> tuple[Session, Engine, np.ndarray]:
    opening = [
        command(CommandKind.DEPOSIT_CASH, 0, account=0, quantity_lots=10**9),
        command(CommandKind.DEPOSIT_POSITION, 0, account=0, quantity_lots=1000),
        command(CommandKind.DEPOSIT_POSITION, 0, account=1, quantity_lots=10),
        command(CommandKind.DEPOSIT_POSITION, 0, account=2, quantity_lots=10),
        command(CommandKind.OPEN_SESSION, 1),
        order(0, 1, Side.SELL, 1010, 50, 2),
        order(0, 2, Side.BUY, 990, 5, 2),
        order(0, 3, Side.BUY, 900, 5, 2),
        order(0, 4, Side.BUY, 800, 100, 2),
    ]
    config = EngineConfig(
        instruments=(InstrumentConfig(price_levels=16384, breaker=breaker or BreakerConfig()),),
        accounts=3,
        max_orders=64,
    )
    return play(config, [*opening, *commands], GROUPS, leverages=[0, 0, 5])


EXIT = (
    command(CommandKind.PUBLISH_SIGNAL, 10, quantity_lots=-50),
    order(1, 1, Side.SELL, 0, 10, 12, MARKET, rule=7),  # 5 at 990, 5 at 900
    order(2, 1, Side.SELL, 0, 10, 17, MARKET, rule=7),  # 10 at 800
    command(CommandKind.CLOSE_SESSION, 100),
)


def rows(planned: int = 0, cost: int = 0, heard: int = 0) -> np.ndarray:
    return board({1: (planned, cost), 2: (planned, cost)}, 3, heard)


def test_the_fall_is_measured_from_the_mid_before_the_signal():
    session, _, _ = played(*EXIT)
    summary, _ = measured(session, rows())
    assert summary["reference_ticks"] == 1000
    assert summary["drawdown_bps"] == 2000  # from 1000 to 800
    assert summary["trough_ms"] == 7
    assert summary["recovered_bps"] == 1050  # from 800 to (800 + 1010) / 2
    assert summary["depth_low_share"] == 0
    assert summary["exhausted_ms"] == 2  # the only bid within 1 % went with the first order
    assert (summary["agents_exiting"], summary["stampede_first_ms"], summary["stampede_last_ms"]) == (2, 2, 7)


def test_who_lost_what_adds_up():
    session, _, _ = played(*EXIT)
    summary, losses = measured(session, rows())
    # At the signal the mid is 1000, before the close (800 + 1010) / 2 = 905; the tick is worth 0.01.
    crowd = losses.row(by_predicate=pl.col("participants") == "crowd", named=True)
    sold_for = 5 * 990 + 5 * 900 + 10 * 800
    assert crowd["loss"] == pytest.approx((20 * 1000 - sold_for) * 0.01)
    assert crowd["worst_loss"] == pytest.approx((10 * 1000 - 10 * 800) * 0.01)
    assert (crowd["sold_lots"], crowd["bought_lots"]) == (20, 0)
    makers = losses.row(by_predicate=pl.col("participants") == "makers", named=True)
    assert makers["loss"] == pytest.approx((1000 * 1000 + sold_for - 1020 * 905) * 0.01)
    assert losses["loss"].sum() == pytest.approx(1020 * (1000 - 905) * 0.01)  # what all shares lost together
    assert summary["loss_crowd"] == pytest.approx(crowd["loss"])
    assert summary["loss_total"] == pytest.approx(crowd["loss"] + makers["loss"])


def test_the_ratios_compare_what_was_paid_with_the_plan_and_with_the_planner():
    session, _, _ = played(*EXIT)
    summary, _ = measured(session, rows(planned=10, cost=500))
    paid = 20 * 1000 - (5 * 990 + 5 * 900 + 10 * 800)
    assert summary["exit_cost"] == pytest.approx(paid * 0.01)
    assert summary["illusion_ratio"] == pytest.approx(paid / 1000, abs=1e-4)
    # The planner: s = 10/5 = 2 ticks a lot; 2 lots a step; ½γX² + εX + s/2·Σn² with γ = s/10, and the news.
    coordinated = 0.5 * 0.2 * 400 + 10 * 20 + 1.0 * 10 * 4 + 0.005 * 1000 * 20
    assert summary["coordinated_cost"] == pytest.approx(coordinated * 0.01, abs=0.01)
    assert summary["aar_ratio"] == pytest.approx(paid / coordinated, abs=1e-3)


def test_what_could_not_be_sold_counts_at_the_last_mid():
    session, _, _ = played(EXIT[0], EXIT[1], EXIT[3])
    summary, _ = measured(session, rows(planned=10, cost=500))
    last_mid = (800 + 1010) / 2
    paid = 10 * 1000 - (5 * 990 + 5 * 900) + 10 * (1000 - last_mid)
    assert summary["exit_cost"] == pytest.approx(paid * 0.01)


def test_without_a_signal_or_a_plan_there_is_nothing_to_measure_and_it_says_null():
    session, _, _ = played(EXIT[1], EXIT[3])
    summary, _ = measured(session, rows())
    for name in (
        "drawdown_bps",
        "trough_ms",
        "aar_ratio",
        "illusion_ratio",
        "trip",
        "trades_after_trip",
        "liquidations",
    ):
        assert summary[name] is None
    assert summary["trades"] == 2


def test_a_trip_is_reported_with_who_was_told_when():
    breaker = BreakerConfig(sell_volume_lots=12, sell_window_ns=MS * 50)
    session, _, _ = played(*EXIT, breaker=breaker)
    summary, _ = measured(session, rows(heard=20 * MS))
    assert summary["halted"] and summary["trip"]["trigger"] == "SELL_VOLUME"
    assert (summary["trip"]["observed"], summary["trip"]["threshold"]) == (20, 12)
    assert summary["trip"]["sequence"] == 12 and summary["trip"]["since_signal_ms"] == 7
    assert summary["trip"]["matched_ns"] == summary["trip"]["received_ns"] + 5
    assert summary["trades_after_trip"] == 0
    assert summary["trip_to_last_notified_ms"] == 3
    deaf = rows(heard=20 * MS)
    deaf["halt_heard_ns"][2] = 0
    summary, _ = measured(session, deaf)
    assert summary["agents_notified"] == 2 and summary["trip_to_last_notified_ms"] is None


def test_trades_name_buyer_and_seller_whoever_took():
    _, _, events = played(*EXIT)
    trades = trades_table(events)
    assert set(trades["buyer"]) == {0} and trades["seller"].to_list() == [1, 1, 2]
    assert trades["taker_sells"].all()


def test_times_are_kept_apart():
    session, _, _ = played(*EXIT)
    session.commands["heard_ns"] = session.commands["received_ns"] - 30
    session.commands["sent_ns"] = session.commands["received_ns"] - 10
    summary, _ = measured(session, rows())
    assert (summary["decision_ns_p50"], summary["transit_ns_max"], summary["venue_ns_p99"]) == (20, 10, 9)


def test_conservation_is_checked_not_assumed():
    _, engine, events = played(*EXIT)
    check_conservation(engine, events)
    engine.state.accounts["cash"][1] += 1
    with pytest.raises(NotConserved, match="cash"):
        check_conservation(engine, events)
    engine.state.accounts["cash"][1] -= 1
    engine.state.positions["quantity_lots"][1] -= 1
    with pytest.raises(NotConserved, match="shares"):
        check_conservation(engine, events)
    engine.state.positions["quantity_lots"][1] += 1
    with pytest.raises(NotConserved, match="order"):
        check_conservation(engine, events[:-3])


def test_a_replaced_order_ends_once():
    _, engine, events = played(
        command(
            CommandKind.REPLACE_ORDER, 3, account=0, order_id=5, target_order_id=4, price_ticks=850, quantity_lots=30
        ),
        command(
            CommandKind.REPLACE_ORDER, 4, account=0, order_id=6, target_order_id=5, price_ticks=850, quantity_lots=20
        ),
        order(1, 1, Side.SELL, 0, 10, 5, MARKET),
        order(2, 1, Side.SELL, 0, 10, 6, MARKET),
    )
    check_conservation(engine, events)


def test_losers_are_counted_by_class_by_leverage_and_by_who_came_first():
    session, _, _ = played(*EXIT)
    losers = losers_table(session)
    loss = {1: (10 * 1000 - 5 * 990 - 5 * 900) * 0.01, 2: (10 * 1000 - 10 * 800) * 0.01}
    found = {(row["dimension"], row["bucket"]): row for row in losers.iter_rows(named=True)}
    assert found["class", "crowd"]["loss"] == pytest.approx(loss[1] + loss[2])
    assert found["class", "crowd"]["share_losing"] == 1
    assert found["leverage", "3–5"]["loss"] == pytest.approx(loss[2])
    assert found["leverage", "0"]["agents"] == 2
    assert found["speed", "first quarter"]["loss"] == pytest.approx(loss[1])
    assert found["speed", "second quarter"]["loss"] == pytest.approx(loss[2])
    assert found["speed", "sent nothing"]["agents"] == 1  # the maker
    sums = losers.group_by("dimension").agg(pl.col("loss").sum(), pl.col("agents").sum())
    assert sums["agents"].to_list() == [3, 3, 3]
    assert sums["loss"].to_list() == pytest.approx([1020 * 95 * 0.01] * 3)


def test_liquidity_is_the_book_as_it_was_at_each_moment():
    session, _, _ = played(*EXIT)
    table = liquidity_table(session)
    assert len(table) == 200
    assert table["time_ms"][0] == -9 and table["time_ms"][-1] == 7  # opened at 1, signal at 10, last order at 17 ms
    before = table.row(by_predicate=pl.col("time_ms") == table.filter(pl.col("time_ms") < 2)["time_ms"][-1], named=True)
    assert (before["bid_depth_lots"], before["ask_depth_lots"], before["mid_ticks"]) == (5, 50, 1000)
    assert table["mid_ticks"][0] is None  # nothing was quoted yet
    assert table["bid_depth_lots"][-1] == 0 and table["mid_ticks"][-1] == 905


def test_the_price_of_being_early_splits_the_cost_of_the_exit_by_arrival():
    opening = [
        command(CommandKind.DEPOSIT_CASH, 0, account=0, quantity_lots=10**9),
        command(CommandKind.DEPOSIT_POSITION, 0, account=0, quantity_lots=100),
        *(command(CommandKind.DEPOSIT_POSITION, 0, account=account, quantity_lots=1) for account in range(1, 6)),
        command(CommandKind.OPEN_SESSION, 1),
        order(0, 1, Side.SELL, 1010, 50, 2),
        *(order(0, 2 + at, Side.BUY, price, 1, 2) for at, price in enumerate((990, 980, 960, 930))),
        command(CommandKind.PUBLISH_SIGNAL, 10, quantity_lots=-50),
        *(order(account, 1, Side.SELL, 0, 1, 10 + at, MARKET) for at, account in enumerate((5, 4, 3, 2, 1), start=1)),
        command(CommandKind.CLOSE_SESSION, 100),
    ]
    config = EngineConfig(instruments=(InstrumentConfig(price_levels=16384),), accounts=6, max_orders=64)
    session, _, _ = play(config, opening, ["makers", *["crowd"] * 5])
    summary, _ = measured(session, board({account: (1, 10) for account in range(1, 6)}, 6))
    # Arrivals 5, 4 | 3 | 2 | 1: short by 10 and 20, 40, 70; the last finds no bid: its lot is at the last trade.
    assert summary["early_shortfall_bps"] == [150, 400, 700, 700]
    assert summary["early_price_bps"] == 550
    assert summary["early_rank_correlation"] == pytest.approx(0.9747, abs=1e-4)  # ranks 1 2 3 4 5 and 1 2 3 4.5 4.5
    weighted = sum(bps * lots for bps, lots in zip(summary["early_shortfall_bps"], (2, 1, 1, 1), strict=True))
    assert summary["exit_cost"] == pytest.approx(weighted * 1000 / 10_000 * 0.01)
    session, _, _ = played(*EXIT)
    assert measured(session, rows(planned=10, cost=500))[0]["early_price_bps"] is None  # two make no quarters


def test_the_fullest_window_ends_where_it_is_fullest():
    assert most_within(np.array([0, 5, 10, 10, 21]), np.array([1, 2, 3, 4, 9]), 10) == 9
    assert most_within(np.array([0, 5, 9, 10, 10]), np.array([7, 2, 0, 3, 1]), 10) == 9  # (0, 10]: not the 7
    assert most_within(np.zeros(0, np.int64), np.zeros(0, np.int64), 10) == 0


def test_decisions_include_what_is_asked_of_the_pool_and_the_issuer():
    session, _, _ = played(command(CommandKind.REDEEM, 3, account=1, quantity_lots=1, rule=12))
    found = decisions_table(session.commands, GROUPS).filter(pl.col("kind") == CommandKind.REDEEM)
    assert found["rule"].to_list() == ["REDEEM"] and found["participants"].to_list() == ["crowd"]


@pytest.mark.parametrize("halt_ns", [0, 20 * MS])
def test_a_halts_notice_says_until_when(tmp_path, halt_ns):
    breaker = BreakerConfig(
        sell_volume_lots=12, sell_window_ns=MS * 50, halt_ns=halt_ns, reopening_auction_ns=halt_ns // 2
    )
    reopening = [
        command(CommandKind.TIMER, 37, account=-1),
        command(CommandKind.TIMER, 47, account=-1),
        order(2, 2, Side.SELL, 800, 1, 48),
    ]
    session, _, events = played(*EXIT[:3], *(reopening if halt_ns else []), EXIT[3], breaker=breaker)
    write_notices(tmp_path / "notices.jsonl", session.config, session.commands, events, timings_of(session))
    notices = [json.loads(line) for line in (tmp_path / "notices.jsonl").read_text().splitlines()]
    halt = next(notice for notice in notices if notice["notice"] == "INSTRUMENT_HALTED")
    phases = [notice["phase"] for notice in notices if notice["notice"] == "PHASE_CHANGED"]
    if halt_ns:
        assert (halt["until"], halt["until_ns"]) == ("the reopening auction begins", 37 * MS)
        assert phases == ["CONTINUOUS", "HALTED", "AUCTION", "CONTINUOUS", "CLOSED"]
    else:
        assert (halt["until"], halt["until_ns"]) == ("the session closes", None)
        assert phases == ["CONTINUOUS", "HALTED", "CLOSED"]
    summary, _ = measured(session, rows())
    assert summary["trades_after_trip"] == 0  # trades after the reopening are not trades of a halted market
    assert summary["trades"] == (3 if halt_ns else 2)


def lots_sold(session: Session, board: np.ndarray) -> dict[str, object]:
    return {"sold": session.fills["quantity_lots"].sum(), "agents": len(board), "none": None}


def fails(session: Session, board: np.ndarray) -> dict[str, object]:
    return {"share": float(session.mid_before(0) or 0) / 0}


def not_json(session: Session, board: np.ndarray) -> dict[str, object]:
    return {"nan": float("nan")}


def with_measures(name: str) -> Session:
    session, _, _ = played(*EXIT)
    session.scenario = session.scenario.model_copy(update={"measures": name})
    return session


def test_a_scenario_has_measures_of_its_own():
    assert own_measures(played(*EXIT)[0], rows()) == {"scenario_measures": None}
    found = own_measures(with_measures("tests.test_measures:lots_sold"), rows())
    assert found == {"scenario_measures": {"sold": 20, "agents": 3, "none": None}}


@pytest.mark.parametrize("name, said", [("fails", "ZeroDivisionError"), ("not_json", "ValueError")])
def test_an_error_in_a_scenarios_own_measures_loses_nothing_but_them(name, said, capsys):
    found = own_measures(with_measures(f"tests.test_measures:{name}"), rows())
    assert found["scenario_measures"] is None and said in found["scenario_measures_error"]
    assert said in capsys.readouterr().err


def test_a_scenario_whose_measures_do_not_exist_is_refused_before_it_runs(tmp_path):
    own = tmp_path / "own.toml"
    text = (Path(aar_swarm.__file__).parent / "scenarios" / "exit-door.toml").read_text()
    own.write_text(f'measures = "tests.test_measures:nothing"\n{text}')
    with pytest.raises(ConfigurationError, match="module:function"):
        load_scenario(str(own))
    own.write_text(f'measures = "tests.test_measures:lots_sold"\n{text}')
    assert load_scenario(str(own)).measures == "tests.test_measures:lots_sold"


def test_every_measure_is_documented():
    text = (Path(aar_swarm.__file__).parent.parent / "docs" / "measures.md").read_text()
    summary, _ = measured(played(*EXIT)[0], rows())
    keys = {key for key in summary if "_ns_" not in key}
    assert [key for key in sorted(keys) if key not in text] == []


def test_orders_a_second_overall_and_at_the_peak():
    """Open from 1 to 100 ms; four orders at 2 ms, one at 12, one at 17: a window of 10 ms ends before its end."""
    assert load(played(*EXIT)[0]) == {"orders_per_s": round(6 / 0.099, 1), "orders_per_s_peak": 400}
    assert load(played()[0])["orders_per_s_peak"] == 400


def test_how_soon_a_twentieth_and_all_but_a_twentieth_left():
    orders = [order(1 + at % 2, 1 + at // 2, Side.SELL, 995, 1, 20 + at, rule=7) for at in range(2)]
    found, _ = measured(played(EXIT[0], *orders, EXIT[3])[0], rows())
    names = ("stampede_first_ms", "stampede_p5_ms", "stampede_p95_ms", "stampede_last_ms")
    assert [found[name] for name in names] == [10, 10, 11, 11]
