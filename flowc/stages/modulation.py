"""Adaptive layer norms and gates of diffusion transformers. (Begun; the author of this file has it, as importers/flux.)"""
