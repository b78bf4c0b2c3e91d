"""The engine's whole state: which arrays there are, and how a configuration makes them. No behaviour."""

import secrets
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from exchange.config import MAX_HISTORY, EngineConfig
from exchange.types import (
    ACCOUNT,
    ADMITTED,
    BREAKER,
    COUNTERS,
    FLOW_ENTRY,
    INSTRUMENT,
    LEVEL,
    LOAN,
    LOOK,
    MAX_QUANTITY_LOTS,
    MAX_VENDORS,
    NEVER,
    NOBODY,
    ORDER,
    OUTCOME,
    POSITION,
    VENDOR,
    WINDOW_ENTRY,
    BreakerAction,
    MarkRule,
    OracleSource,
)

WINDOW_ENTRIES = 4096
"""Bound of each look-back window. A full one merges its newest entries, to the safe side: it trips no later."""

FLOW_ENTRIES = 1 << 16
"""Orders that the look-back window of vendors' flow holds; with more in it, it reaches less far back."""

Array = np.ndarray[Any, Any]


class Window(IntEnum):
    """The breaker's look-back windows."""

    HIGHS = 0
    """Falling prices, each in force until until_ns."""
    LOWS = 1
    SELLS = 2
    """Lots taken by sellers at until_ns, for SELL_VOLUME."""
    TAKEN_BIDS = 3
    """The same, and by buyers, for IMBALANCE."""
    TAKEN_ASKS = 4
    LIQUIDATIONS = 5
    LIQUIDATED = 6
    """Minor units."""


class State(NamedTuple):
    """Shapes: I instruments, B = 2 I books (bids, then asks, of each), L price levels of the largest, A accounts (the
    participants' and then the venue's own), M MAX_HISTORY, or 1 without a delayed oracle,
    N max_orders, H buckets, K remembered orders, W WINDOW_ENTRIES."""

    counters: Array  # COUNTERS[1]
    instruments: Array  # INSTRUMENT[I]
    best: Array  # uint32[B]: the best price of each book; NO_BID, or the instrument's price_levels, if it is empty
    levels: Array  # LEVEL[B, L]
    occupied_0: Array  # int64[B, L/64]: a bit a price
    occupied_1: Array  # int64[B, L/4096]: a bit a word of occupied_0
    occupied_2: Array  # int64[B, 1]: a bit a word of occupied_1
    orders: Array  # ORDER[N + 1]
    buckets: Array  # uint32[H]: hash table from (account, order_id) to the first slot of a chain, 0 if empty
    accounts: Array  # ACCOUNT[A]
    positions: Array  # POSITION[A, I]
    loans: Array  # LOAN[A]
    history: Array  # WINDOW_ENTRY[I, M]: book prices (value) since until_ns, for delayed oracles
    outcomes: Array  # OUTCOME[A, K]: a ring an account
    breakers: Array  # BREAKER[I + 1]: the last is the whole market's
    looks: Array  # LOOK[I + 1, V]: V kinds of Window
    windows: Array  # WINDOW_ENTRY[I + 1, V, W]
    vendors: Array  # VENDOR[MAX_VENDORS], or 1 without a cap on flow
    flows: Array  # FLOW_ENTRY[FLOW_ENTRIES], or 1: the orders within the window, a ring
    admitted: Array  # ADMITTED[n]: the models that passed the gate


