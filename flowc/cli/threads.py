"""How many threads a command line may ask for."""

from __future__ import annotations

import click

THREADS = click.IntRange(1, 1024)
"""More than a machine has cores for: onnxruntime starts as many as it is told, and cannot be stopped while it does."""
