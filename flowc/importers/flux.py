"""FLUX transformers. (Begun; the author of this file has it.)"""
