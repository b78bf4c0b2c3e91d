"""The price-time book: a level a price, a queue of orders a level, bitmaps of the occupied prices, an index of orders.

Owns the resting orders and the top of each book. Knows nothing of money, of phases or of the breaker, and decides
nothing: the engine asks for the next maker, takes from it, rests and removes.
"""

from exchange.bits import highest_below, lowest_above, mix, with_bit, without_bit
from exchange.jit import helper, routine
from exchange.state import State
from exchange.types import NO_BID, NO_SLOT, Side

_BUY = int(Side.BUY)


@helper
def occupy(state: State, instrument: int, price: int) -> None:
    words = state.occupied_0[instrument]
    words[price >> 6] = with_bit(words[price >> 6], price & 63)
    words = state.occupied_1[instrument]
    words[price >> 12] = with_bit(words[price >> 12], (price >> 6) & 63)
    words = state.occupied_2[instrument]
    words[0] = with_bit(words[0], price >> 12)


@helper
def vacate(state: State, instrument: int, price: int) -> None:
    words = state.occupied_0[instrument]
    words[price >> 6] = without_bit(words[price >> 6], price & 63)
    if words[price >> 6] == 0:
        words = state.occupied_1[instrument]
        words[price >> 12] = without_bit(words[price >> 12], (price >> 6) & 63)
        if words[price >> 12] == 0:
            words = state.occupied_2[instrument]
            words[0] = without_bit(words[0], price >> 12)


@routine
def next_price_above(state: State, instrument: int, price: int) -> int:
    """The lowest occupied price above `price`, or the instrument's price_levels (no ask)."""
    bit = lowest_above(state.occupied_0[instrument][price >> 6], price & 63)
    if bit >= 0:
        return ((price >> 6) << 6) + bit
    word = price >> 6
    bit = lowest_above(state.occupied_1[instrument][word >> 6], word & 63)
    if bit >= 0:
        word = ((word >> 6) << 6) + bit
    else:
        bit = lowest_above(state.occupied_2[instrument][0], word >> 6)
        if bit < 0:
            return state.instruments[instrument]["price_levels"]
        word = (bit << 6) + lowest_above(state.occupied_1[instrument][bit], -1)
    return (word << 6) + lowest_above(state.occupied_0[instrument][word], -1)


@routine
def next_price_below(state: State, instrument: int, price: int) -> int:
    """The highest occupied price below `price`, or NO_BID."""
    bit = highest_below(state.occupied_0[instrument][price >> 6], price & 63)
    if bit >= 0:
        return ((price >> 6) << 6) + bit
    word = price >> 6
    bit = highest_below(state.occupied_1[instrument][word >> 6], word & 63)
    if bit >= 0:
        word = ((word >> 6) << 6) + bit
    else:
        bit = highest_below(state.occupied_2[instrument][0], word >> 6)
        if bit < 0:
            return NO_BID
        word = (bit << 6) + highest_below(state.occupied_1[instrument][bit], 64)
    return (word << 6) + highest_below(state.occupied_0[instrument][word], 64)


@helper
def _home(state: State, account: int, order_id: int) -> int:
    # All 64 bits count: participants choose their order ids, and must not be able to make them collide cheaply.
    return mix(mix(account, order_id), account) & (state.order_index.shape[0] - 1)


@routine
def find(state: State, account: int, order_id: int) -> int:
    """The slot of a resting order, or NO_SLOT."""
    mask = state.order_index.shape[0] - 1
    at = _home(state, account, order_id)
    while True:
        slot = state.order_index[at]
        if slot == NO_SLOT:
            return NO_SLOT
        order = state.orders[slot]
        if order["order_id"] == order_id and order["account"] == account:
            return slot
        at = (at + 1) & mask


@helper
def _index_add(state: State, account: int, order_id: int, slot: int) -> None:
    mask = state.order_index.shape[0] - 1
    at = _home(state, account, order_id)
    while state.order_index[at] != NO_SLOT:
        at = (at + 1) & mask
    state.order_index[at] = slot


