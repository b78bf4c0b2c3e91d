"""The price-time books: a level a price, a queue of orders a level, bitmaps of the occupied prices, an index of orders
by name and a list of each account's.

Owns the resting orders and the top of each book. A *book* is one side of one instrument: number 2 × instrument + side.
Knows nothing of money, of phases or of the breaker, and decides nothing: the engine asks for the next maker, takes
from it, rests and removes. Bids and asks are apart, because they cross while an auction collects.
"""

import numpy as np

from exchange.bits import highest_below, lowest_above, with_bit, without_bit, wrapping_dot
from exchange.jit import helper, routine
from exchange.state import State
from exchange.types import NO_BID, NO_SLOT

# Stored fields are uint32. What is computed with is int64: numba makes a float of uint64 and int64 together.


@helper
def side_of(book: int) -> np.int64:
    return np.int64(book) & 1


@helper
def instrument_of(book: int) -> np.int64:
    return np.int64(book) >> 1


@helper
def beyond(price: int, limit: int, side: int) -> bool:
    """Whether a price is higher than a buyer's limit, or lower than a seller's. Without a branch on the side, which
    nobody can guess."""
    return (price - limit) * (1 - 2 * side) > 0


@helper
def best(state: State, book: int) -> np.int64:
    """The best price of a book: the highest bid or NO_BID, the lowest ask or the instrument's price_levels."""
    return np.int64(state.best[book])


@helper
def head(state: State, book: int, price: int) -> np.int64:
    """The slot of the order that is first in the queue of a price, or NO_SLOT."""
    return np.int64(state.levels[book][price]["head"])


@helper
def _occupy(state: State, book: int, price: int) -> None:
    words = state.occupied_0[book]
    words[price >> 6] = with_bit(words[price >> 6], price & 63)
    words = state.occupied_1[book]
    words[price >> 12] = with_bit(words[price >> 12], (price >> 6) & 63)
    words = state.occupied_2[book]
    words[0] = with_bit(words[0], price >> 12)


@helper
def _vacate(state: State, book: int, price: int) -> None:
    words = state.occupied_0[book]
    words[price >> 6] = without_bit(words[price >> 6], price & 63)
    if words[price >> 6] == 0:
        words = state.occupied_1[book]
        words[price >> 12] = without_bit(words[price >> 12], (price >> 6) & 63)
        if words[price >> 12] == 0:
            words = state.occupied_2[book]
            words[0] = without_bit(words[0], price >> 12)


@helper
def next_price_above(state: State, book: int, price: int) -> int:
    """The lowest occupied price of the book above `price`, or the instrument's price_levels."""
    bit = lowest_above(state.occupied_0[book][price >> 6], price & 63)
    if bit >= 0:
        return ((price >> 6) << 6) + bit
    word = price >> 6
    bit = lowest_above(state.occupied_1[book][word >> 6], word & 63)
    if bit >= 0:
        word = ((word >> 6) << 6) + bit
    else:
        bit = lowest_above(state.occupied_2[book][0], word >> 6)
        if bit < 0:
            return state.instruments[instrument_of(book)]["price_levels"]
        word = (bit << 6) + lowest_above(state.occupied_1[book][bit], -1)
    return (word << 6) + lowest_above(state.occupied_0[book][word], -1)


@helper
def next_price_below(state: State, book: int, price: int) -> int:
    """The highest occupied price of the book below `price`, or NO_BID."""
    bit = highest_below(state.occupied_0[book][price >> 6], price & 63)
    if bit >= 0:
        return ((price >> 6) << 6) + bit
    word = price >> 6
    bit = highest_below(state.occupied_1[book][word >> 6], word & 63)
    if bit >= 0:
        word = ((word >> 6) << 6) + bit
    else:
        bit = highest_below(state.occupied_2[book][0], word >> 6)
        if bit < 0:
            return NO_BID
        word = (bit << 6) + highest_below(state.occupied_1[book][bit], 64)
    return (word << 6) + highest_below(state.occupied_0[book][word], 64)


@helper
def next_price(state: State, book: int, price: int) -> int:
    """The next worse occupied price of the book: lower for bids, higher for asks."""
    if side_of(book) == 1:
        return next_price_above(state, book, price)
    return next_price_below(state, book, price)


@helper
def is_price(state: State, book: int, price: int) -> bool:
    """Whether best or next_price found a price, not the end of the book."""
    return price != NO_BID and price != state.instruments[instrument_of(book)]["price_levels"]


@helper
def _bucket(state: State, account: int, order_id: int) -> int:
    """The chain that a name belongs to: multiply-shift hashing (Dietzfelbinger et al. 1997) with secret odd factors,
    because participants choose their order ids and must not be able to make them collide."""
    counters = state.counters[0]
    product = wrapping_dot(order_id, counters["order_salt"], account, counters["account_salt"])
    return (product >> 32) & (state.buckets.shape[0] - 1)


