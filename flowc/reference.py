"""What is generated from the declarations: the JSON Schema of specs, and the pages of stage kinds and diagnostics.

python -m flowc.reference            write flowc/schema.json, docs/stages.md and docs/diagnostics.md
python -m flowc.reference --check    exit 1 when they are not up to date
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from flowc.codes import CODES
from flowc.ir.types import DTYPES
from flowc.spec import METADATA_SYMBOLS, PHASES, TOP_LEVEL
from flowc.stage import Attribute, Stage, Stages, load_all

_SYMBOL = {"type": "string", "pattern": r"^\$[A-Za-z_]\w*(\[\w+\])?$"}
_TYPES: dict[Any, tuple[str, dict[str, Any]]] = {
    int: ("whole number", {"type": "integer"}),
    float: ("number", {"type": "number"}),
    bool: ("true or false", {"type": "boolean"}),
    str: ("text", {"type": "string"}),
    type(None): ("null", {"type": "null"}),
    Stages: ("list of stages", {"type": "array", "items": {"$ref": "#/definitions/stage"}}),
}
"""Name for people, and JSON Schema, of each plain type of a field."""


def type_name(kind: Any) -> str:
    """A field's type for people."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return f"list of {type_name(arguments[0])}s"
    if origin is dict:
        return f"mapping of names to {type_name(arguments[1])}"
    return _TYPES[kind][0]


def describe(cls: type[Stage]) -> dict[str, Any]:
    """A stage kind as plain values: what `flowc stages --json` lists."""
    return {
        "name": cls.kind,
        "doc": cls.summary(),
        "fields": [_field(a) for a in cls.attributes()],
        "reads": list(cls.reads),
        "writes": list(cls.writes),
        "weights": list(cls.weights),
        "example": cls.example,
        "reference": cls.reference,
        "cached": cls.cached,
    }


def _field(attribute: Attribute) -> dict[str, Any]:
    facts = attribute.field.metadata
    default = attribute.default
    plain = None if attribute.required else list(default.items) if isinstance(default, Stages) else default
    return {
        "name": attribute.name,
        "type": type_name(attribute.type),
        "doc": attribute.doc,
        "required": attribute.required,
        "default": plain,
        "symbol": attribute.symbol,
        "main": attribute.main,
        "minimum": facts["ge"],
        "exclusive_minimum": facts["gt"],
        "unit": facts["unit"],
    }


def bounds(field: dict[str, Any]) -> str:
    """Limits of a described field for people, such as `at least 0`; empty without any."""
    if field["minimum"] is not None:
        return f"at least {field['minimum']}"
    return f"greater than {field['exclusive_minimum']}" if field["exclusive_minimum"] is not None else ""


def when_left_out(field: dict[str, Any]) -> str:
    """What a described field is when the spec does not give it."""
    if field["symbol"]:
        return f"default: ${field['symbol']}" + ("" if field["required"] else ", else null")
    return "required" if field["required"] else f"default: {json.dumps(field['default'], ensure_ascii=False)}"


# JSON Schema


def schema() -> dict[str, Any]:
    """The JSON Schema (draft-07) of specs.

    It cannot check what crosses from one value to another: names of symbols and ropes, shapes, the order of stages,
    and symbols that stand in for required fields. `flowc check` does.
    """
    registry = dict(sorted(load_all().items()))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "flowc spec",
        "description": "What a transformer computes: a list of stages. `flowc check` checks what no schema can.",
        "type": "object",
        "properties": {key: {"description": doc, **_TOP_LEVEL[key]} for key, doc in TOP_LEVEL.items()},
        "required": ["flowc", "flow"],
        "additionalProperties": False,
        "definitions": {
            "flow": {"type": "array", "items": {"$ref": "#/definitions/stage"}, "minItems": 1},
            "stage": {
                "description": "`kind`, `kind: value` (for its main field) or `kind: {field: value}`.",
                "anyOf": [
                    {"enum": [name for name, cls in registry.items() if _bare(cls)]},
                    {
                        "type": "object",
                        "properties": {name: {"$ref": f"#/definitions/stage_{name}"} for name in registry},
                        "minProperties": 1,
                        "maxProperties": 1,
                        "additionalProperties": False,
                    },
                ],
            },
            **{f"stage_{name}": _stage_schema(cls) for name, cls in registry.items()},
        },
    }


