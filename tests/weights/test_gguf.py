from __future__ import annotations

import functools
import math
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st

from flowc.errors import WeightsError
from flowc.ir.weights.blocks import AsStored, Blocks
from flowc.weights import check_finite, open_checkpoint
from flowc.weights.files import SourceFile
from flowc.weights.gguf.checkpoint import GgufCheckpoint
from flowc.weights.gguf.header import GgufTensor, read_header
from tests.weights.making import model_file, refused, write_gguf

T = GGMLQuantizationType
RNG = np.random.default_rng(11)
Array = npt.NDArray[Any]
WRITABLE = [T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1]
K_QUANTS = [T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
# byte offsets of the float16 scales in a block; random ones would be NaN now and then
SCALES = {T.Q2_K: (80, 82), T.Q3_K: (108,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,)}


def values(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def packed(kind: GGMLQuantizationType, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Rows of quantised blocks: by the library where it can quantise, else random blocks with sane scales."""
    if kind in WRITABLE:
        return quantize(values(rows, columns), kind)
    block, size = GGML_QUANT_SIZES[kind]
    raw = RNG.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    for at in SCALES[kind]:
        raw[:, :, at : at + 2] = RNG.uniform(0.01, 1, raw.shape[:2]).astype("<f2")[..., None].view(np.uint8)
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", [*WRITABLE, *K_QUANTS], ids=lambda kind: kind.name)
def test_every_quantisation_reads_as_the_library_dequantises_it(tmp_path: Path, kind: GGMLQuantizationType) -> None:
    rows, columns = 150, 1024  # more than one piece
    raw = packed(kind, rows, columns)
    file = write_gguf(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": (raw, kind)}, arch="qwen2")
    checkpoint = open_checkpoint(file)
    name = "model.layers.0.mlp.up_proj.weight"
    expected = dequantize(raw, kind)
    check_finite(expected, name)
    info = checkpoint.tensors()[name]
    assert (info.shape, info.storage, info.nbytes, info.plain) == ((rows, columns), kind.name.lower(), raw.size, False)
    assert checkpoint.read(name).dtype == np.float32
    np.testing.assert_array_equal(checkpoint.read(name), expected)
    np.testing.assert_array_equal(checkpoint.read(name, slice(63, 140)), expected[63:140])


def test_part_of_a_quantised_vector_need_not_begin_or_end_with_a_block(tmp_path: Path) -> None:
    raw = packed(T.Q8_0, 1, 96)
    file = write_gguf(tmp_path / "m.gguf", {"blk.0.attn_v.bias": (raw.reshape(-1), T.Q8_0)}, arch="qwen2")
    got = open_checkpoint(file).read("model.layers.0.self_attn.v_proj.bias", slice(5, 70))
    np.testing.assert_array_equal(got, dequantize(raw, T.Q8_0).reshape(-1)[5:70])


def scale_and_minimum_q4_1(raw: npt.NDArray[np.uint8], columns: int) -> Array:
    """Q4_1 by its description: per 32 values a scale and a minimum (float16), then 16 bytes; low nibbles come first."""
    out: list[float] = []
    for block in raw.reshape(-1, 20):
        scale, minimum = block[:4].view("<f2").astype(np.float32)
        nibbles = [b & 15 for b in block[4:]] + [b >> 4 for b in block[4:]]
        out += [scale * np.float32(n) + minimum for n in nibbles]
    return np.array(out, np.float32).reshape(-1, columns)


def test_q4_1_is_what_its_description_says(tmp_path: Path) -> None:
    raw = packed(T.Q4_1, 4, 64)
    file = write_gguf(tmp_path / "m.gguf", {"output.weight": (raw, T.Q4_1)}, arch="qwen2")
    np.testing.assert_array_equal(open_checkpoint(file).read("lm_head.weight"), scale_and_minimum_q4_1(raw, 64))


@pytest.mark.parametrize("kind", [*WRITABLE, *K_QUANTS], ids=lambda kind: kind.name)
def test_blocks_are_had_as_they_are_stored(tmp_path: Path, kind: GGMLQuantizationType) -> None:
    """Rows of heads come in HuggingFace's order: what the library decodes of the blocks are the decoded rows."""
    raw = packed(kind, 16, 256)
    tensors = {"blk.0.attn_q.weight": (raw, kind), "output.weight": (raw, kind)}
    heads = {"llama__attention__head_count": 2, "llama__attention__head_count_kv": 2, "llama__block_count": 1}
    checkpoint = GgufCheckpoint.open(write_gguf(tmp_path / "m.gguf", tensors, arch="llama", **heads))
    for name in ("model.layers.0.self_attn.q_proj.weight", "lm_head.weight"):
        weight = Blocks(name, kind.name.lower(), 16, raw.shape[1])
        blocks = weight.evaluate(checkpoint.read)
        assert blocks.dtype == np.uint8
        np.testing.assert_array_equal(dequantize(blocks, kind), checkpoint.read(name))
        np.testing.assert_array_equal(weight.rows(checkpoint.read, 3, 9), blocks[3:9])
        assert weight.nbytes == blocks.nbytes
    np.testing.assert_array_equal(blocks, raw)


def test_blocks_of_what_has_none_are_refused(tmp_path: Path) -> None:
    from flowc.weights.random import RandomCheckpoint

    plain = GgufCheckpoint.open(write_gguf(tmp_path / "m.gguf", {"output.weight": values(4, 8)}, arch="qwen2"))
    random = RandomCheckpoint(0)
    random.declare("lm_head.weight", (4, 8))
    for checkpoint in (plain, random):
        with pytest.raises(WeightsError, match=r"tensor 'lm_head.weight' is stored as f32, not in blocks"):
            checkpoint.read(AsStored("lm_head.weight"))


def test_what_keeps_tensors_does_not_take_blocks_for_numbers() -> None:
    from flowc.verify.built_model import KeptWeights

    def read(name: str, rows: slice | None) -> Array:
        return np.ones(2, np.uint8) if isinstance(name, AsStored) else np.zeros(2, np.float32)

    kept = KeptWeights(read, 100, whole=True)
    assert kept("w").dtype == np.float32
    assert kept(AsStored("w")).dtype == np.uint8
    assert kept("w").dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bf16"])
def test_plain_types_read_exactly(tmp_path: Path, dtype: str) -> None:
    array = values(40, 16)
    stored = array.astype(ml_dtypes.bfloat16 if dtype == "bf16" else dtype)
    tensor = (stored.view(np.uint8), T.BF16) if dtype == "bf16" else stored
    file = write_gguf(tmp_path / "m.gguf", {"token_embd.weight": tensor}, arch="qwen2")
    checkpoint = open_checkpoint(file)
    name = "model.embed_tokens.weight"
    expected = stored.astype(np.float32)
    np.testing.assert_array_equal(checkpoint.read(name), expected)
    np.testing.assert_array_equal(checkpoint.read(name, slice(3, 9)), expected[3:9])
    info = checkpoint.tensors()[name]
    assert info.plain
    assert file.read_bytes()[info.offset : info.offset + info.nbytes] == stored.tobytes()


def checkpoint_tensors(path: Path) -> tuple[GgufTensor, ...]:
    return read_header(SourceFile.open(path))[1]


def llama_cpp_permute(weights: Array, heads: int) -> Array:
    """What llama.cpp's converter does to q and k (`LlamaModel.permute`)."""
    split = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return split.swapaxes(1, 2).reshape(weights.shape)


@pytest.mark.parametrize("arch", ["llama", "smollm3"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4), (5, 1)])
def test_llama_heads_return_to_huggingface_order(tmp_path: Path, arch: str, heads: int, kv_heads: int) -> None:
    head_dim, hidden = 8, 32
    sizes = {"q": heads, "k": kv_heads, "v": kv_heads}
    weights = {s: values(n * head_dim, hidden) for s, n in sizes.items()}
    biases = {s: values(n * head_dim) for s, n in sizes.items()}
    stored: dict[str, Any] = {}
    for s, n in sizes.items():
        for suffix, array in (("weight", weights[s]), ("bias", biases[s])):
            stored[f"blk.3.attn_{s}.{suffix}"] = array if s == "v" else llama_cpp_permute(array, n)
    counts: dict[str, Any] = {f"{arch}__attention__head_count": heads, f"{arch}__attention__head_count_kv": kv_heads}
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", stored, arch=arch, **counts))
    for s in sizes:
        for suffix, expected in (("weight", weights[s]), ("bias", biases[s])):
            name = f"model.layers.3.self_attn.{s}_proj.{suffix}"
            np.testing.assert_array_equal(checkpoint.read(name), expected)
            rows = len(expected)
            for begin, end in ((0, 1), (3, rows), (5, min(rows, 19)), (rows - 1, rows)):
                np.testing.assert_array_equal(checkpoint.read(name, slice(begin, end)), expected[begin:end])
            assert checkpoint.tensors()[name].plain == (s == "v")


def test_head_counts_may_differ_by_layer(tmp_path: Path) -> None:
    expected = [values(n * 4, 8) for n in (2, 3)]
    stored = {
        f"blk.{i}.attn_k.weight": llama_cpp_permute(w, n) for i, (w, n) in enumerate(zip(expected, (2, 3), strict=True))
    }
    counts: dict[str, Any] = {"llama__attention__head_count": [2, 3], "llama__attention__head_count_kv": [2, 3]}
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", stored, **counts))
    for layer, array in enumerate(expected):
        np.testing.assert_array_equal(checkpoint.read(f"model.layers.{layer}.self_attn.k_proj.weight"), array)


@pytest.mark.parametrize("counts", [{}, {"llama__attention__head_count": 5}, {"llama__attention__head_count": 0}])
def test_head_counts_that_do_not_fit_are_refused(tmp_path: Path, counts: dict[str, Any]) -> None:
    file = write_gguf(tmp_path / "m.gguf", {"blk.0.attn_q.weight": values(16, 8)}, **counts)
    with refused("broken-gguf", "attn_q"):
        open_checkpoint(file)


@pytest.mark.parametrize("arch", ["gemma", "gemma2", "gemma3"])
def test_gemma_norms_lose_the_one_that_the_converter_added(tmp_path: Path, arch: str) -> None:
    norm, linear = values(16), values(16, 16)
    stored = {"output_norm.weight": norm + 1, "blk.0.attn_q.weight": linear}
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", stored, arch=arch))
    np.testing.assert_array_equal(checkpoint.read("model.norm.weight"), (norm + 1) - np.float32(1))
    np.testing.assert_array_equal(checkpoint.read("model.norm.weight", slice(2, 5)), ((norm + 1) - np.float32(1))[2:5])
    np.testing.assert_array_equal(checkpoint.read("model.layers.0.self_attn.q_proj.weight"), linear)
    assert not checkpoint.tensors()["model.norm.weight"].plain


def test_experts_come_apart(tmp_path: Path) -> None:
    experts = {"gate": values(4, 6, 32), "up": values(4, 6, 32), "down": values(4, 32, 32)}
    stored: dict[str, Any] = {f"blk.1.ffn_{s}_exps.weight": a for s, a in experts.items()}
    raw = packed(T.Q8_0, 24, 32)
    stored["blk.1.ffn_gate_exps.weight"] = (raw.reshape(4, 6, -1), T.Q8_0)
    experts["gate"] = dequantize(raw, T.Q8_0).reshape(4, 6, 32)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", stored, arch="qwen3moe"))
    assert len(checkpoint.tensors()) == 12
    for s, array in experts.items():
        for expert in range(4):
            name = f"model.layers.1.mlp.experts.{expert}.{s}_proj.weight"
            np.testing.assert_array_equal(checkpoint.read(name), array[expert])
            np.testing.assert_array_equal(checkpoint.read(name, slice(2, 4)), array[expert][2:4])
    info = checkpoint.tensors()["model.layers.1.mlp.experts.3.down_proj.weight"]
    data = (tmp_path / "m.gguf").read_bytes()[info.offset : info.offset + info.nbytes]
    np.testing.assert_array_equal(np.frombuffer(data, "<f4").reshape(32, 32), experts["down"][3])


FAMILIES: dict[str, dict[str, str]] = {
    "llama": {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
        "rope_freqs.weight": "rope_freqs.weight",
        "blk.12.attn_norm.weight": "model.layers.12.input_layernorm.weight",
        "blk.12.attn_v.bias": "model.layers.12.self_attn.v_proj.bias",
        "blk.12.attn_output.weight": "model.layers.12.self_attn.o_proj.weight",
        "blk.12.ffn_norm.weight": "model.layers.12.post_attention_layernorm.weight",
        "blk.12.ffn_down.weight": "model.layers.12.mlp.down_proj.weight",
    },
    "qwen3": {
        "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
        "blk.0.attn_q_norm.weight": "model.layers.0.self_attn.q_norm.weight",
        "blk.0.attn_k_norm.weight": "model.layers.0.self_attn.k_norm.weight",
    },
    "gemma3": {
        "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
        "blk.0.post_attention_norm.weight": "model.layers.0.post_attention_layernorm.weight",
        "blk.0.ffn_norm.weight": "model.layers.0.pre_feedforward_layernorm.weight",
        "blk.0.post_ffw_norm.weight": "model.layers.0.post_feedforward_layernorm.weight",
        "blk.0.attn_k_norm.weight": "model.layers.0.self_attn.k_norm.weight",
    },
    "phi3": {
        "blk.0.attn_qkv.weight": "model.layers.0.self_attn.qkv_proj.weight",
        "blk.0.ffn_up.weight": "model.layers.0.mlp.gate_up_proj.weight",
        "rope_factors_long.weight": "rope_factors_long.weight",
    },
    "qwen3moe": {"blk.0.ffn_gate_inp.weight": "model.layers.0.mlp.gate.weight"},
    "qwen2": {
        "blk.0.nothing_known.weight": "blk.0.nothing_known.weight",
        "blk.00.attn_q.weight": "blk.00.attn_q.weight",
    },
}


@pytest.mark.parametrize("arch", FAMILIES)
def test_names_are_huggingfaces(tmp_path: Path, arch: str) -> None:
    stored = {name: values(4, 4) for name in FAMILIES[arch]}
    checkpoint = GgufCheckpoint.open(write_gguf(tmp_path / "m.gguf", stored, arch=arch))
    assert {gguf: name for name, gguf in checkpoint.tensor_names.items()} == FAMILIES[arch]


def test_metadata_is_plain_python(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "a__int": 7,
        "a__float": 0.5,
        "a__bool": True,
        "a__text": "naïve 你好",
        "a__texts": ["x", "", "z" * 3000],
        "a__ints": [1, -2, 3],
        "a__floats": [0.25, -1.5],
    }
    file = write_gguf(tmp_path / "m.gguf", {"output.weight": values(2, 2)}, arch="qwen2", **given)
    metadata = GgufCheckpoint.open(file).metadata
    for key, value in given.items():
        got = metadata[key.replace("__", ".")]
        assert got == value
        assert type(got) is type(value)
    assert metadata["general.architecture"] == "qwen2"
    reference = GGUFReader(file).fields
    assert set(metadata) == {k for k in reference if not k.startswith("GGUF.")}


def header(
    pairs: list[bytes], tensors: list[bytes], *, version: int = 3, counts: tuple[int, int] | None = None
) -> bytes:
    tensor_count, pair_count = counts or (len(tensors), len(pairs))
    return b"GGUF" + struct.pack("<IQQ", version, tensor_count, pair_count) + b"".join(pairs) + b"".join(tensors)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, dims: list[int], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def padded(head: bytes, data: bytes) -> bytes:
    return head + bytes(-len(head) % 32) + data


ARCH = pair("general.architecture", 8, text("qwen2"))
HUGE = (1 << 63) + 5
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too few"),
    "magic": (b"GGML" + bytes(60), "does not begin"),
    "version 1": (header([ARCH], [], version=1), "version 1"),
    "version 4": (header([ARCH], [], version=4), "version 4"),
    "big-endian": (header([ARCH], [], version=3 << 24), "big-endian"),
    "huge tensor count": (header([ARCH], [], counts=(HUGE, 1)), "more than any model"),
    "huge pair count": (header([ARCH], [], counts=(0, HUGE)), "more than any model"),
    "more pairs than there are": (header([ARCH], [], counts=(0, 2)), "middle of its header"),
    "more tensors than there are": (header([ARCH], [], counts=(1, 1)), "middle of its header"),
    "huge key": (header([struct.pack("<Q", HUGE)], []), "a metadata key of"),
    "key not UTF-8": (header([text(b"\xff") + struct.pack("<IB", 0, 1)], []), "not UTF-8"),
    "key twice": (header([ARCH, ARCH], []), "twice"),
    "unknown value type": (header([pair("k", 13, b"")], []), "unknown value type 13"),
    "huge text": (header([pair("k", 8, struct.pack("<Q", HUGE))], []), "middle of its header"),
    "huge array": (header([pair("k", 9, struct.pack("<IQ", 4, HUGE))], []), "more than it can hold"),
    "huge array of texts": (header([pair("k", 9, struct.pack("<IQ", 8, 1 << 61))], []), "more than it can hold"),
    "texts that end too early": (
        header([pair("k", 9, struct.pack("<IQ", 8, 2) + text("a") + b"\5" + bytes(7))], []),
        "middle",
    ),
    "array in an array": (header([pair("k", 9, struct.pack("<IQ", 9, 1))], []), "arrays inside"),
    "array of unknown type": (header([pair("k", 9, struct.pack("<IQ", 99, 1))], []), "unknown value type 99"),
    "no architecture": (header([], []), "does not name"),
    "architecture is a number": (header([pair("general.architecture", 4, bytes(4))], []), "does not name"),
    "architecture not UTF-8": (header([pair("general.architecture", 8, text(b"\xff"))], []), "not UTF-8"),
    "alignment 7": (header([ARCH, pair("general.alignment", 4, struct.pack("<I", 7))], []), "alignment 7"),
    "alignment 0": (header([ARCH, pair("general.alignment", 4, bytes(4))], []), "alignment 0"),
    "huge name": (header([ARCH], [struct.pack("<Q", 1 << 30)]), "a tensor name of"),
    "five dims": (header([ARCH], [tensor("w", [1, 1, 1, 1, 1])]), "5 dimensions"),
    "huge dim count": (header([ARCH], [text("w") + struct.pack("<I", 1 << 31)]), "dimensions"),
    "overflowing dims": (header([ARCH], [tensor("w", [1 << 32, 1 << 32])]), "the shape"),
    "zero dim": (header([ARCH], [tensor("w", [0, 4])]), "the shape"),
    "half a block": (header([ARCH], [tensor("w", [48], kind=8)]), "packs 32 together"),
    "beyond the end": (padded(header([ARCH], [tensor("w", [9])]), bytes(32)), "outside of the file"),
    "huge offset": (padded(header([ARCH], [tensor("w", [8], offset=1 << 63)]), bytes(32)), "outside of the file"),
    "off alignment": (padded(header([ARCH], [tensor("w", [1], offset=4)]), bytes(32)), "off its alignment"),
    "overlap": (padded(header([ARCH], [tensor("v", [9]), tensor("w", [8], offset=32)]), bytes(64)), "overlap"),
    "tensor twice": (padded(header([ARCH], [tensor("w", [8]), tensor("w", [8], offset=32)]), bytes(64)), "twice"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_is_refused(tmp_path: Path, fault: str) -> None:
    data, words = BROKEN[fault]
    (tmp_path / "m.gguf").write_bytes(data)
    with refused("broken-gguf", words, "m.gguf"):
        open_checkpoint(tmp_path / "m.gguf")


def test_the_hand_made_header_is_sound_without_a_fault(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(padded(header([ARCH], [tensor("output.weight", [4, 2])]), values(8).tobytes()))
    assert open_checkpoint(tmp_path / "m.gguf").tensors()["lm_head.weight"].shape == (2, 4)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", {"output.weight": values(4, 8)}, arch="qwen2", tokens=["a", "bc"], n=1)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with refused("broken-gguf"):
            open_checkpoint(file)


def test_a_sparse_file_does_not_make_the_header_endless(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(header([pair("k", 8, struct.pack("<Q", 1 << 38))], []))
    os.truncate(file, 1 << 39)
    with refused("broken-gguf", "header of more than"):
        open_checkpoint(file)


@pytest.mark.parametrize(("code", "name"), [(16, "IQ2_XXS"), (20, "IQ4_NL"), (34, "TQ1_0"), (39, "MXFP4")])
def test_an_unread_type_is_named_when_it_is_read(tmp_path: Path, code: int, name: str) -> None:
    block, size = GGML_QUANT_SIZES[T(code)]
    (tmp_path / "m.gguf").write_bytes(padded(header([ARCH], [tensor("output.weight", [block], code)]), bytes(size)))
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    with refused("unsupported-dtype", name, "output.weight"):
        checkpoint.read("lm_head.weight")


def test_an_unknown_type_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(header([ARCH], [tensor("w", [32], kind=99)]))
    with refused("unsupported-dtype", "'w'", "99"):
        open_checkpoint(tmp_path / "m.gguf")


def test_more_experts_than_any_model_has_are_refused(tmp_path: Path) -> None:
    with refused("broken-gguf", "5000 experts"):
        open_checkpoint(
            write_gguf(tmp_path / "m.gguf", {"blk.0.ffn_up_exps.weight": values(5000, 1, 1)}, arch="qwen3moe")
        )


def test_what_flowc_does_not_do_is_refused_by_name(tmp_path: Path) -> None:
    with refused("unsupported-architecture", "'llama4'", "did you mean 'llama'?"):
        open_checkpoint(write_gguf(tmp_path / "a.gguf", {"output.weight": values(2, 2)}, arch="llama4"))
    with refused("unsupported-gguf", "split"):
        open_checkpoint(write_gguf(tmp_path / "b.gguf", {"output.weight": values(2, 2)}, split__count=3))


@functools.cache
def whole_file(folder: Path) -> bytes:
    stored: dict[str, Any] = {"output.weight": values(4, 32), "blk.0.attn_q.weight": (packed(T.Q8_0, 8, 32), T.Q8_0)}
    metadata: dict[str, Any] = {"llama__attention__head_count": 2, "tokens": ["a", "b"], "ids": [1, 2]}
    return write_gguf(folder / "whole.gguf", stored, **metadata).read_bytes()


def check_mutated(folder: Path, data: st.DataObject) -> None:
    mutated = bytearray(whole_file(folder))
    head = len(mutated) - 4 * 32 * 4 - 8 * 34
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, head))] = data.draw(st.sampled_from([0, 1, 2, 8, 9, 127, 128, 255]))
    file = folder / "mutated.gguf"
    file.write_bytes(mutated)
    try:
        checkpoint = GgufCheckpoint.open(file)
        for name, info in checkpoint.tensors().items():
            assert checkpoint.read(name).shape == info.shape
        for key in checkpoint.metadata:
            assert checkpoint.metadata[key] is not None
    except WeightsError:
        pass


@settings(max_examples=400)
@given(st.data())
def test_mutated_headers_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    check_mutated(tmp_path_factory.getbasetemp(), data)


@pytest.mark.slow
@settings(max_examples=50_000)
@given(st.data())
def test_very_many_mutations_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    check_mutated(tmp_path_factory.getbasetemp(), data)


SMOLLM2, GEMMA3 = "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3-270m/gemma-3-270m-Q4_K_M.gguf"


@pytest.mark.parametrize(("file", "heads", "one"), [(SMOLLM2, {"attn_q": 9, "attn_k": 3}, 0), (GEMMA3, {}, 1)])
def test_real_files_read_as_the_library_reads_them(file: str, heads: dict[str, int], one: int) -> None:
    path = model_file(file)
    checkpoint = GgufCheckpoint.open(path)
    names = {gguf: name for name, gguf in checkpoint.tensor_names.items()}
    with path.open("rb") as stream:
        for tensor in checkpoint_tensors(path):
            block, size = GGML_QUANT_SIZES[tensor.type]
            rows = min(tensor.shape[0], 576)
            count = math.prod((rows, *tensor.shape[1:])) // block * size
            stream.seek(tensor.offset)
            raw = np.frombuffer(stream.read(count), np.uint8)
            expected = dequantize(raw, tensor.type).reshape(rows, *tensor.shape[1:])
            part = tensor.name.split(".")[-2]
            if part in heads:
                pairs = expected.reshape(heads[part], rows // heads[part] // 2, 2, -1)
                expected = pairs.swapaxes(1, 2).reshape(expected.shape)
            if part.endswith("norm"):
                expected = expected - np.float32(one)
            np.testing.assert_array_equal(checkpoint.read(names[tensor.name], slice(0, rows)), expected)


def test_a_real_header_is_what_the_librarys_reader_sees() -> None:
    path = model_file(SMOLLM2)
    reader = GGUFReader(path)
    ours = {t.name: (t.shape, t.type, t.offset, t.nbytes) for t in checkpoint_tensors(path)}
    assert ours == {
        t.name: (tuple(int(d) for d in t.shape)[::-1], t.tensor_type, int(t.data_offset), int(t.n_bytes))
        for t in reader.tensors
    }
    metadata = GgufCheckpoint.open(path).metadata
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            assert metadata[key] == field.contents(), key
