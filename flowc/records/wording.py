"""How errors of one kind of file are worded, and which codes they have."""

from __future__ import annotations

from collections.abc import Iterable

from flowc.errors import nearest
from flowc.records.record import Attribute


class Wording:
    """Errors of files that people write by hand: keys by their names, unknown ones refused."""

    bad_type = "bad-type"
    bad_value = "bad-value"
    unknown_key = "unknown-key"
    missing_key = "missing-key"
    only = ""
    """The code of all errors, where there is just one."""
    lenient = False
    """Whether unknown keys are left alone, and null is the same as nothing."""

    def subject(self, key: str, what: str, where: str) -> str:
        """What an error calls the value of a key; `what` is the record that has it, `where` the path to the value."""
        return f"'{key}' of {what}" if "." in where else f"'{key}'"

    def unknown(self, key: str, what: str, keys: Iterable[str]) -> tuple[str, str]:
        """Message and hint for a key that is not declared."""
        return f"{what} has no key '{key}'", nearest(key, keys) or f"its keys: {', '.join(keys)}"

    def missing(self, attribute: Attribute, what: str, where: str) -> tuple[str, str]:
        """Message and hint for a key that must be given."""
        called = f", {attribute.facts.called}" if attribute.facts.called else ""
        return f"{what} needs `{attribute.name}:`{called}", ""


class JsonWording(Wording):
    """Errors of files that flowc writes: values by their paths, and one code."""

    lenient = True

    def __init__(self, code: str) -> None:
        self.only = code

    def subject(self, key: str, what: str, where: str) -> str:
        """The path."""
        return where or key

    def missing(self, attribute: Attribute, what: str, where: str) -> tuple[str, str]:
        """The path of what is missing."""
        return f"{where} is missing", attribute.doc
