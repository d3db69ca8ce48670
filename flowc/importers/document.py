"""Writes an imported spec as YAML that a person reads and edits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from flowc.importers.family import Family


FOR_EDITORS = """
# `flowc schema > flowc.schema.json` beside this file lets editors complete it.
# yaml-language-server: $schema=flowc.schema.json
"""


def render(name: str, model_type: str, family: Family, weights: Path, folder: Path) -> str:
    """The spec's text; the weights path is relative to `folder` when it can be."""
    where: dict[str, Any] = {"file": _relative(weights, folder)}
    if family.allow_unused:
        where["allow_unused"] = family.allow_unused
    head = {"flowc": 1, "name": name, "description": f"Imported from a {model_type} checkpoint by flowc."}
    parts: list[str] = ["".join(_dump({key: value}, block=True) for key, value in head.items())]
    parts.append(
        "model:\n"
        + "".join(f"  {line}" for key, value in family.model.items() for line in [_dump({key: value}, block=True)])
    )
    parts.append(_dump({"weights": where}) + _dump({"inputs": family.inputs}))
    parts.append((_dump({"output": family.output}, block=True) if family.output else "") + _dump({"flow": family.flow}))
    return "\n".join(parts) + FOR_EDITORS


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return path.absolute().as_posix()


class _Dumper(yaml.SafeDumper):
    """Block style, except for short leaves."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists under their key."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values out; a spec without aliases reads better."""
        return True


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    # PyYAML takes a number without a point for a text, and would tag it.
    text = repr(float(value))
    mantissa, e, exponent = text.partition("e")
    return dumper.represent_scalar(
        "tag:yaml.org,2002:float", mantissa + (".0" if "." not in mantissa else "") + e + exponent
    )


_Dumper.add_representer(float, _float)


def _dump(value: Any, *, block: bool = False) -> str:
    """One entry; lists stay on their lines, and with `block` so does the entry itself."""
    if block:
        ((key, inner),) = value.items()
        text = yaml.dump(inner, Dumper=_Dumper, default_flow_style=True, width=10**9, allow_unicode=True)
        return f"{key}: {text.removesuffix(chr(10)).removesuffix('...').removesuffix(chr(10))}\n"
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
