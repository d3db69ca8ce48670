"""`flowc verify`: sound builds pass, wrong files and wrong graphs are found and placed."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy

from flowc.build import manifest as manifests
from flowc.build.compiled import Request
from flowc.cli import main
from flowc.compile import build, compile_file
from flowc.frontend.state import Options
from flowc.ir.graph import Node
from flowc.ir.interpret import interpret
from flowc.verify import full, locate, quick
from flowc.verify.checks import Checks
from flowc.verify.full import verify
from flowc.verify.rebuild import recompile
from flowc.weights.checkpoint import Array

EXAMPLE = Path("examples/tiny-llama.yaml")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "model.onnx"
    build(compile_file(EXAMPLE, Request()), out)
    return out


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A build that may be spoiled."""
    folder = tmp_path / "copy"
    shutil.copytree(built.parent, folder)
    return folder / "model.onnx"


def checked(model: Path, weights: Path | None = None) -> Checks:
    manifest = manifests.load(model)
    return verify(manifest, recompile(manifest, weights))


def test_a_sound_build_passes_every_kind_of_check(built: Path) -> None:
    checks = checked(built)
    assert not checks.failures
    assert {c.name for c in checks.done} == {
        "files", "places", "weights", "lowered", "ports", "facts", "finite", "numbers", "operators", "pair", "step",
        "alone", "together",
    }  # fmt: skip


@pytest.mark.parametrize("asked", [
    {"graphs": ("decode",)}, {"graphs": ("prefill",)}, {"graphs": ("unified",)}, {"target": "portable"},
    {"options": Options(logits="all")}, {"options": Options(assume="right-padding")},
    {"options": Options(assume="no-padding", context=64)}, {"skip_passes": ("fold_rope",)},
], ids=str)  # fmt: skip
def test_every_form_of_build_passes(asked: dict[str, Any], tmp_path: Path) -> None:
    build(compile_file(EXAMPLE, Request(**asked)), tmp_path / "model.onnx")
    checks = checked(tmp_path)
    assert not checks.failures
    assert any(c.name == "numbers" for c in checks.done)


def test_of_a_large_model_one_layer_of_a_kind_stands_for_all_where_its_files_are_as_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full, "LARGE", 0)
    spec, model = tmp_path / "model.yaml", tmp_path / "out" / "model.onnx"
    spec.write_text(EXAMPLE.read_text(encoding="utf-8").replace("layers: 2", "layers: 4"), encoding="utf-8")
    build(compile_file(spec, Request()), model, verify="off")

    def operators() -> list[int]:
        checks = checked(model)
        assert not checks.failures
        assert {"numbers", "pair", "step", "alone", "together"} <= {c.name for c in checks.done}
        details = [c.detail for c in checks.done if c.name == "operators" and c.detail.startswith("ragged,")]
        return [int(detail.split()[-2]) for detail in details]

    few = operators()
    manifest = tmp_path / "out" / "model.flowc.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "flowc": "0.0.1"}))
    every = operators()  # of another version nothing says what its files were lowered to
    assert len(few) == len(every) == 3
    assert all(two < four for two, four in zip(few, every, strict=True)), (few, every)


