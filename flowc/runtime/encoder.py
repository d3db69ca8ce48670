"""The encoder in front of a decoder: it reads a text once, and gives the decoder's graphs what they take of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowc.build.manifest import Manifest
from flowc.errors import CheckFailed, SpecError
from flowc.outside.foreign import foreign
from flowc.outside.runtime import onnxruntime
from flowc.runtime import session as sessions
from flowc.runtime.device import CPU, Device

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue

Ids = npt.NDArray[np.int64]

_IDS, _MASK = "input_ids", "attention_mask"


class Encoder:
    """The graph of the component that a decoder takes from."""

    def __init__(self, session: InferenceSession, gives: Mapping[str, str], device: Device) -> None:
        self._session = session
        self._device = device
        self._inputs = sessions.inputs(session)
        self.gives = gives
        """The decoder's inputs, each with the input or output of this graph that it holds."""

    @classmethod
    def open(cls, manifest: Manifest, *, threads: int | None = None, device: Device = CPU) -> Encoder | None:
        """Open the encoder of a model; None for a model whose decoder takes from no other component.

        Raises:
            SpecError: the model has components that are no encoder of token ids, or was built without its encoder.
        """
        takes: Mapping[str, str] = list(manifest.components.values())[-1].takes if manifest.components else {}
        sources = {source.partition(".")[0] for source in takes.values()}
        if not takes:
            return None
        refused = f"flowc runs an encoder of token ids beside a decoder; '{manifest.name}' is something else"
        if len(sources) > 1 or len(manifest.components) > 2:
            raise SpecError.of("unsupported-components", refused, hint="run its graphs with onnxruntime")
        path = manifest.graph_path(sources.pop())
        encoder = cls(
            sessions.open_session(path, threads=threads, providers=device.providers, prepack=False, spin=False),
            {name: source.partition(".")[2] for name, source in takes.items()},
            device,
        )
        if not {_IDS} <= encoder._inputs.keys() <= {_IDS, _MASK}:
            raise SpecError.of("unsupported-components", refused, hint="run its graphs with onnxruntime")
        return encoder

    def read(self, ids: Ids, mask: Ids) -> dict[str, OrtValue]:
        """What the decoder's inputs hold for ids and their mask, both int64 [batch_size, tokens]."""
        ort, device = onnxruntime(), self._device.name
        ports: dict[str, OrtValue] = {}
        binding: Any = self._session.io_binding()
        for name, array in ((_IDS, ids), (_MASK, mask)):
            ports[name] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, np.int64), device, 0)
            if name in self._inputs:
                binding.bind_ortvalue_input(name, ports[name])
        names = [name for name in sessions.outputs(self._session) if name in self.gives.values()]
        for name in names:
            binding.bind_output(name, device)
        with foreign(lambda why: CheckFailed.of("run-failed", f"onnxruntime stopped: {why}")):
            self._session.run_with_iobinding(binding)
        ports.update(zip(names, binding.get_outputs(), strict=True))
        return {name: ports[port] for name, port in self.gives.items()}