_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_TEXT = {"type": "string", "minLength": 1}
_TOP_LEVEL: dict[str, dict[str, Any]] = {
    "flowc": {"const": 1},
    "name": _TEXT,
    "description": _TEXT,
    "kind": {"enum": ["decoder", "encoder"]},
    "model": {
        "type": "object",
        "propertyNames": {"pattern": r"^[A-Za-z_]\w*$"},
        "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}]},
    },
    "weights": {
        "type": "object",
        "properties": {
            "file": {
                "description": "A .safetensors file, its .index.json, a folder, .gguf or .npz; relative to the spec.",
                **_TEXT,
            },
            "random": {"description": "Seed of random weights.", "type": "integer", "minimum": 0},
            "allow_unused": {
                "description": "Names of spare tensors; * stands for any text.",
                "type": "array",
                "items": {"type": "string"},
            },
        },
        "additionalProperties": False,
        "not": {"required": ["file", "random"]},
    },
    "inputs": {
        "type": "object",
        "additionalProperties": {"type": "string", "pattern": rf"^\s*({'|'.join(DTYPES)})\s*\[[^\]]*\]\s*$"},
    },
    "flow": {
        "anyOf": [
            {"$ref": "#/definitions/flow"},
            {
                "type": "object",
                "properties": {phase: {"$ref": "#/definitions/flow"} for phase in PHASES},
                "minProperties": 1,
                "additionalProperties": False,
            },
        ]
    },
    "output": _TEXT,
    "rename": {"type": "object", "additionalProperties": _TEXT},
    "expect": {
        "type": "object",
        "additionalProperties": {"anyOf": [{"const": "all"}, {"type": "integer", "minimum": 0}]},
    },
}


def _bare(cls: type[Stage]) -> bool:
    """Whether a stage may be written as its kind alone."""
    return not any(a.required and not a.symbol for a in cls.attributes())


def _stage_schema(cls: type[Stage]) -> dict[str, Any]:
    attributes = cls.attributes()
    spellings: list[dict[str, Any]] = [
        {
            "type": "object",
            "properties": {a.name: {"description": _field_doc(a), **_value(a, a.type)} for a in attributes},
            "required": [a.name for a in attributes if a.required and not a.symbol],
            "additionalProperties": False,
        }
    ]
    main = next((a for a in attributes if a.main), None)
    if main is not None and not any(a.required and not a.symbol and a is not main for a in attributes):
        spellings.append({"description": _field_doc(main), **_value(main, main.type)})
    if _bare(cls):
        spellings.append({"type": "null"})
    doc = f"{cls.summary()}\n\nExample: {cls.example}"
    return {"description": doc, "anyOf": spellings}


def _field_doc(attribute: Attribute) -> str:
    return f"{attribute.doc} [{when_left_out(_field(attribute))}]"


def _value(attribute: Attribute, kind: Any) -> dict[str, Any]:
    """Schema of a value of a type, or of a symbol that stands for one."""
    choices = _choices(attribute, kind)
    if kind is not Stages and not any(c == {"type": "string"} for c in choices):
        choices.append(_SYMBOL)
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _choices(attribute: Attribute, kind: Any) -> list[dict[str, Any]]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return [choice for a in arguments for choice in _choices(attribute, a)]
    if origin is Literal:
        return [{"enum": list(arguments)}]
    if origin is tuple:
        return [{"type": "array", "items": _value(attribute, arguments[0])}]
    if origin is dict:
        return [{"type": "object", "additionalProperties": _value(attribute, arguments[1])}]
    found = dict(_TYPES[kind][1])
    if kind in (int, float):
        facts = attribute.field.metadata
        for key, fact in (("minimum", "ge"), ("exclusiveMinimum", "gt")):
            if facts[fact] is not None:
                found[key] = facts[fact]
    return [found]


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


