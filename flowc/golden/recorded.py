"""What a recording holds, declared: `flowc.golden.recording` reads it, `flowc.golden.play` makes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flowc.golden.numbers import known
from flowc.records.declare import Own, attr, named_by
from flowc.records.record import Record
from flowc.records.values import Wrong
from flowc.text.nodes import Node, Scalar

MOST_ID = 2**31 - 1
_ID = named_by(re.compile("[0-9]{1,11}"), "a token id")


class Number(Own):
    """A finite number, decimal or, in recordings of earlier versions, hexadecimal as a text."""

    title = "number"
    takes = (Scalar,)

    @classmethod
    def of(cls, node: Node) -> float:
        """The number; raises Wrong."""
        number = known(node.value) if isinstance(node, Scalar) else None
        if number is None:
            raise Wrong(wanted="a finite number", node=node)
        return number

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """A number, or a text such as 0x1.8p+1."""
        return {"type": ["number", "string"]}


class Statistics(Record):
    """Numbers in brief, by which a change is seen."""

    what = "statistics"
    rms: Number = attr(doc="Root mean square.")
    max: Number = attr(doc="Largest magnitude.")
    projections: tuple[Number, ...] = attr(doc="Sums with fixed signs, over the root of the count.")


class Output(Statistics):
    """An output in brief."""

    what = "an output"
    digest: str = attr(doc="The first 16 hex digits of the sha256 of its bytes.")


class Step(Record):
    """A token that a decoder chose."""

    what = "a step"
    token: int = attr(doc="The best token.", ge=0, le=MOST_ID)
    margin: Number = attr(doc="How far its logit is ahead of the next one's.")
    top: Mapping[str, Number] = attr(doc="Logits of the ten best tokens, by token id.", keys=_ID, least=1)
    all: Statistics | None = attr(doc="All logits in brief.", default=None)
    digest: str = attr(doc="The first 16 hex digits of the sha256 of the logits' bytes.")


class PlayedPrompt(Record):
    """A prompt and what came out."""

    what = "a prompt"
    text: str | None = attr(doc="The prompt, where it is a text.", default=None)
    system: str | None = attr(doc="The system message before it.", default=None)
    ids: tuple[int, ...] = attr(doc="The prompt's token ids.", least=1, ge=0, le=MOST_ID)
    answer: str | None = attr(doc="The tokens of all steps as a text.", default=None)
    steps: tuple[Step, ...] = attr(doc="The steps.", least=1)
    stages: Mapping[str, Statistics] = attr(doc="Each stage's result for the prompt, by the stage's path.")


class _Recording(Record):
    """What every recording holds."""

    golden: int = attr(doc="Version of the form: 1.", default=1)
    name: str = attr(doc="Name of the case.", default="")
    flowc: str = attr(doc="Version of flowc that recorded it.", default="")
    target: str | None = attr(doc="What the model was built for.", default=None)
    verified: str | None = attr(doc="How the build was checked before.", default=None)
    spec_sha256: str | None = attr(doc="Hash of the spec.", default=None)
    spec: Mapping[str, object] | None = attr(doc="The spec.", default=None)
    weights_sha256: tuple[str, ...] | None = attr(doc="Hashes of the weights' files.", default=None)


class DecoderRecording(_Recording):
    """A recording of a case with prompts."""

    what = "a recording"
    prompts: tuple[PlayedPrompt, ...] = attr(doc="The prompts in the order of the case.", least=1)


class EncoderRecording(_Recording):
    """A recording of a case with inputs."""

    what = "a recording"
    outputs: Mapping[str, Output] = attr(doc="The outputs by name.")
    stages: Mapping[str, Statistics] = attr(doc="Each stage's result, by the stage's path.")
