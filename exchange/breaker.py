"""The in-line circuit breaker: two look-back windows an instrument, asked before each match.

Owns the windows and the verdict. Does not halt: the engine does, in the same command. Rules in docs/matching.md.
CME's velocity logic (N ticks within time T) is the model of PRICE_MOVE, and Eurex's volatility interruption of what
happens to the triggering match: it is prevented, and earlier fills stand. SELL_VOLUME is the rate of a
liquidation-rate breaker, over aggressively sold lots.
"""

from exchange.jit import helper
from exchange.state import WINDOW_ENTRIES, State
from exchange.types import NEVER, Side, Trigger

_PRICE_MOVE = int(Trigger.PRICE_MOVE)
_SELL_VOLUME = int(Trigger.SELL_VOLUME)
_SELL = int(Side.SELL)
_LAST = WINDOW_ENTRIES - 1  # WINDOW_ENTRIES is a power of two
_BPS = 10_000
_NEVER = int(NEVER)


@helper
def _expire(window, head, count, before_ns):
    """Drop the entries at the front whose until_ns is at or before `before_ns`; at least the newest price stays,
    because it is in force for ever."""
    while count > 0 and window[head & _LAST]["until_ns"] <= before_ns:
        head += 1
        count -= 1
    return head, count


@helper
def trips(state: State, instrument: int, side: int, price_ticks: int, quantity_lots: int, now_ns: int):
    """Ask about one prospective match.

    Returns: (trigger, observed, threshold, window_ns); trigger 0 if the match may happen. observed is in bps of the
    window's high or low (PRICE_MOVE) or in lots (SELL_VOLUME).
    """
    breaker = state.breakers[instrument]
    threshold = breaker["price_move_bps"]
    if threshold > 0:
        window_ns = breaker["price_window_ns"]
        head, count = _expire(state.highs[instrument], breaker["high_head"], breaker["high_count"], now_ns - window_ns)
        breaker["high_head"] = head
        breaker["high_count"] = count
        if count > 0:
            high = state.highs[instrument][head & _LAST]["value"]
            fall = (high - price_ticks) * _BPS
            if fall >= threshold * high:
                return _PRICE_MOVE, fall // high, threshold, window_ns
        head, count = _expire(state.lows[instrument], breaker["low_head"], breaker["low_count"], now_ns - window_ns)
        breaker["low_head"] = head
        breaker["low_count"] = count
        if count > 0:
            low = state.lows[instrument][head & _LAST]["value"]
            rise = (price_ticks - low) * _BPS
            if rise >= threshold * low:
                return _PRICE_MOVE, rise // low, threshold, window_ns
    threshold = breaker["sell_volume_lots"]
    if threshold > 0 and side == _SELL:
        window_ns = breaker["sell_window_ns"]
        head = breaker["sell_head"]
        count = breaker["sell_count"]
        total = breaker["sell_sum_lots"]
        while count > 0 and state.sells[instrument][head & _LAST]["until_ns"] <= now_ns - window_ns:
            total -= state.sells[instrument][head & _LAST]["value"]
            head += 1
            count -= 1
        breaker["sell_head"] = head
        breaker["sell_count"] = count
        breaker["sell_sum_lots"] = total
        if total + quantity_lots >= threshold:
            return _SELL_VOLUME, total + quantity_lots, threshold, window_ns
    return 0, 0, 0, 0


@helper
def record_fill(state: State, instrument: int, side: int, price_ticks: int, quantity_lots: int, now_ns: int) -> None:
    """Enter a fill into the windows of the triggers that are armed."""
    breaker = state.breakers[instrument]
    if breaker["price_move_bps"] > 0:
        window = state.highs[instrument]
        head = breaker["high_head"]
        count = breaker["high_count"]
        if count > 0:  # the previous fill's price was in force until now
            window[(head + count - 1) & _LAST]["until_ns"] = now_ns
        while count > 0 and window[(head + count - 1) & _LAST]["value"] <= price_ticks:
            count -= 1
        if count < WINDOW_ENTRIES:
            window[(head + count) & _LAST]["value"] = price_ticks
            count += 1
        window[(head + count - 1) & _LAST]["until_ns"] = _NEVER
        breaker["high_count"] = count
        window = state.lows[instrument]
        head = breaker["low_head"]
        count = breaker["low_count"]
        if count > 0:
            window[(head + count - 1) & _LAST]["until_ns"] = now_ns
        while count > 0 and window[(head + count - 1) & _LAST]["value"] >= price_ticks:
            count -= 1
        if count < WINDOW_ENTRIES:
            window[(head + count) & _LAST]["value"] = price_ticks
            count += 1
        window[(head + count - 1) & _LAST]["until_ns"] = _NEVER
        breaker["low_count"] = count
    if breaker["sell_volume_lots"] > 0 and side == _SELL:
        window = state.sells[instrument]
        head = breaker["sell_head"]
        count = breaker["sell_count"]
        newest = (head + count - 1) & _LAST
        if count > 0 and (window[newest]["until_ns"] == now_ns or count == WINDOW_ENTRIES):
            window[newest]["value"] += quantity_lots
            window[newest]["until_ns"] = now_ns
        else:
            newest = (head + count) & _LAST
            window[newest]["value"] = quantity_lots
            window[newest]["until_ns"] = now_ns
            breaker["sell_count"] = count + 1
        breaker["sell_sum_lots"] += quantity_lots


@helper
def forget(state: State, instrument: int) -> None:
    """Empty the instrument's windows and its verdict: what a call auction found is where prices start anew."""
    breaker = state.breakers[instrument]
    breaker["high_count"] = 0
    breaker["low_count"] = 0
    breaker["sell_count"] = 0
    breaker["sell_sum_lots"] = 0
    breaker["trigger"] = 0
