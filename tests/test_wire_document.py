"""docs/wire.md says what wire.py does: each example's bytes, each message's fields, each reason."""

import re
from pathlib import Path

import msgpack
import pytest

from exchange import wire
from exchange.types import REQUEST_COMMANDS, CommandKind, Reason

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "wire.md").read_text()
EXAMPLES = [
    ([int(value) for value in array.split(",")], bytes.fromhex(frame))
    for array, frame in re.findall(r"^    \[([-\d, ]+)\]\n    ([0-9a-f ]+)$", TEXT, re.MULTILINE)
]
TO_VENUE = {
    "log on": wire.LOG_ON_FIELDS,
    "log off": wire.LOG_OFF_FIELDS,
    "place": wire.PLACE_FIELDS,
    "replace": wire.REPLACE_FIELDS,
    "cancel": wire.CANCEL_FIELDS,
    "mass cancel": wire.MASS_CANCEL_FIELDS,
    "request": wire.REQUEST_FIELDS,
    "depth request": wire.DEPTH_REQUEST_FIELDS,
    "trades request": wire.TRADES_REQUEST_FIELDS,
    "control": wire.CONTROL_FIELDS,
}
FROM_VENUE = {
    "logged on": wire.LoggedOn,
    "refused": wire.Refused,
    "report": wire.Report,
    "notice": wire.Notice,
    "top of book": wire.TopOfBook,
    "depth": wire.Depth,
    "trade": wire.Trade,
    "indication": wire.Indicative,
    "loan": wire.Loan,
    "done": wire.Done,
}


def fields(name):
    (found,) = re.findall(rf"\*\*{name}\*\*: `([a-z_, ]+)`", TEXT)
    return found.split(", ")


@pytest.mark.parametrize(("array", "frame"), EXAMPLES, ids=lambda value: str(value)[:20])
def test_the_bytes_of_each_example_are_those_of_its_numbers(array, frame):
    assert frame == wire.pack(*array)
    if array[0] in wire.FIELDS and len(array) == len(wire.FIELDS[array[0]]._fields):
        assert list(wire.unpack(frame)) == array


def test_the_example_of_a_depth_has_prices_and_lots_in_pairs():
    (frame,) = [frame for array, frame in EXAMPLES if array[0] == wire.MessageKind.DEPTH]
    depth = wire.unpack(frame)
    assert depth.bids[:3] == ((99, 5), (98, 7), (0, 0)) and depth.asks[:2] == ((101, 8), (0, 0))
    assert len(depth.bids) == len(depth.asks) == wire.DEPTH_LEVELS


def test_every_message_has_an_example():
    shapes = {(array[0], len(array)) for array, _ in EXAMPLES}
    wanted = {(kind, len(cls._fields)) for kind, cls in wire.FIELDS.items() if cls is not wire.Depth}
    wanted |= {(int(wire.MessageKind.DEPTH), wire.DEPTH_FIELDS)}
    wanted |= {
        (int(kind), wire.CONTROL_FIELDS)
        for kind in (*CommandKind, wire.MessageKind.STATUS, wire.MessageKind.STOP)
        if CommandKind.DEPOSIT_CASH <= kind < CommandKind.TIMER or 36 < kind < 40 or 46 < kind < 60
    }
    wanted |= {
        (int(CommandKind.PLACE_ORDER), wire.PLACE_FIELDS),
        (int(CommandKind.PLACE_ORDER), wire.EXPLAINED_FIELDS),
        (int(CommandKind.CANCEL_ORDER), wire.CANCEL_FIELDS),
        (int(CommandKind.LOG_ON), wire.LOG_ON_FIELDS),
        (int(CommandKind.REPLACE_ORDER), wire.REPLACE_FIELDS),
        (int(CommandKind.MASS_CANCEL), wire.MASS_CANCEL_FIELDS),
        *((int(kind), wire.REQUEST_FIELDS) for kind in REQUEST_COMMANDS),
        (int(wire.MessageKind.LOG_OFF), wire.LOG_OFF_FIELDS),
        (int(wire.MessageKind.DEPTH_REQUEST), wire.DEPTH_REQUEST_FIELDS),
        (int(wire.MessageKind.TRADES_REQUEST), wire.TRADES_REQUEST_FIELDS),
    }
    assert shapes == wanted


@pytest.mark.parametrize("name", TO_VENUE)
def test_the_fields_to_the_venue_are_those_that_it_counts(name):
    assert len(fields(name)) == TO_VENUE[name]


@pytest.mark.parametrize("name", FROM_VENUE)
def test_the_fields_from_the_venue_are_those_of_its_tuples(name):
    named = FROM_VENUE[name]._fields
    assert tuple(fields(name)) == (named[:7] if FROM_VENUE[name] is wire.Depth else named)


def test_every_reason_is_listed_with_its_number():
    listed = {int(number): name for number, name in re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", TEXT, re.MULTILINE)}
    assert listed == {int(reason): reason.name for reason in Reason if reason}


def test_the_prefixes_to_subscribe_to_are_right():
    for kind in (
        wire.MessageKind.TOP_OF_BOOK,
        wire.MessageKind.DEPTH,
        wire.MessageKind.TRADE,
        wire.MessageKind.INDICATIVE,
        wire.MessageKind.LOAN,
    ):
        assert f"`{wire.subscription(kind, 0).hex(' ')}`" in TEXT
    assert f"version, {wire.PROTOCOL_VERSION}" in TEXT or f"version {wire.PROTOCOL_VERSION}" in TEXT
    assert msgpack.unpackb(EXAMPLES[0][1])[1] == wire.PROTOCOL_VERSION
