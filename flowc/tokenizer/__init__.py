"""Tokenizers: all the files of a folder that decide how text becomes ids, read as `AutoTokenizer` reads them."""
