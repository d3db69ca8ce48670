from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.errors import SpecError
from flowc.importers import import_checkpoint
from flowc.ir.core.elementwise import apply
from flowc.weights import open_checkpoint
from tests.importers.refusals import assert_refused, changed
from tests.oracle_io import Array, case_folders
from tests.parity.harness import Model

st: Any = safetensors.numpy  # its types are partly unknown

FAMILIES = ("bert", "roberta", "mpnet", "distilbert", "nomic_bert", "modernbert")


def _cases() -> list[str]:
    return sorted(
        name
        for name, folder in case_folders().items()
        if (folder / "config_legacy.json").is_file()
        and json.loads((folder / "case.json").read_text())["family"] in FAMILIES
    )


@pytest.mark.golden
@pytest.mark.parametrize("case", _cases())
def test_both_layouts_of_a_configuration_give_one_spec(case: str, tmp_path: Path) -> None:
    new = import_checkpoint(changed(case, tmp_path)).text(tmp_path)
    (tmp_path / "config_legacy.json").replace(tmp_path / "config.json")
    assert import_checkpoint(tmp_path).text(tmp_path) == new


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("bert_base_like", {"hidden_act": "prelu"}),
    ("bert_base_like", {"is_decoder": True}),
    ("bert_base_like", {"add_cross_attention": True}),
    ("bert_base_like", {"position_embedding_type": "relative_key"}),
    ("bert_base_like", {"embedding_size": 24}),
    ("bert_base_like", {"num_attention_heads": 5}),
    ("bert_base_like", {"architectures": ["BertForQuestionAnswering"]}),
    ("bert_base_like", {"architectures": ["BertLMHeadModel"]}),
    ("roberta_base_like", {"position_embedding_type": "relative_key_query"}),
    ("roberta_base_like", {"is_decoder": True}),
    ("mpnet_base_like", {"relative_attention_num_buckets": 16}),
    ("mpnet_base_like", {"hidden_act": "relu6"}),
    ("distilbert_base_like", {"activation": "swiglu"}),
    ("distilbert_base_like", {"architectures": ["DistilBertForMultipleChoice"]}),
    ("nomic_bert_text", {"rope_parameters": {"rope_type": "ntk", "rope_theta": 1e3}}),
    ("nomic_bert_text", {"num_experts": 8}),
    ("modernbert_base_like", {"hidden_activation": "laplace"}),
    ("modernbert_base_like", {"layer_types": ["full_attention", "chunked_attention"] * 2}),
    ("modernbert_base_like", {"layer_types": ["full_attention"]}),
    ("modernbert_base_like", {"attention_sinks": True}),
    ("modernbert_base_like", {"local_attention": -1}),
]
HUB: list[dict[str, Any]] = [
    {"rotary_scaling_factor": 2.0},
    {"rotary_emb_scale_base": 512},
    {"rotary_emb_fraction": 0.0},
    {"activation_function": "gelu"},
    {"prenorm": True},
    {"causal": True},
    {"use_rms_norm": True},
    {"parallel_block": True},
    {"scale_attn_weights": False},
    {"num_experts": 8},
]


@pytest.mark.golden
@pytest.mark.parametrize(("case", "fields"), REFUSED, ids=[f"{c}-{next(iter(f))}" for c, f in REFUSED])
def test_what_changes_the_numbers_is_refused(case: str, fields: dict[str, Any], tmp_path: Path) -> None:
    assert_refused(case, tmp_path, **fields)


