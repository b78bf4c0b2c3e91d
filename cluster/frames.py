"""Frames between a host and its zygote: four bytes of length (big endian), then one msgpack object.

Owns the framing and the packing of agents' specs. Must not know what a frame means.
"""

import socket
import struct
from typing import Any

import msgpack

MAX_FRAME_BYTES = 1 << 22
"""Bound on one frame; a batch of agents is cut to fit well below it."""

_LENGTH = struct.Struct(">I")


class FrameTooLarge(ValueError):
    """The frame would exceed MAX_FRAME_BYTES, or its sender is not speaking this protocol."""


def pack(message: Any) -> bytes:
    """Msgpack of plain data.

    Errors: TypeError if it holds anything but None, bool, int, float, str, bytes, list, tuple and dict.
    """
    packed: bytes = msgpack.packb(message)
    return packed


def unpack(data: bytes) -> Any:
    """The inverse of `pack`; tuples come back as lists."""
    return msgpack.unpackb(data, strict_map_key=False)


def send(stream: socket.socket, message: Any) -> None:
    """Send one frame, blocking.

    Errors: FrameTooLarge, before anything is sent; OSError if the peer is gone (or, with a timeout set, too slow).
    """
    data = pack(message)
    if len(data) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"frame of {len(data)} bytes; at most {MAX_FRAME_BYTES}: send less at once")
    stream.sendall(_LENGTH.pack(len(data)) + data)


def receive(stream: socket.socket) -> Any:
    """Receive one frame, blocking.

    Errors: EOFError if the peer closed its end; FrameTooLarge; OSError (TimeoutError if a timeout is set).
    """
    (length_bytes,) = _LENGTH.unpack(_receive_exactly(stream, _LENGTH.size))
    if length_bytes > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"peer announced a frame of {length_bytes} bytes; at most {MAX_FRAME_BYTES}")
    return unpack(_receive_exactly(stream, length_bytes))


def _receive_exactly(stream: socket.socket, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        part = stream.recv(size_bytes - len(data))
        if not part:
            raise EOFError("peer closed the connection")
        data += part
    return bytes(data)
