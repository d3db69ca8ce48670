"""Weights as expressions over named tensors of a checkpoint."""
