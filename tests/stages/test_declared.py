"""What a stage kind declares to read, to write and to take of the weights is what it does, no more and no less."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from flowc.errors import SpecError
from flowc.frontend.builder import Builder
from flowc.frontend.stage import REGISTRY, Stage, attr
from flowc.frontend.state import FlowState, Options
from flowc.ir.core.elementwise import Binary
from flowc.ir.core.layout import Slice
from flowc.ir.graph import Value
from flowc.stages import load_all
from flowc.stages.blocks.decoder import linear
from tests.passes.drawn_parts import Case
from tests.passes.test_random_flows import FLOWS, SLOW
from tests.stages.declared_weights import misfits, wanted
from tests.stages.recording import SLOTS, Record, recorded
from tests.stages.test_contract import FRAMES

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OPTIONS = (Options(), Options(assume="no-padding"))
KINDS = sorted(load_all())
HEAD = (
    "flowc: 1\nkind: KIND\nmodel: {hidden: 8, vocab: 23, heads: 2, kv_heads: 1, head_dim: 4, norm_eps: 1e-5, "
    "context_length: 24}\nweights: {random: 0}\nflow:\n  - embed: table\n"
)
RARE = (
    HEAD.replace("KIND", "encoder")
    + """\
  - column_positions: places
  - gather_from_input: {weight: places.weight, input: places, rows: 24}
  - attn_mask
  - modernbert_layer: {prefix: layers.0, ffn: 6, rope: null}
  - attention_pool: {query: probe, qkv: pool.qkv, out: pool.out}
""",
    HEAD.replace("KIND", "encoder")
    + """\
  - store_stream: kept
  - custom:
      onnx: |
        f (float[n, s, 8] x, float[n, s, 8] other, int64[n, s] ids, int64[n, s] mask)
          => (float[n, s, 8] y, float[n, s, 8] z)
        { a = CastLike(ids, x) b = CastLike(mask, x) c = Mul(a, b)
          last = Constant <value_ints = [-1]> () d = Unsqueeze(c, last) y = Mul(x, d) z = Add(other, d) }
      stream_inputs: {other: kept, ids: position_ids, mask: attention_mask}
      stream_outputs: {z: made}
""",
    HEAD.replace("KIND", "decoder")
    + """\
  - gemma_kv_tap: {prefix: model.layers.0, qk_norm: true, rope: null}
  - lm_head: {tied: true}
""",
)
"""What neither examples nor random flows show."""


def drawn(strategy: st.SearchStrategy[Case], number: int) -> Iterator[Case]:
    cases: list[Case] = []

    @seed(number)
    @settings(max_examples=10, phases=[Phase.generate], suppress_health_check=SLOW)
    @given(strategy)
    def draw(case: Case) -> None:
        cases.append(case)

    draw()
    yield from cases


def of_text(text: str, folder: Path) -> list[Record]:
    path = folder / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    found: list[Record] = []
    for options in OPTIONS:
        try:
            found += recorded(path, options)
        except SpecError:
            continue  # a frame that an example does not fit into, an assumption that a flow does not allow
    return found


@cache
def everything() -> tuple[Record, ...]:
    """Records of all examples, of each kind's own example, and of random flows."""
    found: list[Record] = []
    for path in sorted(EXAMPLES.glob("*.yaml")):
        for options in OPTIONS:
            found += recorded(path, options)
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            for frame in FRAMES:
                found += of_text(frame.replace("EXAMPLE", REGISTRY[kind].example), Path(folder))
        for text in RARE:
            found += of_text(text, Path(folder))
        for strategy, seeds in FLOWS.values():
            for number in range(seeds):
                for case in drawn(strategy, number):
                    found += of_text(case.text, Path(folder))
    return tuple(found)


