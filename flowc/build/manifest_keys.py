"""What a manifest says of one file or of the model: the records inside of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowc.records.declare import Form, attr
from flowc.records.record import Record

LARGEST_NUMBER = 2**63 - 1
"""Of bytes, and of nanoseconds."""
LONGEST_NAME = 255
"""Bytes of a file's name, on every file system in use."""


def _bare(text: str, _: Any) -> str | None:
    sound = text not in ("", ".", "..") and text.isprintable() and len(text.encode()) <= LONGEST_NAME
    return text if sound and Path(text).name == text else None


BARE_NAME = Form("a bare file name", _bare, r"^[^/]+$")
"""Everything of a model lies in one folder."""


class FileRecord(Record):
    """A file beside the manifest, with what it held when it was written."""

    what = "a file"
    file: str = attr(doc="Its name.", form=BARE_NAME)
    sha256: str = attr(doc="Hash of its bytes.", default="")
    bytes: int | None = attr(doc="Its size.", default=None, ge=0, le=LARGEST_NUMBER)
    cache: str | None = attr(doc="The form of cache that a decoder's graph takes.", default=None)


class UsedInPlace(Record):
    """A weights file that the graphs refer to where it lies, with what can be told of it without reading it all."""

    what = "a weights file"
    file: str = attr(doc="Its name.", form=BARE_NAME)
    header_sha256: str = attr(doc="Hash of its header.")
    bytes: int = attr(doc="Its size.", ge=0, le=LARGEST_NUMBER)
    modified_ns: int = attr(doc="When it was last written.", ge=0, le=LARGEST_NUMBER, unit="nanoseconds since 1970")


class ModelFacts(Record):
    """What a caller of the model must know; `None` where the spec says nothing."""

    what = "'model'"
    vocab: int | None = attr(doc="Words of the vocabulary.", default=None, ge=1, le=LARGEST_NUMBER)
    context_length: int | None = attr(doc="Tokens that the model was made for.", default=None, ge=1, le=LARGEST_NUMBER)
    eos: tuple[int, ...] = attr(doc="Tokens that end a text.", default=(), alone=True)
    bos: int | None = attr(doc="The token that begins one.", default=None)
    decoder_start: int | None = attr(doc="The token that a decoder beside an encoder begins with.", default=None)


class ComponentRecord(Record):
    """A component of a model of several: its graphs, and its inputs that hold what others take or give."""

    what = "a component"
    graphs: tuple[str, ...] = attr(doc="Its graphs.", default=())
    takes: Mapping[str, str] = attr(doc="Its inputs that hold a port of another one: `COMPONENT.port`.", default={})
