"""A golden case: a small YAML that people review.

    golden: 1
    name: llama-gqa
    checkpoint: ../oracles/llama_gqa4_bias      # or `spec: model.yaml`, with its `weights:` or --weights
    weights_sha256: 4f1e…                       # optional here; always in the recorded file
    prompts:                                    # a decoder
      - {ids: [5, 17, 3], steps: 6}
      - {text: "What is the capital of France?", steps: 12}
    inputs: {seed: 1, batch: 3, columns: 9}     # an encoder or an image model
    dtype: float32
    tolerance: {absolute: 1e-4, tie: 1e-3}

Its recording lies beside it, with `.json` for `.yaml`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from flowc.errors import Diagnostics
from flowc.records.declare import Context, Either, Form, attr, named_by
from flowc.records.reader import Reader
from flowc.records.record import Record
from flowc.records.values import Wrong
from flowc.targets.registry import TARGETS
from flowc.text.source import read_spec

ABSOLUTE, TIE = 1e-4, 1e-3
NAME = named_by(
    re.compile(r"\w[\w .+-]{0,99}"), "the name of a golden case",
    "letters, digits, spaces and '_.+-', a letter or digit first",
)  # fmt: skip


class _Folder(Context):
    """What paths of a case are relative to."""

    def __init__(self, path: Path) -> None:
        self.path = path


def _beside(text: str, folder: Any) -> Path | None:
    try:
        return folder.path / Path(text).expanduser() if text else None
    except RuntimeError:  # a user that this machine does not know, or no home at all
        raise Wrong(f"there is no home folder for '{text}'", sentence=True, by_value=True) from None


def _target(text: str, _: Any) -> str | None:
    return text if text in TARGETS else None


_PATH = Form("a path", _beside, ".")
_TARGET = Form(f"one of {', '.join(TARGETS)}", _target, f"^({'|'.join(TARGETS)})$")


class Prompt(Record):
    """What a decoder is asked: token ids or a text, and how many tokens it goes on."""

    what = "a prompt"
    written = "a mapping with `ids` or `text`"
    nulls = False
    either = (
        Either(("ids", "text"), "a prompt has either `ids` or `text`"),
        Either(("ids", "system"), "a `system` message goes before a `text`, not before `ids`", needed=False),
    )

    ids: tuple[int, ...] = attr(doc="Token ids.", default=(), ge=0, le=2**31 - 1, least=1, called="a list of token ids")
    text: str | None = attr(doc="A text for the model's tokenizer and chat template.", default=None, least=1)
    system: str | None = attr(doc="A system message for the chat template, before the text.", default=None, least=1)
    steps: int = attr(doc="Tokens that the model goes on.", default=8, ge=1, le=4096)


class Inputs(Record):
    """Seeded inputs of an encoder or an image model: a ragged batch."""

    what = "'inputs'"
    seed: int = attr(doc="Seed.", default=1, ge=0, le=2**31)
    batch: int = attr(doc="Rows.", default=3, ge=1, le=64)
    columns: int = attr(doc="Tokens of the longest row.", default=9, ge=1, le=4096)


class Tolerance(Record):
    """How far numbers may move."""

    what = "'tolerance'"
    absolute: float = attr(doc="Of a number, absolute.", default=ABSOLUTE, ge=0, called="a number, 0 or more")
    tie: float = attr(doc="How far apart two logits may be that tie.", default=TIE, ge=0, called="a number, 0 or more")


class Case(Record):
    """A model and what it is asked; its recording lies beside it, with .json for .yaml."""

    what = "a golden case"
    nulls = False
    either = (
        Either(("checkpoint", "spec"), "a golden case names either a `checkpoint` or a `spec`"),
        Either(
            ("prompts", "inputs"),
            "a golden case gives either `prompts` (a decoder) or `inputs` (an encoder or image model)",
        ),
    )

    golden: Literal[1] = attr(
        doc="Version of the form of cases: 1.", code="bad-version",
        sentence="a golden case starts with `golden: 1`, the version of its form",
    )  # fmt: skip
    name: str = attr(doc="Name in reports; without it, the file's.", default="", form=NAME)
    description: str = attr(doc="A sentence for people.", default="", least=1)
    checkpoint: Path | None = attr(
        doc="A checkpoint that importers read, relative to the case: a folder or a GGUF file.", default=None, form=_PATH
    )
    spec: Path | None = attr(
        doc="A spec, relative to the case; with its own `weights:`, or --weights.", default=None, form=_PATH
    )
    weights_sha256: str | None = attr(
        doc="sha256 of the weights file; other weights are refused. A recording always has it.", default=None, least=1
    )
    target: str = attr(doc="What the model is built for.", default="ort-cpu", form=_TARGET)
    dtype: Literal["float32"] = attr(
        doc="Float type of the graphs.", default="float32", sentence="flowc builds float32 graphs only, so far"
    )
    prompts: tuple[Prompt, ...] = attr(
        doc="What a decoder is asked.", default=(), least=1, each="a prompt",
        called="a list of {ids: [...]} or {text: ...}",
    )  # fmt: skip
    inputs: Inputs | None = attr(doc="Inputs of an encoder or an image model.", default=None)
    tolerance: Tolerance = attr(doc="How far numbers may move.", default=Tolerance())

    path: Path

    @property
    def absolute(self) -> float:
        """How far a number may move."""
        return self.tolerance.absolute

    @property
    def tie(self) -> float:
        """How far apart two logits may be that tie."""
        return self.tolerance.tie

    @property
    def recording(self) -> Path:
        """Where the recorded numbers lie."""
        return self.path.with_suffix(".json")

    @property
    def reads(self) -> list[Path]:
        """What the case is made of: its own file, and the spec or the checkpoint that it names."""
        named = self.spec or self.checkpoint
        inside = named.iterdir() if named is not None and named.is_dir() else ()
        return [self.path, *([named] if named is not None else []), *inside]


def load(path: Path) -> Case:
    """Read a case. Raises SpecError with everything that is wrong."""
    problems = Diagnostics()
    root = read_spec(path)
    read = Reader(problems, context=_Folder(path.parent)).read(Case, root)
    if read is None:
        problems.raise_all()
    name = str(read.values.get("name", path.stem))
    if "name" not in read.wrong and NAME.parse(name, None) is None:
        problems.error("bad-value", f"'{name}' cannot be {NAME.called}", root.span, NAME.hint)
    problems.raise_if_any()
    return read.record(path=path, name=name)
