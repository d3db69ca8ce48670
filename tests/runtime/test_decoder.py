from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build import manifest
from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.errors import CheckFailed, SpecError
from flowc.frontend.state import Options
from flowc.runtime.decoder import Decoder, default_mode, last_logits
from tests.passes.making import HEAD, LLAMA
from tests.runtime.tiny import TinyLlama, write_model

MODEL = TinyLlama()


def opened(folder: Path, way: str | None = None, model: TinyLlama = MODEL, **options: Any) -> Decoder:
    return Decoder.open(manifest.load(model.write(folder, **options)), mode=way)


def close(logits: np.ndarray[Any, Any], *rows: list[int], model: TinyLlama = MODEL) -> None:
    for got, row in zip(logits, rows, strict=True):
        np.testing.assert_allclose(got[-1], model.reference(row)[-1], atol=2e-5)


@pytest.mark.parametrize("logits", ["last", "all"])
@pytest.mark.parametrize("way", ["pair", "unified", "decode"])
@pytest.mark.parametrize("form", ["columns", "shared", "no-padding"])
def test_prompt_and_steps_equal_the_reference(tmp_path: Path, form: str, way: str, logits: str) -> None:
    decoder = opened(tmp_path, way, form=form, logits=logits)
    for row in ([3, 5, 7, 9], [11, 2]):  # the second prompt must find nothing of the first
        first = decoder.start(np.array([row]))
        assert first.shape == (1, len(row) if logits == "all" else 1, MODEL.vocab)
        close(first, row)
        for token in (1, 30, 6):
            row = [*row, token]
            close(decoder.step(np.array([[token]])), row)
        assert decoder.length == len(row)


@pytest.mark.parametrize("way", ["pair", "unified", "decode"])
@pytest.mark.parametrize("pad", ["left", "right", "middle"])
def test_padded_rows_equal_the_rows_alone(tmp_path: Path, way: str, pad: str) -> None:
    decoder = opened(tmp_path, way)
    ids = np.array([[3, 5, 7, 9, 12], [11, 11, 2, 11, 8]])
    mask = np.ones_like(ids)
    mask[1, {"left": [0, 1], "right": [3, 4], "middle": [1, 3]}[pad]] = 0
    short = ids[1][mask[1] > 0].tolist()
    close(decoder.start(ids, mask), ids[0].tolist(), short)
    close(decoder.step(np.array([[1], [2]])), [*ids[0].tolist(), 1], [*short, 2])
    # a row can sit out a step
    logits = decoder.step(np.array([[4], [0]]), np.array([[1], [0]]))
    close(logits[:1], [*ids[0].tolist(), 1, 4])
    close(decoder.step(np.array([[6], [6]])), [*ids[0].tolist(), 1, 4, 6], [*short, 2, 6])


@pytest.mark.parametrize("way", ["pair", "unified"])
def test_a_shared_cache_is_compact_under_right_padding(tmp_path: Path, way: str) -> None:
    decoder = opened(tmp_path, way, form="shared")
    ids, mask = np.array([[3, 5, 7, 9], [11, 2, 0, 0]]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    close(decoder.start(ids, mask), [3, 5, 7, 9], [11, 2])
    close(decoder.step(np.array([[1], [2]])), [3, 5, 7, 9, 1], [11, 2, 2])
    close(decoder.step(np.array([[6], [6]])), [3, 5, 7, 9, 1, 6], [11, 2, 2, 6])
    assert decoder.mask.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]


@pytest.mark.parametrize("way", ["pair", "unified"])
def test_several_tokens_after_a_past(tmp_path: Path, way: str) -> None:
    decoder = opened(tmp_path, way)
    decoder.start(np.array([[3, 5], [7, 9]]))
    close(decoder.step(np.array([[1, 2, 4], [6, 8, 10]])), [3, 5, 1, 2, 4], [7, 9, 6, 8, 10])


def pointers(decoder: Decoder) -> dict[str, int]:
    return {name: value.data_ptr() for name, value in decoder._cache.items()}  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("way", ["pair", "unified"])
