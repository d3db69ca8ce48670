"""`make bench-memory`: peak memory of builds of large models, beside their largest tensor.

    python -m tests.bench.memory [FOLDER]

A dense model of three thousand million parameters and a layer of 128 experts, with seeded weights that are made while
they are written, as `flowc build --verify off` builds them in a process of its own. The goal is the largest tensor and
250 MB.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench.measure import measure

ROOT = Path(__file__).parents[2]
GOAL = 250_000_000

DENSE = """flowc: 1
name: dense-3b
kind: decoder
model: {hidden: 3072, layers: 28, heads: 24, kv_heads: 8, head_dim: 128, ffn: 8192, vocab: 128256, norm_eps: 1e-5,
  context_length: 4096, eos: 2}
weights: {random: 0}
flow:
  - embed: model.embed_tokens.weight
  - rope_tables: {theta: 500000, head_dim: $head_dim}
  - repeat:
      name: layers
      count: $layers
      body: [llama_decoder: 'model.layers.{i}']
  - rms_norm: model.norm.weight
  - gather_last_token
  - lm_head: {tied: true}
"""
EXPERTS = """flowc: 1
name: experts-128
kind: decoder
model: {hidden: 2048, heads: 32, kv_heads: 4, head_dim: 128, vocab: 32000, norm_eps: 1e-6, context_length: 4096, eos: 2}
weights: {random: 0}
flow:
  - embed: model.embed_tokens.weight
  - rope_tables: {theta: 1000000, head_dim: $head_dim}
  - qwen3_moe_decoder: {prefix: model.layers.0, experts: 128, top: 8, moe_ffn: 768, renormalise: true}
  - rms_norm: model.norm.weight
  - gather_last_token
  - lm_head: {tied: true}
"""


def largest(spec: Path, dtype: str) -> int:
    """Bytes of the largest weight that the build stores."""
    from flowc.build.compiled import Request
    from flowc.compile import compile_file

    return max(weight.nbytes for weight in compile_file(spec, Request(dtype=dtype)).weights)


def main() -> int:
    """Exit code 1 where a build takes more than the goal."""
    over = False
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for text, name in ((EXPERTS, "128 experts"), (DENSE, "3B")):
            spec = Path(folder) / "model.yaml"
            spec.write_text(text, encoding="utf-8")
            for dtype in ("float32", "float16"):
                out = Path(folder) / "out"
                build = ["flowc", "build", str(spec), "-o", str(out / "m.onnx"), "--verify", "off", "--dtype", dtype]
                sample = measure([sys.executable, "-m", *build], {}, Path(folder) / "log")
                found, tensor = sample.peak, largest(spec, dtype)
                over = over or found > tensor + GOAL
                print(f"{name}, {dtype}: peak {found / 1e6:,.0f} MB; largest tensor {tensor / 1e6:,.0f} MB", flush=True)
                for file in out.iterdir():
                    file.unlink()
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
