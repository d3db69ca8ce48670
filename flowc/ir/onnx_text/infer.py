"""Types of what a subgraph in ONNX text makes, by onnx's shape inference here and now.

The inference is C++ that trusts its input: `result_types.py` says when a text may come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowc.ir.onnx_text.parse import as_model, declared, element_name, parse
from flowc.ir.types import Dim, Shape, ShapeError, TensorType

Binding = dict[str, Dim]
"""What each name of a dimension in a text stands for."""


def fit(graph: Any, types: Sequence[TensorType]) -> Binding:
    """What the dimensions named in a text stand for when its inputs have these types; raises ShapeError."""
    if len(types) != len(graph.input):
        raise ShapeError(f"the subgraph has {len(graph.input)} inputs, not {len(types)}")
    binding: Binding = {}
    for value, actual in zip(graph.input, types, strict=True):
        wanted = declared(value)
        same = wanted.dtype == actual.dtype and wanted.rank == actual.rank
        for mine, theirs in zip(wanted.shape, actual.shape, strict=False):
            same = same and (binding.setdefault(mine, theirs) if isinstance(mine, str) else mine) == theirs
        if not same:
            raise ShapeError(f"the subgraph's input '{value.name}' is declared {wanted}, and gets {actual}"
                             + _told(binding))  # fmt: skip
    return binding


def _told(binding: Binding) -> str:
    names = ", ".join(f"{k} = {v}" for k, v in binding.items() if k != v)
    return f" (where {names})" if names else ""


def infer(text: str, types: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
    """Types of a text's outputs for the types of its inputs; raises ShapeError where text and inference differ."""
    from onnx import shape_inference

    graph = parse(text)
    binding = fit(graph, types)
    wanted = [declared(v) for v in graph.output]
    bare = _with_types(graph, types)
    try:
        inferred = shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise ShapeError(" ".join(str(error).split())) from None
    found = {v.name: v for v in (*inferred.output, *inferred.value_info, *inferred.input)}
    out: list[TensorType] = []
    for value, want in zip(graph.output, wanted, strict=True):
        meant = tuple(binding.get(d, d) if isinstance(d, str) else d for d in want.shape)
        out.append(TensorType(want.dtype, _agreed(value.name, want.dtype, meant, found.get(value.name), binding)))
    return tuple(out)


def _agreed(name: str, dtype: str, meant: Shape, inferred: Any, binding: Binding) -> Shape:
    """The declared shape, its open names settled by what onnx inferred; ShapeError where they contradict."""
    tensor = inferred.type.tensor_type if inferred is not None else None
    if tensor is None or not tensor.elem_type or not tensor.HasField("shape"):
        return meant
    inferred_dtype = element_name(tensor.elem_type)
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim]
    settled: list[Dim] = []
    same = inferred_dtype == dtype and len(dims) == len(meant)
    for mine, theirs in zip(meant, dims, strict=False):
        known = theirs if isinstance(theirs, int) or theirs in binding.values() else None
        open_name = isinstance(mine, str) and mine not in binding.values()
        same = same and (known is None or open_name or mine == known)
        settled.append(known if known is not None and open_name else mine)
    if not same:
        text = f"{inferred_dtype}[{', '.join(str(d) or '?' for d in dims)}]"
        raise ShapeError(f"the subgraph's output '{name}' is declared {TensorType(dtype, meant)}, and is {text}")
    return tuple(settled)


def _with_types(graph: Any, types: tuple[TensorType, ...]) -> Any:
    """A model whose inputs have these types, and whose other values have no shape but what follows."""
    changed = as_model(graph)
    for value, type_ in zip(changed.graph.input, types, strict=True):
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for size in type_.shape:
            shape.dim.add(**{"dim_value" if isinstance(size, int) else "dim_param": size})
    for value in changed.graph.output:
        value.type.tensor_type.ClearField("shape")
    del changed.graph.value_info[:]
    return changed
