"""The in-line circuit breaker: look-back windows an instrument, asked before each match.

Owns the windows and the verdict, which it leaves in the instrument's row of `state.breakers`. Does not halt: the engine
does, in the same command. Rules in docs/breaker.md. CME's velocity logic (N ticks within time T) is the model of
PRICE_MOVE, and Eurex's volatility interruption of what happens to the triggering match: it is prevented, and earlier
fills stand.
"""

from exchange import book
from exchange.jit import helper, routine
from exchange.state import WINDOW_ENTRIES, State, Window
from exchange.types import NEVER, Side, Trigger

_PRICE_MOVE, _SELL_VOLUME = int(Trigger.PRICE_MOVE), int(Trigger.SELL_VOLUME)
_LIQUIDATIONS, _LIQUIDATION_NOTIONAL = int(Trigger.LIQUIDATIONS), int(Trigger.LIQUIDATION_NOTIONAL)
_DEPTH, _IMBALANCE = int(Trigger.DEPTH), int(Trigger.IMBALANCE)
_SELL = int(Side.SELL)
_HIGHS, _LOWS, _SELLS = int(Window.HIGHS), int(Window.LOWS), int(Window.SELLS)
_TAKEN_BIDS, _TAKEN_ASKS = int(Window.TAKEN_BIDS), int(Window.TAKEN_ASKS)
_STARTED, _LIQUIDATED = int(Window.LIQUIDATIONS), int(Window.LIQUIDATED)
_LAST = WINDOW_ENTRIES - 1  # WINDOW_ENTRIES is a power of two
_BPS = 10_000
_NEVER = int(NEVER)


@helper
def _verdict(state, row, trigger, observed, threshold, window_ns, evidence):
    """Keep why row `row` trips, for the halt and its notice. evidence: the sequence that the window begins with."""
    breaker = state.breakers[row]
    breaker["tripped_by"] = trigger
    breaker["observed"] = observed
    breaker["threshold"] = threshold
    breaker["window_ns"] = window_ns
    breaker["evidence"] = evidence


@helper
def _expire(state, row, which, before_ns):
    """Drop the entries at the front of a window whose until_ns is at or before `before_ns`. The newest price stays,
    because it is in force for ever."""
    look = state.looks[row, which]
    head = look["head"]
    count = look["count"]
    total = look["total"]
    window = state.windows[row, which]
    while count > 0 and window[head & _LAST]["until_ns"] <= before_ns:
        total -= window[head & _LAST]["value"]
        head += 1
        count -= 1
    look["head"] = head
    look["count"] = count
    look["total"] = total


@helper
def _oldest(state, row, which, otherwise):
    """The sequence of a window's oldest entry, or `otherwise` if it is empty."""
    look = state.looks[row, which]
    if look["count"] == 0:
        return otherwise
    return state.windows[row, which, look["head"] & _LAST]["sequence"]


@helper
def _add(state, row, which, value, now_ns, sequence):
    """Enter a quantity into a summing window; at one time, or in a full window, it joins the newest entry."""
    look = state.looks[row, which]
    window = state.windows[row, which]
    count = look["count"]
    newest = (look["head"] + count - 1) & _LAST
    if count > 0 and (window[newest]["until_ns"] == now_ns or count == WINDOW_ENTRIES):
        window[newest]["value"] += value
        window[newest]["until_ns"] = now_ns
    else:
        newest = (look["head"] + count) & _LAST
        window[newest]["value"] = value
        window[newest]["until_ns"] = now_ns
        window[newest]["sequence"] = sequence
        look["count"] = count + 1
    look["total"] += value


@helper
def _add_price(state, row, which, price_ticks, now_ns, sequence):
    """Enter a fill's price into HIGHS or LOWS: prices that fall (rise), each in force until until_ns."""
    look = state.looks[row, which]
    window = state.windows[row, which]
    head = look["head"]
    count = look["count"]
    if count > 0:  # the previous fill's price was in force until now
        window[(head + count - 1) & _LAST]["until_ns"] = now_ns
    if which == _HIGHS:
        while count > 0 and window[(head + count - 1) & _LAST]["value"] <= price_ticks:
            count -= 1
    else:
        while count > 0 and window[(head + count - 1) & _LAST]["value"] >= price_ticks:
            count -= 1
    if count < WINDOW_ENTRIES:
        window[(head + count) & _LAST]["value"] = price_ticks
        window[(head + count) & _LAST]["sequence"] = sequence
        count += 1
    window[(head + count - 1) & _LAST]["until_ns"] = _NEVER
    look["count"] = count


