"""Tokenizers: all files of a folder that decide how text becomes ids, read as AutoTokenizer of HuggingFace reads them."""
