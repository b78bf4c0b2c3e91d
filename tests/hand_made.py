"""Sessions written by hand, command by command, small enough to compute their measures on paper.

Owns how a test writes commands and gets from them to what is measured; no expectations.
"""

from typing import Any

import numpy as np
import polars as pl

from aar_swarm.agent_process import ROW_FIELDS
from aar_swarm.analysis.measures import Session, measure
from aar_swarm.analysis.tables import latency_table, trace_tops
from aar_swarm.scenario import Scenario, load_scenario
from exchange.clock import MS
from exchange.config import EngineConfig
from exchange.engine import Engine
from exchange.journal import Journal
from exchange.loop import TIMING
from exchange.types import COMMAND, NOBODY, CommandKind, OrderType, Side

MARKET = OrderType.MARKET


def command(kind: CommandKind, at_ms: float, **fields: int) -> dict[str, int]:
    return {"kind": int(kind), "received_ns": int(at_ms * MS), **{key: int(value) for key, value in fields.items()}}


def order(
    account: int,
    order_id: int,
    side: Side,
    price: int,
    lots: int,
    at_ms: float,
    order_type: OrderType = OrderType.LIMIT,
    rule: int = 0,
    instrument: int = 0,
) -> dict[str, int]:
    fields = {"account": account, "order_id": order_id, "side": side, "price_ticks": price, "quantity_lots": lots}
    return command(CommandKind.PLACE_ORDER, at_ms, order_type=order_type, rule=rule, instrument=instrument, **fields)


def revalue(at_ms: float) -> dict[str, int]:
    return command(CommandKind.REVALUE, at_ms, account=NOBODY, instrument=NOBODY)


def records_of(commands: list[dict[str, int]]) -> np.ndarray:
    records = np.zeros(len(commands), COMMAND)
    for number, fields in enumerate(commands):
        records[number]["sequence"] = number + 1
        for name, value in fields.items():
            records[number][name] = value
    return records


def play(
    config: EngineConfig,
    commands: list[dict[str, int]],
    groups: list[str],
    leverages: list[float] | None = None,
    scenario: Scenario | None = None,
) -> tuple[Session, Engine, np.ndarray]:
    records = records_of(commands)
    engine = Engine(config)
    events = engine.apply(records)
    recorded = Journal(config, records)
    coin = config.stablecoin
    session = Session(
        scenario or load_scenario("exit-door"),
        groups,
        records,
        events,
        trace_tops(recorded),
        config,
        coin_tops=None if coin is None else trace_tops(recorded, coin.instrument),
        leverages=leverages,
    )
    return session, engine, events


def board(plans: dict[int, tuple[int, int]], accounts: int, heard_ns: int = 0) -> np.ndarray:
    """A scoreboard. plans: account → (planned lots, planned cost in minor units)."""
    rows = np.zeros(accounts, [(name, form) for name, form in ROW_FIELDS])
    rows["agent_id"] = range(accounts)
    rows["ready_ns"] = 1
    rows["halt_heard_ns"] = heard_ns
    for account, (lots, cost) in plans.items():
        rows["planned_lots"][account], rows["planned_cost"][account] = lots, cost
    return rows


def timings_of(session: Session) -> np.ndarray:
    timings = np.zeros(len(session.commands), TIMING)
    timings["arrived_ns"] = session.commands["received_ns"]
    timings["matched_ns"] = session.commands["received_ns"] + 5
    timings["acknowledged_ns"] = session.commands["received_ns"] + 9
    return timings


def measured(session: Session, rows: np.ndarray) -> tuple[dict[str, Any], pl.DataFrame]:
    timings = timings_of(session)
    return measure(session, rows, latency_table(session.commands, timings), timings)