@pytest.mark.golden
@pytest.mark.parametrize("fields", HUB, ids=[next(iter(f)) for f in HUB])
def test_hub_nomic_options_are_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    folder = changed("nomic_bert_text", tmp_path)
    config = json.loads((folder / "config_legacy.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    with pytest.raises(SpecError, match=f"'{next(iter(fields))}'"):
        import_checkpoint(folder)


@pytest.mark.golden
def test_hub_nomic_as_it_is_published(tmp_path: Path) -> None:
    """All that nomic-embed-text-v1.5 says beside the sizes; the rounded n_inner and vocabulary."""
    folder = changed("nomic_bert_text", tmp_path)
    config = json.loads((folder / "config_legacy.json").read_text())
    config |= {
        "architectures": ["NomicBertModel"], "attn_pdrop": 0.0, "dense_seq_output": True, "embd_pdrop": 0.0,
        "fused_bias_fc": True, "fused_dropout_add_ln": True, "max_trained_positions": 2048, "n_inner": 75,
        "pad_vocab_size_multiple": 8, "vocab_size": 100, "parallel_block_tied_norm": False,
        "reorder_and_upcast_attn": False, "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True,
        "split_last_dim": True, "summary_type": "cls_index", "use_flash_attn": True, "use_xentropy": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    imported = import_checkpoint(folder)
    assert imported.family.model["ffn"] == 80
    assert imported.family.model["vocab"] == 104


def built(folder: Path, work: Path) -> Model:
    """A checkpoint imported and built."""
    spec = work / "model.yaml"
    spec.write_text(import_checkpoint(folder).text(work), encoding="utf-8")
    compiled = compile_file(spec, Request())
    build(compiled, work / "out" / "model.onnx", verify="off")
    return Model(compiled, work / "out")


IDS = np.array([[3, 14, 15, 9, 26, 5], [3, 35, 8, 9, 0, 0]])
FEEDS = {"input_ids": IDS, "attention_mask": (IDS != 0).astype(np.int64), "token_type_ids": np.zeros_like(IDS)}


@pytest.mark.golden
def test_gamma_and_beta(tmp_path: Path) -> None:
    """Checkpoints of the first years call a LayerNorm's tensors gamma and beta, and have a position_ids buffer."""
    folder = changed("bert_base_like", tmp_path)
    want = built(folder, tmp_path).run("encode", FEEDS)
    tensors = st.load_file(folder / "model.safetensors")
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): a
        for n, a in tensors.items()
    }
    assert old.keys() != tensors.keys()
    st.save_file({**old, "embeddings.position_ids": np.arange(64)[None]}, folder / "model.safetensors")
    (tmp_path / "old").mkdir()
    got = built(folder, tmp_path / "old").run("encode", FEEDS)
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)