def drifted(cls: type[Stage], records: Iterable[Record]) -> Iterator[str]:
    """How a kind's declaration differs from what its stages did."""
    read: set[str] = set()
    written: set[str] = set()
    applied: set[str] = set()
    for record in records:
        for names in record.reads:
            read |= names
            if not names & set(cls.reads):
                yield f"it reads {' or '.join(sorted(names))}, which is not declared"
        written |= record.writes
        lines = wanted(record.stage, record.embedding)
        applied |= {want.line for want in lines}
        yield from misfits(record.stage, lines, record.tensors, record.width)
    yield from (f"it never reads {name}" for name in cls.reads if name not in read)
    yield from (f"it writes {name}, which is not declared" for name in sorted(written - set(cls.writes)))
    yield from (f"it never writes {name}" for name in cls.writes if name not in written)
    yield from (f"no stage has shown: {line}" for line in cls.weights if line not in applied)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_does_what_it_declares(kind: str) -> None:
    records = [record for record in everything() if record.stage.kind == kind]
    assert records
    assert set(drifted(REGISTRY[kind], records)) == set()


def test_every_slot_of_the_state_has_a_name() -> None:
    assert set(SLOTS) == {slot.name for slot in fields(FlowState)}


class Toy(Stage):
    """Adds a table to the active value and a stream, and keeps the sum as another."""

    reads = ("active", "streams")
    writes = ("active", "streams")
    weights = ("{prefix}.{one,two}: [hidden]", "{prefix}.proj.weight: [2 * hidden, hidden] with `wide`, and its bias")
    prefix: str = attr(doc="Name in front of the weights.")
    wide: bool = attr(doc="Whether the projection is there.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        for name in ("one", "two"):
            x = b.op(Binary("add"), x, b.weight(f"{self.prefix}.{name}", 8))
        if self.wide:
            x = b.op(Slice(2, 0, 8), linear(b, x, f"{self.prefix}.proj.weight", 16, bias=True))
        x = b.op(Binary("add"), x, b.state.streams["kept"])
        b.state.streams["sum"] = x
        return x


WRONG = {
    "a read left out": ("reads", ("active",), "it reads streams, which is not declared"),
    "a read too many": ("reads", ("active", "streams", "rope"), "it never reads rope"),
    "a write left out": ("writes", ("active",), "it writes streams, which is not declared"),
    "a write too many": ("writes", ("active", "streams", "cache"), "it never writes cache"),
    "a weight left out": ("weights", Toy.weights[1:], "it takes 't.one', which is not declared"),
    "a bias left out": (
        "weights", (Toy.weights[0], Toy.weights[1].removesuffix(", and its bias")),
        "it takes 't.proj.bias', which is not declared",
    ),
    "a weight too many": ("weights", (*Toy.weights, "{prefix}.three: [hidden]"), "it does not take 't.three'"),
    "another shape": (
        "weights", (Toy.weights[0], Toy.weights[1].replace("2 *", "3 *")), "it takes 't.proj.weight' as [16, 8]",
    ),
    "another condition": (
        "weights", (Toy.weights[0], Toy.weights[1].replace("with", "without")),
        "it takes 't.proj.weight', which is not declared",
    ),
    "no condition": (
        "weights", (Toy.weights[0], Toy.weights[1].replace(" with `wide`", "")), "it does not take 't.proj.weight'",
    ),
    "a condition that never holds": (
        "weights", (*Toy.weights, "{prefix}.four: [hidden] with `prefix: u`"), "no stage has shown: {prefix}.four",
    ),
}  # fmt: skip


def toys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    monkeypatch.setattr(Toy, "kind", "toy")
    monkeypatch.setitem(REGISTRY, "toy", Toy)
    flow = "  - store_stream: kept\n  - toy: {prefix: t}\n  - toy: {prefix: t, wide: false}\n"
    found = of_text(HEAD.replace("KIND", "encoder") + flow, folder)
    return [record for record in found if isinstance(record.stage, Toy)]


def test_a_true_declaration_is_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(drifted(Toy, toys(tmp_path, monkeypatch))) == []


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_declaration_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    declared, planted, found = WRONG[wrong]
    records = toys(tmp_path, monkeypatch)
    monkeypatch.setattr(Toy, declared, planted)
    assert any(told.startswith(found) for told in drifted(Toy, records))
