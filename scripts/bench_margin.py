"""What margin costs: one revaluation of many margin accounts that are all sound, and a cascade through all of them.

The cascade: leveraged accounts hold all there is, a few resting bids stand below, the index falls a step at a time, and
REVALUE follows REVALUE until nobody is left to liquidate. It prints how it ended, with a hash, so that the same work is
compared; cash and lots are checked to be what was deposited.
"""

import argparse
import json
import platform
import statistics
import time
from typing import Any

import numpy as np

from exchange.config import EngineConfig, InstrumentConfig, MarginConfig
from exchange.engine import Engine
from exchange.types import COMMAND, CommandKind, EventKind, OrderType, Side

_PRICE = 10_000
_MS = 1_000_000


class _Venue:
    """An engine and the commands for it, one at a time."""

    def __init__(self, accounts: int, instruments: int) -> None:
        instrument = InstrumentConfig(price_levels=16_384, initial_margin_bps=500, maintenance_margin_bps=250)
        self.accounts = accounts
        self.engine = Engine(
            EngineConfig(
                instruments=(instrument,) * instruments,
                accounts=accounts + 1,
                max_orders=1 << 12,
                margin=MarginConfig(mark="index"),
            )
        )
        self.sequence = 0
        self.now_ns = 0
        for number in range(instruments):
            self.do(CommandKind.PUBLISH_INDEX, instrument=number, quantity_lots=_PRICE)
        for account in range(accounts):
            self.do(CommandKind.SET_MARGIN, account, quantity_lots=1)
            for number in range(instruments):
                self.do(CommandKind.DEPOSIT_POSITION, account, number, quantity_lots=20)
            leverage = 2 + account % 18
            borrowed = 20 * _PRICE * instruments * (leverage - 1) // leverage
            self.do(CommandKind.WITHDRAW_CASH, account, quantity_lots=borrowed)
        self.do(CommandKind.DEPOSIT_CASH, accounts, quantity_lots=1 << 40)
        self.do(CommandKind.OPEN_SESSION)

    def do(self, kind: CommandKind, account: int = 0, instrument: int = 0, **fields: int) -> np.ndarray:
        self.sequence += 1
        command = np.zeros(1, COMMAND)
        values = {"sequence": self.sequence, "kind": kind, "account": account, "instrument": instrument, **fields}
        for name, value in {**values, "received_ns": self.now_ns}.items():
            command[name] = value
        return self.engine.apply(command)

    def revalue(self) -> np.ndarray:
        self.now_ns += 2 * _MS
        return self.do(CommandKind.REVALUE, -1, -1)


def revaluation_ns(accounts: int, instruments: int, repeats: int) -> float:
    """The median of single revaluations in which every account is looked at and none is acted on, ns."""
    venue = _Venue(accounts, instruments)
    took = []
    for _ in range(repeats):
        venue.do(CommandKind.PUBLISH_INDEX, quantity_lots=_PRICE)
        began = time.perf_counter_ns()
        events = venue.revalue()
        took.append(time.perf_counter_ns() - began)
        assert len(events) == 0
    return statistics.median(took)


def cascade(accounts: int) -> dict[str, Any]:
    """Let the index fall by 1 % a step, to nothing; every leveraged account is liquidated on the way."""
    venue = _Venue(accounts, 1)
    counts = dict.fromkeys(EventKind, 0)
    took_ns = 0
    for step in range(1, 60):
        index = _PRICE * (100 - step) // 100
        venue.do(
            CommandKind.PLACE_ORDER,
            accounts,
            order_id=step,
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            price_ticks=index,
            quantity_lots=20 * accounts // 50 + 1,
        )
        venue.do(CommandKind.PUBLISH_INDEX, quantity_lots=index)
        while True:
            began = time.perf_counter_ns()
            events = venue.revalue()
            took_ns += time.perf_counter_ns() - began
            for kind in events["kind"].tolist():
                counts[EventKind(kind)] += 1
            if not len(events):  # nobody is left, or nobody buys
                break
    state = venue.engine.state
    assert state.accounts["cash"].sum() == state.counters["cash_deposited"][0]
    assert state.positions["quantity_lots"].sum() == 20 * accounts
    liquidations = counts[EventKind.LIQUIDATION_ENDED]
    return {
        "liquidations": liquidations,
        "liquidation_ns_each": round(took_ns / max(liquidations, 1), 1),
        "taken_over": counts[EventKind.POSITION_TAKEN_OVER],
        "deleveraged": counts[EventKind.DELEVERAGED],
        "bad_debts": counts[EventKind.BAD_DEBT_BOOKED],
        "state_hash": venue.engine.state_hash(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=101)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cascade(100)  # compiles
    one, two = (revaluation_ns(options.accounts, instruments, options.repeats) for instruments in (1, 2))
    found = {
        "conditions": {
            "accounts": options.accounts,
            "repeats": options.repeats,
            "machine": platform.processor() or platform.machine(),
            "python": platform.python_version(),
        },
        "revaluation_us_1_instrument": round(one / 1e3, 2),
        "revaluation_us_2_instruments": round(two / 1e3, 2),
        "revaluation_ns_per_account": round(one / options.accounts, 2),
        **cascade(options.accounts),
    }
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