def test_values_given_out_a_few_at_a_time_are_the_same(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [c.detail for c in checked(built).done if c.name == "operators"]
    monkeypatch.setattr(locate, "INNER_BYTES", 1)
    assert [c.detail for c in checked(built).done if c.name == "operators"] == whole
    assert whole[0] == "ragged, 45 results"


def test_without_the_original_weights_the_data_file_serves(built: Path, tmp_path: Path) -> None:
    compiled = recompile(manifests.load(built))
    assert compiled.checkpoint is not None
    names = {name: compiled.checkpoint.read(name) for name in compiled.usage.tensors}
    np.savez(tmp_path / "weights.npz", allow_pickle=False, **names)
    spec = EXAMPLE.read_text().replace("{random: 0}", "{file: weights.npz}")
    (tmp_path / "model.yaml").write_text(spec)
    build(compile_file(tmp_path / "model.yaml", Request()), tmp_path / "out" / "model.onnx")
    alone = checked(tmp_path / "out" / "model.onnx")
    given = checked(tmp_path / "out" / "model.onnx", tmp_path / "weights.npz")
    assert not alone.failures
    assert not given.failures
    tables, tensors = (next(c.detail for c in checks.done if c.name == "weights") for checks in (alone, given))
    assert tables == "2 of 16 tensors follow from the spec, bit by bit"
    assert tensors == "16 tensors, bit by bit"


def test_weights_used_in_place_are_those_of_the_build(tmp_path: Path) -> None:
    compiled = compile_file(EXAMPLE, Request())
    assert compiled.checkpoint is not None
    weights = tmp_path / "out" / "model.safetensors"
    weights.parent.mkdir()
    safetensors.numpy.save_file({name: compiled.checkpoint.read(name) for name in compiled.usage.tensors}, weights)
    (tmp_path / "model.yaml").write_text(EXAMPLE.read_text().replace("{random: 0}", "{file: out/model.safetensors}"))
    request = Request(in_place=True)
    build(
        compile_file(tmp_path / "model.yaml", request),
        weights.with_name("model.onnx"),
        check=quick.check,
    )
    assert not checked(weights.parent).failures
    content = bytearray(weights.read_bytes())
    content[-4] ^= 1  # the lowest bit of a number: nothing but the record tells
    weights.write_bytes(content)
    failures = checked(weights.parent).failures
    assert [c.name for c in failures] == ["files"]
    assert "it was written since" in failures[0].detail


def flip(model: Path, offset: int) -> None:
    with (model.parent / "model.onnx.data").open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


def test_a_flipped_bit_is_found_and_named(copy: Path) -> None:
    flip(copy, 4096 * 17 + 3)
    checks = checked(copy)
    failures = checks.failures
    assert {c.name for c in failures} >= {"files", "weights"}
    assert "error[changed-weights]" in checks.render()
    assert [c.stage for c in failures if c.name == "weights"] == ["repeat.layers.0.llama_decoder"]


def edit(file: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(str(file), load_external_data=False)
    change(model)
    file.write_bytes(model.SerializeToString())


def forgive(model: Path) -> None:
    """Write the hashes of what is there now, as if flowc had built it."""
    path = model.parent / "model.flowc.json"
    manifest = json.loads(path.read_text())
    for record in [*manifest["graphs"].values(), *manifest["data"]]:
        record["sha256"] = manifests.sha256_of(model.parent / record["file"])
    path.write_text(json.dumps(manifest))


def test_names_the_first_wrong_stage_of_a_graph(copy: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == "RMSNormalization" and "layers/1/" in node.name:
                next(a for a in node.attribute if a.name == "epsilon").f = 0.01
                return

    edit(copy.parent / "model.decode.onnx", spoil)
    forgive(copy)
    failures = checked(copy).failures
    placed = [c.location for c in failures if c.location is not None]
    assert {c.graph for c in failures} == {"decode", "unified"}  # unified is right, and differs from decode
    assert placed[0].stage == "repeat.layers.1.llama_decoder"
    assert placed[0].operator == "rms_normalization"
    assert placed[0].source == "tiny-llama.yaml:23:11"
    assert placed[0].before < placed[0].error


def test_swapped_weights_are_found_though_all_hashes_fit(copy: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        gains = [t for t in model.graph.initializer if t.name.endswith("layernorm.weight")]
        first, second = gains[0].external_data, gains[1].external_data
        a, b = (next(e for e in d if e.key == "offset") for d in (first, second))
        a.value, b.value = b.value, a.value

    edit(copy, spoil)
    forgive(copy)
    checks = checked(copy)
    failures = checks.failures
    assert {"places", "numbers"} <= {c.name for c in failures}
    assert "error[wrong-place]" in checks.render()


def test_a_graph_with_other_outputs_is_found(copy: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2

    edit(copy, spoil)
    forgive(copy)
    checks = checked(copy)
    assert [(c.name, c.graph) for c in checks.failures] == [("lowered", "unified"), ("ports", "unified")]
    assert "error[wrong-ports]" in checks.render()


def test_huggingface_as_a_reference_needs_its_packages(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.util.find_spec("torch") is None, "this environment is meant to have no torch"
    assert main(["verify", str(built), "--against", str(built.parent)]) == 4
    assert "error[missing-tool]" in capsys.readouterr().err


def test_against_arrays(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = recompile(manifests.load(copy))
    assert compiled.checkpoint is not None
    ids = np.array([[1, 2, 3], [4, 5, 6]], np.int64)
    feeds: dict[str, Array] = {"input_ids": ids, "attention_mask": np.ones((2, 3), np.int64)}
    good = {**feeds, **interpret(compiled.expanded["prefill"], feeds, compiled.checkpoint.read)}
    np.savez(tmp_path / "good.npz", allow_pickle=False, **{f"a/{k}": v for k, v in good.items()})
    assert main(["verify", str(copy), "--against", str(tmp_path / "good.npz")]) == 0
    assert "reference" in capsys.readouterr().out
    np.savez(tmp_path / "bad.npz", allow_pickle=False, **{**good, "logits": good["logits"] + np.float32(2e-4)})
    assert main(["verify", str(copy), "--against", str(tmp_path / "bad.npz")]) == 1
    shown = capsys.readouterr().err
    assert "error[wrong-numbers]" in shown
    assert "differs from the reference" in shown
    np.savez(tmp_path / "typo.npz", allow_pickle=False, **feeds, logit=good["logits"])
    assert main(["verify", str(copy), "--against", str(tmp_path / "typo.npz")]) == 2
    assert "did you mean 'logits'?" in capsys.readouterr().err


def test_against_names_what_is_wrong_first_not_what_is_worst(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Caches and results of stages stand in the order in which they are computed, whatever order the file has."""
    compiled = recompile(manifests.load(copy))
    assert compiled.checkpoint is not None
    ids = np.array([[1, 2, 3], [4, 5, 6]], np.int64)
    feeds: dict[str, Array] = {"input_ids": ids, "attention_mask": np.ones((2, 3), np.int64)}
    inside: dict[str, Array] = {}

    def watch(node: Node, results: tuple[Array, ...]) -> None:
        inside[node.origin.stage] = results[0]

    outputs = interpret(compiled.expanded["prefill"], feeds, compiled.checkpoint.read, watch)
    order = ["embed", "present.0.key", "repeat.layers.0.llama_decoder", "present.1.value", "logits"]
    right = {name: {**inside, **outputs}[name] for name in order}
    np.savez(tmp_path / "good.npz", allow_pickle=False, **feeds, **right)
    assert main(["verify", str(copy), "--against", str(tmp_path / "good.npz")]) == 0
    for number, name in enumerate(order):
        off = {n: a + np.float32(1e-2 * 4**i) for i, (n, a) in enumerate(right.items()) if i >= number}
        np.savez(tmp_path / "bad.npz", allow_pickle=False, **dict(reversed({**feeds, **right, **off}.items())))
        assert main(["verify", str(copy), "--against", str(tmp_path / "bad.npz")]) == 1
        assert f"differs from the reference (bad): {name}: error" in capsys.readouterr().err
    pruned = "repeat.layers.1.llama_decoder"
    np.savez(tmp_path / "pruned.npz", allow_pickle=False, **feeds, **{pruned: inside[pruned]})
    assert main(["verify", str(copy), "--against", str(tmp_path / "pruned.npz")]) == 2
    assert f"does not compute all of what the stage '{pruned}' gives" in capsys.readouterr().err


def test_the_command_says_what_is_wrong_in_json(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(copy, 0)
    assert main(["verify", str(copy), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert {c["name"] for c in report["checks"] if not c["passed"]} >= {"files", "weights"}


def test_bisects_the_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pass that breaks what it touches is named, by the check itself and by building again."""
    from dataclasses import replace

    from flowc.ir.graph import Graph
    from flowc.passes import pipeline

    sound = pipeline.drop_identities

    def drop_identities(graph: Graph, *rest: Any) -> Graph:
        graph = sound(graph, *rest)
        wrong = tuple(replace(n, op=replace(n.op, eps=0.1)) if n.op.name == "norm" else n for n in graph.nodes)
        return replace(graph, nodes=wrong)

    steps = tuple(drop_identities if p is sound else p for p in pipeline.PIPELINE)
    monkeypatch.setattr(pipeline, "PIPELINE", steps)
    build(compile_file(EXAMPLE, Request()), tmp_path / "model.onnx")
    assert main(["verify", str(tmp_path / "model.onnx"), "--bisect-passes"]) == 1
    shown = capsys.readouterr()
    assert "pass drop_identities changes the numbers" in shown.err
    assert "pass: drop_identities" in shown.out
