"""Tiny checkpoints with the statistics of real ones: verify must believe them, and still find what is planted."""
