from __future__ import annotations

import pytest

from flowc.importers.family import families
from tests.oracle_io import Oracle, case_folders
from tests.parity.harness import check_case

TARGETS = ("ort-cpu", "portable")


def _cases() -> list[str]:
    known = families()
    return [
        n
        for n, f in case_folders().items()
        if Oracle(f).meta["kind"] in ("decoder", "encoder", "vision") and _type(f) in known
    ]


def _type(folder: object) -> str:
    import json
    from pathlib import Path

    return json.loads((Path(str(folder)) / "config.json").read_text()).get("model_type", "")


@pytest.mark.golden
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", _cases())
def test_case_equals_huggingface(case: str, target: str) -> None:
    checks = check_case(Oracle(case_folders()[case]), target)
    bad = [f"{c.what}: {c.error:.3g} (allowed {c.allowed:g})" for c in checks if not c.good]
    assert checks
    assert not bad, "\n".join(bad[:20])
