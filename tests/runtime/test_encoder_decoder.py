"""An encoder and a decoder run as one model: `flowc run`, the decoder's interface, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowc.build import manifest as manifests
from flowc.build.manifest import Manifest
from flowc.errors import InternalError, SpecError
from flowc.runtime import session as sessions
from flowc.runtime.decoder import Decoder, last_logits
from tests.cli.calling import flowc
from tests.encoder_decoder import FOLDER, built_bart
from tests.oracle_io import Array

GREEDY = json.loads((FOLDER / "greedy.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bart")
    built_bart(folder)
    return folder


@pytest.fixture
def manifest(built: Path) -> Manifest:
    return manifests.load(built)


@pytest.mark.parametrize("graph", ["pair", "unified"])
@pytest.mark.parametrize("text", range(len(GREEDY["texts"])))
def test_tokens_are_those_of_huggingface(text: int, graph: str, built: Path) -> None:
    known = GREEDY["texts"][text]
    ids = ",".join(map(str, known["text"]))
    told = flowc("run", built / "model.onnx", "--ids", ids, "-n", "12", "--ignore-eos", "--graph", graph)
    assert told.stdout.strip() == ",".join(map(str, known["tokens"]))


@pytest.mark.parametrize("given", ["model.encoder.onnx", "model.decode.onnx", "model.flowc.json", "."])
def test_any_file_of_the_model_names_it(given: str, built: Path) -> None:
    known = GREEDY["texts"][1]
    ids = ",".join(map(str, known["text"]))
    told = flowc("run", built / given, "--ids", ids, "-n", "3")
    assert told.stdout.strip() == ",".join(map(str, known["tokens"][:3]))


def test_the_end_token_ends_it(built: Path) -> None:
    known = GREEDY["texts"][3]
    assert known["tokens"][0] == 2
    told = flowc("run", built / "model.onnx", "--ids", ",".join(map(str, known["text"])), "--json")
    facts = json.loads(told.stdout)
    assert (facts["ids"], facts["stopped"], facts["prompt_ids"]) == ([2], "eos", known["text"])


def test_rows_of_a_batch_are_read_as_alone(manifest: Manifest) -> None:
    texts = [text["text"] for text in GREEDY["texts"]]
    ids: Array = np.full((len(texts), max(map(len, texts))), 1)
    mask: Array = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    decoder = Decoder.open(manifest)
    decoder.read(ids, mask)
    feed: Array = np.full((len(texts), 1), GREEDY["decoder_start"])
    logits = decoder.start(feed)
    found: list[Array] = []
    for _ in range(12):
        feed = last_logits(logits, np.ones_like(feed)).argmax(axis=-1)[:, None]
        found.append(feed)
        logits = decoder.step(feed)
    assert np.concatenate(found, axis=1).tolist() == [text["tokens"] for text in GREEDY["texts"]]


def test_another_text_is_forgotten(manifest: Manifest) -> None:
    decoder = Decoder.open(manifest)
    start: Array = np.array([[2]])
    decoder.read(np.array([[9, 8, 7]]))
    other = decoder.start(start)
    decoder.read(np.array([GREEDY["texts"][0]["text"]]))
    assert decoder.start(start)[0, -1].argmax() == GREEDY["texts"][0]["tokens"][0]
    assert np.abs(decoder.start(start) - other).max() > 0.1


def test_a_decoder_does_not_start_before_its_encoder(manifest: Manifest) -> None:
    with pytest.raises(InternalError, match="before its encoder has read"):
        Decoder.open(manifest).start(np.array([[2]]))


def test_the_manifest_tells_what_is_connected(manifest: Manifest) -> None:
    encoder, decoder = manifest.components["encoder"], manifest.components["decoder"]
    assert encoder.graphs == ("encoder",)
    assert decoder.graphs == ("unified", "prefill", "decode")
    assert {record.file for record in manifest.graphs.values()} == {
        f"model{name}.onnx" for name in (".encoder", "", ".prefill", ".decode")
    }
    assert decoder.takes == {
        "encoder_attention_mask": "encoder.attention_mask",
        **{
            f"past_key_values.{i}.encoder.{slot}": f"encoder.present.{i}.encoder.{slot}"
            for i in (0, 1)
            for slot in ("key", "value")
        },
    }


def test_what_the_encoder_makes_is_never_taken_for_empty(manifest: Manifest) -> None:
    """The past of a first call may be left out; the encoder's keys may not."""
    session = sessions.open_session(manifest.graph_path("unified"))
    ids: Array = np.array([[2]])
    with pytest.raises(SpecError, match=r"an input that was not given: encoder_attention_mask|past_key_values"):
        sessions.run_once(session, {"input_ids": ids})
    cross: Array = np.zeros((1, 5, 3, 8), np.float32)
    given = {f"past_key_values.{i}.encoder.{slot}": cross for i in (0, 1) for slot in ("key", "value")}
    mask: Array = np.ones((1, 3), np.int64)
    found = sessions.run_once(session, {"input_ids": ids, "encoder_attention_mask": mask, **given})
    assert found["logits"].shape == (1, 1, 92)
    given.pop("past_key_values.1.encoder.value")
    with pytest.raises(SpecError, match=r"not given: past_key_values\.1\.encoder\.value"):
        sessions.run_once(session, {"input_ids": ids, "encoder_attention_mask": mask, **given})


def test_a_build_without_the_encoder_says_so(tmp_path: Path) -> None:
    built_bart(tmp_path, graphs=("prefill", "decode"))
    told = flowc("run", tmp_path / "model.flowc.json", "--ids", "5")
    assert told.code == 2
    assert "built without an encoder graph" in told.stderr
