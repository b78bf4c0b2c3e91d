"""Operations on 64-bit words that Python, NumPy and compiled code would each do differently.

Each is a plain Python function, used when the JIT is off, with a compiled overload of the same meaning. Words are
int64: bit 63 is the sign bit and counts as any other.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array

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


def wrapping_dot(a: int, b: int, c: int, d: int) -> np.int64:
    """a × b + c × d modulo 2^64."""
    return _signed((int(a) * int(b) + int(c) * int(d)) & _MASK)


def logical_shift_right(word: int, count: int) -> np.int64:
    """The word shifted by 0 … 63 bits, with zeros coming in."""
    return _signed((int(word) & _MASK) >> int(count))


def load_big_endian(array: np.ndarray, index: int) -> np.int64:
    """The eight bytes array[index : index + 8] (uint8, all within the array) as a big-endian word."""
    return np.int64(int.from_bytes(array[index : index + 8].tobytes(), "big", signed=True))


def store_big_endian(array: np.ndarray, index: int, word: int) -> None:
    """Write a word into array[index : index + 8] (uint8, all within the array), big-endian."""
    array[index : index + 8] = np.frombuffer((int(word) & _MASK).to_bytes(8, "big"), np.uint8)


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
def _shift_right(typing_context, word, count):
    def generate(context, builder, signature, arguments):
        return builder.lshr(arguments[0], arguments[1])

    return types.int64(types.int64, types.int64), generate


def _word_at(context, builder, array_type, array, index):
    """A pointer to the eight bytes from array[index] on, aligned or not."""
    data = make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), ir.IntType(64).as_pointer())


@intrinsic
def _load_word(typing_context, array, index):
    def generate(context, builder, signature, arguments):
        word = builder.load(_word_at(context, builder, signature.args[0], *arguments), align=1)
        return builder.bswap(word)

    return types.int64(array, types.int64), generate


@intrinsic
def _store_word(typing_context, array, index, word):
    def generate(context, builder, signature, arguments):
        pointer = _word_at(context, builder, signature.args[0], *arguments[:2])
        builder.store(builder.bswap(arguments[2]), pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


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
        return x ^ _shift_right(x, np.int64(_STEP))

    return compiled


@overload(wrapping_dot, inline="always")
def _wrapping_dot(a, b, c, d):
    return lambda a, b, c, d: np.int64(a) * np.int64(b) + np.int64(c) * np.int64(d)


@overload(logical_shift_right, inline="always")
def _logical_shift_right(word, count):
    return lambda word, count: _shift_right(np.int64(word), np.int64(count))


@overload(load_big_endian, inline="always")
def _load_big_endian(array, index):
    return lambda array, index: _load_word(array, np.int64(index))


@overload(store_big_endian, inline="always")
def _store_big_endian(array, index, word):
    return lambda array, index, word: _store_word(array, np.int64(index), np.int64(word))