def with_tensors(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Adds random tensors to a checkpoint."""
    rng = np.random.default_rng(5)
    more = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    st.save_file({**st.load_file(folder / "model.safetensors"), **more}, folder / "model.safetensors")
    return more


def linear(name: str, out: int, width: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    """Shapes of a linear's tensors."""
    return {f"{name}.weight": (out, width), **({f"{name}.bias": (out,)} if bias else {})}


def dense(x: Array, tensors: dict[str, Array], name: str) -> Array:
    y = x @ tensors[f"{name}.weight"].T
    return y + tensors[f"{name}.bias"] if f"{name}.bias" in tensors else y


@pytest.mark.golden
@pytest.mark.parametrize(
    ("case", "name", "first", "activation", "last"),
    [
        ("bert_base_like", "Bert", "pooler.dense", "tanh", "classifier"),
        ("roberta_base_like", "Roberta", "classifier.dense", "tanh", "classifier.out_proj"),
        ("mpnet_base_like", "MPNet", "classifier.dense", "tanh", "classifier.out_proj"),
        ("distilbert_base_like", "DistilBert", "pre_classifier", "relu", "classifier"),
    ],
)
def test_sequence_classifier(case: str, name: str, first: str, activation: Any, last: str, tmp_path: Path) -> None:
    folder = changed(case, tmp_path, architectures=[f"{name}ForSequenceClassification"])
    width = json.loads((folder / "config.json").read_text()).get("hidden_size", 48)
    tensors = with_tensors(folder, {**linear(first, width, width), **linear(last, 3, width)})
    got = built(folder, tmp_path).run("encode", FEEDS)
    h = apply(activation, dense(got["last_hidden_state"][:, 0], tensors, first))
    np.testing.assert_allclose(got["logits"], dense(h, tensors, last), rtol=1e-4, atol=1e-4)
    assert np.ptp(got["logits"]) > 0.1


@pytest.mark.golden
def test_token_classifier(tmp_path: Path) -> None:
    folder = changed("bert_base_like", tmp_path, architectures=["BertForTokenClassification"])
    tensors = with_tensors(folder, linear("classifier", 5, 48))
    got = built(folder, tmp_path).run("encode", FEEDS)
    want = dense(got["last_hidden_state"], tensors, "classifier")
    np.testing.assert_allclose(got["logits"], want, rtol=1e-5, atol=1e-5)


@pytest.mark.golden
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_modernbert_classifier(pooling: str, tmp_path: Path) -> None:
    folder = changed(
        "modernbert_base_like", tmp_path, architectures=["ModernBertForSequenceClassification"],
        classifier_pooling=pooling,
    )  # fmt: skip
    head = {**linear("head.dense", 48, 48, bias=False), "head.norm.weight": (48,)}
    t = with_tensors(folder, {**head, **linear("classifier", 3, 48)})
    got = built(folder, tmp_path).run("encode", FEEDS)
    hidden, mask = got["last_hidden_state"], FEEDS["attention_mask"][..., None]
    x = hidden[:, 0] if pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
    h = apply("gelu", dense(x.astype(np.float32), t, "head.dense"))
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5) * t["head.norm.weight"]
    np.testing.assert_allclose(got["logits"], dense(h, t, "classifier"), rtol=1e-4, atol=1e-4)


@pytest.mark.golden
def test_untied_masked_lm_head(tmp_path: Path) -> None:
    """An own decoder and its own bias count, whatever the configuration says: HuggingFace ties none that differ."""
    folder = changed("xlm_roberta_mlm", tmp_path)
    more = with_tensors(folder, linear("lm_head.decoder", 85, 48))
    (tmp_path / "b").mkdir()
    again = built(folder, tmp_path / "b").run("encode", FEEDS)["logits"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    (tmp_path / "c").mkdir()
    untied = built(folder, tmp_path / "c").run("encode", FEEDS)
    np.testing.assert_array_equal(again, untied["logits"])
    tensors = {**float32_tensors(folder), **more}
    h = apply("gelu", dense(untied["last_hidden_state"], tensors, "lm_head.dense"))
    centred = h - h.mean(-1, keepdims=True)
    h = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    h = h * tensors["lm_head.layer_norm.weight"] + tensors["lm_head.layer_norm.bias"]
    np.testing.assert_allclose(untied["logits"], dense(h, tensors, "lm_head.decoder"), rtol=1e-4, atol=1e-4)


def float32_tensors(folder: Path) -> dict[str, Array]:
    checkpoint = open_checkpoint(folder)
    return {n: checkpoint.read(n, None).astype(np.float32) for n in checkpoint.tensors()}


def sentence_transformers(folder: Path, *kinds: str, **pooling: Any) -> Path:
    """Makes a folder one of sentence-transformers."""
    modules = [{"idx": i, "name": str(i), "path": f"{i}_{k}" if i else "", "type": f"sentence_transformers.models.{k}"}
               for i, k in enumerate(kinds)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 48, **pooling}))
    return folder