@helper
def _index_remove(state: State, slot: int) -> None:
    mask = state.order_index.shape[0] - 1
    order = state.orders[slot]
    at = _home(state, order["account"], order["order_id"])
    while state.order_index[at] != slot:
        at = (at + 1) & mask
    # Close the gap by moving back what probed past it, so that no search needs tombstones.
    following = (at + 1) & mask
    while state.order_index[following] != NO_SLOT:
        moved = state.orders[state.order_index[following]]
        home = _home(state, moved["account"], moved["order_id"])
        if ((following - home) & mask) >= ((following - at) & mask):
            state.order_index[at] = state.order_index[following]
            at = following
        following = (following + 1) & mask
    state.order_index[at] = NO_SLOT


@routine
def rest(
    state: State, account: int, order_id: int, instrument: int, side: int, price_ticks: int, leaves_lots: int
) -> None:
    """Queue an order behind the others of its price. There must be a free slot, and it must not cross."""
    counters = state.counters[0]
    slot = counters["free_head"]
    order = state.orders[slot]
    counters["free_head"] = order["next"]
    counters["resting_orders"] += 1
    level = state.levels[instrument][price_ticks]
    tail = level["tail"]
    order["account"] = account
    order["order_id"] = order_id
    order["instrument"] = instrument
    order["side"] = side
    order["price_ticks"] = price_ticks
    order["leaves_lots"] = leaves_lots
    order["next"] = NO_SLOT
    order["previous"] = tail
    if tail == NO_SLOT:
        level["head"] = slot
        occupy(state, instrument, price_ticks)
        book = state.instruments[instrument]
        if side == _BUY:
            if price_ticks > book["best_bid"]:
                book["best_bid"] = price_ticks
        elif price_ticks < book["best_ask"]:
            book["best_ask"] = price_ticks
    else:
        state.orders[tail]["next"] = slot
    level["tail"] = slot
    level["quantity_lots"] += leaves_lots
    level["orders"] += 1
    _index_add(state, account, order_id, slot)


@helper
def take(state: State, slot: int, quantity_lots: int) -> None:
    """Take a quantity, at most its leaves, off a resting order, which keeps its place in the queue."""
    order = state.orders[slot]
    order["leaves_lots"] -= quantity_lots
    state.levels[order["instrument"]][order["price_ticks"]]["quantity_lots"] -= quantity_lots


@routine
def remove(state: State, slot: int) -> None:
    """Take an order, with whatever it has left, out of the book and free its slot."""
    _index_remove(state, slot)
    order = state.orders[slot]
    instrument = order["instrument"]
    price = order["price_ticks"]
    level = state.levels[instrument][price]
    following = order["next"]
    previous = order["previous"]
    if previous == NO_SLOT:
        level["head"] = following
    else:
        state.orders[previous]["next"] = following
    if following == NO_SLOT:
        level["tail"] = previous
    else:
        state.orders[following]["previous"] = previous
    level["quantity_lots"] -= order["leaves_lots"]
    level["orders"] -= 1
    if level["head"] == NO_SLOT:
        vacate(state, instrument, price)
        book = state.instruments[instrument]
        if price == book["best_bid"]:
            book["best_bid"] = next_price_below(state, instrument, price)
        elif price == book["best_ask"]:
            book["best_ask"] = next_price_above(state, instrument, price)
    counters = state.counters[0]
    counters["resting_orders"] -= 1
    order["order_id"] = 0
    order["leaves_lots"] = 0
    order["next"] = counters["free_head"]
    counters["free_head"] = slot


@routine
def depth_within(state: State, instrument: int, side: int, limit_ticks: int) -> int:
    """Lots that rest at limit_ticks or better: bids at or above it, asks at or below it."""
    book = state.instruments[instrument]
    total = 0
    if side == _BUY:
        price = book["best_bid"]
        while price != NO_BID and price >= limit_ticks:
            total += state.levels[instrument][price]["quantity_lots"]
            price = next_price_below(state, instrument, price)
    else:
        price = book["best_ask"]
        while price < book["price_levels"] and price <= limit_ticks:
            total += state.levels[instrument][price]["quantity_lots"]
            price = next_price_above(state, instrument, price)
    return total
