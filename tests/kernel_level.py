"""A graph of the core level as a target runs it."""

from __future__ import annotations

from flowc.ir.graph import Graph
from flowc.ir.verify import verify
from flowc.lowering.lower import Lowered, lower
from flowc.passes.audit import Audit, Context
from flowc.passes.select_kernels import select_kernels
from flowc.targets.registry import target


def at_kernel_level(graph: Graph, on: str, assume: str = "none") -> Graph:
    """The graph with the target's kernel for every operator that is none yet."""
    chosen = select_kernels(graph, Context(target(on), assume, None), Audit())
    verify(chosen, "kernel", "a test")
    return chosen


def lowered(graph: Graph, on: str) -> Lowered:
    """The ONNX model of a graph of any level."""
    return lower(at_kernel_level(graph, on), target(on), {"flowc.version": "test"})
