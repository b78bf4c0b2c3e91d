"""libzmq and two calls of the C library, as functions that compiled code can call without Python.

Owns finding the library that pyzmq has already loaded, so that its sockets' handles are valid here. With the JIT off
the same names are ctypes functions, and the event loop runs in a debugger.
"""

import ctypes
from pathlib import Path
from typing import Any

import llvmlite.binding
import zmq
from numba import types

from exchange.jit import JIT, helper

DONTWAIT = int(zmq.DONTWAIT)
SNDMORE = int(zmq.SNDMORE)
POLLIN = int(zmq.POLLIN)
XPUB_NODROP = int(zmq.XPUB_NODROP)
EVENT_ACCEPTED = int(zmq.EVENT_ACCEPTED)
EVENT_DISCONNECTED = int(zmq.EVENT_DISCONNECTED)
EVENTS_HANDSHAKE_FAILED = int(
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
MESSAGE_BYTES = 64
"""Size of a zmq_msg_t."""
SOURCE_DESCRIPTOR = 2
"""ZMQ_SRCFD: the property of a message that is the file descriptor of its connection."""
EAGAIN = 11
EHOSTUNREACH = 113
EINTR = 4
_CLOCK_MONOTONIC = 1


def _library() -> str:
    """Path of the libzmq that this process has mapped.

    Raises: ImportError: there is none.
    """
    zmq.zmq_version()  # loads the extension, and with it the library
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[1] + line.partition("/")[2]
        if Path(path).name.startswith("libzmq"):
            return path
    for line in Path("/proc/self/maps").read_text().splitlines():  # linked into pyzmq's own extension
        path = line.partition("/")[1] + line.partition("/")[2]
        if "/zmq/backend/" in path and path.endswith(".so"):
            return path
    raise ImportError("pyzmq is installed but its libzmq is not mapped; reinstall pyzmq from its wheel")


def _functions() -> dict[str, Any]:
    signatures: dict[str, tuple[str, ...]] = {
        # the result, then the arguments
        "zmq_recv": ("int", "pointer", "pointer", "pointer", "int"),
        "zmq_send": ("int", "pointer", "pointer", "pointer", "int"),
        "zmq_poll": ("int", "pointer", "int", "pointer"),
        "zmq_setsockopt": ("int", "pointer", "int", "pointer", "pointer"),
        "zmq_errno": ("int",),
        "zmq_msg_init": ("int", "pointer"),
        "zmq_msg_recv": ("int", "pointer", "pointer", "int"),
        "zmq_msg_data": ("pointer", "pointer"),
        "zmq_msg_more": ("int", "pointer"),
        "zmq_msg_get": ("int", "pointer", "int"),
        "zmq_msg_gets": ("pointer", "pointer", "pointer"),
        "clock_gettime": ("int", "int", "pointer"),
        "pwrite": ("pointer", "int", "pointer", "pointer", "pointer"),
        "fdatasync": ("int", "int"),
        "memcpy": ("pointer", "pointer", "pointer", "pointer"),
    }
    path = _library()
    if JIT:
        llvmlite.binding.load_library_permanently(path)
        kinds: dict[str, Any] = {"int": types.int32, "pointer": types.intp}
        return {
            name: types.ExternalFunction(name, kinds[result](*(kinds[kind] for kind in arguments)))
            for name, (result, *arguments) in signatures.items()
        }
    library, process = ctypes.CDLL(path), ctypes.CDLL(None)
    c_kinds = {"int": ctypes.c_int32, "pointer": ctypes.c_ssize_t}
    found = {}
    for name, (result, *arguments) in signatures.items():
        function = getattr(library if name.startswith("zmq") else process, name)
        function.restype = c_kinds[result]
        function.argtypes = [c_kinds[kind] for kind in arguments]
        found[name] = function
    return found


_found = _functions()
zmq_recv = _found["zmq_recv"]
zmq_send = _found["zmq_send"]
zmq_poll = _found["zmq_poll"]
zmq_setsockopt = _found["zmq_setsockopt"]
zmq_errno = _found["zmq_errno"]
zmq_msg_init = _found["zmq_msg_init"]
zmq_msg_recv = _found["zmq_msg_recv"]
zmq_msg_data = _found["zmq_msg_data"]
zmq_msg_more = _found["zmq_msg_more"]
zmq_msg_get = _found["zmq_msg_get"]
zmq_msg_gets = _found["zmq_msg_gets"]
clock_gettime = _found["clock_gettime"]
pwrite = _found["pwrite"]
fdatasync = _found["fdatasync"]
memcpy = _found["memcpy"]


@helper
def now_ns(clock):
    """CLOCK_MONOTONIC in ns; clock: int64[2] scratch. The venue's only clock."""
    clock_gettime(_CLOCK_MONOTONIC, clock.ctypes.data)
    return clock[0] * 1_000_000_000 + clock[1]