# Reference page


def page() -> str:
    """The reference of stage kinds, as Markdown."""
    registry = dict(sorted(load_all().items()))
    described = ", ".join(f"`{name}`" for name in sorted(METADATA_SYMBOLS))
    lines = [
        "# Stages",
        "",
        "Generated by `python -m flowc.reference` from the declarations in `flowc/stages/`; do not edit.",
        "",
        "A stage is written `kind`, `kind: value` (for its main field) or `kind: {field: value}`. In place of a value,",
        "`$name` is an entry of `model:` or the index of a `repeat`, and `$name[i]` an entry of a list; inside a text,",
        "`{name}` is filled in. A field marked `default: $name` takes that entry of `model:` when it is left out, and",
        "must be given when there is none.",
        "",
        f"Entries of `model:` that no stage needs to read: {described}.",
        "",
        " · ".join(f"[{name}](#{name})" for name in registry),
    ]
    for cls in registry.values():
        lines += ["", *_section(cls)]
    return "\n".join(lines) + "\n"


def _section(cls: type[Stage]) -> list[str]:
    stage = describe(cls)
    lines = [f"## {stage['name']}", "", *cls.paragraphs(), "```yaml", f"- {stage['example']}", "```", ""]
    if stage["fields"]:
        lines += ["| field | type | when left out | meaning |", "| --- | --- | --- | --- |"]
        lines += [_row(field) for field in stage["fields"]]
        lines.append("")
    for title, names in (("Reads", stage["reads"]), ("Writes", stage["writes"])):
        lines.append(f"{title}: {', '.join(names) or 'nothing'}.")
    if stage["reference"]:
        lines += ["", f"As in: {stage['reference']}."]
    if stage["weights"]:
        lines += ["", "Weights:", "", *(f"- {_code(weight)}" for weight in stage["weights"])]
    return lines


def _row(field: dict[str, Any]) -> str:
    name = f"`{field['name']}`" + (" (main)" if field["main"] else "")
    kind = ", ".join(filter(None, (field["type"], bounds(field), field["unit"])))
    cells = (name, kind, when_left_out(field), field["doc"])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(weight: str) -> str:
    """A line of `weights` with its name as code: `{prefix}.weight`: [hidden]."""
    name, colon, rest = weight.partition(": ")
    return f"`{name}`: {rest}" if colon else weight


def codes_page() -> str:
    """The codes of diagnostics, as Markdown."""
    lines = [
        "# Diagnostics",
        "",
        "Generated by `python -m flowc.reference` from `flowc/codes.py`; do not edit.",
        "",
        "| code | meaning |",
        "| --- | --- |",
        *(f"| `{code}` | {meaning} |" for code, meaning in CODES.items()),
    ]
    return "\n".join(lines) + "\n"


# Files

ROOT = Path(__file__).resolve().parent


def generated() -> dict[Path, str]:
    """Every generated file and what belongs in it."""
    docs = ROOT.parent / "docs"
    return {
        ROOT / "schema.json": schema_text(),
        docs / "stages.md": page(),
        docs / "diagnostics.md": codes_page(),
    }


def main(arguments: list[str]) -> int:
    """Write the generated files, or with --check say which are out of date."""
    check = arguments == ["--check"]
    if arguments and not check:
        print("usage: python -m flowc.reference [--check]", file=sys.stderr)
        return 2
    wanted = generated()
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"{path} is not up to date: run `python -m flowc.reference`", file=sys.stderr)
        else:
            path.write_text(wanted[path], encoding="utf-8")
            print(path)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
