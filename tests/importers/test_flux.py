from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.errors import SpecError
from flowc.importers import import_checkpoint
from tests.importers.refusals import assert_refused, changed

CASE = "flux_schnell_like"


@pytest.mark.golden
@pytest.mark.parametrize(
    "fields",
    [
        {"axes_dims_rope": [4, 4, 4]},
        {"axes_dims_rope": [3, 5, 8]},
        {"axes_dims_rope": ["2", 6, 8]},
        {"num_attention_heads": "two"},
        {"guidance_embeds": 1},
        {"qk_norm": "layer_norm"},
    ],
    ids=str,
)
def test_what_flowc_does_not_reproduce_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    assert_refused(CASE, tmp_path, **fields)


@pytest.mark.golden
def test_another_diffusers_class_is_refused(tmp_path: Path) -> None:
    folder = changed(CASE, tmp_path, _class_name="Flux2Transformer2DModel")
    with pytest.raises(SpecError, match="_class_name 'Flux2Transformer2DModel'"):
        import_checkpoint(folder)


@pytest.mark.golden
def test_fields_that_are_left_out_have_the_values_of_diffusers(tmp_path: Path) -> None:
    folder = changed(CASE, tmp_path)
    config = folder / "config.json"
    config.write_text(json.dumps({"_class_name": "FluxTransformer2DModel"}))
    text = import_checkpoint(folder).text(tmp_path)
    for line in ("hidden: 3072", "dual_layers: 19", "single_layers: 38", "axes: [16, 56, 56]", "out_channels: 64"):
        assert line in text
    assert "guidance" not in text


@pytest.mark.golden
@pytest.mark.parametrize("field", ["num_layers", "num_single_layers"])
def test_a_transformer_may_lack_one_kind_of_block(field: str, tmp_path: Path) -> None:
    spec = tmp_path / "model.yaml"
    text = import_checkpoint(changed(CASE, tmp_path, **{field: 0})).text(tmp_path)
    spec.write_text(text.replace("weights: {", "weights: {allow_unused: ['*transformer_blocks.*'], "))
    (graph,) = compile_file(spec, Request()).graphs.values()
    assert [o.name for o in graph.outputs] == ["sample"]
