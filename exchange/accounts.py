"""Cash and positions: what an account holds, what its resting orders reserve, and how a fill moves both.

All amounts are int64 minor units and lots. Bounds in types.py keep every product and sum within int64.
"""

from exchange.jit import helper
from exchange.state import State
from exchange.types import Side

_BUY = int(Side.BUY)


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
    if side == _BUY:
        notional = price_ticks * quantity_lots * state.instruments[instrument]["multiplier"]
        state.accounts[account]["reserved_cash"] += sign * notional
    else:
        state.positions[account][instrument]["reserved_lots"] += sign * quantity_lots


@helper
def settle(state: State, instrument: int, buyer: int, seller: int, price_ticks: int, quantity_lots: int) -> None:
    """Move cash and lots between the two sides of a fill, at once."""
    notional = price_ticks * quantity_lots * state.instruments[instrument]["multiplier"]
    state.accounts[buyer]["cash"] -= notional
    state.accounts[seller]["cash"] += notional
    state.positions[buyer][instrument]["quantity_lots"] += quantity_lots
    state.positions[seller][instrument]["quantity_lots"] -= quantity_lots
