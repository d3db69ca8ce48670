from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from flowc.errors import CheckFailed, MissingTool, SpecError
from flowc.runtime import session as sessions
from tests.runtime.tiny import TinyLlama, write_model

HEADER = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>\n'


def config(session: Any, key: str) -> str:
    """A session's own record of an option; empty where it was not set."""
    try:
        return cast(str, session.get_session_options().get_session_config_entry(key))
    except RuntimeError:
        return ""


def test_threads_and_options_reach_the_session(tmp_path: Path) -> None:
    TinyLlama().write(tmp_path, ["unified"])
    default = sessions.open_session(tmp_path / "model.onnx")
    other = sessions.open_session(tmp_path / "model.onnx", threads=1, prepack=False, spin=False)
    assert cast(Any, default.get_session_options()).intra_op_num_threads == sessions.physical_cores() >= 1
    assert cast(Any, other.get_session_options()).intra_op_num_threads == 1
    assert config(default, "session.disable_prepacking") == config(default, "session.intra_op.allow_spinning") == ""
    assert config(other, "session.disable_prepacking") == "1"
    assert config(other, "session.intra_op.allow_spinning") == "0"


def test_quantised_graphs_are_always_prepacked(tmp_path: Path) -> None:
    text = (
        HEADER + "g (float[N,32] x) => (float[N,8] y) {\n"
        "  y = com.microsoft.MatMulNBits<K=32, N=8, bits=4, block_size=32>(x, packed, scales)\n}"
    )
    packed = {"packed": np.zeros((8, 1, 16), np.uint8), "scales": np.ones(8, np.float32)}
    write_model(tmp_path, {"encode": text}, packed, facts={}, kind="encoder")
    session = sessions.open_session(tmp_path / "model.onnx", prepack=False)
    assert config(session, "session.disable_prepacking") == ""


def test_a_file_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(CheckFailed, match=r"load-failed\]: .*does not load"):
        sessions.open_session(tmp_path / "model.onnx")


def test_a_graph_for_a_newer_onnxruntime(tmp_path: Path) -> None:
    text = HEADER + "g (float[N] x) => (float[N] y) {\n  y = com.microsoft.NotYet(x)\n}"
    properties = {"flowc.min_onnxruntime": "99.1"}
    write_model(tmp_path, {"encode": text}, {}, facts={}, kind="encoder", properties=properties)
    with pytest.raises(MissingTool, match=r"old-onnxruntime\]: .*needs onnxruntime 99\.1"):
        sessions.open_session(tmp_path / "model.onnx")


def test_a_provider_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match=r"missing-provider\]: .*NoSuchProvider"):
        sessions.open_session(tmp_path / "model.onnx", providers=["NoSuchProvider"])


def test_inputs_that_follow_from_the_others(tmp_path: Path) -> None:
    model = TinyLlama()
    model.write(tmp_path, ["unified"], logits="all")
    session = sessions.open_session(tmp_path / "model.onnx")
    first = sessions.run_once(session, {"input_ids": np.array([[4, 8, 15]])})
    np.testing.assert_allclose(first["logits"][0], model.reference([4, 8, 15]), atol=1e-4)
    past = {name.replace("present", "past_key_values"): a for name, a in first.items() if name != "logits"}
    second = sessions.run_once(session, {"input_ids": np.array([[16]]), **past})
    np.testing.assert_allclose(second["logits"][0, 0], model.reference([4, 8, 15, 16])[-1], atol=1e-4)


@pytest.mark.parametrize(
    ("feeds", "code"),
    [
        ({"input_idz": np.zeros((1, 1), np.int64)}, "bad-input"),
        ({}, "bad-input"),
        ({"input_ids": np.zeros((1, 1), np.int32)}, "bad-input"),
        ({"input_ids": np.zeros(1, np.int64), "attention_mask": np.zeros((1, 1), np.int64)}, "bad-input"),
        ({"input_ids": np.full((1, 1), 10**6)}, "bad-input"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, feeds: dict[str, Any], code: str) -> None:
    TinyLlama().write(tmp_path, ["prefill"])
    session = sessions.open_session(tmp_path / "model.prefill.onnx")
    with pytest.raises(SpecError) as caught:
        sessions.run_once(session, feeds)
    assert [d.code for d in caught.value.diagnostics] == [code]
