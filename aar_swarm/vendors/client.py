"""How an agent asks its vendor, and the two messages between them: a question and an answer, packed little-endian.

    question  q       sent_ns: the asker's clock, echoed so that it need remember nothing
    answer    q d q ? sent_ns, value in ticks, version of the model, withdrawn

Owns one DEALER socket to one process of one vendor. Nothing here is encrypted or proves who answers.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import zmq

from aar_swarm.agents.base import Valuation

_QUESTION, _ANSWER = struct.Struct("<q"), struct.Struct("<qdq?")


class Answered(NamedTuple):
    valuation: Valuation
    asked_ns: int


def pack_question(sent_ns: int) -> bytes:
    return _QUESTION.pack(sent_ns)


def unpack_question(frame: bytes) -> int | None:
    """sent_ns, or None if it is no question."""
    found: int | None = _QUESTION.unpack(frame)[0] if len(frame) == _QUESTION.size else None
    return found


def pack_answer(sent_ns: int, value_ticks: float, version: int, withdrawn: bool) -> bytes:
    return _ANSWER.pack(sent_ns, value_ticks, version, withdrawn)


class VendorClient:
    def __init__(self, context: "zmq.Context[Any]", endpoint: str) -> None:
        self.endpoint = endpoint
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def ask(self, now_ns: int) -> None:
        """Send a question. A vendor that is gone leaves it unanswered; a full queue drops it, as if it were lost."""
        try:
            self.socket.send(pack_question(now_ns), zmq.DONTWAIT)
        except zmq.Again:
            pass

    def answers(self) -> Iterator[Answered]:
        """Those that are there now."""
        while True:
            try:
                frame = self.socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            asked_ns, value_ticks, version, withdrawn = _ANSWER.unpack(frame)
            yield Answered(Valuation(value_ticks, version, withdrawn), asked_ns)

    def close(self) -> None:
        self.socket.close()
