"""A record's declaration is its reader: each fact of a field, every error at its place, all of them at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest
from jsonschema import Draft7Validator

from flowc.errors import Diagnostics, Span, SpecError
from flowc.records.declare import Context, Either, Form, Own, attr, named_by
from flowc.records.page import tables
from flowc.records.reader import Reader
from flowc.records.record import Record
from flowc.records.schema import record_schema
from flowc.records.values import Wrong, node_of
from flowc.records.wording import JsonWording, Wording
from flowc.text.nodes import ListNode, Node, Scalar
from flowc.text.source import parse, plain


def _year(text: str, _: Context) -> int | None:
    return int(text) if re.fullmatch("[0-9]{4}", text) else None


NAME = named_by(re.compile("[a-z]+"), "the name of a boat")
YEAR = Form("a year such as 1984", _year, "^[0-9]{4}$")


class Depths(Own):
    """A type that reads its node itself."""

    title = "list of depths"
    takes = (ListNode,)

    def __init__(self, values: list[object]) -> None:
        self.values = values

    @classmethod
    def of(cls, node: Node) -> Depths:
        if not isinstance(node, ListNode):
            raise Wrong("must be depths", code="too-shallow", sentence=False)
        return cls([plain(item) for item in node.items])

    @classmethod
    def schema(cls) -> dict[str, Any]:
        return {"type": "array"}

    def spelt(self) -> object:
        return self.values


class Mast(Record):
    """A mast."""

    what = "a mast"
    height: float = attr(doc="In metres.", gt=0)
    sails: tuple[str, ...] = attr(doc="Names.", default=(), each="sail {key}")


class Boat(Record):
    """A boat.

    It floats.
    """

    what = "a boat"
    either = (
        Either(("oars", "engine"), "a boat has either `oars` or an `engine`"),
        Either(("flag", "pennant"), "a boat flies `flag` or `pennant`, not both", needed=False),
    )
    LARGEST: ClassVar[int] = 3

    boat: Literal[1] = attr(doc="Version.", code="bad-version", sentence="a boat starts with `boat: 1`")
    name: str = attr(doc="Name.", form=NAME)
    kind: Literal["barge", "canoe"] = attr(doc="Kind.", default="barge")
    oars: int = attr(doc="Oars.", default=0, ge=0, le=8)
    engine: bool = attr(doc="Whether it has one.", default=False)
    flag: str | None = attr(doc="Flag.", default=None, least=1)
    pennant: str | None = attr(doc="Pennant.", default=None)
    year: int = attr(doc="Year.", name="built-in", default=0, called="a year", form=YEAR)
    draught: float | tuple[float, ...] = attr(doc="Draught.", default=1.0, ge=0)
    mast: Mast | None = attr(doc="The mast.", default=None)
    masts: tuple[Mast, ...] = attr(doc="More masts.", default=())
    crew: Mapping[Literal["cook", "mate"], str] = attr(doc="Crew.", default={}, noun="rank", each="the {key}")
    cargo: Mapping[str, float] = attr(doc="Tonnes by name.", default={}, keys=NAME, each="cargo '{key}'", item="tonnes")
    ports: tuple[str, ...] = attr(doc="Ports.", default=(), alone=True, called="ports")
    depths: Depths | None = attr(doc="Depths.", default=None)
    notes: object = attr(doc="Anything.", default=None)
    painted: bool = attr(doc="Whether it is.", default=False)
    log: str = ""


BOAT = "boat: 1\nname: ida\noars: 2\n"


def read(text: str, wording: Wording | None = None, context: Context | None = None) -> Boat:
    problems = Diagnostics()
    found = Reader(problems, wording, context).read(Boat, parse(text, "boat.yaml"))
    problems.raise_if_any()
    assert found is not None
    return found.record(log="read")


def errors(text: str, wording: Wording | None = None) -> list[str]:
    """`line:column code message [hint]` of everything that is wrong."""
    with pytest.raises(SpecError) as caught:
        read(text, wording)
    return [
        f"{d.span and d.span.line}:{d.span and d.span.column} {d.code}: {d.message}"
        + (f" [{d.hint}]" if d.hint else "")
        for d in caught.value.diagnostics
    ]


def test_what_is_declared_is_read() -> None:
    boat = read(
        BOAT + "kind: canoe\nbuilt-in: '1984'\ndraught: [1, 2.5]\nmast: {height: 9, sails: [main, jib]}\n"
        "masts: [{height: 3}]\ncrew: {cook: Ann}\ncargo: {coal: 3}\nports: Hull\ndepths: [1, a]\nnotes: {x: [1]}\n"
    )
    assert (boat.name, boat.kind, boat.oars, boat.year, boat.draught) == ("ida", "canoe", 2, 1984, (1.0, 2.5))
    assert boat.mast == Mast(height=9.0, sails=("main", "jib"))
    assert boat.masts == (Mast(height=3.0),)
    assert (boat.crew, boat.cargo, boat.ports, boat.notes) == ({"cook": "Ann"}, {"coal": 3.0}, ("Hull",), {"x": [1]})
    assert boat.depths is not None
    assert boat.depths.values == [1, "a"]
    assert (boat.flag, boat.log) == (None, "read")
    assert boat == read(BOAT + "kind: canoe\nbuilt-in: '1984'") or boat.masts


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("kind: cano", "4:7 bad-value: 'kind' must be one of barge, canoe, not 'cano' [did you mean 'canoe'?]"),
        ("knd: canoe", "4:1 unknown-key: a boat has no key 'knd' [did you mean 'kind'?]"),
        ("painted: maybe", "4:10 bad-type: 'painted' must be true or false, not 'maybe'"),
        ("keel: iron", f"4:1 unknown-key: a boat has no key 'keel' [its keys: {', '.join(Boat.by_name())}]"),
        ("flag: ''", "4:7 bad-type: 'flag' must not be empty"),
        ("built-in: long ago", "4:11 bad-value: 'built-in' must be a year such as 1984, not 'long ago'"),
        ("built-in: [1]", "4:11 bad-type: 'built-in' must be a year"),
        ("draught: deep", "4:10 bad-type: 'draught' must be a number or a list, not 'deep'"),
        ("draught: [1, -2]", "4:10 bad-type: 'draught' must be at least 0, not -2.0"),
        ("mast: 7", "4:7 bad-type: 'mast' must be a mapping with `height` and `sails`, not 7"),
        ("mast: {height: 0}", "4:16 bad-type: 'height' of a mast must be greater than 0, not 0.0"),
        ("mast: {}", "4:7 missing-key: a mast needs `height:`"),
        ("mast: {height: 1, sails: [a, 2]}", "4:30 bad-type: sail 1 must be a text, not 2"),
        ("crew: {cok: x}", "4:8 unknown-key: there is no rank 'cok' [did you mean 'cook'?]"),
        ("crew: {cook: 3}", "4:14 bad-type: the cook must be a text, not 3"),
        ("cargo: {A1: 3}", "4:9 bad-value: 'A1' cannot be the name of a boat"),
        ("cargo: {coal: much}", "4:15 bad-type: cargo 'coal' must be tonnes, not 'much'"),
        ("ports: 7", "4:8 bad-type: 'ports' must be ports"),
        ("depths: 7", "4:9 too-shallow: 'depths' must be depths"),
        ("engine: true", "1:1 bad-value: a boat has either `oars` or an `engine`"),
        ("flag: a\npennant: b", "1:1 bad-value: a boat flies `flag` or `pennant`, not both"),
    ],
)
def test_what_is_wrong_is_told_at_its_place(more: str, told: str) -> None:
    assert errors(BOAT + more) == [told]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("boat: 1", "boat: 2", "1:7 bad-version: a boat starts with `boat: 1`"),
        ("boat: 1", "boat: true", "1:7 bad-version: a boat starts with `boat: 1`"),
        ("boat: 1", "boat: 1.0", "1:7 bad-version: a boat starts with `boat: 1`"),
        ("boat: 1\n", "", "1:1 bad-version: a boat starts with `boat: 1`"),
        ("ida", "Ida", "2:7 bad-value: 'Ida' cannot be the name of a boat"),
        ("oars: 2", "oars: 9", "3:7 bad-type: 'oars' must be a whole number from 0 to 8, not 9"),
        ("oars: 2\n", "", "1:1 missing-key: a boat has either `oars` or an `engine`"),
    ],
)
def test_what_must_stand_there(old: str, new: str, told: str) -> None:
    assert errors(BOAT.replace(old, new)) == [told]


def test_everything_is_told_at_once() -> None:
    found = errors(
        "boat: 0\nname: 7\noars: -1\nmasts: [3, {height: x, hight: 2}, {height: -1}]\ncrew: {mate: 1, cook: 2}"
    )
    assert [line.partition(" ")[0] for line in found] == [
        "1:7",
        "2:7",
        "3:7",
        "4:9",
        "4:24",
        "4:21",
        "4:44",
        "5:14",
        "5:23",
    ]


def test_what_could_be_read_is_kept() -> None:
    problems = Diagnostics()
    found = Reader(problems).read(Boat, parse(BOAT + "kind: ship\nengine: 3", "boat.yaml"))
    assert found is not None
    assert found.wrong == {"kind", "engine"}
    assert (found.record().name, found.record().kind) == ("ida", "barge")
    assert found.spans["oars"].line == 3


def test_a_file_that_is_no_map() -> None:
    problems = Diagnostics()
    assert Reader(problems).read(Boat, parse("[]", "boat.yaml")) is None
    with pytest.raises(SpecError, match="a boat is a mapping of keys to values"):
        problems.raise_if_any()


def test_files_that_programs_write_are_read_by_paths() -> None:
    wording = JsonWording("bad-boat")
    assert read(BOAT + "kind: null\nunknown: 3\nports: null", wording).kind == "barge"
    found = errors("boat: 1\noars: 1\nmasts: [{height: x}]\ncrew: {mate: 1}\nmast: {height: null}", wording)
    assert found == [
        "3:18 bad-boat: masts[0].height must be a number, not 'x'",
        "4:14 bad-boat: the mate must be a text, not 1",
        "5:7 bad-boat: mast.height is missing [In metres.]",
        "1:1 bad-boat: name is missing [Name.]",
    ]


class Tide(Context):
    """What a test's texts refer to."""

    def resolve(self, text: str) -> object:
        return 4 if text == "$tide" else text

    def fallback(self, symbol: str) -> Node | None:
        return node_of(2.5, parse("x", "s.yaml").span) if symbol == "level" else None

    def check(self, number: float) -> None:
        if number > 100:
            raise Wrong("is deeper than any sea")

    def advice(self, text: str) -> str:
        return "sound it" if text == "deep" else ""


