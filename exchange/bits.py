"""Operations on 64-bit words that Python, NumPy and compiled code would each do differently.

Each is a plain Python function, used when the JIT is off, with a compiled overload of the same meaning. Words are
int64: bit 63 is the sign bit and counts as any other.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

_MASK = (1 << 64) - 1
_MIX = 0x9E3779B97F4A7C15
_MIX_SIGNED = _MIX - (1 << 64)
_STEP = 29


def _signed(word: int) -> np.int64:
    return np.int64(word - (1 << 64) if word >> 63 else word)


def with_bit(word: int, bit: int) -> np.int64:
    """The word with one bit set; bit is 0 … 63."""
    return _signed((int(word) & _MASK) | (1 << int(bit)))


def without_bit(word: int, bit: int) -> np.int64:
    """The word with one bit cleared; bit is 0 … 63."""
    return _signed((int(word) & _MASK) & ~(1 << int(bit)))


def lowest_above(word: int, bit: int) -> int:
    """Number of the lowest set bit above `bit` (−1 … 63), or −1."""
    rest = (int(word) & _MASK) >> (int(bit) + 1)
    return int(bit) + 1 + (rest & -rest).bit_length() - 1 if rest else -1


def highest_below(word: int, bit: int) -> int:
    """Number of the highest set bit below `bit` (0 … 64), or −1."""
    return ((int(word) & _MASK) & ((1 << int(bit)) - 1)).bit_length() - 1


def mix(digest: int | np.int64, word: int | np.int64) -> np.int64:
    """One step of a 64-bit digest (xor, multiply by the golden ratio's odd constant, fold the high bits down).

    It finds torn and damaged records; it is not cryptographic. For a fixed digest it is a bijection of the word.
    """
    x = ((int(digest) ^ int(word)) * _MIX) & _MASK
    return _signed(x ^ (x >> _STEP))


@intrinsic
def _trailing_zeros(typing_context, word):
    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@intrinsic
def _leading_zeros(typing_context, word):
    def generate(context, builder, signature, arguments):
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@intrinsic
def _logical_shift_right(typing_context, word, count):
    def generate(context, builder, signature, arguments):
        return builder.lshr(arguments[0], arguments[1])

    return types.int64(types.int64, types.int64), generate


@overload(with_bit, inline="always")
def _with_bit(word, bit):
    return lambda word, bit: np.int64(word) | (np.int64(1) << np.int64(bit))


@overload(without_bit, inline="always")
def _without_bit(word, bit):
    return lambda word, bit: np.int64(word) & ~(np.int64(1) << np.int64(bit))


@overload(lowest_above)
def _lowest_above(word, bit):
    def compiled(word, bit):
        if bit >= 63:  # a shift by 64 is undefined
            return np.int64(-1)
        rest = np.int64(word) & (np.int64(-1) << np.int64(bit + 1))
        if rest == 0:
            return np.int64(-1)
        return _trailing_zeros(rest)

    return compiled


@overload(highest_below)
def _highest_below(word, bit):
    def compiled(word, bit):
        rest = np.int64(word)
        if bit < 64:
            rest = rest & ~(np.int64(-1) << np.int64(bit))
        if rest == 0:
            return np.int64(-1)
        return np.int64(63) - _leading_zeros(rest)

    return compiled


@overload(mix)
def _mix(digest, word):
    def compiled(digest, word):
        x = (np.int64(digest) ^ np.int64(word)) * np.int64(_MIX_SIGNED)
        return x ^ _logical_shift_right(x, np.int64(_STEP))

    return compiled