@routine
def _depth_or_imbalance(state, instrument, side, price_ticks, quantity_lots, now_ns, sequence):
    """The triggers that few venues arm, beside the path of an order."""
    breaker = state.breakers[instrument]
    threshold = breaker["depth_lots"]
    if threshold > 0:
        reach = price_ticks * breaker["depth_bps"] // _BPS
        furthest = price_ticks - reach if side == _SELL else price_ticks + reach
        left = book.depth_within(state, 2 * instrument + 1 - side, furthest) - quantity_lots
        if left < threshold:
            _verdict(state, instrument, _DEPTH, left, threshold, 0, sequence)
            return True
    threshold = breaker["imbalance_bps"]
    if threshold > 0:
        window_ns = breaker["imbalance_window_ns"]
        _expire(state, instrument, _TAKEN_BIDS, now_ns - window_ns)
        _expire(state, instrument, _TAKEN_ASKS, now_ns - window_ns)
        sold = state.looks[instrument, _TAKEN_BIDS]["total"]
        bought = state.looks[instrument, _TAKEN_ASKS]["total"]
        if side == _SELL:
            sold += quantity_lots
        else:
            bought += quantity_lots
        net = abs(sold - bought) * _BPS
        if sold + bought >= breaker["imbalance_lots"] and net >= threshold * (sold + bought):
            which = _TAKEN_BIDS if sold > bought else _TAKEN_ASKS
            evidence = _oldest(state, instrument, which, sequence)
            _verdict(state, instrument, _IMBALANCE, net // (sold + bought), threshold, window_ns, evidence)
            return True
    return False


@helper
def trips(state: State, instrument: int, side: int, price_ticks: int, quantity_lots: int, now_ns: int, sequence: int):
    """Whether one prospective match trips the breaker; then the verdict is in the instrument's row.

    observed is in bps of the window's high or low (PRICE_MOVE), in lots (SELL_VOLUME: with this match; DEPTH: left
    after it), or in bps of the lots taken (IMBALANCE).
    """
    breaker = state.breakers[instrument]
    threshold = breaker["price_move_bps"]
    if threshold > 0:
        window_ns = breaker["price_window_ns"]
        _expire(state, instrument, _HIGHS, now_ns - window_ns)
        look = state.looks[instrument, _HIGHS]
        if look["count"] > 0:
            entry = state.windows[instrument, _HIGHS, look["head"] & _LAST]
            high = entry["value"]
            fall = (high - price_ticks) * _BPS
            if fall >= threshold * high:
                _verdict(state, instrument, _PRICE_MOVE, fall // high, threshold, window_ns, entry["sequence"])
                return True
        _expire(state, instrument, _LOWS, now_ns - window_ns)
        look = state.looks[instrument, _LOWS]
        if look["count"] > 0:
            entry = state.windows[instrument, _LOWS, look["head"] & _LAST]
            low = entry["value"]
            rise = (price_ticks - low) * _BPS
            if rise >= threshold * low:
                _verdict(state, instrument, _PRICE_MOVE, rise // low, threshold, window_ns, entry["sequence"])
                return True
    threshold = breaker["sell_volume_lots"]
    if threshold > 0 and side == _SELL:
        window_ns = breaker["sell_window_ns"]
        _expire(state, instrument, _SELLS, now_ns - window_ns)
        total = state.looks[instrument, _SELLS]["total"] + quantity_lots
        if total >= threshold:
            evidence = _oldest(state, instrument, _SELLS, sequence)
            _verdict(state, instrument, _SELL_VOLUME, total, threshold, window_ns, evidence)
            return True
    if breaker["depth_lots"] + breaker["imbalance_bps"] > 0:
        return _depth_or_imbalance(state, instrument, side, price_ticks, quantity_lots, now_ns, sequence)
    return False


@routine
def threshold_of(state, instrument, trigger):
    """(threshold, window_ns) of one trigger of an instrument; 0 if it is off."""
    row = state.breakers[instrument]
    threshold = row["imbalance_bps"]
    window_ns = row["imbalance_window_ns"]
    if trigger == _PRICE_MOVE:
        threshold = row["price_move_bps"]
        window_ns = row["price_window_ns"]
    elif trigger == _SELL_VOLUME:
        threshold = row["sell_volume_lots"]
        window_ns = row["sell_window_ns"]
    elif trigger == _DEPTH:
        threshold = row["depth_lots"]
        window_ns = 0
    elif trigger == _LIQUIDATIONS:
        threshold = row["liquidations"]
        window_ns = row["liquidation_window_ns"]
    elif trigger == _LIQUIDATION_NOTIONAL:
        threshold = row["liquidation_notional"]
        window_ns = row["liquidation_window_ns"]
    return threshold, window_ns


@routine
def _row_liquidates(state, row, started, value, now_ns, sequence):
    """Whether `started` more liquidations worth `value` trip the liquidation triggers of one row."""
    breaker = state.breakers[row]
    window_ns = breaker["liquidation_window_ns"]
    for which in range(_STARTED, _LIQUIDATED + 1):
        threshold = breaker["liquidations"] if which == _STARTED else breaker["liquidation_notional"]
        if threshold > 0:
            _expire(state, row, which, now_ns - window_ns)
            total = state.looks[row, which]["total"] + (started if which == _STARTED else value)
            if total >= threshold:
                trigger = _LIQUIDATIONS if which == _STARTED else _LIQUIDATION_NOTIONAL
                _verdict(state, row, trigger, total, threshold, window_ns, _oldest(state, row, which, sequence))
                return True
    return False


@routine
def liquidation_trips(state, instrument, started, value, now_ns, sequence):
    """Whether a liquidation's next step trips a trigger of the instrument's or of the whole market's.

    Args: started: 1 where a liquidation takes up the instrument, else 0; value: of the match at hand, in minor units.
    The verdict is in the instrument's row; the market's is copied there.
    """
    if _row_liquidates(state, instrument, started, value, now_ns, sequence):
        return True
    market = state.breakers.shape[0] - 1
    if _row_liquidates(state, market, started, value, now_ns, sequence):
        found = state.breakers[market]
        _verdict(
            state,
            instrument,
            found["tripped_by"],
            found["observed"],
            found["threshold"],
            found["window_ns"],
            found["evidence"],
        )
        state.breakers[instrument]["market_wide"] = 1
        return True
    return False


@routine
def record_liquidation(state, instrument, started, value, now_ns, sequence):
    """Enter a liquidation's step, which was allowed, into the windows of the triggers that are armed."""
    for number in range(2):
        row = instrument if number == 0 else state.breakers.shape[0] - 1
        if started > 0 and state.breakers[row]["liquidations"] > 0:
            _add(state, row, _STARTED, started, now_ns, sequence)
        if value > 0 and state.breakers[row]["liquidation_notional"] > 0:
            _add(state, row, _LIQUIDATED, value, now_ns, sequence)


@routine
def _record_taken(state, instrument, side, quantity_lots, now_ns, sequence):
    _add(state, instrument, _TAKEN_BIDS if side == _SELL else _TAKEN_ASKS, quantity_lots, now_ns, sequence)


@helper
def record_price(state: State, instrument: int, price_ticks: int, now_ns: int, sequence: int) -> None:
    """Enter a price alone: an auction's or a batch's, which nobody took."""
    if state.breakers[instrument]["price_move_bps"] > 0:
        _add_price(state, instrument, _HIGHS, price_ticks, now_ns, sequence)
        _add_price(state, instrument, _LOWS, price_ticks, now_ns, sequence)


@helper
def record_fill(
    state: State, instrument: int, side: int, price_ticks: int, quantity_lots: int, now_ns: int, sequence: int
) -> None:
    """Enter a fill into the windows of the triggers that are armed. side: the taker's."""
    record_price(state, instrument, price_ticks, now_ns, sequence)
    breaker = state.breakers[instrument]
    if breaker["sell_volume_lots"] > 0 and side == _SELL:
        _add(state, instrument, _SELLS, quantity_lots, now_ns, sequence)
    if breaker["imbalance_bps"] > 0:
        _record_taken(state, instrument, side, quantity_lots, now_ns, sequence)


@helper
def forget(state: State, instrument: int) -> None:
    """Empty the instrument's windows and its verdict: what a call auction found is where prices start anew."""
    for which in range(state.looks.shape[1]):
        state.looks[instrument, which]["count"] = 0
        state.looks[instrument, which]["total"] = 0
    state.breakers[instrument]["trigger"] = 0
    state.breakers[instrument]["market_wide"] = 0
