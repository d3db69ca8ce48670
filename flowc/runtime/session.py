"""onnxruntime sessions with the settings that were measured to be best for one user on a CPU."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import ml_dtypes
import numpy as np
import numpy.typing as npt

from flowc.build.manifest import LARGEST
from flowc.errors import CheckFailed, FlowError, InternalError, MissingTool, SpecError
from flowc.ir.ports import slots_of
from flowc.outside.foreign import foreign, lack_of, one_line
from flowc.outside.reading import Unreadable, read_bytes, reason_of
from flowc.outside.runtime import onnxruntime, open_graph

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

Array = npt.NDArray[Any]

CPU = ("CPUExecutionProvider",)

_NUMPY = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bfloat16)": ml_dtypes.bfloat16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph; a symbolic dimension is its name, an unnamed one empty."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


def inputs(session: InferenceSession) -> dict[str, Port]:
    """A graph's inputs by name, in its order."""
    return _ports(session.get_inputs())


def outputs(session: InferenceSession) -> dict[str, Port]:
    """A graph's outputs by name, in its order."""
    return _ports(session.get_outputs())


def _ports(values: Any) -> dict[str, Port]:
    found: dict[str, Port] = {}
    for value in values:
        if value.type not in _NUMPY:
            raise InternalError(f"'{value.name}' is {value.type}, which this runtime does not carry")
        shape = tuple(size if isinstance(size, int) else str(size or "") for size in value.shape)
        found[value.name] = Port(value.name, np.dtype(_NUMPY[value.type]), shape)
    return found


def physical_cores() -> int:
    """Cores this process may run on, hyperthreads of one core counted once, and no more than a cgroup allows."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in usable}
    return max(1, min(len(cores), _quota()))


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Whole cores of a cgroup v2 limit; without one, as many as there are."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return os.cpu_count() or 1


def open_session(
    path: str | Path,
    *,
    threads: int | None = None,
    providers: Sequence[str] = CPU,
    prepack: bool = True,
    spin: bool = True,
) -> InferenceSession:
    """Open a graph file.

    Args:
        path: the graph; its weights file lies beside it.
        threads: intra-op threads; default one per physical core.
        providers: onnxruntime's execution providers, in order.
        prepack: let onnxruntime copy weights into its own layout. It is a second copy of the weights in memory and most
            of the start-up time, and pays only where many tokens go through at once. Graphs with MatMulNBits are always
            prepacked: without it they are 40 times slower.
        spin: let idle threads wait busily: faster for one session, harmful where two take turns.

    Raises:
        CheckFailed: onnxruntime does not load the graph.
        MissingTool: it would need a newer onnxruntime, or a provider that this one lacks.
    """
    ort = onnxruntime()

    path = Path(path)
    lacking = [provider for provider in providers if provider not in ort.get_available_providers()]
    if lacking:
        raise MissingTool.of("missing-provider", f"this onnxruntime has no {', '.join(lacking)}")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and told by who catches them
    options.intra_op_num_threads = threads or physical_cores()
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not prepack and b"MatMulNBits" not in path.read_bytes():
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return open_graph(str(path), options, providers)
    except Exception as error:
        raise lack_of(error) or _refused(path, error) from None


def _refused(path: Path, error: Exception) -> FlowError:
    ort = onnxruntime()

    here = ort.__version__
    try:
        properties = {p.key: p.value for p in graph_file(path).metadata_props}
    except CheckFailed:  # not even a protobuf: onnxruntime's own message says so
        properties = {}
    needed = properties.get("flowc.min_onnxruntime", "")
    if needed and _version(needed) > _version(here):
        message = f"{path.name} needs onnxruntime {needed} or newer; this is {here}"
        return MissingTool.of("old-onnxruntime", message)
    return CheckFailed.of("load-failed", f"onnxruntime {here} does not load {path}: {one_line(error)}")


def graph_file(path: Path) -> ModelProto:
    """A graph file as a protobuf, without its weights. Raises CheckFailed `load-failed`."""
    import onnx

    try:
        content = read_bytes(path, LARGEST)
    except (OSError, Unreadable) as error:
        raise CheckFailed.of("load-failed", f"cannot read {path}: {reason_of(error)}") from None
    # protobuf has no error of its own for a damaged file
    with foreign(lambda why: CheckFailed.of("load-failed", f"{path} is not an ONNX file: {why}")):
        model = onnx.load_model_from_string(content)
    if wrong := _not_text(model):
        raise CheckFailed.of("load-failed", f"{path} is not an ONNX file: a {wrong} in it is not UTF-8")
    return model


def _not_text(message: Any) -> str:
    """The name of a text field that holds none, which protobuf hands out as bytes; empty where all do."""
    for descriptor, value in message.ListFields():
        many: Any = value if hasattr(value, "append") or hasattr(value, "add") else (value,)
        for one in many if descriptor.type in (descriptor.TYPE_STRING, descriptor.TYPE_MESSAGE) else ():
            if descriptor.type == descriptor.TYPE_MESSAGE:
                wrong = _not_text(one)
            else:
                wrong = "" if isinstance(one, str) else str(descriptor.name)
            if wrong:
                return wrong
    return ""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())


def metadata(session: InferenceSession) -> dict[str, str]:
    """A graph's `metadata_props`."""
    return dict(cast(Any, session.get_modelmeta()).custom_metadata_map)


