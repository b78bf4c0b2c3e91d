"""The measures on a session small enough to compute by hand."""

import numpy as np
import polars as pl
import pytest

from aar_swarm.agent_process import ROW_FIELDS
from aar_swarm.analysis.measures import NotConserved, Session, check_conservation, measure
from aar_swarm.analysis.tables import latency_table, trace_tops, trades_table
from aar_swarm.scenario import load_scenario
from exchange.clock import MS
from exchange.config import BreakerConfig, EngineConfig, InstrumentConfig
from exchange.engine import Engine
from exchange.journal import Journal
from exchange.loop import TIMING
from exchange.types import COMMAND, CommandKind, OrderType, Side

GROUPS = ["makers", "crowd", "crowd"]
MARKET = OrderType.MARKET


def command(kind: CommandKind, at_ms: float, **fields: int) -> dict[str, int]:
    return {"kind": int(kind), "received_ns": int(at_ms * MS), **{key: int(value) for key, value in fields.items()}}


def order(account, order_id, side, price, lots, at_ms, order_type=OrderType.LIMIT, rule=0):
    fields = {"account": account, "order_id": order_id, "side": side, "price_ticks": price, "quantity_lots": lots}
    return command(CommandKind.PLACE_ORDER, at_ms, order_type=order_type, rule=rule, **fields)


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
    records = np.zeros(len(opening) + len(commands), COMMAND)
    for number, fields in enumerate([*opening, *commands]):
        records[number]["sequence"] = number + 1
        for name, value in fields.items():
            records[number][name] = value
    config = EngineConfig(
        instruments=(InstrumentConfig(price_levels=16384, breaker=breaker or BreakerConfig()),),
        accounts=3,
        max_orders=64,
    )
    engine = Engine(config)
    events = engine.apply(records)
    scenario = load_scenario("exit-door")
    return Session(scenario, GROUPS, records, events, trace_tops(Journal(config, records))), engine, events


EXIT = (
    command(CommandKind.PUBLISH_SIGNAL, 10, quantity_lots=-50),
    order(1, 1, Side.SELL, 0, 10, 12, MARKET, rule=7),  # 5 at 990, 5 at 900
    order(2, 1, Side.SELL, 0, 10, 17, MARKET, rule=7),  # 10 at 800
    command(CommandKind.CLOSE_SESSION, 100),
)


def rows(planned: int = 0, cost: int = 0, heard: int = 0) -> np.ndarray:
    made = np.zeros(3, [(name, form) for name, form in ROW_FIELDS])
    made["agent_id"] = range(3)
    made["ready_ns"] = 1
    made["planned_lots"][1:] = planned
    made["planned_cost"][1:] = cost
    made["halt_heard_ns"] = heard
    return made


def measured(session: Session, board: np.ndarray) -> tuple[dict, pl.DataFrame]:
    timings = np.zeros(len(session.commands), TIMING)
    timings["matched_ns"] = session.commands["received_ns"] + 5
    timings["acknowledged_ns"] = session.commands["received_ns"] + 9
    return measure(session, board, latency_table(session.commands, timings), timings)


def test_the_fall_is_measured_from_the_mid_before_the_signal():
    session, _, _ = played(*EXIT)
    summary, _ = measured(session, rows())
    assert summary["reference_ticks"] == 1000
    assert summary["drawdown_bps"] == 2000  # from 1000 to 800
    assert summary["trough_ms"] == 7
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
