"""Caches that would not go from one call to the next are errors of the spec, or of the run at the latest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowc.build.compiled import Request
from flowc.build.manifest import load
from flowc.compile import build, compile_file
from flowc.errors import SpecError
from flowc.runtime.decoder import Decoder
from tests.passes.making import HEAD, LLAMA, compile_text

POSITIONS = """
  - custom:
      onnx: |
        place (float[batch, sequence, 32] x, int64[batch, sequence] p) => (float[batch, sequence, 32] y)
        {
          steps = Cast<to=1>(p)
          last = Constant<value_ints=[2]>()
          column = Unsqueeze(steps, last)
          y = Add(x, column)
        }
      stream_inputs: {p: position_ids}
"""
EMBED = "  - embed: model.embed_tokens.weight\n"
TAPS = """
flow:
  prefill:
    - embed: model.embed_tokens.weight
    - rope_tables: {theta: 10000}
    - llama_kv_tap: {prefix: model.layers.1, layer: 0}
    - llama_kv_tap: {prefix: model.layers.1, layer: 1}
    - llama_decoder: model.layers.0
    - lm_head: {tied: true}
"""
BOUND = """
flow:
  decode:
    - bind_decode_inputs: {layers: 2}
    - embed: model.embed_tokens.weight
    - decode_rope_params: {theta: 10000}
    - llama_decode_layer: model.layers.0
    - llama_decode_layer: model.layers.1
    - lm_head: {tied: true}
"""


def code(folder: Path, text: str, assume: str = "none") -> str:
    with pytest.raises(SpecError) as error:
        compile_text(folder, text, assume=assume)
    return error.value.diagnostics[0].code


def test_positions_before_the_first_cache_need_the_mask(tmp_path: Path) -> None:
    text = LLAMA.replace(EMBED, EMBED.rstrip() + POSITIONS)
    assert set(compile_text(tmp_path, text).graphs) == {"unified", "prefill", "decode"}
    assert code(tmp_path, text, "no-padding") == "undefined-slot"


def test_a_layer_with_a_cache_takes_every_new_token(tmp_path: Path) -> None:
    body = "repeat: {count: $layers, body: [llama_decoder: 'model.layers.{i}']}"
    assert body in LLAMA
    layers = "llama_decoder: model.layers.0\n  - gather_last_token\n  - llama_decoder: model.layers.1"
    assert code(tmp_path, LLAMA.replace(body, layers)) == "bad-shape"


def test_two_taps_of_one_layer(tmp_path: Path) -> None:
    compile_text(tmp_path, TAPS)  # a layer takes its tap's place
    assert code(tmp_path, TAPS.replace("layer: 1", "layer: 0")) == "duplicate-cache"


def test_a_cache_that_no_layer_hands_on(tmp_path: Path) -> None:
    compile_text(tmp_path, BOUND)
    assert code(tmp_path, BOUND.replace("layers: 2}", "layers: 3}")) == "unlike-caches"


def test_a_name_that_another_port_has(tmp_path: Path) -> None:
    past = "past_key_values.{}.key"
    swapped = f"rename: {{{past.format(0)}: {past.format(1)}, {past.format(1)}: {past.format(0)}}}\n"
    assert code(tmp_path, LLAMA + swapped) == "taken-port"


@pytest.mark.parametrize("way", ["pair", "unified", "decode"])
@pytest.mark.parametrize("name", ["present.0.key", "past_key_values.0.value"])
def test_a_renamed_cache_is_not_run_without_it(tmp_path: Path, name: str, way: str) -> None:
    (tmp_path / "model.yaml").write_text(HEAD + LLAMA + f"rename: {{{name}: other}}\n", encoding="utf-8")
    build(compile_file(tmp_path / "model.yaml", Request()), tmp_path / "model.onnx", verify="off")
    with pytest.raises(SpecError, match="unlike-caches"):
        Decoder.open(load(tmp_path / "model.onnx"), mode=way).start(np.array([[3, 5]]))
