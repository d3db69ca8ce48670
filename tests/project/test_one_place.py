"""What a phase is called, and what the ports of a cache are called, stands in one place; everybody asks there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowc.ir.phases import PHASES
from flowc.ir.ports import past_name, present_name
from tests.oracle_io import ROOT
from tests.project.test_layers import MODULES

PREFIXES = tuple(name.split("0")[0] for name in (past_name(0, "key"), present_name(0, "key")))
OTHER_WORDS = {
    "flowc.runtime.bounded_tokenizer": "what a tokenizer is asked to do",
    "flowc.stages.gemma": "a slot of the flow's state",
    "flowc.stages.llama": "a slot of the flow's state",
    "flowc.stages.qwen3": "a slot of the flow's state",
}
"""Modules in which a phase's name means something else."""


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every text of a module that is no comment for people, with its line."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def spelled(tree: ast.Module) -> list[str]:
    """Places of a module that spell a phase or a cache's port."""
    port = re.compile("|".join(rf"(^|[\s'\"]){re.escape(prefix)}" for prefix in PREFIXES))
    return [f"line {line}: {text!r}" for line, text in texts(tree) if text in PHASES or port.search(text)]


@pytest.mark.parametrize("module", MODULES)
def test_phases_and_cache_ports_are_spelled_once(module: str) -> None:
    if module in ("flowc.ir.phases", "flowc.ir.ports", *OTHER_WORDS):
        return
    assert not spelled(MODULES[module])


@pytest.mark.parametrize("module", ["flowc.ir.phases", "flowc.ir.ports", *OTHER_WORDS])
def test_that_place_is_found(module: str) -> None:
    assert spelled(MODULES[module])


def test_no_file_but_ports_has_the_prefixes_as_code() -> None:
    files = [p for folder in ("flowc", "passes", "lowering") for p in Path(ROOT, folder).rglob("*.py")]
    code = re.compile("|".join(rf"[\"']{re.escape(prefix)}[\"']" for prefix in PREFIXES))
    assert {p.name for p in files if code.search(p.read_text(encoding="utf-8"))} == {"ports.py"}
