"""What a decoder gives is what it says, and no stage computes for nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.calling import BASE, done, flowc, write_spec

CLASSIFIER = BASE.replace("lm_head: {tied: true}", "linear: {weight: score.weight, out: 3}")


def test_a_classifier_head_says_that_it_is_one(tmp_path: Path) -> None:
    assert flowc("check", write_spec(tmp_path, CLASSIFIER)).code == 2
    spec = write_spec(tmp_path, CLASSIFIER.replace("flow:", "output: scores\nflow:"))
    facts = done("check", spec, "--json").json()
    assert facts["graphs"]["prefill"]["outputs"]["scores"] == "float32[batch_size, 1, 3]"
    done("build", spec, "-o", tmp_path / "out/model.onnx")
    told = flowc("run", tmp_path / "out/model.onnx", "--ids", "1,2")
    assert told.code == 2
    assert "gives no logits, so no next token" in told.stderr


def test_logits_of_the_vocabulary_are_taken_from_any_stage(tmp_path: Path) -> None:
    done("check", write_spec(tmp_path, BASE.replace("lm_head: {tied: true}", "linear: {weight: head.weight, out: 32}")))


@pytest.mark.parametrize(
    "stage", ["store_stream: nobody", "rope_tables: {theta: 500, name: other}"], ids=["a stream", "a rope"]
)
def test_what_nobody_reads_is_an_error(stage: str, tmp_path: Path) -> None:
    told = flowc("check", write_spec(tmp_path, BASE.replace("  - repeat", f"  - {stage}\n  - repeat")))
    assert told.code == 2
    assert "error[unused-stage]" in told.stderr


def test_a_stage_that_one_layer_uses_is_used(tmp_path: Path) -> None:
    """The second layer's stream is read by nobody; the stage is needed for the first."""
    body = "[store_stream: s, {when: {value: '$first[i]', then: [add_stream: s]}}, llama_decoder: 'layers.{i}']"
    text = BASE.replace('[llama_decoder: "layers.{i}"]', body).replace("model: {", "model: {first: [true, false], ")
    done("check", write_spec(tmp_path, text))
