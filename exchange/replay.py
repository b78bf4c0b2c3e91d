"""From a journal back to the engine: every event again, and the same state hash.

Owns the digest over events, by which a replay proves that every one of them is the same, not only the end state.
"""

from typing import NamedTuple

from exchange.bits import mix
from exchange.config import EngineConfig
from exchange.engine import Engine
from exchange.jit import kernel
from exchange.state import Array


@kernel
def digest_events(digest, words, count):
    """Fold the first `count` events (int64[n, 17]) onto a running digest."""
    for at in range(count):
        for word in words[at]:
            digest = mix(digest, word)
    return digest


def as_words(records: Array) -> Array:
    """The same memory as int64[n, fields]."""
    return records.view("<i8").reshape(-1, len(records.dtype.names or ()))


class Replay(NamedTuple):
    engine: Engine
    events: Array  # EVENT[m]
    events_digest: str


def format_digest(digest: int) -> str:
    return f"{digest & (1 << 64) - 1:016x}"


def replay(config: EngineConfig, commands: Array) -> Replay:
    """Apply a whole journal to a new engine."""
    engine = Engine(config)
    events = engine.apply(commands)
    return Replay(engine, events, format_digest(int(digest_events(0, as_words(events), len(events)))))
