"""The messages within compiled code: msgpack integers and connection ids, read and written in place.

Owns the encoding only; which field means what is wire.py's. Frames are uint8 arrays with 8 bytes more than any message
needs, so that every integer is read and written as one word.
"""

from exchange.bits import load_big_endian, logical_shift_right, store_big_endian
from exchange.jit import helper
from exchange.wire import MAX_MESSAGE_BYTES

CONNECTION_ID_BYTES = 5
_SMALL_ARRAY, _ARRAY_16 = 15, 0xDC


@helper
def _put_int(frame, at, value):
    """Write one msgpack integer in its shortest form; returns the position after it."""
    if value >= -32 and value < 0x80:
        frame[at] = value & 0xFF
        return at + 1
    if value < 0:
        frame[at] = 0xD3
        width = 8
    elif value < 0x100:
        frame[at] = 0xCC
        width = 1
    elif value < 0x10000:
        frame[at] = 0xCD
        width = 2
    elif value < 0x100000000:
        frame[at] = 0xCE
        width = 4
    else:
        frame[at] = 0xCF
        width = 8
    store_big_endian(frame, at + 1, value << (64 - 8 * width))
    return at + 1 + width


@helper
def _get_int(frame, at, end):
    """Read one msgpack integer of any width; returns (value, position after it), position −1 if it is none."""
    if at < 0 or at >= end:
        return 0, -1
    lead = int(frame[at])
    if lead < 0x80:
        return lead, at + 1
    if lead >= 0xE0:
        return lead - 0x100, at + 1
    if lead < 0xCC or lead > 0xD3:
        return 0, -1
    width = 1 << (lead & 3)
    if at + 1 + width > end:
        return 0, -1
    word = load_big_endian(frame, at + 1)
    if lead >= 0xD0:
        return word >> (64 - 8 * width), at + 1 + width
    if width == 8:
        return word, at + 9 if word >= 0 else -1  # −1: beyond int64
    return logical_shift_right(word, 64 - 8 * width), at + 1 + width


@helper
def get_array(frame, size, values):
    """Read a message's integers into values (int64[≥ MAX_MESSAGE_BYTES]); returns their count, −1 if it is not
    such a message."""
    count = -1
    at = 1
    if size > 0 and size <= MAX_MESSAGE_BYTES:
        if (int(frame[0]) & 0xF0) == 0x90:
            count = int(frame[0]) & 0x0F
        elif size > 2 and int(frame[0]) == _ARRAY_16 and int(frame[1]) == 0:
            count = int(frame[2])
            at = 3
    if count > size:
        count = -1
    if count >= 0:
        for number in range(count):
            value, at = _get_int(frame, at, size)
            values[number] = value
        if at != size:
            count = -1
    return count


@helper
def put_array(frame, values, count):
    """Write the first `count` of values as a message; returns its size."""
    at = 1
    if count <= _SMALL_ARRAY:
        frame[0] = 0x90 | count
    else:
        frame[0] = _ARRAY_16
        frame[1] = 0
        frame[2] = count
        at = 3
    for number in range(count):
        at = _put_int(frame, at, values[number])
    return at


@helper
def get_account(frame):
    """The account that a frame of a multiplexed connection names (wire.account_frame)."""
    return int(frame[0]) | int(frame[1]) << 8 | int(frame[2]) << 16 | int(frame[3]) << 24


@helper
def put_account(frame, account):
    frame[0] = account & 0xFF
    frame[1] = (account >> 8) & 0xFF
    frame[2] = (account >> 16) & 0xFF
    frame[3] = (account >> 24) & 0xFF


@helper
def connection_of(address, size):
    """The number of a connection that the ROUTER named itself (a zero byte, then 32 bits), or −1 for any other."""
    if size != CONNECTION_ID_BYTES or address[0] != 0:
        return -1
    return logical_shift_right(load_big_endian(address, 1), 32)


@helper
def put_connection(address, connection):
    address[0] = 0
    store_big_endian(address, 1, connection << 32)
