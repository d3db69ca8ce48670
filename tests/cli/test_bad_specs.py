"""Specs that are wrong: each says its code, points at the fault, and ends with 2.

«...» marks what the carets must stand under.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from flowc.codes import CODES
from flowc.frontend.builder import MAX_PORTS
from flowc.frontend.expand import MAX_STAGES
from flowc.ir.graph import Graph
from flowc.passes import pipeline
from flowc.passes.pipeline import Audit, Context
from tests.cases.reading import cases
from tests.cli.calling import BASE, done, flowc, write_spec
from tests.oracle_io import ROOT
from tests.text.test_errors import CODE

# code, what to replace in BASE, by what, a part of the message
CASES = [
    # the top level
    ("unknown-key", "weights: {r", "«weigths»: {}\nweights: {r", "did you mean 'weights'?"),
    ("bad-version", "flowc: 1", "flowc: «2»", "`flowc: 1`"),
    ("bad-version", "flowc: 1", "flowc: «true»", "`flowc: 1`"),
    ("missing-key", "flow:", "name:", "needs `flow:`"),
    ("bad-type", "weights: {random: 0}", "weights: «3»", "'weights' must be a mapping"),
    ("bad-type", "weights: {random: 0}", "weights: {random: «-1»}", "a seed"),
    ("bad-type", "weights: {random: 0}", "weights: {random: 0, allow_unused: «x»}", "a list of patterns"),
    ("unknown-key", "weights: {random: 0}", "weights: {«fil»: x}", "did you mean 'file'?"),
    ("bad-value", "weights: {random: 0}", "weights: «{random: 0, file: x}»", "not both"),
    ("bad-type", "flowc: 1", "flowc: 1\nname: «[a]»", "'name' must be a text"),
    ("bad-value", "flowc: 1", "flowc: 1\nkind: «encodr»", "did you mean 'encoder'?"),
    ("bad-type", "norm_eps: 1e-5", "norm_eps: «{a: 1}»", "model symbol 'norm_eps'"),
    ("bad-value", "norm_eps: 1e-5", "norm_eps: 1e-5, «x-y»: 1", "cannot be the name of a model symbol"),
    ("bad-value", "flowc: 1", "flowc: 1\noutput: «a b»", "cannot be the name of an output"),
    ("bad-value", "context_length: 64", "context_length: «-1»", "'context_length' must be a whole number, from 1"),
    ("bad-value", "context_length: 64", "context_length: «9007199254740991»", "to 2147483647"),
    ("bad-value", "context_length: 64", "context_length: «[64]»", "must be a whole number"),
    ("bad-value", "context_length: 64", "eos: «end»", "'eos' must be a token id, or a list of them"),
    ("bad-value", "context_length: 64", "eos: «[1, -2]»", "'eos' must be a token id"),
    # inputs, names, expectations
    ("bad-value", "flowc: 1", "flowc: 1\ninputs: {ids: «'int63[a]'»}", "must be a type such as int64["),
    ("bad-value", "flowc: 1", "flowc: 1\ninputs: {ids: «\"int64[a, $hiden]\"»}", "must be a type such as"),
    ("bad-value", "flowc: 1", "flowc: 1\ninputs: {ids: «\"int64[0]\"»}", "must be a type such as"),
    ("bad-value", "flowc: 1", 'flowc: 1\ninputs: {«a b»: "int64[a, b]"}', "cannot be the name of an input"),
    ("bad-type", "flowc: 1", "flowc: 1\ninputs: «[a]»", "'inputs' must be a mapping"),
    (
        "unused-input",
        "flowc: 1",
        'flowc: 1\ninputs: {ids: "int64[batch_size, sequence_length]", «atention_mask»: "int64[batch_size, total]"}',
        "did you mean 'attention_mask'?",
    ),
    ("bad-shape", "flowc: 1", 'flowc: 1\ninputs: {ids: "float32[batch_size, sequence_length]"}', "stage 'embed'"),
    ("unknown-port", "flowc: 1", "flowc: 1\nrename: {«logit»: scores}", "did you mean 'logits'?"),
    ("bad-type", "flowc: 1", "flowc: 1\nrename: {logits: «7»}", "maps names to names"),
    ("duplicate-output", "flowc: 1", "flowc: 1\nrename: {logits: «input_ids»}", "would be named 'input_ids'"),
    ("unknown-pass", "flowc: 1", "flowc: 1\nexpect: {«no_such»: all}", "there is no pass 'no_such'"),
    ("bad-value", "flowc: 1", "flowc: 1\nexpect: {x: «some»}", "`all` times, or a number"),
    ("unused-symbol", "norm_eps: 1e-5", "norm_eps: 1e-5, windwo: «8»", "nothing reads the model symbol 'windwo'"),
    # flows
    ("empty-flow", BASE.partition("flow:")[2], " «[]»\n", "at least one stage"),
    ("empty-flow", BASE.partition("flow:")[2], " «{}»\n", "at least one of them"),
    ("unknown-key", BASE.partition("flow:")[2], " {«prefil»: [embed: e]}\n", "did you mean 'prefill'?"),
    ("bad-type", BASE.partition("flow:")[2], " {decode: «7»}\n", "must be a list of stages"),
    ("bad-type", BASE.partition("flow:")[2], " «7»\n", "'flow' must be a list of stages"),
    ("wrong-phase", BASE.partition("flow:")[2], " {decode: [llama_decoder: l.0], encode: «[embed: e]»}\n", "never be"),
    # stages and fields
    ("bad-stage", "  - gather_last_token", "  - «7»", "a stage is written"),
    ("bad-stage", "  - gather_last_token", "  - «{rms_norm: a, lm_head: b}»", "one stage an item"),
    ("bad-stage", "  - gather_last_token", "  - rope_tables: «7»", "takes fields"),
    ("unknown-stage", "  - rms_norm:", "  - «rmsnorm»:", "did you mean 'rms_norm'?"),
    ("unknown-field", "{theta: 10000}", "{theta: 10000, «hed_dim»: 4}", "did you mean 'head_dim'?"),
    ("missing-field", "rope_tables: {theta: 10000}", "«rope_tables»: {head_dim: 4}", "Base of the frequencies"),
    ("missing-field", "norm_eps: 1e-5, ", "", "or give the model symbol 'norm_eps'"),
    ("missing-field", 'llama_decoder: "layers.{i}"', "«llama_decoder»: layer", "holds no layer number"),
    ("missing-field", "lm_head: {tied: true}", "«lm_head»", "needs `tied: true` or a `weight`"),
    ("bad-value", "lm_head: {tied: true}", "«lm_head»: {tied: true, weight: w}", "not both"),
    ("bad-value", "{theta: 10000}", "{theta: «fast»}", "must be a number"),
    ("bad-value", "{theta: 10000}", "{theta: «0»}", "must be greater than 0"),
    ("bad-value", "{theta: 10000}", "{theta: «true»}", "must be a number"),
    ("bad-value", "{theta: 10000}", "{theta: 10000, type: «liner»}", "did you mean 'linear'?"),
    ("bad-value", "{theta: 10000}", "{theta: 10000, short_factor: «3»}", "must be a list"),
    ("bad-value", "count: 2", "count: «2.5»", "must be a whole number"),
    ("bad-value", "count: 2", "count: «9007199254740992»", "below 2^53"),
    ("bad-value", "heads: 2, kv", "heads: «two», kv", "model symbol 'heads'"),
    ("bad-value", "lm_head: {tied: true}", "lm_head: {tied: «1»}", "true or false"),
    # references
    ("bad-value", "count: 2", "count: «$lairs»", "refers to '$lairs'"),
    ("bad-value", "count: 2", "count: «$headds»", "did you mean 'heads'?"),
    ("bad-value", "norm.weight", "«'norm.{j}.weight'»", "refers to '{j}'"),
    ("bad-value", "norm.weight", "«$norm[0»", "belongs to no reference"),
    ("bad-value", "norm.weight", "«norm.$hidden»", "write `{name}`"),
    ("bad-value", "norm.weight", "«'norm.{hidden + 1}'»", "belongs to no reference"),
    ("bad-value", "norm.weight", "«'norm.{norm_eps}'»", "neither a whole number nor a text"),
    ("bad-value", "count: 2", "count: «'$heads[0]'»", "which is not a list"),
    ("bad-value", "hidden: 8,", "n: [1, 2], hidden: 8,", "takes entry 9 of '$n', which has 2 entries"),
    ("bad-value", "norm.weight", "«''»", "the name of a weight is empty"),
    ("bad-value", "  - gather_last_token", "  - «output»: a b", "cannot be the name of an output"),
    # what a flow leaves and reads
    ("undefined-rope", 'llama_decoder: "layers.{i}"', 'llama_decoder: {prefix: "layers.{i}", rope: «rop»}', "'rope'?"),
    ("undefined-rope", "  - rope_tables: {theta: 10000}\n", "", "a `rope_tables` stage must come first"),
    ("duplicate-rope", "  - rms_norm", "  - «rope_tables»: {theta: 1e6}\n  - rms_norm", "another `name`"),
    ("undefined-slot", "  - gather_last_token", "  - «residual_add»", "there is no residual to add"),
    (
        "undefined-slot",
        "flow:\n  - embed: embed.weight",
        "inputs: {hidden: 'float32[batch_size, sequence_length, 8]'}\nflow:",
        "no `embed` stage",
    ),
    ("residual-twice", "  - gather_last_token", "  - residual_save\n  - «residual_save»", "not added yet"),
    (
        "bad-shape",
        "  - gather_last_token",
        "  - residual_save\n  - linear: {weight: w, out: 9}\n  - «residual_add»\n  - linear: {weight: v, out: 8}",
        "the saved residual is",
    ),
    ("duplicate-output", "  - gather_last_token", "  - output: a\n  - «output»: a", "'a' a second time"),
    ("duplicate-cache", "  - gather_last_token", "  - «llama_decoder»: layers.1", "the cache of layer 1 again"),
    ("wrong-phase", "  - gather_last_token", "  - «bind_decode_inputs»: {layers: 2}", "'bind_decode_inputs'"),
    ("conflicting-shapes", "gather_last_token", "linear: {weight: «layers.0.mlp.up_proj.weight», out: 8}", "[8, 8]"),
    ("unknown-size", "  - gather_last_token", "  - linear: «wide»", "shape [?, 8] of weight 'wide' is not known"),
    ("unknown-size", "hidden: 8, ", "", "shape [32, ?] of weight 'embed.weight' is not known"),
    ("missing-field", "kv_heads: 1, ", "", "kv_heads: Key and value heads; or give the model symbol 'kv_heads'"),
    ("undefined-input", "  - gather_last_token", "  - «input»: image", "which is not declared"),
    # ropes
    ("bad-value", "{theta: 10000}", "{theta: 10000, rotary_dim: 5}", "at most head_dim = 4"),
    (
        "bad-value",
        "{theta: 10000}",
        "{theta: 10000, rotary_dim: 3, type: yarn, original_length: 32}",
        "an even number",
    ),
    ("bad-value", "{theta: 10000}", "{theta: 10000, rotary_dim: 6}", "at most head_dim = 4"),
    ("bad-value", "{theta: 10000}", "{theta: 10000, head_dim: 1000000000000}", "at most 65536"),
    ("bad-value", "{theta: 10000}", "{theta: 1, type: yarn, factor: 2, original_length: 32}", "no finite frequencies"),
    (
        "bad-value",
        "{theta: 10000}",
        "{theta: 1e38, type: llama3, original_length: 32, factor: 1e38, low_freq_factor: 2, high_freq_factor: 2}",
        "no finite frequencies",
    ),
    ("bad-value", "{theta: 10000}", "{theta: 10000, type: longrope, original_length: 32}", "`short_factor` needs 2"),
    ("missing-field", "{theta: 10000}", "{theta: 10000, type: llama3}", "needs `original_length`"),
    ("dynamic-rope", "{theta: 10000}", "{theta: 10000, type: dynamic, original_length: 32}", "--context 32 or less"),
    ("wrong-phase", "rope_tables", "«decode_rope_params»", "belongs in a decode flow"),
    # limits
    ("too-many-stages", "count: 2", "count: 1000000000", f"more than {MAX_STAGES} stages"),
    ("too-many-stages", 'count: 2, body: [llama_decoder: "layers.{i}"]', "count: 1000000000, body: []", "stages"),
    ("too-large", "ffn: 16", "ffn: 1000000000000000", "larger than 1 TiB"),
    ("too-deep", "  - gather_last_token", "  - " + "{sequence: [" * 70 + "output" + "]}" * 70, "nested"),
]  # fmt: skip


def broken(old: str, new: str) -> tuple[str, tuple[int, int] | None]:
    """BASE with one thing replaced, and line and column of the mark."""
    assert old in BASE
    text = BASE.replace(old, new)
    if "n: [1, 2]" in new:
        text = text.replace("count: 2", "count: «'$n[9]'»")
    before, mark, _ = text.partition("«")
    place = (before.count("\n") + 1, len(before) - before.rfind("\n")) if mark else None
    return text.replace("«", "").replace("»", ""), place


@pytest.mark.parametrize(("code", "old", "new", "words"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_a_wrong_spec_is_refused_where_it_is_wrong(code: str, old: str, new: str, words: str, tmp_path: Path) -> None:
    text, place = broken(old, new)
    spec = write_spec(tmp_path, text)
    found = [d for d in flowc("check", spec, "--json").diagnostics() if d["code"] == code]
    shown = flowc("check", spec)
    assert shown.code == 2
    assert shown.stdout == ""
    assert found, shown.stderr
    assert words in shown.stderr
    if place:
        assert place in [(d["line"], d["column"]) for d in found], shown.stderr
        assert f"model.yaml:{place[0]}:{place[1]}" in shown.stderr
        assert "^" in shown.stderr
    built = flowc("build", spec, "-o", tmp_path / "out" / "model.onnx")
    assert built.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.yaml"]


def test_the_spec_that_the_cases_break_is_sound(tmp_path: Path) -> None:
    assert done("check", write_spec(tmp_path)).stdout.startswith("model: decoder, ")


def test_what_a_user_sees_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spec(
        tmp_path,
        BASE.replace("count: 2", "count: $headds").replace(
            "rms_norm: n", "rms_norm: {esp: 1, weight: n}\n  - rms_norm: n"
        ),
    )
    monkeypatch.chdir(tmp_path)
    assert flowc("check", "model.yaml").stderr == (
        "error[bad-value]: field 'count' of stage 'repeat' refers to '$headds', "
        "which is neither a model symbol nor an index\n"
        " --> model.yaml:7:21\n"
        "  |\n"
        '7 |   - repeat: {count: $headds, body: [llama_decoder: "layers.{i}"]}\n'
        "  |                     ^^^^^^^\n"
        "help: did you mean 'heads'?\n"
        "\n"
        "error[unknown-field]: stage 'rms_norm' has no field 'esp'\n"
        " --> model.yaml:8:16\n"
        "  |\n"
        "8 |   - rms_norm: {esp: 1, weight: n}\n"
        "  |                ^^^\n"
        "help: did you mean 'eps'?\n"
    )


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = (
        BASE.replace("tied: true", "tied: 7").replace("rope_tables: {", "rope_tables: {foo: 1, ")
        .replace("gather_last_token", "gather_last").replace("random: 0", "file: absent.safetensors")
    )  # fmt: skip
    called = flowc("build", write_spec(tmp_path, text), "-o", tmp_path / "out" / "m.onnx", "--json")
    codes = [d["code"] for d in called.diagnostics()]
    assert codes == ["missing-file", "unknown-field", "unknown-stage", "bad-value"]
    assert called.code == 2


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("embed: embed.weight", "embed: {weight: embed.weight, vocab: many}", "bad-value"),
        ("{theta: 10000}", "{theta: 10000, type: llama3}", "missing-field"),
        ("- rms_norm", "- linear: {weight: embed.weight, out: 9}\n  - rms_norm", "conflicting-shapes"),
    ],
)
def test_what_follows_from_an_error_is_not_told(old: str, new: str, code: str, tmp_path: Path) -> None:
    called = flowc("check", write_spec(tmp_path, BASE.replace(old, new)), "--json")
    assert [d["code"] for d in called.diagnostics()] == [code]


def test_a_cache_of_absurdly_many_layers(tmp_path: Path) -> None:
    text = BASE.partition("flow:")[0] + "flow: {decode: [bind_decode_inputs: {layers: 1000000000}]}\n"
    called = flowc("check", write_spec(tmp_path, text), "--json")
    assert [d["code"] for d in called.diagnostics()] == ["too-large"]
    assert f"more than {MAX_PORTS} inputs" in called.stdout


def test_stages_nested_as_deeply_as_a_spec_may(tmp_path: Path) -> None:
    nested = "  - " + "sequence: [" * 28 + "gather_last_token" + "]" * 28
    done("check", write_spec(tmp_path, BASE.replace("  - gather_last_token", nested)))


def test_stages_that_fixed_positions_do_not_suit(tmp_path: Path) -> None:
    text = BASE.replace("rope_tables: {", "decode_rope_params: {position: 3, ")
    called = flowc("check", write_spec(tmp_path, text), "--graph", "unified", "--json")
    assert [d["code"] for d in called.diagnostics()] == ["wrong-phase"]


@pytest.mark.parametrize(
    "kind", ["int64[batch_size, 4]", "int64[2, 3]", "int64[a, b]", "int32[batch_size, sequence_length]"]
)
def test_ids_of_any_other_type_than_graphs_take(tmp_path: Path, kind: str) -> None:
    text = BASE.replace("flowc: 1", f"flowc: 1\ninputs: {{ids: '{kind}'}}")
    result = flowc("check", write_spec(tmp_path, text))
    assert result.code == 2
    message = f"error[bad-shape]: the input 'ids' must be int64[batch_size, sequence_length], not {kind}\n"
    assert f"{message} --> {tmp_path / 'model.yaml'}:2:10\n" in result.stderr


def test_a_mask_of_another_type_than_the_stages_take(tmp_path: Path) -> None:
    inputs = "inputs: {ids: 'int64[batch_size, sequence_length]', attention_mask: 'int64[batch_size, sequence_length]'}"
    result = flowc("check", write_spec(tmp_path, BASE.replace("flowc: 1", f"flowc: 1\n{inputs}")))
    assert result.code == 2
    assert "'attention_mask' must be int64[batch_size, total_sequence_length], not int64[batch_size, " in result.stderr


def test_a_symbol_that_only_an_input_reads_is_used(tmp_path: Path) -> None:
    text = """flowc: 1
