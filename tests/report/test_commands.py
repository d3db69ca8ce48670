from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flowc.cli import cli
from flowc.cli.inspect import fold_layers
from tests.oracle_io import ROOT

TINY = ROOT / "examples" / "tiny-llama.yaml"


def flowc(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def answer(*arguments: object) -> Any:
    result = flowc(*arguments, "--json")
    assert result.stdout, result.output
    return json.loads(result.stdout)


def spec(folder: Path, old: str, new: str) -> Path:
    """The tiny Llama with a piece of its text replaced."""
    text = TINY.read_text()
    assert old in text
    path = folder / "model.yaml"
    path.write_text(text.replace(old, new))
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    assert flowc("build", TINY, "-o", folder / "model.onnx", "--verify", "off").exit_code == 0
    return folder / "model.onnx"


def test_inspect_counts_what_a_llama_computes() -> None:
    tokens, hidden, ffn, kv, vocab, layers = 8, 64, 128, 32, 256, 2
    graph = answer("inspect", TINY, "--sequence", tokens, "--past", 5)["graphs"]["prefill"]
    projections = hidden * hidden * 2 + hidden * kv * 2 + 3 * hidden * ffn
    attention = 2 * tokens * hidden
    assert graph["before"]["macs"] == layers * tokens * (projections + attention) + hidden * vocab
    parameters = vocab * hidden + layers * (projections + 2 * hidden) + hidden
    assert graph["before"]["parameters"] == graph["after"]["parameters"] == parameters
    assert graph["before"]["cache_bytes"] == layers * 2 * kv * 4
    for number in ("operators", "macs", "bytes_read", "parameters"):
        assert sum(s[number] for s in graph["stages"]) == graph["after"][number]
        assert sum(s["before"][number] for s in graph["stages"]) == graph["before"][number]
    assert graph["after"]["macs"] < graph["before"]["macs"]
    last = next(s for s in graph["stages"] if s["stage"] == f"repeat.layers.{layers - 1}.llama_decoder")
    spared = (tokens - 1) * (2 * hidden * hidden + 3 * hidden * ffn + attention)
    assert last["before"]["macs"] - last["macs"] == spared
    shown = flowc("inspect", TINY, "--sequence", tokens, "--graph", "prefill").output
    assert f"{last['before']['macs']:,} -> {last['macs']:,}" in shown


def test_inspect_of_a_form(built: Path) -> None:
    operators = answer("inspect", TINY, "--assume", "right-padding")["graphs"]["decode"]["operators"]
    assert "group_query_attention" in operators
    assert "rope" not in operators
    for option in (("--assume", "right-padding"), ("--target", "ort-cpu"), ("--no-pass", "fold_rope")):
        result = flowc("inspect", built, *option)
        assert result.exit_code == 2
        assert f"{option[0]} is for a spec" in result.output


def test_inspect_of_a_build_says_where_operators_run(built: Path) -> None:
    found = answer("inspect", built)
    assert {f["file"] for f in found["files"]} >= {"model.onnx", "model.onnx.data", "model.flowc.json"}
    for graph in found["graphs"].values():
        assert set(graph["placement"]) == {"CPUExecutionProvider"}
        assert sum(graph["placement"]["CPUExecutionProvider"].values()) > 20
    shown = flowc("inspect", built, "--graph", "decode").output
    assert "past_key_values.N.key" in shown
    assert "\nprefill" not in shown


def test_inspect_folds_equal_layers(tmp_path: Path) -> None:
    shown = flowc("inspect", spec(tmp_path, "layers: 2", "layers: 9"), "--graph", "prefill").output
    rows = [line.split("  ")[1] for line in shown.splitlines() if "repeat.layers" in line]
    folded = "repeat.layers.1 … 7.llama_decoder (x 7, each)"
    assert rows == ["repeat.layers.0.llama_decoder", folded, "repeat.layers.8.llama_decoder"]
    stages = answer("inspect", tmp_path / "model.yaml", "--graph", "prefill")["graphs"]["prefill"]["stages"]
    assert sum(stage["stage"].startswith("repeat") for stage in stages) == 9


def test_inspect_folds_layers_of_small_stages_and_no_other_ones() -> None:
    rows = [{"stage": f"r.{i}.{kind}", "macs": 1 + (i == 2)} for i in range(5) for kind in ("a", "b")]
    assert [row["stage"] for row in fold_layers([{"stage": "head", "macs": 1}, *rows])] == [
        "head", "r.0 … 1.a (x 2, each)", "r.0 … 1.b (x 2, each)", "r.2.a", "r.2.b", "r.3 … 4.a (x 2, each)",
        "r.3 … 4.b (x 2, each)",
    ]  # fmt: skip


def test_explain_says_what_a_pass_is() -> None:
    does = {p["name"]: p["does"] for p in answer("explain", TINY)["passes"]}
    assert does["fold_rope"].startswith("Rope angles become rows of constant tables")
    assert all(does.values())
    assert f"fold_rope: fired at 1 of 1\n  {does['fold_rope']}\n" in flowc("explain", TINY).output


def test_check_says_which_weights_are_not_there(tmp_path: Path) -> None:
    path = spec(tmp_path, "random: 0", "file: none.safetensors")
    told = flowc("check", path)
    assert f"there are no weights at '{tmp_path / 'none.safetensors'}', which model.yaml:14:10 names" in told.output
    assert answer("check", path)["weights_missing"].endswith("which model.yaml:14:10 names")
    nothing = spec(tmp_path, "weights: {random: 0}\n", "")
    assert "the spec names no weights" in flowc("check", nothing).output


def test_explain_names_fired_passes_and_reasons() -> None:
    passes = {p["name"]: p for p in answer("explain", TINY)["passes"]}
    assert passes["fold_rope"]["fired"] == passes["fold_rope"]["candidates"] == 1
    without = {p["name"]: p for p in answer("explain", TINY, "--no-pass", "fold_rope")["passes"]}
    assert "fold_rope" not in without
    assert "fold_rope: fired at 1 of 1" in flowc("explain", TINY).output


def test_explain_credits_every_pass_with_what_it_saves() -> None:
    found = answer("explain", TINY, "--sequence", 16)
    for phase, total in found["graphs"].items():
        for number in ("operators", "macs", "bytes_read"):
            changes = [p["changes"][phase][number] for p in found["passes"] if phase in p["changes"]]
            assert sum(changes) == total["after"][number] - total["before"][number]
    spared = next(p for p in found["passes"] if p["name"] == "hoist_token_selection")["changes"]["prefill"]["macs"]
    assert spared == found["graphs"]["prefill"]["after"]["macs"] - found["graphs"]["prefill"]["before"]["macs"] < 0
    assert f"macs {spared:,}" in flowc("explain", TINY, "--sequence", 16).output


def test_a_miss_has_its_reason(tmp_path: Path) -> None:
    endless = spec(tmp_path, "  context_length: 512\n", "")
    rope = next(p for p in answer("explain", endless)["passes"] if p["name"] == "fold_rope")
    assert rope["fired"] == 0
    assert rope["misses"][0]["reason"]


def test_the_same_build_does_not_differ(built: Path) -> None:
    result = flowc("diff", built, built)
    assert result.exit_code == 0, result.output
    assert "numbers: the same" in result.output


def test_a_model_in_small_parts_is_the_same_graph(tmp_path: Path) -> None:
    parts = """        - sequence:
          - residual_save
          - rms_norm: model.layers.{i}.input_layernorm.weight
          - self_attn_prefill: model.layers.{i}.self_attn
          - linear: {weight: 'model.layers.{i}.self_attn.o_proj.weight', out: 64}
          - residual_add
          - residual_save
          - rms_norm: model.layers.{i}.post_attention_layernorm.weight
          - swiglu: model.layers.{i}.mlp
          - residual_add
"""
    small = spec(tmp_path, "        - llama_decoder: model.layers.{i}\n", parts)
    levels = {d["level"] for d in answer("diff", TINY, small)["differences"]}
    assert levels == {"spec"}


def test_another_epsilon_differs_down_to_the_numbers(built: Path, tmp_path: Path) -> None:
    other = spec(tmp_path, "norm_eps: 1e-5", "norm_eps: 0.5")
    assert flowc("build", other, "-o", tmp_path / "out" / "model.onnx", "--verify", "off").exit_code == 0
    result = flowc("diff", built, tmp_path / "out" / "model.onnx", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)["differences"]
    in_spec = [d for d in found if d["level"] == "spec"]
    assert in_spec == [{"level": "spec", "at": "model.norm_eps", "a": "1e-05", "b": "0.5"}]
    assert any(d["level"] == "graphs" and "llama_decoder" in d["at"] for d in found)
    assert any(d["level"] == "numbers" for d in found)
    assert not any(d["level"] == "weights" for d in found)


def test_other_weights_are_seen_by_their_hash(tmp_path: Path) -> None:
    found = answer("diff", TINY, spec(tmp_path, "random: 0", "random: 1"))["differences"]
    assert {d["level"] for d in found} == {"spec", "weights"}
    assert any(d["at"] == "model.embed_tokens.weight" and "sha256" in d["a"] for d in found)


def test_doctor_finds_both_targets_fit() -> None:
    found = answer("doctor")
    assert found["good"]
    names = {f["name"] for f in found["findings"]}
    assert {"target ort-cpu", "target portable", "onnxruntime"} <= names


def test_nothing_there_is_an_error_with_the_path(tmp_path: Path) -> None:
    from flowc.cli import main

    assert main(["inspect", str(tmp_path / "missing.yaml")]) == 2