def test_a_shared_buffer_stays_where_it_is(tmp_path: Path, way: str) -> None:
    decoder = opened(tmp_path, way, form="shared")
    decoder.start(np.array([[3, 5]]), capacity=16)
    decoder.step(np.array([[1]]))
    before = pointers(decoder)
    assert len(before) == 2 * MODEL.layers
    for token in range(13):
        decoder.step(np.array([[token]]))
    assert pointers(decoder) == before
    decoder.step(np.array([[1]]))  # the 17th column
    assert not set(pointers(decoder).values()) & set(before.values())


@pytest.mark.parametrize("way", ["pair", "unified"])
def test_a_shared_buffer_grows(tmp_path: Path, way: str) -> None:
    decoder = opened(tmp_path, way, form="shared")
    row = np.random.default_rng(1).integers(0, MODEL.vocab, 10).tolist()
    close(decoder.start(np.array([row]), capacity=11), row)
    for token in (1, 2, 3, 4):
        row = [*row, token]
        close(decoder.step(np.array([[token]])), row)


@pytest.mark.parametrize(
    ("form", "mask", "code"),
    [
        ("shared", [[0, 1, 1]], "assumed-padding"),
        ("shared", [[1, 0, 1]], "assumed-padding"),
        ("no-padding", [[0, 1, 1]], "assumed-padding"),
        ("no-padding", [[1, 1, 0]], "assumed-padding"),
    ],
)
def test_padding_that_the_graphs_do_not_handle(tmp_path: Path, form: str, mask: list[list[int]], code: str) -> None:
    decoder = opened(tmp_path, form=form)
    with pytest.raises(SpecError) as caught:
        decoder.start(np.array([[3, 5, 7]]), np.array(mask))
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_a_compact_cache_lets_no_row_sit_out(tmp_path: Path) -> None:
    decoder = opened(tmp_path, form="shared")
    decoder.start(np.array([[3, 5], [7, 9]]))
    with pytest.raises(SpecError, match="no later token may be masked"):
        decoder.step(np.array([[1], [0]]), np.array([[1], [0]]))


@pytest.mark.parametrize(
    ("graphs", "way"),
    [
        (("unified", "prefill", "decode"), "pair"),
        (("prefill", "decode"), "pair"),
        (("unified", "prefill"), "unified"),
        (("decode",), "decode"),
    ],
)
def test_the_way_that_the_graphs_allow(tmp_path: Path, graphs: tuple[str, ...], way: str) -> None:
    decoder = opened(tmp_path, graphs=graphs)
    assert decoder.mode == way
    close(decoder.start(np.array([[3, 5]])), [3, 5])


def test_ways_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"missing-graph\]: .*only a prefill graph"):
        opened(tmp_path, graphs=["prefill"])
    with pytest.raises(SpecError, match="without a prefill graph"):
        opened(tmp_path, "pair", graphs=["unified"])
    with pytest.raises(ValueError, match="not one of pair"):
        opened(tmp_path, "sideways")


def test_what_gives_no_next_token_is_no_decoder(tmp_path: Path) -> None:
    decoder = TinyLlama().write(tmp_path)
    encoder = manifest.load(decoder).but(kind="encoder")
    with pytest.raises(SpecError, match=r"not-a-decoder\]: .*has no next token"):
        default_mode(encoder)


def test_what_onnxruntime_says_when_it_stops(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"run-failed\]: .*onnxruntime stopped"):
        opened(tmp_path).start(np.array([[10**6]]))


