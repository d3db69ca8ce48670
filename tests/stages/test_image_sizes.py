"""Images of another size than the positions were trained for: interpolated as HuggingFace does, when compiling."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest

from flowc.build.compiled import Compiled, Request
from flowc.compile import build, compile_file
from flowc.errors import SpecError
from flowc.importers import import_checkpoint
from flowc.ir.weights.expressions import Tensor
from flowc.ir.weights.resample import Resampled, bicubic
from tests.oracle_io import ROOT, Array, Oracle, case_folders
from tests.parity.harness import Model

ort: Any = onnxruntime  # ships no types


RESIZE = """
<ir_version: 10, opset_import: ["": 19]>
resize (float[a, b, c, d] x, int64[4] sizes) => (float[e, f, g, h] y) {
  y = Resize <mode = "cubic", coordinate_transformation_mode = "half_pixel" FACTS> (x, , , sizes)
}
"""


def resize(x: Array, new: tuple[int, int], antialias: bool) -> Array:
    """What onnxruntime's Resize gives with torch's bicubic filters: x [channels, rows, columns]."""
    facts = ", antialias = 1, exclude_outside = 1, cubic_coeff_a = -0.5" if antialias else ""
    model = onnx.parser.parse_model(RESIZE.replace("FACTS", facts))
    feeds = {"x": x[None], "sizes": np.array([1, len(x), *new])}
    return ort.InferenceSession(model.SerializeToString()).run(None, feeds)[0][0]


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    ("old", "new"), [((4, 4), (5, 4)), ((4, 4), (3, 7)), ((16, 16), (37, 11)), ((5, 6), (2, 3)), ((1, 2), (4, 4))]
)
def test_bicubic_is_onnxruntimes(old: tuple[int, int], new: tuple[int, int], antialias: bool) -> None:
    x = np.random.default_rng(4).standard_normal((3, *old)).astype(np.float32)
    rows, columns = bicubic(old[0], new[0], antialias), bicubic(old[1], new[1], antialias)
    np.testing.assert_allclose(rows @ x.astype(np.float64) @ columns.T, resize(x, new, antialias), atol=2e-5)


@pytest.mark.parametrize("first", [(), (1,)])
def test_leading_rows_stay(first: tuple[int, ...]) -> None:
    table = np.random.default_rng(0).standard_normal((*first, 2 + 12, 5)).astype(np.float32)
    weight = Resampled(Tensor("table", table.shape), 2, (3, 4), (4, 2))
    got = weight.evaluate(lambda name, rows: table)
    assert got.shape == weight.shape == (*first, 10, 5)
    np.testing.assert_array_equal(got[..., :2, :], table[..., :2, :])
    grid = table.reshape(-1, 5)[2:].reshape(3, 4, 5).transpose(2, 0, 1)
    want = resize(grid, (4, 2), False).transpose(1, 2, 0).reshape(8, 5)
    np.testing.assert_allclose(got.reshape(-1, 5)[2:], want, atol=2e-6)


def compiled_for(text: str, size: tuple[int, ...], folder: Path, target: str = "ort-cpu") -> Compiled:
    """A spec for images of another size."""
    changed, count = re.subn(r"\$channels, \d+, \d+\]", f"$channels, {size[0]}, {size[1]}]", text)
    assert count == 1
    (folder / "other.yaml").write_text(changed)
    return compile_file(folder / "other.yaml", Request(target=target))


@pytest.mark.golden
@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize("case", ["vit_pooler", "dinov2_gelu"])
def test_interpolated_positions_equal_huggingfaces(case: str, target: str, tmp_path: Path) -> None:
    folder = case_folders()[case]
    oracle = Oracle(folder)
    feeds = oracle.inputs("interp")
    compiled = compiled_for(
        import_checkpoint(folder).text(tmp_path), feeds["pixel_values"].shape[2:], tmp_path, target
    )  # fmt: skip
    build(compiled, tmp_path / "out" / "model.onnx", verify="quick")
    got = Model(compiled, tmp_path / "out").run("encode", feeds)
    assert got
    assert not oracle.mismatches("interp", got)


def test_positions_that_do_not_say_their_grid_fit_or_are_refused(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "vit.yaml").read_text()
    checkpoint = compiled_for(text, (32, 24), tmp_path).checkpoint
    assert checkpoint is not None
    said = text.replace("embeddings.position_embeddings", "{weight: e.positions, grid: [4, 3], leading: 1}")
    graph = compiled_for(said, (40, 24), tmp_path).graphs["encode"]
    assert any(isinstance(weight, Resampled) for weight in graph.weights())
    for wrong, words in (
        (said.replace("[4, 3]", "[4]"), "vertical and a horizontal"),
        (said.replace("32, 24]", "height, width]"), "interpolated when compiling"),
    ):
        (tmp_path / "wrong.yaml").write_text(wrong)
        with pytest.raises(SpecError, match=words):
            compile_file(tmp_path / "wrong.yaml", Request())
