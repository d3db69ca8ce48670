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
from dataclasses import dataclass
from pathlib import Path

from flowc.errors import Diagnostics, Span, SpecError, nearest
from flowc.text.source import ListNode, MapNode, Node, Scalar, read_spec

KEYS = (
    "golden", "name", "description", "checkpoint", "spec", "weights_sha256", "target", "dtype", "prompts", "inputs",
    "tolerance",
)  # fmt: skip
ABSOLUTE, TIE = 1e-4, 1e-3
MOST_STEPS = 4096
MOST_ROWS, MOST_COLUMNS = 64, 4096
NAME = re.compile(r"\w[\w .+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a decoder is asked: token ids or a text, and how many tokens it goes on."""

    ids: tuple[int, ...]
    text: str | None
    steps: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """Seeded inputs of an encoder or an image model: a ragged batch."""

    seed: int = 1
    batch: int = 3
    columns: int = 9


@dataclass(frozen=True, slots=True)
class Case:
    """A case as its file says."""

    path: Path
    name: str
    checkpoint: Path | None
    spec: Path | None
    weights_sha256: str | None
    target: str
    prompts: tuple[Prompt, ...]
    inputs: Inputs | None
    absolute: float
    tie: float

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
    reader = _Reader(read_spec(path), path)
    case = reader.case()
    reader.problems.raise_if_any()
    return case


class _Reader:
    """Reads the keys of a case, collecting problems."""

    def __init__(self, root: Node, path: Path) -> None:
        self.problems = Diagnostics()
        self.path = path
        if not isinstance(root, MapNode):
            raise SpecError.of("bad-type", "a golden case is a mapping of keys to values", root.span)
        self.root = root
        self.check_keys(root, KEYS, "a golden case")

    def check_keys(self, node: MapNode, known: tuple[str, ...], what: str) -> None:
        for entry in node.entries:
            if entry.name not in known:
                message = f"{what} has no key '{entry.name}'"
                hint = nearest(entry.name, known) or f"its keys: {', '.join(known)}"
                self.problems.error("unknown-key", message, entry.key.span, hint)

    def wrong(self, message: str, span: Span) -> None:
        self.problems.error("bad-type", message, span)

    def case(self) -> Case:
        version = self.root.get("golden")
        if not isinstance(version, Scalar) or version.value != 1:
            span = (version or self.root).span
            self.problems.error("bad-version", "a golden case starts with `golden: 1`, the version of its form", span)
        if self.text("dtype", "float32") != "float32":
            node = self.root.get("dtype")
            self.problems.error("bad-value", "flowc builds float32 graphs only, so far", node.span if node else None)
        checkpoint, spec = self.text("checkpoint"), self.text("spec")
        if (checkpoint is None) == (spec is None):
            self.problems.error("bad-value", "a golden case names either a `checkpoint` or a `spec`", self.root.span)
        prompts, inputs = self.prompts(), self.inputs()
        if bool(prompts) == (inputs is not None):
            message = "a golden case gives either `prompts` (a decoder) or `inputs` (an encoder or image model)"
            self.problems.error("bad-value", message, self.root.span)
        tolerance = self.root.get("tolerance")
        limits = tolerance if isinstance(tolerance, MapNode) else None
        if tolerance is not None and limits is None:
            self.wrong("'tolerance' must be a mapping with `absolute` and `tie`", tolerance.span)
        if limits is not None:
            self.check_keys(limits, ("absolute", "tie"), "'tolerance'")
        return Case(
            path=self.path,
            name=self.name(),
            checkpoint=self.beside("checkpoint", checkpoint),
            spec=self.beside("spec", spec),
            weights_sha256=self.text("weights_sha256"),
            target=self.text("target") or "ort-cpu",
            prompts=prompts,
            inputs=inputs,
            absolute=self.number(limits, "absolute", ABSOLUTE),
            tie=self.number(limits, "tie", TIE),
        )

    def name(self) -> str:
        """The case's name, which names folders and reports."""
        node, name = self.root.get("name"), self.text("name") or self.path.stem
        if not NAME.fullmatch(name):
            message = f"{name!r} cannot be the name of a golden case"
            hint = "letters, digits, spaces and '_.+-', a letter or digit first"
            self.problems.error("bad-value", message, (node or self.root).span, hint)
        return name

    def beside(self, key: str, name: str | None) -> Path | None:
        node = self.root.get(key)
        if name is None or node is None:
            return None
        try:
            return self.path.parent / Path(name).expanduser()
        except RuntimeError:  # a user that this machine does not know, or no home at all
            self.problems.error("bad-value", f"there is no home folder for '{name}'", node.span)
            return None

    def text(self, key: str, default: str | None = None) -> str | None:
        node = self.root.get(key)
        if node is None:
            return default
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
            return node.value
        self.wrong(f"'{key}' must be a text", node.span)
        return default

    def number(self, parent: MapNode | None, key: str, default: float) -> float:
        node = parent.get(key) if parent is not None else None
        if node is None:
            return default
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
            return float(value)
        self.wrong(f"'{key}' must be a number, 0 or more", node.span)
        return default

    def whole(self, parent: MapNode, key: str, default: int, least: int, most: int) -> int:
        node = parent.get(key)
        if node is None:
            return default
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.wrong(f"'{key}' must be a whole number from {least} to {most}", node.span)
        return default

    def prompts(self) -> tuple[Prompt, ...]:
        node = self.root.get("prompts")
        if node is None:
            return ()
        if not isinstance(node, ListNode) or not node.items:
            self.wrong("'prompts' must be a list of {ids: [...]} or {text: ...}", node.span)
            return ()
        return tuple(self.prompt(item) for item in node.items)

    def prompt(self, node: Node) -> Prompt:
        if not isinstance(node, MapNode):
            self.wrong("a prompt is a mapping with `ids` or `text`", node.span)
            return Prompt((), None, 0)
        self.check_keys(node, ("ids", "text", "steps"), "a prompt")
        ids, text = node.get("ids"), node.get("text")
        numbers: list[int] = []
        if (ids is None) == (text is None):
            self.wrong("a prompt has either `ids` or `text`", node.span)
        if ids is not None:
            values = (
                [i.value if isinstance(i, Scalar) else None for i in ids.items] if isinstance(ids, ListNode) else []
            )
            numbers = [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0]
            if not numbers or len(numbers) != len(values):
                self.wrong("'ids' must be a list of token ids", ids.span)
        if text is not None and not (isinstance(text, Scalar) and isinstance(text.value, str) and text.value):
            self.wrong("'text' must be a text", text.span)
        words = text.value if isinstance(text, Scalar) else None
        steps = self.whole(node, "steps", 8, 1, MOST_STEPS)
        return Prompt(tuple(numbers), words if isinstance(words, str) else None, steps)

    def inputs(self) -> Inputs | None:
        node = self.root.get("inputs")
        if node is None:
            return None
        if not isinstance(node, MapNode):
            self.wrong("'inputs' must be a mapping with `seed`, `batch` and `columns`", node.span)
            return None
        self.check_keys(node, ("seed", "batch", "columns"), "'inputs'")
        return Inputs(
            self.whole(node, "seed", 1, 0, 2**31), self.whole(node, "batch", 3, 1, MOST_ROWS),
            self.whole(node, "columns", 9, 1, MOST_COLUMNS),
        )  # fmt: skip
