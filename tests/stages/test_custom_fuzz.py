"""Hostile subgraphs: whatever a text says, flowc compiles it or explains itself, and stays alive."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import defs

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.errors import FlowError
from flowc.ir.interpret import interpret
from flowc.ir.onnx_text.probe import survives
from flowc.ir.onnx_text.result_types import result_types
from flowc.ir.types import ShapeError, TensorType
from tests.oracle_io import ROOT

HEAD = "g (float[b, s, 8] x) => (float[b, s, 8] y) "

SEEDS = [
    HEAD + "{\n  # a comment\n  s = Sigmoid(x)\n  y = Mul(x, s)\n}",
    "g (float[b, s, 8] x) => (float[b, s, 4] y) <float[4] c = {1.0, -2.5e-3, 0, 1}, int64[1] ax = {2}>\n"
    "{ m = ReduceMean <keepdims = 1> (x, ax)\n  a, r = Split <axis = -1, num_outputs = 2> (x)\n"
    "  d = Sub(a, m)\n  y = Mul(d, c) }",
    HEAD + "{ k = Constant <value = int64[3] {0, 0, 8}> ()\n  y = Reshape(x, k) }",
    HEAD + "{ y = com.microsoft.QuickGelu <alpha = 1.702> (x) }",
    'g (float[b, s, 8] x) => (float[b, s, 8] y) <float[8] w = ["location": "f.bin", "offset": "0"]> { y = Mul(x, w) }',
    "g (float[b, s, 8] x, bool[1] c) => (float[b, s, 8] y) { y = If (c) <then_branch = t () => (float[b, s, 8] z)"
    " { z = Identity(x) }, else_branch = e () => (float[b, s, 8] z) { z = Neg(x) }> }",
]

TOKENS = [
    *"(){}[]<>,=\"\\:@.|%#?'", "=>", "-1", "0", "9" * 30, "1e999", "nan", "float", "int64", "string", "float8e4m3fn",
    "seq(", "optional(", "map(int64, ", "Loop", "Scan", "If", "RandomNormal", "Constant", "Reshape", "Expand", "Tile",
    "Slice", "Concat", "Gather", 'Einsum <equation = "ij,jk->ik">', "ConstantOfShape", "ai.onnx.ml.", "com.microsoft.",
    "x", "y", "w", "\n", "\0", "\x7f", "\N{SNOWMAN}", "<axis = 99>", "<batch_dims = -1>", "<>", "()", "ints",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A text with tokens put in, repeated, dropped or moved."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 5))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 12))
        match draw(st.sampled_from(["insert", "repeat", "drop", "move", "replace"])):
            case "insert":
                text = text[:at] + draw(st.sampled_from(TOKENS)) + text[at:]
            case "repeat":
                text = text[:at] + draw(st.sampled_from(TOKENS)) * draw(st.sampled_from([2, 40, 3000])) + text[at:]
            case "drop":
                text = text[:at] + text[at + length :]
            case "move":
                to = draw(st.integers(0, len(text)))
                text = text[:to] + text[at : at + length] + text[to:]
            case _:
                text = text[:at] + draw(st.sampled_from(TOKENS)) + text[at + length :]
    return text


SCHEMAS = {
    n: defs.get_schema(n, 24, "") for n in sorted({s.name for s in defs.get_all_schemas()}) if defs.has(n, 24, "")
}
NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 7, -3, 100, -100, 2**31, 2**62])
VALUES = {
    "INT": NUMBERS.map(str),
    "INTS": st.lists(NUMBERS, min_size=1, max_size=4).map(str),
    "FLOAT": st.sampled_from(["0.0", "-1.5", "1e30"]),
    "STRING": st.sampled_from(['""', '"ij,jk->ik"', '"...,->"', '"SAME_UPPER"', '"linear"', '"tanh"']),
}
"""Texts of attributes, by their types."""


@st.composite
def odd_nodes(draw: st.DrawFn) -> str:
    """A text that parses, of one operator with operands and attributes that need not make sense."""
    schema = SCHEMAS[draw(st.sampled_from(sorted(SCHEMAS)))]
    kinds = {name: str(a.type).rpartition(".")[2] for name, a in schema.attributes.items()}
    chosen = [n for n, kind in sorted(kinds.items()) if kind in VALUES and draw(st.booleans())]
    attributes = [f"{n} = {draw(VALUES[kinds[n]])}" for n in chosen]
    operands = draw(st.lists(st.sampled_from(["x", "n", "m", "c", ""]), min_size=schema.min_input, max_size=9))
    results = draw(st.sampled_from(["y", "y, z", "z, y", "y, z, w, v"]))
    given_ = f"<{', '.join(attributes)}>" if attributes else ""
    constants = (
        f"int64[2] n = {{{draw(NUMBERS)}, {draw(NUMBERS)}}}, int64 m = {{{draw(NUMBERS)}}}, float[1] c = {{0.5}}"
    )
    node = f"{results} = {schema.name} {given_} ({', '.join(operands)})"
    return f"g (float[b, s, 8] x) => (float[b, s, 8] y) <{constants}> {{ {node} }}"


def runs(text: str, folder: Path) -> bool:
    """Whether a spec with the text compiles and means something; all that may be raised says what is wrong."""
    spec = folder / "model.json"
    stage = {"custom": {"onnx": text}}
    whole = {"flowc": 1, "weights": {"random": 0}, "inputs": {"x": "float32[b, s, 8]"}, "output": "y", "flow": [stage]}
    spec.write_text(json.dumps(whole), encoding="utf-8")
    try:
        compiled = compile_file(spec, Request())
    except FlowError:
        return False
    assert compiled.checkpoint is not None
    array = np.linspace(-1, 1, 48, dtype=np.float32).reshape(2, 3, 8)
    try:
        interpret(compiled.expanded["encode"], {"x": array}, compiled.checkpoint.read)
    except FlowError:
        return False
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def test_the_seeds_themselves(folder: Path) -> None:
    assert [runs(text, folder) for text in SEEDS] == [True, True, True, True, False, False]


@settings(max_examples=150)
@given(text=mutated())
def test_a_mutated_text_is_explained(text: str, folder: Path) -> None:
    runs(text, folder)


@settings(max_examples=100)
@given(text=odd_nodes())
def test_an_odd_node_is_explained(text: str, folder: Path) -> None:
    runs(text, folder)


@pytest.mark.slow
@settings(max_examples=5000)
@given(text=st.one_of(mutated(), odd_nodes()))
def test_many_texts_are_explained(text: str, folder: Path) -> None:
    runs(text, folder)


FATAL = {
    "an operator that ends the process": HEAD + "{ y, z, w = Split <axis = -1, num_outputs = 1> (x) }",
    "an operator that takes all memory": HEAD + "{ y, m, i = LayerNormalization <axis = 2147483648> (x, x) }",
}


@pytest.mark.parametrize("text", FATAL.values(), ids=FATAL)
def test_what_onnx_does_not_survive_is_refused(text: str, folder: Path) -> None:
    types = (TensorType("float32", ("b", "s", 8)),)
    assert not survives(text, types)
    assert survives(SEEDS[0], types), "the next trial has a process of its own"
    with pytest.raises(ShapeError, match="onnx itself"):
        result_types(text, types)
    assert not runs(text, folder)


@pytest.mark.parametrize("module", ["onnx", "json", "flowc"])
def test_nothing_is_imported_from_the_folder_of_a_spec(module: str, tmp_path: Path) -> None:
    """A Python file beside a spec stays a file, whatever its name and whoever stands in its folder."""
    (tmp_path / f"{module}.py").write_text("import pathlib\npathlib.Path('imported').touch()\n")
    stage = {"custom": {"onnx": SEEDS[0]}}
    whole = {"flowc": 1, "weights": {"random": 0}, "inputs": {"x": "float32[b, s, 8]"}, "output": "y", "flow": [stage]}
    (tmp_path / "model.json").write_text(json.dumps(whole))
    call = f"import sys; sys.path[:] = [p for p in sys.path if p] + [{str(ROOT)!r}]; from flowc.cli import main; main()"
    command = [sys.executable, "-P", "-c", call, "check", "model.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()
