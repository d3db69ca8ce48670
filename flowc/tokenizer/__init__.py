"""Tokenizers: all files of a folder that decide how text becomes ids, read as HuggingFace's AutoTokenizer reads them."""
