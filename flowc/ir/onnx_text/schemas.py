"""What an opset knows, as onnx says it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def unknown(name: str, attributes: Iterable[str], opset: int) -> str:
    """What a standard operator with these attributes has that an opset does not know; empty where it knows it."""
    from onnx import defs

    try:
        schema: Any = defs.get_schema(name, opset)
    except defs.SchemaError:
        return f"'{name}'"
    strange = next((a for a in attributes if a not in schema.attributes), None)
    return f"'{name}' with the attribute '{strange}'" if strange else ""
