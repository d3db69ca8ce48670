from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.errors import SpecError, WeightsError
from flowc.importers import import_checkpoint
from flowc.ir.core.elementwise import apply
from tests.importers.refusals import assert_refused, changed
from tests.oracle_io import Array, Oracle, case_folders
from tests.parity.harness import check_case, make

st: Any = safetensors.numpy  # its types are partly unknown

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("vit_pooler", {"hidden_act": "xielu"}),
    ("vit_pooler", {"pooler_act": "hardswish"}),
    ("vit_pooler", {"image_size": [24, 24, 24]}),
    ("vit_pooler", {"image_size": 24.0}),
    ("vit_pooler", {"patch_size": 25}),
    ("vit_pooler", {"patch_size": 0}),
    ("vit_pooler", {"num_attention_heads": 5}),
    ("vit_pooler", {"num_attention_heads": 0}),
    ("vit_pooler", {"use_mean_pooling": True}),
    ("vit_pooler", {"architectures": ["ViTForMaskedImageModeling"]}),
    ("dinov2_gelu", {"architectures": ["Dinov2ForImageClassification"]}),
    ("dinov2_gelu", {"architectures": ["Dinov2Backbone"]}),
    ("dinov2_gelu", {"image_size": [28, 14]}),
    ("dinov2_gelu", {"hidden_act": "laplace"}),
    ("dinov2_reg_gelu", {"architectures": ["Dinov2WithRegistersForImageClassification"]}),
    ("dinov3_rope", {"architectures": ["DINOv3ViTBackbone"]}),
    ("dinov3_rope", {"num_attention_heads": 8}),
    ("dinov3_rope", {"rope_normalize_coords": "min"}),
    ("clip_vision", {"architectures": ["CLIPVisionModelWithProjection"]}),
    ("clip_vision", {"image_size": [24, 32]}),
    ("clip_vision", {"hidden_act": "relu6"}),
    ("siglip_vision", {"architectures": ["SiglipForImageClassification"]}),
    ("siglip_vision", {"patch_size": [5, 10]}),
    ("siglip_vision", {"num_patches": 256}),
    ("nomic_vision_rope", {"architectures": ["NomicDualEncoder"], "img_size": 24}),
    ("nomic_vision_rope", {"prenorm": False}),
    ("nomic_vision_rope", {"causal": True}),
    ("nomic_vision_rope", {"use_rms_norm": True}),
    ("nomic_vision_rope", {"parallel_block": True}),
    ("nomic_vision_rope", {"layer_scale": True}),
    ("nomic_vision_rope", {"global_pool": "avg"}),
    ("nomic_vision_rope", {"num_heads_kv": 2}),
    ("nomic_vision_rope", {"rotary_emb_fraction": 1.0}),
    ("nomic_vision_rope", {"sinusoidal_pos_embedding": True}),
    ("nomic_vision_rope", {"activation_function": "relu"}),
    ("nomic_vision_rope", {"no_cls_token": True}),
    ("nomic_vision_rope", {"no_embed_class": True}),
    ("nomic_vision_rope", {"register_tokens": 2}),
    ("nomic_vision_rope", {"img_size": 25}),
    ("nomic_vision_ref_shape", {"register_tokens": 2}),
    ("nomic_vision_ref_shape", {"ref_feat_shape": "3x3"}),
    ("nomic_vision_norope", {"mlp_fc2_bias": False, "activation_function": "gelu"}),
    ("nomic_vision_norope", {"scale_attn_weights": False}),
]


@pytest.mark.golden
@pytest.mark.parametrize(("case", "fields"), REFUSED, ids=[f"{c}-{next(iter(f))}" for c, f in REFUSED])
def test_what_changes_the_numbers_is_refused(case: str, fields: dict[str, Any], tmp_path: Path) -> None:
    if fields.get("architectures") == ["NomicDualEncoder"]:
        with pytest.raises(SpecError, match="architectures"):  # it is the text model's importer that says so
            import_checkpoint(changed(case, tmp_path, **fields))
        return
    assert_refused(case, tmp_path, **fields)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["vit_pooler", "clip_vision", "siglip_vision", "dinov3_rope"])
def test_words_are_nothing_to_a_vision_model(case: str, tmp_path: Path) -> None:
    text = import_checkpoint(changed(case, tmp_path)).text(tmp_path)
    assert import_checkpoint(changed(case, tmp_path, tie_word_embeddings=True)).text(tmp_path) == text