@pytest.mark.golden
@pytest.mark.parametrize(
    ("kinds", "pooling", "output"),
    [
        (
            ("Transformer", "Pooling"),
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
            "mean_pooled",
        ),
        (("Transformer", "Pooling", "Normalize"), {"pooling_mode_mean_tokens": True}, "mean_pooled_l2"),
        (("Transformer", "Pooling", "Normalize"), {"pooling_mode_cls_token": True}, "cls_pooled_l2"),
        (("Transformer", "Pooling"), {"pooling_mode_lasttoken": True}, "last_pooled"),
        (("Transformer", "Pooling"), {"pooling_mode": "mean"}, "mean_pooled"),
        (("Transformer", "Pooling"), {"pooling_mode": ["cls"]}, "cls_pooled"),
    ],
)
def test_sentence_transformers_folder(
    kinds: tuple[str, ...], pooling: dict[str, Any], output: str, tmp_path: Path
) -> None:
    folder = sentence_transformers(changed("bert_base_like", tmp_path), *kinds, **pooling)
    got = built(folder, tmp_path).run("encode", FEEDS)
    assert list(got) == ["last_hidden_state", output, "pooler_output"]


@pytest.mark.golden
@pytest.mark.parametrize(
    ("kinds", "pooling", "named"),
    [
        (("Transformer", "Pooling", "Dense"), {"pooling_mode_mean_tokens": True}, "Dense"),
        (("Transformer", "Pooling"), {"pooling_mode_weightedmean_tokens": True}, "pooling_mode_weightedmean_tokens"),
        (("Transformer", "Pooling"), {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "2 ways"),
        (("Transformer", "Pooling"), {"pooling_mode": ["cls", "mean"]}, "2 ways"),
        (("Transformer", "Pooling"), {"pooling_mode": {"how": "mean"}}, "pooling_mode"),
        (("Transformer", "Pooling"), {}, "0 ways"),
        (("Transformer", "Normalize"), {}, "Normalize"),
    ],
)
def test_what_a_sentence_transformers_folder_may_not_ask(
    kinds: tuple[str, ...], pooling: dict[str, Any], named: str, tmp_path: Path
) -> None:
    folder = sentence_transformers(changed("bert_base_like", tmp_path), *kinds, **pooling)
    with pytest.raises(SpecError, match=named):
        import_checkpoint(folder)


@pytest.mark.golden
def test_poolers_by_name(tmp_path: Path) -> None:
    folder = changed("bert_base_like", tmp_path)
    with pytest.raises(SpecError, match="no pooler 'meen'") as caught:
        import_checkpoint(folder, ["meen"])
    assert [d.code for d in caught.value.diagnostics] == ["unknown-pooler"]
    text = import_checkpoint(folder, ["cls", "mean_l2", "cls"]).text(tmp_path)
    assert text.count("- pool:") == 2
    with pytest.raises(SpecError, match="poolers are for text encoders"):
        import_checkpoint(case_folders()["llama_gqa4_bias"], ["mean"])


@pytest.mark.golden
@pytest.mark.parametrize(
    "case", ["mpnet_mlm", "xlm_roberta_mlm", "bert_mlm_prefix", "distilbert_mlm", "modernbert_mlm_bias"]
)
def test_a_trunk_that_names_its_masked_lm_class_is_a_trunk(case: str, tmp_path: Path) -> None:
    """As sentence-transformers publishes all-mpnet-base-v2."""
    folder = changed(case, tmp_path)
    heads = ("lm_head.", "cls.", "vocab_", "head.", "decoder.")
    trunk = {n: t for n, t in st.load_file(folder / "model.safetensors").items() if not n.startswith(heads)}
    st.save_file(trunk, folder / "model.safetensors")
    text = import_checkpoint(folder).text(tmp_path)
    assert "mlm_head" not in text
    assert "output: logits" not in text


@pytest.mark.golden
def test_a_bias_of_the_decoder_that_differs_is_the_one_that_counts(tmp_path: Path) -> None:
    folder = changed("xlm_roberta_mlm", tmp_path)
    tensors = st.load_file(folder / "model.safetensors")
    st.save_file({**tensors, "lm_head.decoder.bias": tensors["lm_head.bias"] + 1}, folder / "model.safetensors")
    assert "decoder_bias: lm_head.decoder.bias" in import_checkpoint(folder).text(tmp_path)
