"""Small decoders written out by hand, honouring the contracts of the compiler's graphs, with an independent reference.

`TinyLlama` is a Llama: RMSNorm, rotary halves, grouped heads, SwiGLU, untied head. `write` puts its graphs, one weights
file and a manifest into a folder; `reference` computes the same logits in float64 numpy, one row without any padding.
Forms of attention:

    columns         Attention (ONNX 23) with a boolean mask: right for every padding
    shared          GroupQueryAttention writing into its past buffer: right padding only
    no-padding      as `columns`, without an attention_mask input
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser

Array = npt.NDArray[Any]
ALL = ("unified", "prefill", "decode")
ASSUME = {"columns": None, "shared": "right-padding", "no-padding": "no-padding"}


@dataclass(frozen=True)
class TinyLlama:
    """A Llama of any size with seeded random weights."""

    seed: int = 0
    vocab: int = 40
    hidden: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 48
    context: int = 64
    theta: float = 10000.0
    eps: float = 1e-5
    eos: tuple[int, ...] = ()
    weights: dict[str, Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)

        def matrix(rows: int, columns: int) -> Array:
            return (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        weights: dict[str, Array] = {"embed": matrix(self.vocab, self.hidden) * np.float32(4)}
        for i in range(self.layers):
            shapes = {
                "q": (q, self.hidden),
                "k": (kv, self.hidden),
                "v": (kv, self.hidden),
                "o": (self.hidden, q),
                "gate": (self.ffn, self.hidden),
                "up": (self.ffn, self.hidden),
                "down": (self.hidden, self.ffn),
            }
            weights |= {f"l{i}_{name}": matrix(*shape) for name, shape in shapes.items()}
            for norm in ("n1", "n2"):
                weights[f"l{i}_{norm}"] = random.uniform(0.5, 1.5, self.hidden).astype(np.float32)
        weights["norm"] = random.uniform(0.5, 1.5, self.hidden).astype(np.float32)
        weights["head"] = matrix(self.vocab, self.hidden) * np.float32(3)
        angles = np.arange(self.context)[:, None] * self.theta ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        weights |= {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}
        object.__setattr__(self, "weights", weights)

    def reference(self, ids: Iterable[int]) -> Array:
        """Logits [tokens, vocab] of one unpadded row, in float64."""
        w = {name: value.astype(np.float64) for name, value in self.weights.items()}
        row = np.array(list(ids))
        tokens, group = len(row), self.heads // self.kv_heads
        cos, sin = w["cos"][:tokens, None], w["sin"][:tokens, None]
        causal = np.where(np.tril(np.ones((tokens, tokens))) > 0, 0.0, -np.inf)

        def norm(x: Array, gain: Array) -> Array:
            return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * gain

        def rotate(x: Array) -> Array:
            a, b = np.split(x, 2, axis=-1)
            return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

        x = w["embed"][row]
        for i in range(self.layers):
            h = norm(x, w[f"l{i}_n1"])
            q = rotate((h @ w[f"l{i}_q"].T).reshape(tokens, self.heads, self.head_dim))
            k = rotate((h @ w[f"l{i}_k"].T).reshape(tokens, self.kv_heads, self.head_dim))
            v = (h @ w[f"l{i}_v"].T).reshape(tokens, self.kv_heads, self.head_dim)
            mixed = np.zeros_like(q)
            for head in range(self.heads):
                scores = q[:, head] @ k[:, head // group].T / np.sqrt(self.head_dim) + causal
                shares = np.exp(scores - scores.max(-1, keepdims=True))
                mixed[:, head] = shares / shares.sum(-1, keepdims=True) @ v[:, head // group]
            x = x + mixed.reshape(tokens, -1) @ w[f"l{i}_o"].T
            h = norm(x, w[f"l{i}_n2"])
            gate = h @ w[f"l{i}_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w[f"l{i}_up"].T)) @ w[f"l{i}_down"].T
        return norm(x, w["norm"]) @ w["head"].T

    def greedy(self, ids: Iterable[int], count: int) -> list[int]:
        """The next tokens by the reference, always the whole row anew."""
        row = list(ids)
        for _ in range(count):
            row.append(int(np.argmax(self.reference(row)[-1])))
        return row[-count:]

    def write(
        self,
        folder: Path,
        graphs: Iterable[str] = ALL,
        *,
        form: str = "columns",
        logits: str = "last",
        tokenizer: Mapping[str, str] | None = None,
    ) -> Path:
        """Write graphs, weights and manifest; gives the manifest's path."""
        texts = {graph: self._text(graph, form, logits) for graph in graphs}
        return write_model(
            folder,
            texts,
            self.weights,
            assume=ASSUME[form],
            cache="shared" if form == "shared" else "",
            logits=logits,
            tokenizer=tokenizer,
            facts={"vocab": self.vocab, "context_length": self.context, "eos": list(self.eos), "bos": None},
        )

    def _text(self, graph: str, form: str, logits: str) -> str:
        past = graph != "prefill"
        new = "1" if graph == "decode" else "S"
        masked = form != "no-padding"
        cache = f"float[B,{self.kv_heads},{{}},{self.head_dim}]"
        inputs = [f"int64[B,{new}] input_ids"] + (["int64[B,T] attention_mask"] if masked else [])
        outputs = [f"float[B,{new if logits == 'all' else 1},{self.vocab}] logits"]
        for i in range(self.layers):
            for part in ("key", "value"):
                inputs += [f'{cache.format("P")} "past_key_values.{i}.{part}"'] if past else []
                outputs.append(f'{cache.format("T")} "present.{i}.{part}"')
        body = [
            "one = Constant<value_int=1>()",
            "zero = Constant<value_int=0>()",
            "ones = Constant<value_ints=[1]>()",
            "zeros = Constant<value_ints=[0]>()",
            "seconds = Constant<value_ints=[2]>()",
            "largest = Constant<value_ints=[9223372036854775807]>()",
            "new = Shape<start=1, end=2>(input_ids)",
            *(_MASKED if masked else _UNMASKED_PAST if past else _UNMASKED),
            "before = Sub(total, new)",
            "x0 = Gather(embed, input_ids)",
        ]
        body += _COMPACT if form == "shared" else _COLUMNS
        for i in range(self.layers):
            body += self._layer(i, past, form)
        x = f"x{self.layers}"
        if logits == "last":
            body += [
                "order = Range(zero, new_0, one)",
                "new_mask = Slice(mask, before, total, ones)",
                "ranked = Mul(new_mask, order)",
                "last = ArgMax<axis=1, keepdims=1>(ranked)",
                "last3 = Unsqueeze(last, seconds)",
                "last_wide = Expand(last3, hidden_shape)",
                f"kept = GatherElements<axis=1>({x}, last_wide)",
            ]
            body[1:1] = [
                f"hidden_shape = Constant<value_ints=[1,1,{self.hidden}]>()",
                "new_1 = Shape<start=1, end=2>(input_ids)",
                "new_0 = Squeeze(new_1)",
            ]
            x = "kept"
        body += [
            f"xn = RMSNormalization<axis=-1, epsilon={self.eps}>({x}, norm)",
            "logits = com.microsoft.FusedMatMul<transB=1>(xn, head)",
        ]
        lines = ",\n  ".join(inputs), ",\n  ".join(outputs), "\n  ".join(body)
        return (
            '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>\n'
            f"{graph} ({lines[0]}) => ({lines[1]}) {{\n  {lines[2]}\n}}"
        )

    def _layer(self, i: int, past: bool, form: str) -> list[str]:
        p = f"l{i}_"
        lines = [f"{p}h = RMSNormalization<axis=-1, epsilon={self.eps}>(x{i}, {p}n1)"]
        lines += [f"{p}{t}p = com.microsoft.FusedMatMul<transB=1>({p}h, {p}{t})" for t in "qkv"]
        caches = f'"past_key_values.{i}.key", "past_key_values.{i}.value"' if past else ","
        presents = f'"present.{i}.key", "present.{i}.value"'
        if form == "shared":
            lines.append(
                f"{p}a, {presents} = com.microsoft.GroupQueryAttention"
                f"<num_heads={self.heads}, kv_num_heads={self.kv_heads}, do_rotary=1>"
                f"({p}qp, {p}kp, {p}vp, {caches}, lengths, total32, cos, sin)"
            )
        else:
            for t, heads in (("q", self.heads), ("k", self.kv_heads)):
                lines.append(f"{p}{t}r = RotaryEmbedding<num_heads={heads}>({p}{t}p, cos, sin, positions)")
            lines.append(
                f"{p}a, {presents} = Attention<q_num_heads={self.heads}, kv_num_heads={self.kv_heads}>"
                f"({p}qr, {p}kr, {p}vp, allowed, {caches})"
            )
        return [
            *lines,
            f"{p}o1 = com.microsoft.FusedMatMul<transB=1>({p}a, {p}o)",
            f"{p}x = Add(x{i}, {p}o1)",
            f"{p}m = RMSNormalization<axis=-1, epsilon={self.eps}>({p}x, {p}n2)",
            f"{p}g = com.microsoft.FusedMatMul<transB=1>({p}m, {p}gate)",
            f"{p}u = com.microsoft.FusedMatMul<transB=1>({p}m, {p}up)",
            f"{p}s = Sigmoid({p}g)",
            f"{p}gs = Mul({p}g, {p}s)",
            f"{p}gu = Mul({p}gs, {p}u)",
            f"{p}d = com.microsoft.FusedMatMul<transB=1>({p}gu, {p}down)",
            f"x{i + 1} = Add({p}x, {p}d)",
        ]