@helper
def find(state: State, account: int, order_id: int) -> np.int64:
    """The slot of a resting order, or NO_SLOT."""
    slot = np.int64(state.buckets[_bucket(state, account, order_id)])
    while slot != NO_SLOT:
        order = state.orders[slot]
        if order["order_id"] == order_id and order["account"] == account:
            break
        slot = np.int64(order["next_in_bucket"])
    return slot


@helper
def _index_add(state: State, account: int, order_id: int, slot: int) -> None:
    order = state.orders[slot]
    bucket = _bucket(state, account, order_id)
    order["bucket"] = bucket
    order["next_in_bucket"] = state.buckets[bucket]
    state.buckets[bucket] = slot


@helper
def _index_remove(state: State, slot: int) -> None:
    order = state.orders[slot]
    bucket = np.int64(order["bucket"])
    at = np.int64(state.buckets[bucket])
    if at == slot:
        state.buckets[bucket] = order["next_in_bucket"]
    else:
        while state.orders[at]["next_in_bucket"] != slot:
            at = np.int64(state.orders[at]["next_in_bucket"])
        state.orders[at]["next_in_bucket"] = order["next_in_bucket"]


@helper
def rest(
    state: State, account: int, order_id: int, book: int, price_ticks: int, leaves_lots: int, filled_lots: int
) -> int:
    """Queue an order behind the others of its price. There must be a free slot. Returns its slot."""
    counters = state.counters[0]
    slot = counters["free_head"]
    order = state.orders[slot]
    counters["free_head"] = order["next"]
    counters["resting_orders"] += 1
    level = state.levels[book][price_ticks]
    tail = np.int64(level["tail"])
    order["order_id"] = order_id
    order["leaves_lots"] = leaves_lots
    order["filled_lots"] = filled_lots
    order["account"] = account
    order["book"] = book
    order["price_ticks"] = price_ticks
    order["expiring"] = 0
    order["next"] = NO_SLOT
    order["previous"] = tail
    if tail == NO_SLOT:
        level["head"] = slot
        _occupy(state, book, price_ticks)
        if beyond(price_ticks, best(state, book), side_of(book)):
            state.best[book] = price_ticks
    else:
        state.orders[tail]["next"] = slot
    level["tail"] = slot
    level["quantity_lots"] += leaves_lots
    owner = state.accounts[account]
    newest = owner["newest"]
    order["older"] = newest
    order["newer"] = NO_SLOT
    if newest == NO_SLOT:
        owner["oldest"] = slot
    else:
        state.orders[newest]["newer"] = slot
    owner["newest"] = slot
    owner["open_orders"] += 1
    _index_add(state, account, order_id, slot)
    return slot


@helper
def take(state: State, slot: int, quantity_lots: int) -> None:
    """Take a quantity, at most its leaves, off a resting order, which keeps its place in the queue."""
    order = state.orders[slot]
    order["leaves_lots"] -= quantity_lots
    state.levels[order["book"]][order["price_ticks"]]["quantity_lots"] -= quantity_lots


@routine
def rename(state: State, slot: int, order_id: int) -> None:
    """Give a resting order another id; it keeps its place in the queue."""
    _index_remove(state, slot)
    state.orders[slot]["order_id"] = order_id
    _index_add(state, np.int64(state.orders[slot]["account"]), order_id, slot)


@helper
def remove(state: State, slot: int) -> None:
    """Take an order, with whatever it has left, out of its book and free its slot."""
    _index_remove(state, slot)
    order = state.orders[slot]
    book = np.int64(order["book"])
    price = np.int64(order["price_ticks"])
    level = state.levels[book][price]
    following = np.int64(order["next"])
    previous = np.int64(order["previous"])
    if previous == NO_SLOT:
        level["head"] = following
    else:
        state.orders[previous]["next"] = following
    if following == NO_SLOT:
        level["tail"] = previous
    else:
        state.orders[following]["previous"] = previous
    level["quantity_lots"] -= order["leaves_lots"]
    if level["head"] == NO_SLOT:
        _vacate(state, book, price)
        if price == best(state, book):
            state.best[book] = next_price(state, book, price)
    owner = state.accounts[order["account"]]
    newer = np.int64(order["newer"])
    older = np.int64(order["older"])
    if older == NO_SLOT:
        owner["oldest"] = newer
    else:
        state.orders[older]["newer"] = newer
    if newer == NO_SLOT:
        owner["newest"] = older
    else:
        state.orders[newer]["older"] = older
    owner["open_orders"] -= 1
    counters = state.counters[0]
    counters["resting_orders"] -= 1
    order["order_id"] = 0
    order["leaves_lots"] = 0
    order["next"] = counters["free_head"]
    counters["free_head"] = slot


@routine
def depth_within(state: State, book: int, limit_ticks: int) -> int:
    """Lots that rest in the book at limit_ticks or better: bids at or above it, asks at or below it."""
    total = 0
    price = best(state, book)
    while is_price(state, book, price) and not beyond(limit_ticks, price, side_of(book)):
        total += state.levels[book][price]["quantity_lots"]
        price = next_price(state, book, price)
    return total
