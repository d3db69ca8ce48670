"""Planted mistakes as data: what a person could get wrong in a family's spec, one table a family.

tests/parity/test_mistakes.py plants each of them in an oracle case; parity with HuggingFace must then fail.
"""