_ONNX = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64, "uint8": onnx.TensorProto.UINT8}

_MASKED = ["total = Shape<start=1, end=2>(attention_mask)", "mask = Identity(attention_mask)"]
_UNMASKED = [
    "total = Identity(new)",
    "ids_shape = Shape(input_ids)",
    "mask = Expand(one, ids_shape)",
]
_UNMASKED_PAST = [
    'held = Shape<start=2, end=3>("past_key_values.0.key")',
    "total = Add(held, new)",
    "rows = Shape<start=0, end=1>(input_ids)",
    "mask_shape = Concat<axis=0>(rows, total)",
    "mask = Expand(one, mask_shape)",
]
_COLUMNS = [
    "counted = CumSum(mask, one)",
    "last_position = Sub(counted, one)",
    "all_positions = Max(last_position, zero)",
    "positions = Slice(all_positions, before, total, ones)",
    "total_0 = Squeeze(total)",
    "before_0 = Squeeze(before)",
    "columns = Range(zero, total_0, one)",
    "queries = Range(before_0, total_0, one)",
    "queries_2 = Unsqueeze(queries, ones)",
    "seen = GreaterOrEqual(queries_2, columns)",
    "valid = Cast<to=9>(mask)",
    "axes = Constant<value_ints=[1,2]>()",
    "valid_4 = Unsqueeze(valid, axes)",
    "allowed = And(valid_4, seen)",
]
_COMPACT = [
    "counts = ReduceSum<keepdims=0>(mask, ones)",
    "last_index = Sub(counts, one)",
    "lengths = Cast<to=6>(last_index)",
    "total32_1 = Cast<to=6>(total)",
    "total32 = Squeeze(total32_1)",
]


