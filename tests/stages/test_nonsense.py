"""Specs whose every part is well formed, and which mean nothing as a whole: refused, not compiled to some graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowc.errors import SpecError
from tests.passes.making import HEAD, LLAMA, compile_text

EMBED = "  - embed: model.embed_tokens.weight\n"
ROPE = "  - rope_tables: {theta: 10000}\n"
TEXTS: dict[str, tuple[str, str]] = {
    "a residual that is never added": (LLAMA.replace(ROPE, ROPE + "  - residual_save\n"), "unused-residual"),
    "a rope for narrower heads": (LLAMA.replace("theta: 10000", "theta: 10000, head_dim: 8"), "bad-shape"),
    "an index that hides a symbol": (LLAMA.replace("body", "index: ffn, body").replace("{i}", "{ffn}"), "bad-value"),
    "an index that is no name": (LLAMA.replace("body", "index: 1 x, body").replace("{i}", "0"), "bad-value"),
    "a number that is never true": (
        LLAMA.replace(ROPE, ROPE + "  - when: {value: 1, then: [zero_beta]}\n"),
        "bad-value",
    ),
    "an epsilon that float32 does not hold": (
        LLAMA.replace("model.norm.weight", "{weight: model.norm.weight, eps: 1e300}"),
        "bad-value",
    ),
    "a cap that float32 rounds to nothing": (LLAMA + "  - logit_softcap: 1e-60\n", "bad-value"),
}


@pytest.mark.parametrize(("text", "code"), TEXTS.values(), ids=TEXTS)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, code: str) -> None:
    assert text != LLAMA
    with pytest.raises(SpecError) as error:
        compile_text(tmp_path, text)
    assert {d.code for d in error.value.diagnostics} == {code}, error.value.render()


def test_a_rope_may_turn_a_part_of_each_head(tmp_path: Path) -> None:
    assert compile_text(tmp_path, LLAMA.replace("theta: 10000", "theta: 10000, rotary_dim: 8"), HEAD).graphs
