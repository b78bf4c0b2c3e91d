"""The messages within compiled code: msgpack integers and session identities, read and written in place.

Owns the encoding only; which field means what is wire.py's.
"""

from exchange.jit import helper, routine
from exchange.wire import IDENTITY_BYTES, IDENTITY_MARK, MAX_MESSAGE_BYTES


@routine
def put_int(frame, at, value):
    """Write one msgpack integer in its shortest form; returns the position after it."""
    if value >= 0:
        if value < 0x80:
            frame[at] = value
            return at + 1
        if value < 0x100:
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
    else:
        if value >= -32:
            frame[at] = value & 0xFF
            return at + 1
        frame[at] = 0xD3
        width = 8
    for byte in range(width):
        frame[at + 1 + byte] = (value >> (8 * (width - 1 - byte))) & 0xFF
    return at + 1 + width


@routine
def get_int(frame, at, end):
    """Read one msgpack integer of any width; returns (value, position after it), position −1 if it is none."""
    if at < 0 or at >= end:
        return 0, -1
    lead = int(frame[at])
    if lead < 0x80:
        return lead, at + 1
    if lead >= 0xE0:
        return lead - 0x100, at + 1
    if lead >= 0xCC and lead <= 0xCF:
        width = 1 << (lead - 0xCC)
    elif lead >= 0xD0 and lead <= 0xD3:
        width = 1 << (lead - 0xD0)
    else:
        return 0, -1
    if at + 1 + width > end:
        return 0, -1
    value = int(frame[at + 1])
    if value >= 0x80:
        if lead >= 0xD0:
            value -= 0x100
        elif width == 8:
            return 0, -1  # beyond int64
    for byte in range(1, width):
        value = (value << 8) | int(frame[at + 1 + byte])
    return value, at + 1 + width


@helper
def get_array(frame, size, values):
    """Read a message's integers into values (int64[15]); returns their count, or −1 if it is not such a message."""
    count = -1
    if size > 0 and size <= MAX_MESSAGE_BYTES and (int(frame[0]) & 0xF0) == 0x90:
        count = int(frame[0]) & 0x0F
        at = 1
        for number in range(count):
            value, at = get_int(frame, at, size)
            values[number] = value
        if at != size:
            count = -1
    return count


@helper
def put_array(frame, values, count):
    """Write the first `count` (at most 15) of values as a message; returns its size."""
    frame[0] = 0x90 | count
    at = 1
    for number in range(count):
        at = put_int(frame, at, values[number])
    return at


@helper
def account_of(identity_frame, size):
    """The account that a session's routing id names, or −1."""
    if size != IDENTITY_BYTES or identity_frame[0] != IDENTITY_MARK:
        return -1
    account = 0
    for byte in range(1, IDENTITY_BYTES):
        account = (account << 8) | int(identity_frame[byte])
    return account


@helper
def put_identity(identity_frame, account):
    identity_frame[0] = IDENTITY_MARK
    for byte in range(4):
        identity_frame[1 + byte] = (account >> (8 * (3 - byte))) & 0xFF
