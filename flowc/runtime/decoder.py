"""A decoder with its caches: one prompt in, then token after token, by whichever graphs the build left.

Three ways to go, one interface:

    pair      the prefill graph for the prompt, the decode graph for each token after it
    unified   one graph for both
    decode    the decode graph alone, fed the prompt token by token

A cache travels from one call to the next as an OrtValue, not as an array. Where a graph writes its keys into the
buffer that it reads them from (metadata `flowc.cache` = `shared`), one preallocated buffer is bound as both past and
present; it may be longer than the columns in use, which only the mask tells. Otherwise the graph's fresh `present.*`
becomes the next call's `past_key_values.*`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowc.build.manifest import Manifest
from flowc.errors import CheckFailed, InternalError, SpecError
from flowc.ir.phases import DECODE, PREFILL, UNIFIED
from flowc.ir.ports import SPELT, past_name, slots_of
from flowc.outside.foreign import foreign
from flowc.outside.runtime import onnxruntime
from flowc.runtime import session as sessions
from flowc.runtime.device import CPU, Device
from flowc.runtime.encoder import Encoder

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.floating]

_SPARE = 256


class Graph:
    """One session, and how it takes and gives its cache."""

    def __init__(self, session: InferenceSession, device: Device = CPU, given: Collection[str] = ()) -> None:
        """A session of a graph; `given` are inputs that another component's graph fills."""
        self.session = session
        self.device = device
        inputs = sessions.inputs(session)
        slots = slots_of(inputs, sessions.outputs(session))
        pasts = [slot.past for slot in slots if slot.past is not None and slot.past not in given]
        self.pasts = {name: inputs[name] for name in pasts}
        self.given = [name for name in inputs if name in given]
        self.presents = {slot.present: past_name(slot.layer, slot.slot) for slot in slots if slot.present is not None}
        self.columns = {past_name(slot.layer, slot.slot) for slot in slots if slot.has_columns}
        """Inputs of caches that grow a column per token (a recurrent state keeps its size)."""
        self.takes_mask = "attention_mask" in inputs
        properties = sessions.metadata(session)
        self.assume = properties.get("flowc.assume")
        self.shared = properties.get("flowc.cache") == "shared"

    def call(
        self,
        ids: Ids,
        mask: Ids,
        cache: dict[str, OrtValue],
        capacity: int,
        given: Mapping[str, OrtValue],
    ) -> tuple[Logits, dict[str, OrtValue]]:
        """Run the new tokens over a cache: logits, and the cache with the new tokens in it.

        Args:
            ids: [batch_size, new] new tokens.
            mask: [batch_size, total] ones for the tokens, cached and new, that count.
            cache: past values by input name; empty before the first token.
            capacity: columns that a shared buffer must hold.
            given: what another component's graph gave, by input name.
        """
        binding: Any = self.session.io_binding()
        feeds = {"input_ids": ids, "attention_mask": mask} if self.takes_mask else {"input_ids": ids}
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array, np.int64))
        bound: dict[str, OrtValue] = {}
        for name, port in self.pasts.items():
            held = cache.get(name)
            if self.shared and name in self.columns:
                held = self._widened(port, held, mask.shape[1] - ids.shape[1], ids.shape[0], capacity)
            elif held is None:
                held = self.device.zeros(sessions.empty_sizes(port, ids.shape[0]), port.dtype, overwritten=False)
            binding.bind_ortvalue_input(name, held)
            bound[name] = held
        for name in self.given:
            binding.bind_ortvalue_input(name, given[name])
        binding.bind_output("logits", "cpu")
        buffers = {name: bound[name] for name in bound if self.shared and name in self.columns}
        for name, past in self.presents.items():
            if past in buffers:
                binding.bind_ortvalue_output(name, buffers[past])
            else:
                binding.bind_output(name, self.device.name)
        with foreign(lambda why: CheckFailed.of("run-failed", f"onnxruntime stopped: {why}")):
            self.session.run_with_iobinding(binding)
        logits, *presents = binding.get_outputs()
        # A buffer stays the OrtValue that owns its memory; the one that the binding returns only points there.
        return logits.numpy(), {**dict(zip(self.presents.values(), presents, strict=True)), **buffers}

    def _widened(self, port: sessions.Port, held: OrtValue | None, used: int, batch: int, capacity: int) -> OrtValue:
        """A buffer [batch, kv_heads, >= capacity, head_dim] that begins with the `used` columns already held."""
        if held is not None and held.shape()[2] >= capacity:
            return held
        _, heads, _, dim = sessions.empty_sizes(port, batch)
        sizes = (batch, heads, capacity, dim)
        if held is None or not used:
            return self.device.zeros(sizes, port.dtype, overwritten=True)
        if self.device is not CPU or port.dtype.name == "bfloat16":
            more = self.device.zeros((batch, heads, capacity - used, dim), port.dtype, overwritten=True)
            return self.device.lengthened(held, used, more)
        buffer = np.zeros(sizes, port.dtype)
        buffer[:, :, :used] = held.numpy()[:, :, :used]
        return onnxruntime().OrtValue.ortvalue_from_numpy(buffer, self.device.name, 0)


