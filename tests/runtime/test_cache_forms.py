"""How a cache lies is said everywhere, a mask of another form is refused, the loops of docs/decoders.md are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from flowc.build import manifest
from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.errors import SpecError
from flowc.frontend.state import Options
from flowc.runtime.decoder import Decoder
from flowc.runtime.session import inputs
from tests.oracle_io import ROOT
from tests.runtime.checkpoints import built, hub_folder
from tests.runtime.tiny import TinyLlama

MODEL = TinyLlama()
FORMS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "aligned": ({}, {"unified": "aligned", "prefill": "aligned", "decode": "aligned"}),
    "compact": ({"assume": "right-padding"}, {"unified": "compact", "prefill": "aligned", "decode": "compact"}),
    "shared": ({"cache": "static"}, {"unified": "aligned", "prefill": "aligned", "decode": "shared"}),
}


def properties(file: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(str(file), load_external_data=False).metadata_props}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_said_in_the_manifest_and_in_every_graph(tmp_path: Path, form: str) -> None:
    options, forms = FORMS[form]
    found = built(hub_folder(tmp_path / "in", MODEL), tmp_path / "out", **options)
    assert {phase: record["cache"] for phase, record in found.manifest["graphs"].items()} == forms
    for phase, record in found.manifest["graphs"].items():
        assert properties(tmp_path / "out" / record["file"])["flowc.cache"] == forms[phase]
    assert found.notes == []


def session(file: Path) -> Any:
    options = cast("Any", ort.SessionOptions())
    options.log_severity_level = 4
    return ort.InferenceSession(str(file), options)


def takes(graph: Any, batch: int, past: int, new: int, rows: int, columns: int, ids: int = 3) -> bool:
    """Whether a graph computes from a mask [rows, columns]."""
    feeds: dict[str, Any] = {
        "input_ids": np.full((batch, new), ids),
        "attention_mask": np.ones((rows, columns), np.int64),
    }
    for name, port in inputs(graph).items():
        if name.startswith("past"):
            shape = [batch, *(past if isinstance(size, str) else size for size in port.shape[1:])]
            feeds[name] = np.zeros(shape, port.dtype)
    try:
        graph.run(None, feeds)
    except Exception:  # what onnxruntime raises
        return False
    return True


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize("assume", ["none", "right-padding"])
@pytest.mark.parametrize("example", ["tiny-llama", "gemma3", "phi3", "qwen3.5"])
def test_a_mask_that_is_not_past_and_new_columns_is_refused(
    tmp_path: Path, example: str, assume: Any, target: str
) -> None:
    request = Request(target=target, options=Options(assume))
    found = build(compile_file(ROOT / "examples" / f"{example}.yaml", request), tmp_path / "model.onnx", verify="off")
    for phase, record in found.manifest["graphs"].items():
        graph = session(tmp_path / record["file"])
        for batch, past, new in ((1, 5, 1), (2, 5, 1), (2, 3, 2), (2, 0, 4), (1, 0, 1)):
            if (phase == "prefill" and past) or (phase == "decode" and new > 1):
                continue
            right = past + new
            assert takes(graph, batch, past, new, batch, right), (phase, batch, past, new)
            wrong = {(batch, c) for c in (1, past, right - 1, right + 1, 2 * right)} | {(1, right)}
            for rows, columns in sorted(wrong - {(batch, right)}):
                if columns:
                    assert not takes(graph, batch, past, new, rows, columns), (phase, batch, past, new, rows, columns)


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
def test_negative_ids_are_refused(tmp_path: Path, target: str) -> None:
    """ONNX's Gather would count them from the table's end."""
    found = built(hub_folder(tmp_path / "in", MODEL), tmp_path / "out", target=target)
    for phase, record in found.manifest["graphs"].items():
        graph = session(tmp_path / "out" / record["file"])
        for ids, taken in (
            (0, True),
            (MODEL.vocab - 1, True),
            (-1, False),
            (-MODEL.vocab, False),
            (MODEL.vocab, False),
        ):
            assert takes(graph, 1, 0, 1, 1, 1, ids) == taken, (phase, ids)


@pytest.mark.parametrize("way", ["pair", "decode"])
@pytest.mark.parametrize("wide", [False, True])
def test_a_static_cache_takes_masks_up_to_its_length(tmp_path: Path, way: str, wide: bool) -> None:
    """Ragged rows, a row that sits out a step, and a buffer that grows: as the numpy reference has the rows alone."""
    built(hub_folder(tmp_path / "in", MODEL), tmp_path / "out", cache="static")
    decoder = Decoder.open(manifest.load(tmp_path / "out"), mode=way)
    ids, mask = np.array([[3, 5, 7, 9], [11, 11, 2, 8]]), np.array([[1, 1, 1, 1], [0, 0, 1, 1]])
    rows = [[3, 5, 7, 9], [2, 8]]
    logits = decoder.start(ids, mask, capacity=32 if wide else 0)
    for step in range(6):
        for row, got in zip(rows, logits, strict=True):
            if step != 4 or row is rows[0]:
                np.testing.assert_allclose(got[-1], MODEL.reference(row)[-1], atol=2e-5)
        new = np.array([[1 + step], [20 + step]])
        taking = np.array([[1], [int(step != 3)]])
        logits = decoder.step(new, taking)
        for row, token, taken in zip(rows, new[:, 0], taking[:, 0], strict=True):
            row += [int(token)] * int(taken)


def loops() -> dict[str, str]:
    """The Python blocks under docs/decoders.md's headings of forms."""
    text = (ROOT / "docs" / "decoders.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^### `(\w+)`.*?^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("form", FORMS)
def test_the_documented_loops_are_right(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built(hub_folder(tmp_path / "in", MODEL), tmp_path / "out", **FORMS[form][0])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(loops()[form], f"docs/decoders.md, {form}", "exec"), names)
    ids, mask, tokens = names["prompt"], names["padding"], np.concatenate(names["tokens"], axis=1)
    assert not mask.all()
    for row, kept, got in zip(ids, mask, tokens, strict=True):
        assert got.tolist() == MODEL.greedy(row[kept > 0].tolist(), 8)


def test_a_build_says_when_the_form_asked_for_was_not_had(tmp_path: Path) -> None:
    narrow = TinyLlama(head_dim=12)
    folder = hub_folder(tmp_path / "in", narrow)
    for options, wanted in (({"assume": "right-padding"}, "compact"), ({"cache": "static"}, "shared")):
        notes = built(folder, tmp_path / "out", **options).notes
        assert any(f"the cache of the decode graph is aligned, not {wanted}: " in note for note in notes)
        assert all("heads of 12 channels" in note for note in notes)
    assert built(folder, tmp_path / "out").notes == []
    assert built(folder, tmp_path / "out", assume="right-padding", cache="aligned").notes == []


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("portable", {"cache": "static"}, "'portable' has no static cache"),
        ("portable", {"cache": "compact", "assume": "right-padding"}, "'portable' has no compact cache"),
        ("ort-cpu", {"cache": "compact"}, "without the padding"),
        ("ort-cpu", {"cache": "static", "assume": "no-padding"}, "needs a mask"),
    ],
)
def test_a_form_that_cannot_be_had_is_refused(target: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        compile_file(ROOT / "examples" / "tiny-llama.yaml", Request(target=target, options=Options(**options)))
    assert [d.code for d in caught.value.diagnostics] == ["unsupported-cache"]


def test_a_prompt_with_more_columns_than_the_context_is_refused(tmp_path: Path) -> None:
    small = TinyLlama(context=16)
    built(hub_folder(tmp_path / "in", small), tmp_path / "out")
    decoder = Decoder.open(manifest.load(tmp_path / "out"))
    ids = np.full((1, 20), 3)
    mask = np.array([[0] * 10 + [1] * 10])
    with pytest.raises(SpecError, match="20 columns, padding included; the model's context is 16"):
        decoder.start(ids, mask)
    np.testing.assert_allclose(
        decoder.start(ids[:, 4:], mask[:, 4:])[0, -1], small.reference([3] * 10)[-1], atol=2e-5
    )  # fmt: skip


def test_a_prompt_as_long_as_the_context_has_its_one_token(tmp_path: Path) -> None:
    from flowc.runtime.generate import generate
    from flowc.runtime.sampling import Sampler

    small = TinyLlama(context=16)
    built(hub_folder(tmp_path / "in", small), tmp_path / "out")
    decoder, prompt = Decoder.open(manifest.load(tmp_path / "out")), list(range(3, 19))
    assert list(generate(decoder, prompt, max_tokens=9, sampler=Sampler(), context_length=16)) == small.greedy(
        prompt, 1
    )
