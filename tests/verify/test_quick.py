"""The checks of every build: they pass on sound builds and name the stage of a planted fault."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from flowc.build.compiled import Compiled, Request
from flowc.compile import build, compile_file
from flowc.errors import CheckFailed
from flowc.frontend.state import Options
from flowc.ir.core.positions import TakeLast
from flowc.ir.core.rope import Rope
from flowc.ir.graph import Graph, Node
from flowc.ir.kernel.norms import RmsNormalization
from flowc.ir.op import Op
from flowc.lowering import emitter
from flowc.lowering.lower import EMITTER_MODULES
from flowc.outside.runtime import open_graph
from flowc.runtime import session
from flowc.verify import built_model, quick

EXAMPLE = Path("examples/tiny-llama.yaml")
REGISTERING = EMITTER_MODULES  # emitter.EMITTERS is filled when these are imported


def compiled(**asked: Any) -> Compiled:
    return compile_file(EXAMPLE, Request(**asked))


@pytest.mark.parametrize("asked", [
    {}, {"target": "portable"}, {"graphs": ("decode",)}, {"graphs": ("unified",)}, {"graphs": ("prefill",)},
    {"options": Options(logits="all")}, {"options": Options(assume="no-padding")},
    {"options": Options(assume="right-padding")}, {"skip_passes": ("fold_rope", "fold_masks")},
], ids=str)  # fmt: skip
def test_sound_builds_pass(asked: dict[str, Any], tmp_path: Path) -> None:
    built = build(compiled(**asked), tmp_path / "model.onnx", check=quick.check)
    assert built.checks
    assert all(check["passed"] for check in built.checks)
    manifest = json.loads((tmp_path / "model.flowc.json").read_text())
    assert {"files", "ports", "finite", "numbers"} <= set(manifest["checks"])


def test_large_models_are_checked_layer_by_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "SMALL", 0)
    built = build(compiled(), tmp_path / "model.onnx", check=quick.check)
    names = {check["name"] for check in built.checks}
    assert "operators" in names
    assert "numbers" not in names


def test_of_large_weights_no_two_sessions_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each session maps the whole data file."""
    monkeypatch.setattr(quick, "SMALL", 0)
    monkeypatch.setattr(built_model, "ONE_SESSION_BYTES", 0)
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    others: list[int] = []

    def opened(*given: Any) -> Any:
        gc.collect()
        others.append(len(alive))
        session = open_graph(*given)
        alive.add(session)
        return session

    monkeypatch.setattr(session, "open_graph", opened)
    monkeypatch.setattr(built_model, "open_graph", opened)
    build(compiled(), tmp_path / "model.onnx", check=quick.check)
    assert len(others) > 5
    assert set(others) == {0}


def no_layers(_: Graph) -> set[str]:
    return set()


def every_layer(graph: Graph) -> set[str]:
    return {quick.layer_of(node) for node in graph.nodes}


def change_eps(op: RmsNormalization) -> RmsNormalization:
    return replace(op, eps=1e-2)


def interleave(op: Rope) -> Rope:
    return replace(op, interleaved=True)


def spoil(monkeypatch: pytest.MonkeyPatch, kind: type[Op], change: Callable[[Any], Any], stage: str) -> None:
    """Let the emitter of an operator work on changed attributes in one stage."""
    sound = emitter.EMITTERS[kind]

    def emit(e: emitter.Emitter, op: Any, node: Node) -> None:
        sound(e, change(op) if node.origin.stage == stage else op, node)

    monkeypatch.setitem(cast("dict[type[Op], Any]", emitter.EMITTERS), kind, emit)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(("kind", "change", "stage"), [
    (RmsNormalization, change_eps, "repeat.layers.1.llama_decoder"),
    (Rope, interleave, "repeat.layers.0.llama_decoder"),
])  # fmt: skip
def test_names_the_stage_of_a_fault(
    kind: type[Op], change: Callable[[Any], Any], stage: str, small: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not small:
        monkeypatch.setattr(quick, "SMALL", 0)
        monkeypatch.setattr(quick, "kinds_of_layers", every_layer)
    spoil(monkeypatch, kind, change, stage)
    with pytest.raises(CheckFailed) as failed:
        build(compiled(), tmp_path / "model.onnx", check=quick.check)
    assert f"first wrong at stage '{stage}' (tiny-llama.yaml:23:11), {kind.name}" in str(failed.value)
    assert list(tmp_path.iterdir()) == []


def test_padding_that_leaks_is_found_without_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is padded on the right must not take its last token from the padding."""
    monkeypatch.setattr(quick, "SMALL", 0)
    monkeypatch.setattr(quick, "kinds_of_layers", no_layers)
    sound = emitter.EMITTERS[TakeLast]

    def emit(e: emitter.Emitter, op: Any, node: Node) -> None:
        sound(e, op, replace(node, inputs=node.inputs[:1]))

    monkeypatch.setitem(cast("dict[type[Op], Any]", emitter.EMITTERS), TakeLast, emit)
    with pytest.raises(CheckFailed, match="row 2 of a ragged batch = the row alone does not hold"):
        build(compiled(), tmp_path / "model.onnx", check=quick.check)