# A decoder of recurrent states only: how often each token came so far, and the sum of the last two columns.
COUNTING = """<ir_version: 10, opset_import: ["" : 23]>
{name} (int64[B,{new}] input_ids, int64[B,T] attention_mask{pasts}) => (
    float[B,1,8] logits, float[B,1,1,8] "present.0.recurrent_state", float[B,8,2] "present.0.conv_state") {{
  new = Shape<start=1, end=2>(input_ids)
  total = Shape<start=1, end=2>(attention_mask)
  before = Sub(total, new)
  ones = Constant<value_ints=[1]>()
  last = Constant<value_ints=[2]>()
  mask = Slice(attention_mask, before, total, ones)
  weight = Cast<to=1>(mask)
  weight3 = Unsqueeze(weight, last)
  rows = Gather(eye, input_ids)
  counted = Mul(rows, weight3)
  sums = ReduceSum<keepdims=1>(counted, ones)
  sums4 = Unsqueeze(sums, ones)
  {body}
  logits_3 = Squeeze("present.0.recurrent_state", ones)
  columns = ReduceSum<keepdims=0>("present.0.conv_state", last)
  columns_3 = Unsqueeze(columns, ones)
  logits = Add(logits_3, columns_3)
}}"""
_PASTS = ', float[B,1,1,8] "past_key_values.0.recurrent_state", float[B,8,2] "past_key_values.0.conv_state"'
_WITH_PAST = """"present.0.recurrent_state" = Add("past_key_values.0.recurrent_state", sums4)
  turned = Transpose<perm=[0,2,1]>(counted)
  long = Concat<axis=2>("past_key_values.0.conv_state", turned)
  ends = Constant<value_ints=[9223372036854775807]>()
  start = Constant<value_ints=[-2]>()
  "present.0.conv_state" = Slice(long, start, ends, last)"""


def test_recurrent_states_travel(tmp_path: Path) -> None:
    weights = {"eye": np.eye(8, dtype=np.float32)}
    texts = {
        "unified": COUNTING.format(name="unified", new="S", pasts=_PASTS, body=_WITH_PAST),
        "decode": COUNTING.format(name="decode", new="1", pasts=_PASTS, body=_WITH_PAST),
    }
    found = manifest.load(write_model(tmp_path, texts, weights, facts={"vocab": 8}))
    for way in ("unified", "decode"):
        decoder = Decoder.open(found, mode=way)
        for _ in range(2):  # a new start forgets the states
            logits = decoder.start(np.array([[1, 2, 2, 5]]))
            assert logits[0, 0].tolist() == [0, 1, 2 + 1, 0, 0, 1 + 1, 0, 0]
            logits = decoder.step(np.array([[7]]))
            assert logits[0, 0].tolist() == [0, 1, 2, 0, 0, 1 + 1, 0, 1 + 1]


def test_last_logits_skips_padding() -> None:
    logits = np.arange(2 * 3 * 2, dtype=np.float32).reshape(2, 3, 2)
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    assert last_logits(logits, mask).tolist() == [[4, 5], [6, 7]]
    assert last_logits(logits[:, :1], mask).tolist() == [[0, 1], [6, 7]]


@pytest.mark.parametrize("way", ["pair", "unified"])
@pytest.mark.parametrize(
    ("target", "head_dim", "skip", "compact"),
    [
        ("ort-cpu", 16, (), True),
        ("ort-cpu", 16, ("fuse_attention",), False),
        ("ort-cpu", 12, (), False),
        ("portable", 16, (), False),
    ],
)
def test_right_padding_assumed_by_a_build(
    tmp_path: Path, target: str, head_dim: int, skip: tuple[str, ...], compact: bool, way: str
) -> None:
    """Rows of a right-padded batch equal the rows alone, whether or not the build keeps a compact cache."""
    text = HEAD.replace("head_dim: 16", f"head_dim: {head_dim}") + LLAMA
    (tmp_path / "model.yaml").write_text(text, encoding="utf-8")
    options = Options(assume="right-padding")
    compiled = compile_file(tmp_path / "model.yaml", Request(target=target, options=options, skip_passes=skip))
    build(compiled, tmp_path / "out" / "model.onnx", verify="off")
    decoder = Decoder.open(manifest.load(tmp_path / "out" / "model.onnx"), mode=way)
    batch = [decoder.start(np.array([[3, 5, 7, 9], [4, 6, 0, 0]]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]]))]
    batch += [decoder.step(np.array([[t], [t + 8]])) for t in (1, 2)]
    assert decoder.mask[1].tolist() == ([1, 1, 1, 1, 0, 0] if compact else [1, 1, 0, 0, 1, 1])
    for row, (prompt, first) in enumerate((([3, 5, 7, 9], 1), ([4, 6], 9))):
        alone = [decoder.start(np.array([prompt]))] + [decoder.step(np.array([[first + i]])) for i in (0, 1)]
        np.testing.assert_allclose([x[row] for x in batch], [x[0] for x in alone], atol=5e-5)
