"""Replay a recorded exchange day (LOBSTER files) as ordinary orders. Owns the names its users import; no behaviour."""

from aar_swarm.lobster.files import EMPTY_PRICE, MESSAGE, Day, LobsterError, MessageType, read
from aar_swarm.lobster.flow import FLOW, Conversion, Counts, books_in_ticks, convert, order_flow, price_levels_needed

__all__ = [
    "EMPTY_PRICE",
    "FLOW",
    "MESSAGE",
    "Conversion",
    "Counts",
    "Day",
    "LobsterError",
    "MessageType",
    "books_in_ticks",
    "convert",
    "order_flow",
    "price_levels_needed",
    "read",
]