@pytest.mark.golden
@pytest.mark.parametrize("case", ["vit_pooler", "dinov2_gelu", "dinov3_rope"])
def test_a_size_may_be_a_number_or_a_pair(case: str, tmp_path: Path) -> None:
    folder = changed(case, tmp_path)
    text = import_checkpoint(folder).text(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for field in ("image_size", "patch_size"):
        config[field] = [config[field], config[field]]
    (folder / "config.json").write_text(json.dumps(config))
    assert import_checkpoint(folder).text(tmp_path) == text


@pytest.mark.golden
@pytest.mark.parametrize(
    ("case", "field", "value"),
    [
        ("vit_pooler", "layer_norm_eps", "1.0e-12"), ("vit_pooler", "hidden_act", "activation: gelu}"),
        ("dinov2_gelu", "layer_norm_eps", "1.0e-06"), ("dinov2_gelu", "mlp_ratio", "ffn: 192"),
        ("dinov2_reg_gelu", "num_register_tokens", "count: 4"), ("dinov3_rope", "rope_theta", "theta: 100.0"),
        ("dinov3_rope", "num_register_tokens", "leading: 1"), ("clip_vision", "hidden_act", "quick_gelu"),
        ("siglip_vision", "hidden_act", "gelu_tanh"), ("siglip_vision", "vision_use_head", "head.probe"),
        ("nomic_vision_rope", "n_inner", "ffn: 256"), ("nomic_vision_rope", "norm_mlp", "norm: false"),
        ("nomic_vision_rope", "use_rotary_pos_emb", "Wqkv"),
    ],
)  # fmt: skip
def test_what_a_configuration_leaves_out_is_what_its_class_says(
    case: str, field: str, value: str, tmp_path: Path
) -> None:
    assert value in import_checkpoint(changed(case, tmp_path, **{field: ...})).text(tmp_path)


@pytest.mark.golden
def test_the_default_patch_is_that_of_the_class(tmp_path: Path) -> None:
    fields = {"patch_size": ..., "image_size": 112}
    for case, size in (("vit_pooler", 16), ("dinov2_gelu", 14), ("dinov2_reg_gelu", 16), ("clip_vision", 32)):
        (tmp_path / case).mkdir()
        text = import_checkpoint(changed(case, tmp_path / case, **fields)).text(tmp_path)
        assert f"patch: [{size}, {size}]" in text


PREFIXES = [
    ("vit_pooler", "vit."), ("dinov2_gelu", "dinov2."), ("dinov2_reg_swiglu", "dinov2_with_registers."),
    ("clip_vision", "vision_model."), ("siglip_vision", "vision_model."),
]  # fmt: skip


@pytest.mark.golden
@pytest.mark.parametrize(("case", "prefix"), PREFIXES)
def test_hub_names_and_what_else_is_in_the_file(case: str, prefix: str, tmp_path: Path) -> None:
    """A prefix in front of all names, a buffer of position ids, the head of another class: the numbers stay."""
    folder = changed(case, tmp_path)
    oracle = Oracle(folder_of(case, folder))
    tensors = {f"{prefix}{name}": array for name, array in st.load_file(folder / "model.safetensors").items()}
    if case in ("clip_vision", "siglip_vision"):
        tensors[f"{prefix}embeddings.position_ids"] = np.arange(10)[None]
    else:
        tensors |= {"classifier.weight": np.ones((3, 4), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    st.save_file(tensors, folder / "model.safetensors")
    checks = check_case(oracle, "ort-cpu")
    assert checks
    assert all(check.good for check in checks), checks


def folder_of(case: str, folder: Path) -> Path:
    """The copy of a case with its reference beside it."""
    (folder / "ref.npz").write_bytes((case_folders()[case] / "ref.npz").read_bytes())
    return folder


@pytest.mark.golden
def test_a_vit_without_a_pooler_has_no_pooled_output(tmp_path: Path) -> None:
    folder = changed("vit_pooler", tmp_path)
    tensors = {n: a for n, a in st.load_file(folder / "model.safetensors").items() if not n.startswith("pooler.")}
    st.save_file(tensors, folder / "model.safetensors")
    model = make(folder, "ort-cpu", tmp_path)
    pixels = np.random.default_rng(0).standard_normal((1, 3, 24, 24)).astype(np.float32)
    assert list(model.run("encode", {"pixel_values": pixels})) == ["last_hidden_state"]


@pytest.mark.golden
def test_a_pooler_may_have_another_width(tmp_path: Path) -> None:
    folder = changed("vit_pooler", tmp_path, pooler_output_size=20)
    tensors = st.load_file(folder / "model.safetensors")
    tensors |= {f"pooler.dense.{part}": tensors[f"pooler.dense.{part}"][:20] for part in ("weight", "bias")}
    st.save_file(tensors, folder / "model.safetensors")
    oracle = Oracle(folder_of("vit_pooler", folder))
    got = make(folder, "ort-cpu", tmp_path).run("encode", oracle.inputs("b2"))
    np.testing.assert_allclose(got["pooler_output"], oracle.expected("b2")["pooler_output"][:, :20], atol=1e-4)


@pytest.mark.golden
def test_no_registers_at_all(tmp_path: Path) -> None:
    """HuggingFace saves a tensor of no rows then."""
    folder = changed("dinov2_reg_gelu", tmp_path, num_register_tokens=0)
    tensors = st.load_file(folder / "model.safetensors")
    st.save_file(
        tensors | {"embeddings.register_tokens": np.zeros((1, 0, 36), np.float32)}, folder / "model.safetensors"
    )
    feeds = Oracle(folder_of("dinov2_reg_gelu", folder)).inputs("b2")
    with_none = make(folder, "ort-cpu", tmp_path).run("encode", feeds)
    assert with_none["last_hidden_state"].shape == (2, 10, 36)
    (tmp_path / "plain").mkdir()
    fields = {"model_type": "dinov2", "architectures": ["Dinov2Model"], "num_register_tokens": ...}
    config = {k: v for k, v in (json.loads((folder / "config.json").read_text()) | fields).items() if v is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    st.save_file({n: a for n, a in tensors.items() if "register" not in n}, folder / "model.safetensors")
    without = make(folder, "ort-cpu", tmp_path / "plain").run("encode", feeds)
    for name, array in without.items():
        np.testing.assert_array_equal(with_none[name], array)


@pytest.mark.golden
def test_siglip_without_its_head(tmp_path: Path) -> None:
    folder = changed("siglip_vision", tmp_path, vision_use_head=False)
    model = make(folder, "ort-cpu", tmp_path)
    oracle = Oracle(folder_of("siglip_vision", folder))
    got = model.run("encode", oracle.inputs("b2"))
    assert list(got) == ["last_hidden_state"]
    assert not oracle.mismatches("b2", got)


@pytest.mark.golden
def test_a_classifier_without_its_weight_is_refused_when_it_is_compiled(tmp_path: Path) -> None:
    folder = changed("vit_pooler", tmp_path, architectures=["ViTForImageClassification"])
    (tmp_path / "model.yaml").write_text(import_checkpoint(folder).text(tmp_path))
    with pytest.raises(WeightsError, match=r"classifier\.weight"):
        compile_file(tmp_path / "model.yaml", Request())


@pytest.mark.golden
@pytest.mark.parametrize(("gate", "function"), [("swiglu", "silu"), ("geglu", "gelu"), ("glu", "sigmoid")])
def test_nomic_gates(gate: str, function: str, tmp_path: Path) -> None:
    text = import_checkpoint(changed("nomic_vision_rope", tmp_path, activation_function=gate)).text(tmp_path)
    assert text.count(f"activation: {function}") == 2


@pytest.mark.golden
def test_nomic_with_a_plain_mlp_and_registers(tmp_path: Path) -> None:
    """What the published code does with these options, written out: positions of patches only, erf GELU, no biases."""
    folder = changed(
        "nomic_vision_norope", tmp_path, activation_function="gelu", learned_pos_embedding=True, register_tokens=2,
        no_embed_class=True, n_layer=1, n_inner=40, mlp_fc1_bias=False, mlp_fc2_bias=False, qkv_proj_bias=False,
        patch_embed_bias=False,
    )  # fmt: skip
    rng, norms = np.random.default_rng(2), ("layers.0.norm1", "layers.0.norm2", "selector.norm1")
    shapes = {
        "embeddings.proj.weight": (32, 147), "embeddings.cls_token": (1, 1, 32), "embeddings.reg_token": (1, 2, 32),
        "embeddings.pos_embed": (1, 9, 32), "embeddings.mask_token": (1, 32),
        **{f"{name}.{part}": (32,) for name in norms for part in ("weight", "bias")},
        "layers.0.attn.Wqkv.weight": (96, 32), "layers.0.attn.out_proj.weight": (32, 32),
        **{f"{name}.mlp.fc1.weight": (40, 32) for name in ("layers.0", "selector")},
        **{f"{name}.mlp.fc2.weight": (32, 40) for name in ("layers.0", "selector")},
        "selector.attn.latent": (1, 1, 32), "selector.attn.Wq.weight": (32, 32), "selector.attn.Wkv.weight": (64, 32),
        "selector.attn.out_proj.weight": (32, 32),
    }  # fmt: skip
    t = {n: (0.3 * rng.standard_normal(s)).astype(np.float32) for n, s in shapes.items()}
    st.save_file(t, folder / "model.safetensors")
    model = make(folder, "ort-cpu", tmp_path)
    pixels = rng.standard_normal((2, 3, 21, 21)).astype(np.float32)
    got = model.run("encode", {"pixel_values": pixels})

    def norm(x: Array, name: str) -> Array:
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-3)
        return (x - x.mean(-1, keepdims=True)) / spread * t[f"{name}.weight"] + t[f"{name}.bias"]

    def attend(q: Array, k: Array, v: Array, name: str) -> Array:
        q, k, v = (a.reshape(2, -1, 2, 16).transpose(0, 2, 1, 3) for a in (q, k, v))
        weights = np.exp(q @ k.swapaxes(2, 3) / 4)
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        return mixed.transpose(0, 2, 1, 3).reshape(2, -1, 32) @ t[f"{name}.attn.out_proj.weight"].T

    def mlp(x: Array, name: str) -> Array:
        return apply("gelu", x @ t[f"{name}.mlp.fc1.weight"].T) @ t[f"{name}.mlp.fc2.weight"].T

    patches = pixels.reshape(2, 3, 3, 7, 3, 7).transpose(0, 2, 4, 1, 3, 5).reshape(2, 9, 147)
    patches = patches @ t["embeddings.proj.weight"].T + t["embeddings.pos_embed"]
    front = np.concatenate([t["embeddings.cls_token"], t["embeddings.reg_token"]], axis=1)
    x = np.concatenate([np.repeat(front, 2, axis=0), patches], axis=1)
    q, k, v = np.split(norm(x, "layers.0.norm1") @ t["layers.0.attn.Wqkv.weight"].T, 3, axis=-1)
    x = x + attend(q, k, v, "layers.0")
    x = x + mlp(norm(x, "layers.0.norm2"), "layers.0")
    k, v = np.split(x @ t["selector.attn.Wkv.weight"].T, 2, axis=-1)
    probe = np.repeat(t["selector.attn.latent"], 2, axis=0) @ t["selector.attn.Wq.weight"].T
    pooled = attend(probe, k, v, "selector")
    selected = mlp(norm(pooled, "selector.norm1"), "selector")
    want = {
        "trunk_hidden_state": x, "cls_pooled": x[:, 0], "last_hidden_state": pooled + selected,
        "image_embedding": (x + selected)[:, 0],
    }  # fmt: skip
    assert list(got) == list(want)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, atol=2e-5, err_msg=name)


@pytest.mark.golden
def test_nomic_vision_as_it_is_published(tmp_path: Path) -> None:
    """All that the hub's configuration says beside what the oracle has."""
    published = {
        "attn_pdrop": 0.0, "bos_token_id": 50256, "drop_path_rate": 0.0, "embd_pdrop": 0.0, "eos_token_id": 50256,
        "fused_bias_fc": False, "fused_dropout_add_ln": False, "hidden_features_scaling_factor": 1.0,
        "initializer_range": 0.02, "layer_scale": False, "layer_scale_init": None, "mask_token": False,
        "n_positions": 0, "parallel_block": False, "parallel_block_tied_norm": False, "patch_dropout": 0,
        "prepre_layernom": False, "reorder_and_upcast_attn": False, "resid_pdrop": 0.0, "rotary_emb_base": 10000,
        "rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "rotary_scaling_factor": None,
        "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True, "sinusoidal_pos_embedding": False,
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_type": "cls_index", "summary_use_proj": True, "tie_word_embeddings": False, "type_vocab_size": 2,
        "use_cache": True, "use_flash_attn": True, "use_rms_norm": False, "use_xentropy": True, "vocab_size": 0,
    }  # fmt: skip
    text = import_checkpoint(changed("nomic_vision_rope", tmp_path)).text(tmp_path)
    assert import_checkpoint(changed("nomic_vision_rope", tmp_path, **published)).text(tmp_path) == text
