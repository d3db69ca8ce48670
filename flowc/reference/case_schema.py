"""The JSON Schema of golden cases (draft-07), from their declaration."""

from __future__ import annotations

import json
from typing import Any

from flowc.golden.case import Case
from flowc.records.schema import record_schema


def case_schema() -> dict[str, Any]:
    """The schema. What a case names (a spec, a checkpoint) and whether a model takes prompts is not in it."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "flowc golden case",
        "description": Case.summary(),
        **record_schema(Case),
    }


def case_schema_text() -> str:
    """The schema as `flowc schema golden` prints it."""
    return json.dumps(case_schema(), indent=1, ensure_ascii=False) + "\n"