def write_model(
    folder: Path,
    texts: Mapping[str, str],
    weights: Mapping[str, Array],
    *,
    facts: Mapping[str, object],
    assume: str | None = None,
    cache: str = "",
    kind: str = "decoder",
    logits: str = "last",
    properties: Mapping[str, str] | None = None,
    tokenizer: Mapping[str, str] | None = None,
) -> Path:
    """Write `model*.onnx` from onnx.parser texts, all with their weights in one file, and the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, tuple[int, int]] = {}
    with (folder / "model.onnx.data").open("wb") as data:
        for name, array in weights.items():
            data.write(b"\0" * (-data.tell() % 4096))
            places[name] = (data.tell(), array.nbytes)
            data.write(array.tobytes())
    beside = dict(tokenizer or {})
    for name, text in beside.items():
        (folder / name).write_text(text, encoding="utf-8")
    graphs: dict[str, object] = {}
    for graph, text in texts.items():
        model = onnx.parser.parse_model(text)
        used = {name for node in model.graph.node for name in node.input}
        for name in [name for name in weights if name in used]:
            tensor = onnx.TensorProto(name=name, dims=weights[name].shape, data_location=onnx.TensorProto.EXTERNAL)
            tensor.data_type = _ONNX[str(weights[name].dtype)]
            offset, length = places[name]
            for key, value in {"location": "model.onnx.data", "offset": offset, "length": length}.items():
                tensor.external_data.add(key=key, value=str(value))
            model.graph.initializer.append(tensor)
        known = {"flowc.graph": graph, "flowc.assume": assume or "none", "flowc.cache": cache, **(properties or {})}
        for key, value in known.items():
            model.metadata_props.add(key=key, value=value)
        file = "model.onnx" if graph in ("unified", "encode") else f"model.{graph}.onnx"
        (folder / file).write_bytes(model.SerializeToString(deterministic=True))
        graphs[graph] = {"file": file, "sha256": _sha256(folder / file)}
    data_file = folder / "model.onnx.data"
    manifest = {
        "flowc": "0",
        "name": "tiny",
        "target": "ort-cpu",
        "assume": assume,
        "kind": kind,
        "logits": logits,
        "graphs": graphs,
        "data": {"file": data_file.name, "sha256": _sha256(data_file), "bytes": data_file.stat().st_size},
        "tokenizer": [{"file": name, "sha256": _sha256(folder / name)} for name in beside],
        "model": dict(facts),
    }
    path = folder / "model.flowc.json"
    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