def run_once(session: InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs of a graph, by name; what `implied` adds need not be given.

    Raises:
        SpecError: an input is unknown, missing, or has the wrong dtype or rank; or onnxruntime refuses the shapes.
    """
    given = implied(session, feeds)
    with foreign(lambda why: SpecError.of("bad-input", f"onnxruntime refuses these inputs: {why}")):
        results = cast(Any, session).run(None, given)
    return dict(zip(outputs(session), results, strict=True))


def implied(session: InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs of a graph with those that follow from the others.

    They are an `attention_mask` of ones, `token_type_ids` of zeros, and an empty past.

    Raises:
        SpecError: an input is unknown, missing, or has the wrong dtype or rank.
    """
    wanted = inputs(session)
    unknown = [name for name in feeds if name not in wanted]
    if unknown:
        listed = ", ".join(map(str, wanted.values()))
        raise SpecError.of("bad-input", f"the graph has no input {', '.join(unknown)}", hint=f"it takes {listed}")
    given = dict(feeds)
    # What another component makes has a component's name in it, and is handed on by none of this graph's outputs.
    slots = slots_of(wanted, outputs(session))
    states = {slot.past for slot in slots if slot.past is not None and (slot.present is not None or not slot.owner)}
    for name, port in wanted.items():
        array = given.setdefault(name, _implied(port, given, states))
        if array.dtype != port.dtype or array.ndim != len(port.shape):
            raise SpecError.of("bad-input", f"input {name} is {array.dtype}{list(array.shape)}; the graph takes {port}")
    return given


def _implied(port: Port, given: Mapping[str, Array], states: Collection[str]) -> Array:
    if port.name in given:
        return given[port.name]
    ids = given.get("input_ids")
    if ids is not None and ids.ndim == 2:
        if port.name in states:
            return empty_past(port, ids.shape[0])
        if port.name == "token_type_ids":
            return np.zeros_like(ids)
        if port.name == "attention_mask":
            columns = [slot.past for slot in slots_of(given, ()) if slot.has_columns and slot.past in states]
            cached = (given[name].shape[2] for name in columns if name is not None)
            return np.ones((ids.shape[0], ids.shape[1] + next(cached, 0)), np.int64)
    raise SpecError.of("bad-input", f"the graph takes an input that was not given: {port}")


def empty_past(port: Port, batch: int) -> Array:
    """The cache before the first token: no columns for keys and values, zeros for a recurrent state."""
    return np.zeros(empty_sizes(port, batch), port.dtype)


def empty_sizes(port: Port, batch: int) -> tuple[int, ...]:
    """The sizes of the cache before the first token."""
    return (batch, *(0 if isinstance(size, str) else size for size in port.shape[1:]))