class Decoder:
    """A model's decoder graphs and the state of one batch.

    Call `start` with a prompt, then `step` with what comes after it; `start` again forgets everything. Logits come as
    the graphs give them: [batch_size, 1, vocab] of each row's last valid new token, or [batch_size, new, vocab] in a
    model built with all logits.
    """

    def __init__(
        self,
        mode: str,
        prefill: Graph,
        decode: Graph,
        assume: str,
        logits: str = "last",
        context: int | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        self.mode = mode
        self._prefill = prefill
        self._decode = decode
        self._assume = assume
        self._context = context
        self.encoder = encoder
        """What reads a text for the decoder, in a model that has an encoder; else None."""
        self._given: Mapping[str, OrtValue] = {}
        self._all_logits = logits == "all"
        self._mask: Ids = np.zeros((0, 0), np.int64)
        self._cache: dict[str, OrtValue] = {}
        self._capacity = 0

    @classmethod
    def open(
        cls,
        manifest: Manifest,
        *,
        mode: str | None = None,
        threads: int | None = None,
        device: Device = CPU,
    ) -> Decoder:
        """Open the graphs of a decoder.

        Args:
            manifest: the model.
            mode: `pair`, `unified` or `decode`; default the first of these that was built.
            threads: intra-op threads; default one per physical core.
            device: where the graphs run and their caches lie.

        Raises:
            SpecError: not a decoder, or no graphs for this mode.
        """
        mode = mode or default_mode(manifest)
        encoder = Encoder.open(manifest, threads=threads, device=device)
        taken = encoder.gives if encoder is not None else ()

        def graph(name: str, **options: bool) -> Graph:
            path = manifest.graph_path(name)
            session = sessions.open_session(path, threads=threads, providers=device.providers, **options)
            return Graph(session, device, taken)

        # Measured at SmolLM2's size, two cores: prepacking takes 0.5 s and a second copy of the weights, to save 40 ms
        # of a prompt of 512 tokens and nothing of a step. A spinning decode session steps 1.2 times faster; when the
        # prefill session spins beside it, the two fight where one hands over to the other.
        match mode:
            case "pair":
                prefill = graph(PREFILL.name, prepack=False, spin=False)
                decode = graph(DECODE.name, prepack=False)
            case UNIFIED.name | DECODE.name:
                prefill = decode = graph(mode, prepack=False)
            case _:
                raise ValueError(f"'{mode}' is not one of pair, unified, decode")
        for built in (prefill, decode):
            given = sessions.outputs(built.session)
            if "logits" not in given:
                hint = f"its output is '{next(iter(given))}': `flowc run --input input_ids=FILE.npy` gives it"
                raise SpecError.of("not-a-decoder", f"'{manifest.name}' gives no logits, so no next token", hint=hint)
            _require_caches(built, decode)
        assume = decode.assume or manifest.assume or "none"
        return cls(mode, prefill, decode, assume, manifest.logits, manifest.model.context_length, encoder)

    @property
    def length(self) -> int:
        """Columns in the cache: tokens of the longest row, padding included."""
        return self._mask.shape[1]

    @property
    def mask(self) -> Ids:
        """[batch_size, length] the mask of what the cache holds."""
        return self._mask.copy()

    def read(self, ids: Ids, mask: Ids | None = None) -> None:
        """Let the encoder read ids [batch_size, tokens]; what it makes of them serves all calls until the next reading.

        `mask` int64 of the same shape, zeros at padding; default all ones.
        """
        if self.encoder is None:
            raise InternalError("the model has no encoder")
        self._given = self.encoder.read(ids, np.ones_like(ids) if mask is None else mask)

    def start(self, ids: Ids, mask: Ids | None = None, *, capacity: int = 0) -> Logits:
        """Begin with a prompt.

        Args:
            ids: [batch_size, sequence_length] int64.
            mask: [batch_size, sequence_length] int64, zeros at padding; default all ones.
            capacity: tokens in all, prompt included, to make room for at once in shared buffers (they grow if need be).

        Raises:
            SpecError: the padding is one that the graphs were built not to handle, or there are more columns, padding
                included, than the context has places.
        """
        if self._context is not None and ids.shape[1] > self._context:
            message = f"the prompt has {ids.shape[1]} columns, padding included; the model's context is {self._context}"
            raise SpecError.of("bad-prompt", message, hint="leave out columns that are padding in every row")
        if self.encoder is not None and not self._given:
            raise InternalError("the decoder starts before its encoder has read anything")
        self._mask = np.zeros((ids.shape[0], 0), np.int64)
        self._cache = {}
        self._capacity = capacity
        mask = np.ones_like(ids) if mask is None else mask
        if self.mode == DECODE.name:
            return self._column_by_column(ids, mask)
        return self._feed(self._prefill, ids, mask)

    def step(self, ids: Ids, mask: Ids | None = None) -> Logits:
        """Go on with [batch_size, new] tokens (one each, unless the graph is unified); `mask` as in `start`."""
        mask = np.ones_like(ids) if mask is None else mask
        if self.mode != UNIFIED.name and ids.shape[1] > 1:
            return self._column_by_column(ids, mask)
        return self._feed(self._decode, ids, mask)

    def _column_by_column(self, ids: Ids, mask: Ids) -> Logits:
        columns: list[Logits] = []
        for t in range(ids.shape[1]):
            logits = self._feed(self._decode, ids[:, t : t + 1], mask[:, t : t + 1])
            if columns and not self._all_logits:
                # A masked token's logits mean nothing: such a row keeps those of its last valid token.
                logits = np.where(mask[:, t, None, None] > 0, logits, columns.pop())
            columns.append(logits)
        return np.concatenate(columns, axis=1)

    def _feed(self, graph: Graph, ids: Ids, mask: Ids) -> Logits:
        whole = self._joined(mask)
        if whole.shape[1] > self._capacity:
            self._capacity = max(whole.shape[1] + _SPARE, 2 * self._capacity)
        logits, cache = graph.call(ids, whole, self._cache, self._capacity, self._given)
        self._cache = cache
        self._mask = whole
        return logits

    def _joined(self, new: Ids) -> Ids:
        """The mask of cached and new columns, in the form that the graphs assume."""
        whole: Ids = np.concatenate([self._mask, new], axis=1)
        if self._assume == "no-padding" and not whole.all():
            raise SpecError.of(
                "assumed-padding",
                "the model was built with --assume no-padding and cannot take a padded batch",
                hint="build it without --assume",
            )
        if self._assume == "right-padding":
            if not _right_padded(new) or (self.length and not new.all()):
                raise SpecError.of(
                    "assumed-padding",
                    "the model was built with --assume right-padding: each row of a prompt's mask must be ones, then "
                    "zeros, and no later token may be masked",
                    hint="build it without --assume, or pad on the right",
                )
            # The compact cache: each row's new tokens follow its own last one, and its padding stays at the end.
            columns: Ids = np.arange(whole.shape[1], dtype=np.int64)
            whole = np.less(columns, whole.sum(axis=1, keepdims=True)).astype(np.int64)
        return whole


def _require_caches(before: Graph, after: Graph) -> None:
    """Raise SpecError unless one graph hands on exactly the caches that the next one goes on from."""
    unlike = sorted(set(before.presents.values()) ^ after.pasts.keys())
    if unlike:
        raise SpecError.of(
            "unlike-caches",
            f"the graphs do not hand on their caches: '{unlike[0]}' is given or taken by one side only",
            hint=f"leave {SPELT} as they are called, and give every flow the same layers",
        )


def _right_padded(mask: Ids) -> bool:
    return bool((mask[:, :-1] >= mask[:, 1:]).all())


def default_mode(manifest: Manifest) -> str:
    """How to run a decoder when nobody says: `pair` when both graphs are there, else `unified`, else `decode`."""
    if not manifest.generates:
        raise SpecError.of("not-a-decoder", f"'{manifest.name}' is an {manifest.kind}: it has no next token")
    built = manifest.graphs
    if PREFILL.name in built and DECODE.name in built:
        return "pair"
    for mode in (UNIFIED.name, DECODE.name):
        if mode in built:
            return mode
    raise SpecError.of(
        "missing-graph",
        f"'{manifest.name}' has only a prefill graph, which cannot go on after the prompt",
        hint="build it with --graph unified, or --graph prefill,decode",
    )


def last_logits(logits: Logits, mask: Ids) -> Logits:
    """Logits [batch_size, vocab] of each row's last valid new token, by the new tokens' mask [batch_size, new]."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    return logits[np.arange(len(logits)), last]