class Lock(Record):
    """A lock."""

    what = "a lock"
    gates: int = attr(doc="Gates.")
    depth: float = attr(doc="Depth.", symbol="level")
    sign: str = attr(doc="Sign.", default="", raw=True)


def test_texts_may_refer_to_something() -> None:
    problems = Diagnostics()
    found = Reader(problems, context=Tide()).read(Lock, parse("gates: $tide\nsign: $tide", "l.yaml"))
    assert found is not None
    assert found.record() == Lock(gates=4, depth=2.5, sign="$tide")
    Reader(problems, context=Tide()).read(Lock, parse("gates: deep\ndepth: 101", "l.yaml"))
    with pytest.raises(SpecError) as caught:
        problems.raise_if_any()
    assert [(d.message, d.hint) for d in caught.value.diagnostics] == [
        ("'gates' must be a whole number, not 'deep'", "sound it"), ("'depth' is deeper than any sea", ""),
    ]  # fmt: skip


SCHEMA = Draft7Validator(record_schema(Boat))


def test_its_schema_is_one() -> None:
    Draft7Validator.check_schema(SCHEMA.schema)
    assert record_schema(Boat)["properties"]["oars"] == {
        "description": "Oars.", "type": "integer", "minimum": 0, "maximum": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "fits"),
    [
        ("kind: canoe", True), ("kind: cano", False), ("knd: canoe", False), ("flag: ''", False), ("flag: null", True),
        ("built-in: '1984'", True), ("draught: [1]", True), ("draught: [-1]", False), ("mast: {}", False),
        ("masts: [{height: 1}]", True), ("masts: [{height: 0}]", False), ("crew: {cok: x}", False), ("ports: a", True),
        ("cargo: {A: 1}", False), ("ports: [a]", True), ("ports: 7", False), ("engine: true", False),
        ("flag: a\npennant: b", False), ("flag: a", True), ("notes: []", True), ("depths: 3", False), ("log: x", False),
    ],
)  # fmt: skip
def test_the_schema_says_what_the_reader_says(more: str, fits: bool) -> None:
    node = parse(BOAT + more, "boat.yaml")
    problems = Diagnostics()
    Reader(problems).read(Boat, node)
    assert SCHEMA.is_valid(plain(node)) == (not problems) == fits  # pyright: ignore[reportArgumentType]


