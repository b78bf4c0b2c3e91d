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
    connection_of = numba.njit(lambda address, size: codec.connection_of(address, size))
    put_connection = numba.njit(lambda address, connection: codec.put_connection(address, connection))
else:
    encode, decode = codec.put_array, codec.get_array
    connection_of, put_connection = codec.connection_of, codec.put_connection

int64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([s * (2**b) + d for b in (5, 7, 8, 15, 16, 31, 32, 62) for s in (1, -1) for d in (-1, 0, 1)]),
)
FORMATS = {  # lead byte: bytes, signed
    0xCC: (1, False),
    0xCD: (2, False),
    0xCE: (4, False),
    0xCF: (8, False),
    0xD0: (1, True),
    0xD1: (2, True),
    0xD2: (4, True),
    0xD3: (8, True),
}


def decoded(frame: bytes) -> list[int] | None:
    buffer = np.zeros(512, np.uint8)
    buffer[: len(frame)] = np.frombuffer(frame, np.uint8)
    values = np.zeros(wire.MAX_MESSAGE_BYTES, np.int64)
    count = decode(buffer, len(frame), values)
    return None if count < 0 else values[:count].tolist()


def encoded(values: list[int]) -> bytes:
    frame = np.zeros(512, np.uint8)
    array = np.zeros(64, np.int64)
    array[: len(values)] = values
    return frame[: encode(frame, array, len(values))].tobytes()


@given(st.lists(int64, max_size=15))
def test_compiled_messages_are_msgpack(values):
    frame = encoded(values)
    assert msgpack.unpackb(frame) == values
    assert decoded(frame) == values
    if all(value >= -32 for value in values):
        assert frame == msgpack.packb(values), "not the shortest form"


@given(st.lists(int64, min_size=16, max_size=wire.DEPTH_FIELDS))
def test_a_longer_array_has_three_bytes_of_header(values):
    frame = encoded(values)
    assert frame[:3] == bytes([0xDC, 0, len(values)])
    assert msgpack.unpackb(frame) == values


@given(st.lists(int64, max_size=15))
def test_messages_of_the_library_are_read(values):
    assert decoded(msgpack.packb(values)) == values


@given(st.lists(st.tuples(st.sampled_from(sorted(FORMATS)), st.binary(min_size=8, max_size=8)), max_size=15))
def test_integers_of_every_width_are_read_also_where_a_shorter_one_would_do(parts):
    frame = bytes([0x90 | len(parts)])
    wanted = []
    for lead, raw in parts:
        width, signed = FORMATS[lead]
        frame += bytes([lead]) + raw[:width]
        wanted.append(int.from_bytes(raw[:width], "big", signed=signed))
    assert decoded(frame) == (wanted if all(value < 2**63 for value in wanted) else None)


@given(st.lists(int64, max_size=28), st.integers(1, 20))
def test_a_truncated_message_is_refused(values, missing):
    frame = msgpack.packb(values)
    assert decoded(frame[:-missing]) is None


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader_and_what_it_reads_the_library_reads_too(frame):
    values = decoded(frame)
    if values is not None:
        assert msgpack.unpackb(frame) == values


@pytest.mark.parametrize(
    "message",
    [[1.5], ["text"], [None], [True], [[1]], {1: 2}, 7, [2**63], list(range(256))],
    ids=lambda m: repr(m)[:30],
)
def test_what_is_not_an_array_of_int64_that_fits_is_refused(message):
    assert decoded(msgpack.packb(message)) is None


def test_bytes_behind_a_message_are_refused():
    assert decoded(msgpack.packb([1, 2]) + b"\0") is None


def test_the_longest_message_is_within_the_limit_and_a_longer_frame_is_refused():
    assert len(msgpack.packb([-(2**63)] * 15)) <= wire.MAX_MESSAGE_BYTES
    assert decoded(msgpack.packb([1, 2]).ljust(wire.MAX_MESSAGE_BYTES + 1, b"\0")) is None


@given(st.integers(0, 2**32 - 1))
def test_a_connection_is_named_as_the_router_names_it(number):
    address = np.full(16, 0xFF, np.uint8)
    put_connection(address, number)
    assert address[:5].tobytes() == b"\0" + number.to_bytes(4, "big")
    assert connection_of(address, 5) == number


@pytest.mark.parametrize("routing_id", [b"", b"\0", b"\0\0\0\1", b"A0001", b"\0\0\0\0\0\1", b"A" * 200])
def test_a_routing_id_that_a_client_chose_names_no_connection(routing_id):
    address = np.frombuffer(routing_id.ljust(512, b"\0"), np.uint8)
    assert connection_of(address, len(routing_id)) == -1


EXAMPLES = [
    wire.Notice(int(EventKind.INSTRUMENT_HALTED), *range(11)),
    wire.TopOfBook(int(wire.MessageKind.TOP_OF_BOOK), *range(13)),
    wire.Trade(int(wire.MessageKind.TRADE), *range(7)),
    wire.Indicative(int(wire.MessageKind.INDICATIVE), *range(8)),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_subscription_is_how_its_messages_begin(message):
    frame = wire.pack(*message)
    assert wire.unpack(frame) == message
    assert frame.startswith(wire.subscription(message.kind))
    assert not frame.startswith(wire.subscription(EventKind.SIGNAL_PUBLISHED))
    if not isinstance(message, wire.Notice):
        assert frame.startswith(wire.subscription(message.kind, message.instrument))
        assert not frame.startswith(wire.subscription(message.kind, message.instrument + 1))


def test_a_depth_goes_flat_over_the_wire():
    frame = encoded([int(wire.MessageKind.DEPTH), 3, *range(2, wire.DEPTH_FIELDS)])
    depth = wire.unpack(frame)
    assert depth.trade_number == 6
    assert depth.bids == tuple((at, at + 1) for at in range(7, 27, 2))
    assert depth.asks == tuple((at, at + 1) for at in range(27, 47, 2))
    assert frame.startswith(wire.subscription(wire.MessageKind.DEPTH, 3))
    assert not frame.startswith(wire.subscription(wire.MessageKind.DEPTH, 4))


def test_a_message_of_another_protocol_is_refused_by_the_client():
    for message in ([999, 1], [1, 2], "x", [], [int(wire.MessageKind.DEPTH), 1, 2]):
        with pytest.raises(ValueError):
            wire.unpack(msgpack.packb(message))
