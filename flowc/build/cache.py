"""Forms of a decoder's cache: what may be asked for (`--cache`), what a graph has, and where the two differ.

aligned   column t of the cache is column t of the mask, which has one for each cached and new token
compact   a row's keys lie one after the other; the mask has as many columns, a row's ones first
shared    the cache is a buffer of any length; the mask [batch, capacity] says what of it is in use
"""

from __future__ import annotations

from flowc.build.compiled import Compiled
from flowc.errors import SpecError
from flowc.frontend.state import Options
from flowc.ir.graph import Graph
from flowc.ir.phases import DECODE
from flowc.passes.audit import Audit
from flowc.targets.target import Target


def check_cache(target: Target, options: Options, dtype: str) -> None:
    """Raise SpecError `unsupported-cache` for a form that the target, or the assumption, does not have."""
    asked, assume = options.cache, options.assume
    if asked == "compact" and assume != "right-padding":
        raise SpecError.of(
            "unsupported-cache", "a compact cache holds the tokens of each row without the padding between them",
            hint="--assume right-padding --cache compact; without it, --cache aligned",
        )  # fmt: skip
    kernel = target.attention(DECODE, assume, dtype)
    if asked == "static" and assume == "no-padding":
        message = "a static cache needs a mask to say how much of it is in use, and --assume no-padding leaves it out"
        raise SpecError.of("unsupported-cache", message, hint="--cache static without --assume no-padding")
    if (asked == "static" and kernel == "attention") or (asked == "compact" and kernel != "fused"):
        raise SpecError.of(
            "unsupported-cache", f"the target '{target.name}' has no {asked} cache in {dtype}",
            hint="--cache aligned, which every target has; --target ort-cpu, or ort-cuda with --dtype float16",
        )  # fmt: skip


def cache_form(graph: Graph) -> str | None:
    """How a graph's cached keys and values lie: aligned, shared or compact; None where it has none."""
    if not any(slot.has_columns for slot in graph.states):
        return None
    return str(graph.facts.get("cache", "aligned"))


def cache_notes(compiled: Compiled) -> list[str]:
    """Which graphs have another form of cache than the one that was asked for, and why."""
    options, notes = compiled.request.options, list[str]()
    asked = options.cache or ("compact" if options.assume == "right-padding" else "aligned")
    wanted = "shared" if asked == "static" else asked
    for phase, graph in compiled.graphs.items():
        form = cache_form(graph)
        possible = compiled.target.attention(graph.phase, options.assume, compiled.request.dtype) != "attention"
        if form is None or form == wanted or not (possible or asked == "compact") or not graph.phase.takes_past:
            continue
        missed = compiled.audits[phase].get("fuse_attention", Audit()).missed
        why = f": {missed[-1][1]} ({missed[-1][0]})" if missed else ""
        notes.append(f"the cache of the {phase} graph is {form}, not {wanted}{why}")
    return notes
