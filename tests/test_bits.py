"""The words' operations mean the same in Python and compiled, for every word and bit."""

import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exchange import bits

words = st.integers(-(2**63), 2**63 - 1).map(np.int64)


@numba.njit
def compiled_with_bit(word, bit):
    return bits.with_bit(word, bit)


@numba.njit
def compiled_without_bit(word, bit):
    return bits.without_bit(word, bit)


@numba.njit
def compiled_lowest_above(word, bit):
    return bits.lowest_above(word, bit)


@numba.njit
def compiled_highest_below(word, bit):
    return bits.highest_below(word, bit)


@numba.njit
def compiled_mix(digest, word):
    return bits.mix(digest, word)


@numba.njit
def compiled_wrapping_dot(a, b, c, d):
    return bits.wrapping_dot(a, b, c, d)


@numba.njit
def compiled_logical_shift_right(word, count):
    return bits.logical_shift_right(word, count)


@numba.njit
def compiled_load(array, index):
    return bits.load_big_endian(array, index)


@numba.njit
def compiled_store(array, index, word):
    bits.store_big_endian(array, index, word)


def signed(word):
    return (word + (1 << 63)) % (1 << 64) - (1 << 63)


def set_bits(word):
    return [bit for bit in range(64) if (int(word) >> bit) & 1]


@given(words, st.integers(0, 63))
def test_setting_and_clearing_a_bit_changes_only_that_bit(word, bit):
    for function in (bits.with_bit, compiled_with_bit):
        assert set_bits(function(word, np.int64(bit))) == sorted({*set_bits(word), bit})
    for function in (bits.without_bit, compiled_without_bit):
        assert set_bits(function(word, np.int64(bit))) == sorted({*set_bits(word)} - {bit})


@given(words, st.integers(-1, 63))
def test_lowest_bit_above_is_the_next_one_or_none(word, bit):
    expected = min((b for b in set_bits(word) if b > bit), default=-1)
    for function in (bits.lowest_above, compiled_lowest_above):
        assert function(word, np.int64(bit)) == expected


@given(words, st.integers(0, 64))
def test_highest_bit_below_is_the_previous_one_or_none(word, bit):
    expected = max((b for b in set_bits(word) if b < bit), default=-1)
    for function in (bits.highest_below, compiled_highest_below):
        assert function(word, np.int64(bit)) == expected


@given(words, words)
def test_mix_is_the_same_compiled_and_not(digest, word):
    assert bits.mix(digest, word) == compiled_mix(digest, word)


@given(words, words, words)
def test_mix_tells_any_two_words_apart(digest, one, other):
    assert (bits.mix(digest, one) == bits.mix(digest, other)) == (one == other)


@given(words, words, words, words)
def test_a_product_sum_wraps_around(a, b, c, d):
    for function in (bits.wrapping_dot, compiled_wrapping_dot):
        assert function(a, b, c, d) == signed(int(a) * int(b) + int(c) * int(d))


@given(words, st.integers(0, 63))
def test_a_logical_shift_brings_in_zeros(word, count):
    for function in (bits.logical_shift_right, compiled_logical_shift_right):
        assert set_bits(function(word, np.int64(count))) == [bit - count for bit in set_bits(word) if bit >= count]


@given(st.binary(min_size=24, max_size=24), st.integers(0, 16), words)
def test_eight_bytes_are_read_and_written_big_endian_at_any_place(raw, index, word):
    array = np.frombuffer(raw, np.uint8)
    for function in (bits.load_big_endian, compiled_load):
        assert function(array, index) == int.from_bytes(raw[index : index + 8], "big", signed=True)
    for function in (bits.store_big_endian, compiled_store):
        written = array.copy()
        function(written, index, word)
        wanted = raw[:index] + int(word).to_bytes(8, "big", signed=True) + raw[index + 8 :]
        assert written.tobytes() == wanted
