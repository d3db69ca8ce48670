"""GGUF files: header, blocks, the names of each architecture's tensors, the tokenizer inside."""
