"""Rendering of chat templates, as HuggingFace's `apply_chat_template` does it.

A template comes with the weights, from whoever made them: it runs in jinja's immutable sandbox and sees nothing but the
messages and the names of the special tokens.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from flowc.errors import SpecError

_FAULTS = (
    jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError,
    MemoryError,
)  # fmt: skip
"""What a template's own expressions raise."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`: marks the assistant's words for training; here its content as it is."""

    tags = {"generation"}  # noqa: RUF012 (declared so by jinja)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(template: str, messages: Sequence[Mapping[str, str]], specials: Mapping[str, str]) -> str:
    """The prompt text of a conversation, ending where the assistant's answer begins.

    Raises:
        SpecError: the template is broken, or refuses these messages in its own words.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    functions: dict[str, Any] = {"raise_exception": _refuse, "strftime_now": _strftime_now}
    environment.globals.update(functions)
    try:
        compiled = environment.from_string(template)
        return compiled.render(messages=messages, tools=None, documents=None, add_generation_prompt=True, **specials)
    except _FAULTS as error:
        why = str(error) if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
        raise SpecError.of(
            "chat-template", f"the model's chat template fails: {why}", hint="use --raw to leave it out"
        ) from None


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes for HTML, which would put \u0026 into prompts.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
