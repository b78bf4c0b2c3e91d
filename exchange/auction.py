"""Call auctions: the one price at which most trades, and what trades at it. Rules in docs/matching.md.

The principle of Euronext's and Xetra's call auctions: largest volume, then smallest imbalance, then the nearest to a
reference price. Owns the search for the price; the engine matches.
"""

from exchange import book
from exchange.jit import routine
from exchange.state import State
from exchange.types import NO_SLOT


@routine
def clearing(state: State, instrument: int):
    """What the books would clear at now.

    Returns: (price in ticks, volume in lots, imbalance in lots (positive: more bids), reference price); all 0 if the
    books do not cross.
    """
    bids = 2 * instrument
    asks = bids + 1
    lowest = book.best(state, asks)
    highest = book.best(state, bids)
    if lowest > highest:
        return 0, 0, 0, 0
    demand = book.depth_within(state, bids, lowest)
    supply = state.levels[asks][lowest]["quantity_lots"]
    best_volume = 0
    best_imbalance = 0
    first = 0
    last = 0
    price = lowest
    while True:
        # Demand and supply are constant from price to end: demand falls behind a bid, supply rises at an ask.
        end = highest
        bid = price
        if book.head(state, bids, price) == NO_SLOT:
            bid = book.next_price_above(state, bids, price)
        ask = book.next_price_above(state, asks, price)
        if bid < end:
            end = bid
        if ask - 1 < end:
            end = ask - 1
        volume = min(demand, supply)
        imbalance = abs(demand - supply)
        if volume > best_volume or (volume == best_volume and imbalance < best_imbalance):
            best_volume = volume
            best_imbalance = imbalance
            first = price
            last = end
        elif volume == best_volume and imbalance == best_imbalance:
            last = end  # demand − supply never rises, so equals are neighbours
        if end >= highest:
            break
        if end == bid:
            demand -= state.levels[bids][bid]["quantity_lots"]
        price = end + 1
        if price == ask:
            supply += state.levels[asks][ask]["quantity_lots"]
    reference = state.instruments[instrument]["last_ticks"]
    if reference == 0:
        reference = (first + last) // 2
    price = min(max(reference, first), last)
    imbalance = book.depth_within(state, bids, price) - book.depth_within(state, asks, price)
    return price, best_volume, imbalance, reference
