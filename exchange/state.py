"""The engine's whole state: which arrays there are, and how a configuration makes them. No behaviour."""

import secrets
from typing import Any, NamedTuple

import numpy as np

from exchange.config import EngineConfig
from exchange.types import (
    ACCOUNT,
    BREAKER,
    COUNTERS,
    INSTRUMENT,
    LEVEL,
    NEVER,
    ORDER,
    OUTCOME,
    POSITION,
    WINDOW_ENTRY,
)

WINDOW_ENTRIES = 4096
"""Bound of each look-back window. A full one merges its newest entries, to the safe side: it trips no later."""

Array = np.ndarray[Any, Any]


class State(NamedTuple):
    """Shapes: I instruments, B = 2 I books (bids, then asks, of each), L price levels of the largest, A accounts,
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
    outcomes: Array  # OUTCOME[A, K]: a ring an account
    breakers: Array  # BREAKER[I]
    highs: Array  # WINDOW_ENTRY[I, W]: falling prices, each in force until until_ns
    lows: Array  # WINDOW_ENTRY[I, W]: rising prices
    sells: Array  # WINDOW_ENTRY[I, W]: aggressively sold lots at until_ns


def new_state(config: EngineConfig) -> State:
    instruments = len(config.instruments)
    levels = max(instrument.price_levels for instrument in config.instruments)
    words_0 = -(-levels // 64)
    words_1 = -(-words_0 // 64)
    buckets = 1 << (2 * config.max_orders - 1).bit_length()
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
        accounts=np.zeros(config.accounts, ACCOUNT),
        positions=np.zeros((config.accounts, instruments), POSITION),
        outcomes=np.zeros((config.accounts, config.remembered_orders), OUTCOME),
        breakers=np.zeros(instruments, BREAKER),
        highs=np.zeros((instruments, WINDOW_ENTRIES), WINDOW_ENTRY),
        lows=np.zeros((instruments, WINDOW_ENTRIES), WINDOW_ENTRY),
        sells=np.zeros((instruments, WINDOW_ENTRIES), WINDOW_ENTRY),
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
        row["halt_ns"] = instrument.breaker.halt_ns
        row["reopening_auction_ns"] = instrument.breaker.reopening_auction_ns
        row["cancels_while_halted"] = instrument.breaker.cancels_while_halted
        row["timer_ns"] = NEVER
        for name in ("price_move_bps", "price_window_ns", "sell_volume_lots", "sell_window_ns"):
            state.breakers[number][name] = getattr(instrument.breaker, name)
    return state
