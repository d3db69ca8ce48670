from __future__ import annotations

import pytest

from flowc.stages.gemma import GemmaDecoder
from tests.parity.negative import assert_seen, assert_spec_seen

MISTAKES = [
    ("gemma1_mqa", "  - embed_scale\n", "", "the embedding not scaled"),
    ("gemma1_mqa", "- gemma_rms_norm", "- rms_norm", "weight instead of 1 + weight"),
    ("gemma1_mqa", "activation: gelu_tanh", "activation: gelu", "GELU's erf form"),
    ("gemma2_softcaps", r"windows: \[5, null, 5, null\]", "windows: [5, 5, 5, 5]", "a window on every layer"),
    ("gemma2_softcaps", r"windows: \[5, null, 5, null\]", "windows: [null, 5, null, 5]", "the odd layers slide"),
    ("gemma2_softcaps", r"windows: \[5, null, 5, null\]", "windows: [6, null, 6, null]", "a window one too long"),
    ("gemma2_softcaps", r"scale: [\d.]+", "scale: 0.288675", "1 / sqrt(head_dim) for the stated scale"),
    ("gemma2_softcaps", "softcap: 2.0", "softcap: 1.0e+6", "no softcap of the scores"),
    ("gemma2_softcaps", r"  - logit_softcap: .*\n", "", "no softcap of the logits"),
    ("gemma3_local_global", r"ropes: \[local, local, global", "ropes: [global, global, local", "the ropes swapped"),
    ("gemma3_local_global", "type: linear, factor: 8.0", "type: linear, factor: 1.0", "the global rope not scaled"),
    ("gemma3_local_global", r"windows: .*", "windows: [5, 5, 5, 5, 5, 5]", "no global layer"),
    ("gemma3_local_global", "style: gemma3", "style: gemma2", "no q/k norm"),
]


@pytest.mark.golden
@pytest.mark.parametrize(("case", "pattern", "replacement", "what"), MISTAKES, ids=[m[3] for m in MISTAKES])
def test_parity_sees(case: str, pattern: str, replacement: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_seen(case, pattern, replacement, monkeypatch, "ort-cpu")


@pytest.mark.golden
@pytest.mark.parametrize("case", ["gemma2_softcaps", "gemma3_local_global"])
@pytest.mark.parametrize("skipped", [1, 3])
def test_parity_sees_a_skipped_norm(case: str, skipped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed has no norm behind the attention."""
    norms = GemmaDecoder.norms

    def without(self: GemmaDecoder) -> tuple[str | None, ...]:
        return tuple(None if i == skipped else name for i, name in enumerate(norms(self)))

    monkeypatch.setattr(GemmaDecoder, "norms", without)
    assert_spec_seen(case, lambda text: text.replace("weights: {file: ", "weights: {allow_unused: ['*'], file: "),
                     monkeypatch, "ort-cpu")  # fmt: skip
