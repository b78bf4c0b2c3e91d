"""The engine's whole state: which arrays there are, and how a configuration makes them. No behaviour."""

from typing import Any, NamedTuple

import numpy as np

from exchange.config import EngineConfig
from exchange.types import (
    ACCOUNT,
    BREAKER,
    COUNTERS,
    INSTRUMENT,
    LEVEL,
    ORDER,
    POSITION,
    WINDOW_ENTRY,
)

WINDOW_ENTRIES = 4096
"""Bound of each look-back window. A full one merges its newest entries, to the safe side: it trips no later."""

Array = np.ndarray[Any, Any]


class State(NamedTuple):
    """Shapes: I instruments, L price levels of the largest, A accounts, N max_orders, H the index's slots."""

    counters: Array  # COUNTERS[1]
    instruments: Array  # INSTRUMENT[I]
    levels: Array  # LEVEL[I, L]
    occupied_0: Array  # int64[I, L/64]: a bit a price
    occupied_1: Array  # int64[I, L/4096]: a bit a word of occupied_0
    occupied_2: Array  # int64[I, 1]: a bit a word of occupied_1
    orders: Array  # ORDER[N + 1]
    order_index: Array  # int64[H]: hash table from (account, order_id) to the slot in orders, 0 if empty
    accounts: Array  # ACCOUNT[A]
    positions: Array  # POSITION[A, I]
    breakers: Array  # BREAKER[I]
    highs: Array  # WINDOW_ENTRY[I, W]: falling prices, each in force until until_ns
    lows: Array  # WINDOW_ENTRY[I, W]: rising prices
    sells: Array  # WINDOW_ENTRY[I, W]: aggressively sold lots at until_ns


def new_state(config: EngineConfig) -> State:
    instruments = len(config.instruments)
    levels = max(instrument.price_levels for instrument in config.instruments)
    words_0 = -(-levels // 64)
    words_1 = -(-words_0 // 64)
    index_size = 1 << (2 * config.max_orders - 1).bit_length()
    state = State(
        counters=np.zeros(1, COUNTERS),
        instruments=np.zeros(instruments, INSTRUMENT),
        levels=np.zeros((instruments, levels), LEVEL),
        occupied_0=np.zeros((instruments, words_0), np.int64),
        occupied_1=np.zeros((instruments, words_1), np.int64),
        occupied_2=np.zeros((instruments, 1), np.int64),
        orders=np.zeros(config.max_orders + 1, ORDER),
        order_index=np.zeros(index_size, np.int64),
        accounts=np.zeros(config.accounts, ACCOUNT),
        positions=np.zeros((config.accounts, instruments), POSITION),
        breakers=np.zeros(instruments, BREAKER),
        highs=np.zeros((instruments, WINDOW_ENTRIES), WINDOW_ENTRY),
        lows=np.zeros((instruments, WINDOW_ENTRIES), WINDOW_ENTRY),
        sells=np.zeros((instruments, WINDOW_ENTRIES), WINDOW_ENTRY),
    )
    state.counters["free_head"] = 1
    state.orders["next"][1:-1] = np.arange(2, config.max_orders + 1)
    for number, instrument in enumerate(config.instruments):
        row = state.instruments[number]
        row["price_levels"] = row["best_ask"] = instrument.price_levels
        row["multiplier"] = instrument.multiplier
        row["max_quantity_lots"] = instrument.max_quantity_lots
        for name, value in instrument.breaker.model_dump().items():
            state.breakers[number][name] = value
    return state