kind: encoder
model: {columns: 5}
weights: {random: 0}
inputs: {x: 'float32[batch_size, tokens, $columns]'}
flow: [linear: {weight: w, out: 4}]
"""
    assert "float32[batch_size, tokens, 5]" in done("check", write_spec(tmp_path, text)).stdout


def test_what_is_wrong_outside_the_flow_does_not_hide_what_is_wrong_in_it(tmp_path: Path) -> None:
    text = BASE.replace("flowc: 1", "flowc: 1\nbogus: 3\nname: [a]").replace("embed:", "embedd:")
    result = flowc("check", write_spec(tmp_path, text))
    assert result.code == 2
    for code in ("unknown-key", "bad-type", "unknown-stage"):
        assert f"error[{code}]" in result.stderr
    result = flowc("check", write_spec(tmp_path, text.replace("model:", "modle:")))
    assert result.code == 2
    assert "unknown-key" in result.stderr
    assert "unknown-stage" not in result.stderr


def test_ports_can_be_renamed(tmp_path: Path) -> None:
    text = (
        BASE + "rename: {logits: scores, input_ids: ids, present.0.key: new.0.key, past_key_values.0.key: old.0.key}\n"
    )
    graphs = done("check", write_spec(tmp_path, text), "--json").json()["graphs"]
    assert list(graphs["decode"]["inputs"])[:3] == ["ids", "attention_mask", "old.0.key"]
    assert list(graphs["decode"]["outputs"])[:2] == ["scores", "new.0.key"]


def quiet_pass(graph: Graph, context: Context, audit: Audit) -> Graph:
    """A pass that fires once a graph and cannot at another place."""
    audit.fired.append("here")
    audit.missed.append(("there", "it is too small"))
    return graph


@pytest.mark.parametrize(
    ("wanted", "options", "words"),
    [
        ("1", (), ""),
        ("2", (), "was expected to fire 2 times; it fired 1 times in unified, 1 times in prefill"),
        ("all", (), "in unified, there: it is too small"),
        ("1", ("--no-pass", "quiet_pass"), "it was left out"),
    ],
)
def test_expectations(
    wanted: str, options: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "PIPELINE", (quiet_pass,))
    called = flowc("check", write_spec(tmp_path, BASE + f"expect: {{quiet_pass: {wanted}}}\n"), *options)
    assert called.code == (1 if words else 0)
    assert words in called.stderr
    assert ("error[missed-expectation]" in called.stderr) is bool(words)


def test_every_code_has_a_test() -> None:
    here = {
        word
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in (match[0] for match in CODE.finditer(node.value))
    }
    shown = {code for path in cases("errors") for code in re.findall(r"error\[([a-z-]+)\]", path.read_text("utf-8"))}
    assert sorted(set(CODES) - here - shown) == []