def test_plain_values_become_nodes() -> None:
    span = parse("x", "s.yaml").span
    assert plain(node_of({"a": [1, {"b": None}]}, span)) == {"a": [1, {"b": None}]}
    assert node_of("x", span) == Scalar("x", span, quoted=True)


class Berth(Record):
    """A berth."""

    what = "a berth"
    nulls = False
    placed = True
    buoy: str | None = attr(doc="Name of a buoy.", default=None)
    ropes: Mapping[Literal["bow", "stern"], int] = attr(doc="Ropes.", default={}, least=1, noun="end")
    span: Span


def test_a_record_may_keep_its_place_and_refuse_null() -> None:
    problems = Diagnostics()
    found = Reader(problems).read(Berth, parse("\nbuoy: red", "b.yaml"))
    assert found is not None
    assert (found.record().buoy, found.record().span.line) == ("red", 2)
    Reader(problems).read(Berth, parse("buoy: null\nropes: {}", "b.yaml"))
    with pytest.raises(SpecError) as caught:
        problems.raise_if_any()
    assert [(d.code, d.message) for d in caught.value.diagnostics] == [
        ("bad-type", "'buoy' must be a text, not None"), ("bad-value", "'ropes' must have at least one end"),
    ]  # fmt: skip
    assert not Draft7Validator(record_schema(Berth)).is_valid({"buoy": None})


def test_its_reference_names_every_key_and_every_record_inside() -> None:
    lines = tables(Boat)
    assert "| `oars` | whole number, 0 to 8 | default: 0 | Oars. |" in lines
    assert "| `built-in` | year such as 1984 | default: 0 | Year. |" in lines
    assert "| `boat` | 1 | required | Version. |" in lines
    assert "`mast`, `masts`: A mast." in lines
    assert "| `height` | number, greater than 0 | required | In metres. |" in lines
    assert "- A boat has either `oars` or an `engine`." in lines
    assert not any("`log`" in line for line in lines)


def test_a_record_is_a_value() -> None:
    mast = Mast(height=3.0)
    assert mast == mast.but(sails=()) == Mast(height=3.0)
    assert mast != mast.but(height=4.0)
    assert len({mast, Mast(height=3.0), mast.but(height=4.0)}) == 2
    assert repr(mast) == "Mast(height=3.0, sails=())"
    with pytest.raises(AttributeError, match="does not change"):
        mast.height = 4.0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match="Mast needs 'height'"):
        Mast()  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="Mast has no hight"):
        Mast(height=3.0, hight=2)  # pyright: ignore[reportCallIssue]
