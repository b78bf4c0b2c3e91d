"""Accounts: cash and positions, what resting orders reserve, how a fill moves both; message rates; remembered outcomes.

All amounts are int64 minor units and lots. Bounds in types.py keep every product and sum within int64.
"""

from exchange.jit import helper, routine
from exchange.state import State
from exchange.types import Side

_BUY = int(Side.BUY)
_SECOND = 1_000_000_000


@helper
def free_cash(state: State, account: int) -> int:
    row = state.accounts[account]
    return row["cash"] - row["reserved_cash"]


@helper
def free_lots(state: State, account: int, instrument: int) -> int:
    row = state.positions[account][instrument]
    return row["quantity_lots"] - row["reserved_lots"]


@helper
def reserve(
    state: State, account: int, instrument: int, side: int, price_ticks: int, quantity_lots: int, sign: int
) -> None:
    """Set aside (sign 1), or release (sign −1), what a resting order of this price and quantity needs."""
    position = state.positions[account][instrument]
    if side == _BUY:
        notional = price_ticks * quantity_lots * state.instruments[instrument]["multiplier"]
        state.accounts[account]["reserved_cash"] += sign * notional
        position["buying_lots"] += sign * quantity_lots
    else:
        position["reserved_lots"] += sign * quantity_lots


@routine
def keep_entry_value(state: State, account: int, instrument: int, change_lots: int, price_ticks: int) -> None:
    """Before a margin account's position changes: what the position cost, signed as the position (docs/money.md)."""
    position = state.positions[account][instrument]
    held = position["quantity_lots"]
    price = price_ticks * state.instruments[instrument]["multiplier"]
    after = held + change_lots
    if after == 0:
        position["entry_value"] = 0
    elif held == 0 or (held > 0) == (change_lots > 0):
        position["entry_value"] += price * change_lots
    elif (held > 0) != (after > 0):
        position["entry_value"] = price * after
    else:
        cost = abs(position["entry_value"])
        lots = abs(held)
        part = cost // lots * abs(change_lots) + cost % lots * abs(change_lots) // lots
        position["entry_value"] -= part if position["entry_value"] > 0 else -part


@helper
def settle(state: State, instrument: int, buyer: int, seller: int, price_ticks: int, quantity_lots: int) -> None:
    """Move cash and lots between the two sides of a trade, at once."""
    notional = price_ticks * quantity_lots * state.instruments[instrument]["multiplier"]
    if state.accounts[buyer]["margin"] != 0:
        keep_entry_value(state, buyer, instrument, quantity_lots, price_ticks)
    state.accounts[buyer]["cash"] -= notional
    state.positions[buyer][instrument]["quantity_lots"] += quantity_lots
    if state.accounts[seller]["margin"] != 0:
        keep_entry_value(state, seller, instrument, -quantity_lots, price_ticks)
    state.accounts[seller]["cash"] += notional
    state.positions[seller][instrument]["quantity_lots"] -= quantity_lots


@routine
def transfer(state: State, instrument: int, buyer: int, seller: int, price_ticks: int, quantity_lots: int) -> None:
    """settle, compiled once for all who seldom call it."""
    settle(state, instrument, buyer, seller, price_ticks, quantity_lots)


@helper
def charge(state: State, account: int, now_ns: int) -> bool:
    """Count one message by the generic cell rate algorithm (ITU-T I.371); True: it is over the account's rate."""
    row = state.accounts[account]
    limit = row["messages_per_s_limit"]
    over = False
    if limit > 0:
        interval = _SECOND // limit
        due = max(row["rate_ns"], now_ns)
        if due - now_ns > _SECOND - interval:
            over = True
        else:
            row["rate_ns"] = due + interval
    return over


@helper
def remember(state: State, account: int, order_id: int, sequence: int, quantity_lots: int, reason: int) -> None:
    """Keep an order id's outcome, over the oldest one kept."""
    row = state.accounts[account]
    outcome = state.outcomes[account][row["remembered"] & (state.outcomes.shape[1] - 1)]
    outcome["order_id"] = order_id
    outcome["sequence"] = sequence
    outcome["quantity_lots"] = quantity_lots
    outcome["reason"] = reason
    row["remembered"] += 1
