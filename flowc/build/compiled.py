"""What a compilation was asked for, and the graphs that it gives: what lowering, checks and reports start from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flowc.errors import InternalError
from flowc.frontend.phases import is_decoder
from flowc.frontend.state import Options
from flowc.frontend.usage import Usage
from flowc.ir.graph import Graph
from flowc.ir.phases import kind_of
from flowc.ir.weights.expressions import Weight
from flowc.passes.audit import Audit, Context, Precision
from flowc.spec.spec import Spec, sha256
from flowc.targets.registry import target
from flowc.targets.target import Target
from flowc.weights import Checkpoint

if TYPE_CHECKING:
    from flowc.build.tokenizer_files import TokenizerFiles


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for, beside the spec."""

    weights: Path | None = None
    """Weights in place of those that the spec names."""
    target: str = "ort-cpu"
    graphs: tuple[str, ...] = ()
    """Phases to build; all when empty."""
    options: Options = field(default_factory=Options)
    skip_passes: tuple[str, ...] = ()
    in_place: bool = False
    """Weights are used where they lie, so passes change and pack none of them that they can leave alone."""
    shard_bytes: int | None = None
    """Size above which weights go into another data file; one file when None."""
    dtype: str = "float32"
    """Float type of weights, and of what the target computes in."""
    islands: tuple[str, ...] = ()
    """Patterns of stage paths that compute in float32 whatever `dtype` is."""


@dataclass
class Compiled:
    """Graphs of a spec, ready to be lowered, with all that later rooms need."""

    request: Request
    spec: Spec
    checkpoint: Checkpoint | None
    usage: Usage
    expanded: dict[str, Graph] = field(default_factory=dict[str, Graph])
    """Graphs before any pass: the meaning of the spec."""
    graphs: dict[str, Graph] = field(default_factory=dict[str, Graph])
    audits: dict[str, Mapping[str, Audit]] = field(default_factory=dict[str, Mapping[str, Audit]])
    beside: TokenizerFiles | None = None
    """What comes along in place of what lies beside the weights: for a build that is read back."""

    @property
    def target(self) -> Target:
        """What the graphs are made for."""
        return target(self.request.target)

    @property
    def context_length(self) -> int | None:
        """The context length asked for: --context, else the model's."""
        return self.request.options.context or self.spec.integer("context_length")

    @property
    def pass_context(self) -> Context:
        """What the passes may know beside the graph."""
        request = self.request
        options = request.options
        precision = Precision(request.dtype, request.islands)
        return Context(
            self.target, options.assume, self.context_length, request.in_place, options.cache, precision=precision
        )

    @cached_property
    def resolved_spec(self) -> dict[str, object]:
        """The spec as plain values that stand for themselves."""
        return self.spec.resolved(self.usage.included)

    @cached_property
    def spec_sha256(self) -> str:
        """Hash of the resolved spec."""
        return sha256(self.resolved_spec)

    @cached_property
    def tokenizer(self) -> TokenizerFiles:
        """The tokenizer that comes along, and what it says of a text's end."""
        if self.beside is not None:
            return self.beside
        from flowc.build.tokenizer_files import tokenizer_files  # what writes and runs nothing asks for none

        return tokenizer_files(self.checkpoint)

    @property
    def kind(self) -> str:
        """Whether it is a decoder, which keeps a cache between calls, or an encoder."""
        return kind_of(cache=is_decoder(self.spec.main))

    @property
    def ends(self) -> list[int]:
        """The tokens that end a decoder's text: those of the spec, then what the files beside the weights add."""
        said = self.spec.symbol("eos")
        ends = cast("list[int]", said) if isinstance(said, list) else ([] if said is None else [cast("int", said)])
        if self.kind != kind_of(cache=True):
            return ends
        from flowc.tokenizer.ends import together

        vocab = self.spec.integer("vocab")
        return together(ends, (i for i in self.tokenizer.ends if vocab is None or i < vocab))

    def part(self, component: str) -> Compiled:
        """The graphs of one component alone."""
        names = {name for name, graph in self.graphs.items() if graph.component == component}
        kept: list[Any] = [
            {name: one for name, one in held.items() if name in names}
            for held in (self.expanded, self.graphs, self.audits)
        ]
        return replace(self, expanded=kept[0], graphs=kept[1], audits=kept[2])

    @property
    def weights(self) -> Iterator[Weight]:
        """The constants of all graphs, graph by graph in order of first use."""
        return (weight for graph in self.graphs.values() for weight in graph.weights())

    def need_checkpoint(self) -> Checkpoint:
        """The checkpoint, which a build must have; InternalError when the compilation went without."""
        if self.checkpoint is None:
            raise InternalError("a build needs a checkpoint")
        return self.checkpoint
