"""The compiled msgpack agrees with the msgpack library, both ways, and refuses what is no message of ours."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import codec, wire
from exchange.jit import JIT
from exchange.types import EventKind

if JIT:
    import numba

    encode = numba.njit(lambda frame, values, count: codec.put_array(frame, values, count))
    decode = numba.njit(lambda frame, size, values: codec.get_array(frame, size, values))
    account_of = numba.njit(lambda frame, size: codec.account_of(frame, size))
else:
    encode, decode, account_of = codec.put_array, codec.get_array, codec.account_of

int64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([s * (2**b) + d for b in (5, 7, 8, 15, 16, 31, 32, 62) for s in (1, -1) for d in (-1, 0, 1)]),
)


def decoded(frame: bytes) -> list[int] | None:
    buffer = np.zeros(512, np.uint8)
    buffer[: len(frame)] = np.frombuffer(frame, np.uint8)
    values = np.zeros(16, np.int64)
    count = decode(buffer, len(frame), values)
    return None if count < 0 else values[:count].tolist()


@given(st.lists(int64, max_size=15))
def test_compiled_messages_are_msgpack(values):
    frame = np.zeros(512, np.uint8)
    array = np.zeros(16, np.int64)
    array[: len(values)] = values
    size = encode(frame, array, len(values))
    assert msgpack.unpackb(frame[:size].tobytes()) == values
    assert decoded(frame[:size].tobytes()) == values


@given(st.lists(int64, max_size=15))
def test_messages_of_the_library_are_read(values):
    assert decoded(msgpack.packb(values)) == values


@given(st.lists(int64, max_size=15), st.integers(1, 20))
def test_a_truncated_message_is_refused(values, missing):
    frame = msgpack.packb(values)
    assert decoded(frame[:-missing]) is None


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader_and_what_it_reads_the_library_reads_too(frame):
    values = decoded(frame)
    if values is not None:
        assert msgpack.unpackb(frame) == values


@pytest.mark.parametrize(
    "message", [[1.5], ["text"], [None], [True], [[1]], {1: 2}, 7, [2**63], list(range(16))], ids=repr
)
def test_what_is_not_an_array_of_int64_is_refused(message):
    assert decoded(msgpack.packb(message)) is None


def test_bytes_behind_a_message_are_refused():
    assert decoded(msgpack.packb([1, 2]) + b"\0") is None


@given(st.integers(0, 2**32 - 1))
def test_a_session_is_named_after_its_account(account):
    frame = np.frombuffer(wire.identity(account), np.uint8)
    assert account_of(frame, len(frame)) == account


@pytest.mark.parametrize("identity", [b"", b"A", b"A1234x", b"B1234", b"\0" * 5])
def test_a_foreign_routing_id_names_no_account(identity):
    assert account_of(np.frombuffer(identity.ljust(8, b"\0"), np.uint8), len(identity)) == -1


def test_a_subscription_is_how_its_messages_begin():
    notice = wire.Notice(int(EventKind.INSTRUMENT_HALTED), 5, 6, 7, 8, 9, 10, 11, 12, 13)
    assert wire.pack(*notice).startswith(wire.subscription(EventKind.INSTRUMENT_HALTED))
    assert not wire.pack(*notice).startswith(wire.subscription(EventKind.SIGNAL_PUBLISHED))
    top = wire.TopOfBook(int(wire.MessageKind.TOP_OF_BOOK), 3, *range(10))
    assert wire.pack(*top).startswith(wire.subscription(wire.MessageKind.TOP_OF_BOOK, 3))
    assert not wire.pack(*top).startswith(wire.subscription(wire.MessageKind.TOP_OF_BOOK, 4))


def test_a_message_of_another_protocol_is_refused_by_the_client():
    for frame in (msgpack.packb([999, 1]), msgpack.packb([1, 2]), msgpack.packb("x"), msgpack.packb([])):
        with pytest.raises(ValueError):
            wire.unpack(frame)