def new_state(config: EngineConfig) -> State:
    instruments = len(config.instruments)
    levels = max(instrument.price_levels for instrument in config.instruments)
    words_0 = -(-levels // 64)
    words_1 = -(-words_0 // 64)
    buckets = 1 << (2 * config.max_orders - 1).bit_length()
    accounts = config.accounts + config.system_accounts
    delayed = any(instrument.oracle and instrument.oracle.delay_ns for instrument in config.instruments)
    caps_flow = config.admission is not None and config.admission.vendor_flow_bps > 0
    state = State(
        counters=np.zeros(1, COUNTERS),
        instruments=np.zeros(instruments, INSTRUMENT),
        best=np.zeros(2 * instruments, np.uint32),
        levels=np.zeros((2 * instruments, levels), LEVEL),
        occupied_0=np.zeros((2 * instruments, words_0), np.int64),
        occupied_1=np.zeros((2 * instruments, words_1), np.int64),
        occupied_2=np.zeros((2 * instruments, 1), np.int64),
        orders=np.zeros(config.max_orders + 1, ORDER),
        buckets=np.zeros(buckets, np.uint32),
        accounts=np.zeros(accounts, ACCOUNT),
        positions=np.zeros((accounts, instruments), POSITION),
        loans=np.zeros(accounts, LOAN),
        history=np.zeros((instruments, MAX_HISTORY if delayed else 1), WINDOW_ENTRY),
        outcomes=np.zeros((accounts, config.remembered_orders), OUTCOME),
        breakers=np.zeros(instruments + 1, BREAKER),
        looks=np.zeros((instruments + 1, len(Window)), LOOK),
        windows=np.zeros((instruments + 1, len(Window), WINDOW_ENTRIES), WINDOW_ENTRY),
        vendors=np.zeros(MAX_VENDORS if caps_flow else 1, VENDOR),
        flows=np.zeros(FLOW_ENTRIES if caps_flow else 1, FLOW_ENTRY),
        admitted=np.array(list(config.admission.validated or ()) if config.admission else [], ADMITTED),
    )
    state.counters["free_head"] = 1
    state.counters["next_timer_ns"] = NEVER
    for name in ("order_salt", "account_salt"):
        state.counters[name] = secrets.randbits(63) | 1
    state.orders["next"][1:-1] = np.arange(2, config.max_orders + 1)
    for name, value in config.limits.model_dump().items():
        state.accounts[f"{name}_limit"] = value
    for number, instrument in enumerate(config.instruments):
        row = state.instruments[number]
        row["price_levels"] = state.best[2 * number + 1] = instrument.price_levels
        row["multiplier"] = instrument.multiplier
        row["max_quantity_lots"] = instrument.max_quantity_lots
        row["batch_interval_ns"] = instrument.batch_interval_ns
        row["opening_auction_ns"] = instrument.opening_auction_ns
        for name, value in instrument.breaker.model_dump(exclude={"action"}).items():
            (state.breakers[number] if name in (BREAKER.names or ()) else row)[name] = value
        state.breakers[number]["action"] = BreakerAction[instrument.breaker.action.upper()]
        row["timer_ns"] = NEVER
        row["initial_margin_bps"] = instrument.initial_margin_bps
        row["maintenance_margin_bps"] = instrument.maintenance_margin_bps
        oracle = instrument.oracle
        row["oracle_source"] = NOBODY if oracle is None else OracleSource[oracle.source.upper()]
        if oracle is not None:
            row["oracle_deviation_bps"] = oracle.deviation_bps
            row["oracle_heartbeat_ns"] = oracle.heartbeat_ns
            row["oracle_delay_ns"] = oracle.delay_ns
    if config.market_breaker:
        market = state.breakers[instruments]
        for name, value in config.market_breaker.model_dump(exclude={"action"}).items():
            market[name] = value
        market["action"] = BreakerAction[config.market_breaker.action.upper()]
    _set_facilities(state, config)
    counters = state.counters[0]
    counters["explanations_required"] = config.explanations_required
    if config.admission:
        for name, value in config.admission.model_dump(exclude={"validated"}).items():
            counters[name] = value
        counters["gate"] = config.admission.validated is not None
        counters["admission"] = 1
    return state


def _set_facilities(state: State, config: EngineConfig) -> None:
    """Margin accounts, lending pool and stablecoin: what docs/money.md names."""
    counters = state.counters[0]
    counters["participants"] = config.accounts
    counters["revalue_ns"] = NEVER
    count = len(config.instruments)
    margin, lending, coin = config.margin, config.lending, config.stablecoin
    if margin or any(instrument.oracle for instrument in config.instruments):
        counters["revalue_interval_ns"] = config.revalue_interval_ns
        counters["revalue_events"] = count
    counters["mark_rule"] = NOBODY
    if margin:
        counters["mark_rule"] = MarkRule[margin.mark.upper()]
        counters["margin_call_bps"] = margin.call_bps
        counters["liquidation_fee_bps"] = margin.fee_bps
        counters["liquidation_slice_lots"] = margin.slice_lots or MAX_QUANTITY_LOTS
        counters["accounts_per_revaluation"] = margin.accounts_per_revaluation
        # An account: three words of its own; an instrument of it: two partial fills, a fee, a take-over, eight
        # deleveragings. An instrument: a halt in two events, a partial fill of the fund's.
        counters["revalue_events"] += margin.accounts_per_revaluation * (4 + 12 * count) + 3 * count
    counters["collateral_instrument"] = counters["debt_instrument"] = NOBODY
    if lending:
        for name in (
            "collateral_instrument",
            "debt_instrument",
            "max_ltv_bps",
            "liquidation_threshold_bps",
            "close_factor_bps",
            "full_close_health_bps",
            "bonus_bps",
            "debt_at_par",
        ):
            counters[name] = getattr(lending, name)
    counters["stablecoin"] = NOBODY
    if coin:
        counters["stablecoin"] = coin.instrument
        counters["par_ticks"] = coin.par_ticks
        counters["redemption_burst_lots"] = coin.redemption_burst_lots
        if coin.redemption_lots_per_s:
            counters["redemption_interval_ns"] = 1_000_000_000 // coin.redemption_lots_per_s
