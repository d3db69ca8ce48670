"""Fuzz of what other people's code reads for us: arrays, tokenizers, ONNX bytes, templates, manifests, locks.

Each input gives a result or a message with a code, never a traceback, a crash of the process or a hang. Draws are the
same in every run; `make check-full` makes many more of them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from flowc.build.lock import check_lock, read_lock
from flowc.build.manifest import load
from flowc.cli import main
from flowc.errors import FlowError
from flowc.outside.reading import Unreadable
from flowc.runtime import bounded_tokenizer
from flowc.runtime.bounded_tokenizer import BoundedTokenizer
from flowc.weights.npy import read_npy
from tests.robust.builds import TINY
from tests.robust.calling import flowc
from tests.runtime.tiny import TinyLlama
from tests.runtime.words import byte_level, files, sentencepiece

FEW, MANY = 1, 40
"""How much of each fuzz `make test` and `make check-full` run: factors of the counts below."""

COUNTS = {"npy": 2_000, "tokenizers": 25, "onnx": 5, "templates": 25, "manifests": 250, "locks": 250}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    TinyLlama(vocab=300).write(folder / "m", ["unified"], tokenizer=files(byte_level(), {"eos_token": "<|end|>"}))
    assert main(["build", str(TINY), "-o", str(folder / "built" / "model.onnx"), "--verify", "off"]) == 0
    return folder


# Changes


ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 1e308, 0.5, "", "a", "\u2581", "(a+)+$", "[", "\x00", "💥" * 9,
    "x" * 5000, [], {}, [[]], {"type": "Sequence"}, "Replace", "BPE", "Unigram", "WordLevel", "ByteLevel", "../x",
)  # fmt: skip
PARTS: tuple[Any, ...] = (
    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 40},
    {"type": "Replace", "pattern": {"Regex": "(a|a)*b"}, "content": "c"},
    {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(bytes(range(40))).decode()},
    {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": ""}]},
    {"type": "Split", "pattern": {"Regex": "\\p{L}+|(?=b)"}, "behavior": "Isolated", "invert": True},
    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
    {"type": "Unigram", "unk_id": 7, "vocab": [["a", -1.0]], "byte_fallback": True},
    {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##", "max_input_chars_per_word": 1,
     "vocab": {"a": 0}},
    {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": [],
     "special_tokens": {}},
    {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": "a", "start": 99, "stop": 2**40},
    {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True}, {"type": "Digits"},
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or map in a value, with each of its keys."""
    entries: Any = ()
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value).items()
    elif isinstance(value, list):
        entries = enumerate(cast("list[Any]", value)[:20])
    for key, inner in entries:
        yield value, key
        yield from places(inner)


def fresh(value: Any) -> Any:
    """A copy of its own: what is put in may be changed in turn, and the next draw begins with the same values."""
    return json.loads(json.dumps(value))


def changed(rng: random.Random, value: Any, parts: tuple[Any, ...] = ()) -> Any:
    """A copy with one to three values changed, gone, or exchanged."""
    copy = fresh(value)
    for _ in range(rng.randint(1, 3)):
        found = list(places(copy))
        if not found:
            return copy
        holder, key = rng.choice(found)
        try:
            match rng.randrange(4):
                case 0:
                    del holder[key]
                case 1 if parts:
                    holder[key] = fresh(rng.choice(parts))
                case 2:
                    holder[key] = fresh(rng.choice(found)[0])
                case _:
                    holder[key] = fresh(rng.choice(ODD))
        except (LookupError, TypeError):  # a change before took the place away
            continue
    return copy


def test_draws_leave_what_they_draw_from_as_it_is() -> None:
    before = repr((ODD, PARTS))
    rng = random.Random("draws")
    for _ in range(500):
        changed(rng, {"a": [1, {"b": []}], "c": {}}, PARTS)
    assert repr((ODD, PARTS)) == before


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes with some changed, cut, doubled or made of other numbers."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at : at + rng.randint(1, 8)] = rng.randbytes(rng.randint(0, 8))
            case 1:
                del data[at : at + rng.randint(1, 64)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 64)]
            case 3:
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x00" * 4, b"\x80\x80\x80\x80"])
            case _:
                data[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(data)


def told(error: FlowError, *codes: str) -> None:
    """Fail unless an error has one of these codes."""
    assert {d.code for d in error.diagnostics} <= set(codes), error


# What is tried: each function makes one try and raises where something went wrong that no message tells


def try_npy(rng: random.Random, models: Path) -> None:
    header = (b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (1, 3), }").ljust(127) + b"\n"
    path = models / "x.npy"
    if rng.random() < 0.5:
        text = damaged(rng, header[10:])
        path.write_bytes(header[:8] + (len(text) % 65536).to_bytes(2, "little") + text + bytes(24))
    else:
        path.write_bytes(damaged(rng, header + bytes(24)))
    try:
        array = read_npy(path)
    except Unreadable:
        return
    assert array.nbytes <= path.stat().st_size


def lay(models: Path, texts: dict[str, str]) -> Path:
    """The tiny model with other tokenizer files; its manifest names them."""
    folder = models / "m"
    manifest = json.loads((folder / "model.flowc.json").read_text())
    manifest["tokenizer"] = []
    for name, text in texts.items():
        (folder / name).write_text(text)
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        manifest["tokenizer"].append({"file": name, "sha256": digest})
    (folder / "model.flowc.json").write_text(json.dumps(manifest))
    return folder / "model.onnx"


def try_texts(models: Path, texts: dict[str, str]) -> None:
    prompt = "a\u0301ab bab 12 \u2581 日本 \U0001f600" + "a" * 30
    with BoundedTokenizer(load(lay(models, texts))) as tokenizer:
        try:
            ids = tokenizer.encode_prompt(prompt)
            stream = tokenizer.stream(ids[:8])
            for token in [*ids[:4], 0, 1, 299, 2**31]:
                stream.push(token)
            stream.finish()
        except FlowError as error:
            told(error, "broken-tokenizer", "chat-template", "bad-prompt")


def try_tokenizers(rng: random.Random, models: Path) -> None:
    sound = json.loads(rng.choice([byte_level, sentencepiece])().to_str())
    try_texts(models, {"tokenizer.json": json.dumps(changed(rng, sound, PARTS))})


TEMPLATES = (
    "{{ messages[0].content }}", "{% for m in messages %}{{ m.role }}: {{ m['content'] }}\n{% endfor %}",
    "{% if not tools is defined %}{{ raise_exception('no') }}{% endif %}{{ bos_token }}",
    "{% macro f(x) %}{{ x * 3 }}{% endmacro %}{{ f(f(messages[0].content)) }}{{ strftime_now('%Y') | length }}",
    "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n | tojson }}",
    "{{ messages[0].content | upper | replace('A', 'AA') | batch(3) | list | tojson(indent=2) }}",
)  # fmt: skip
PIECES = (
    "{% for i in range(9**9) %}", "{{ 'a' * 10**9 }}", "{% endfor %}", "{{ ''.__class__.__mro__ }}", "{{ [].pop() }}",
    "{% include 'x' %}", "{{ self }}", "{{ 10**10**3 }}", "{{ 'x' | center(10**9) }}", "%}", "{{", "{% macro f() %}",
    "{{ f() }}", "{{ 1/0 }}", "{{ messages.append(1) }}", "{{ '%9999999d' % 1 }}", "{{ '{0:>999999}'.format(1) }}",
    "{{ lipsum(99) }}", "{{ cycler }}", "{{ '\\ud800' }}", "{{ loop.index }}", "{% generation %}",
    "{{ raise_exception(1) }}",
)  # fmt: skip


def try_templates(rng: random.Random, models: Path) -> None:
    template = rng.choice(TEMPLATES)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(template) + 1)
        new = rng.choice(PIECES) if rng.random() < 0.7 else rng.choice(TEMPLATES)[: rng.randrange(40)]
        template = template[:at] + new + template[at + rng.randrange(3) :]
    config = {"chat_template": template, "eos_token": "<|end|>"}
    try_texts(models, files(byte_level(), config))


def try_onnx(rng: random.Random, models: Path) -> None:
    """Damaged graphs whose hashes were made to fit: what looks at them without running them."""
    folder = models / "damaged"
    shutil.copytree(models / "built", folder, dirs_exist_ok=True)
    manifest = json.loads((folder / "model.flowc.json").read_text())
    for record in manifest["graphs"].values():
        content = damaged(rng, (folder / record["file"]).read_bytes())
        (folder / record["file"]).write_bytes(content)
        record["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "model.flowc.json").write_text(json.dumps(manifest))
    for command in (["verify", "damaged/model.onnx"], ["inspect", "damaged/model.onnx"]):
        done = flowc(*command, cwd=models)
        assert done.code in (0, 1, 2, 3), (done.code, done.err[-800:])


def manifest_at(rng: random.Random, folder: Path) -> Path:
    sound = json.loads((folder / "model.flowc.json").read_text())
    path = folder.parent / "spoiled.flowc.json"
    text = json.dumps(changed(rng, sound))
    path.write_bytes(damaged(rng, text.encode()) if rng.random() < 0.3 else text.encode())
    return path


def try_manifests(rng: random.Random, models: Path) -> None:
    try:
        found = load(manifest_at(rng, models / "built"))
        assert all(file.parent == models for file in found.files)
        for graph in (*found.graphs, "unified"):
            found.graph_path(graph)
    except FlowError as error:
        told(error, "bad-manifest", "changed-file", "missing-file", "missing-graph")


def try_locks(rng: random.Random, models: Path) -> None:
    sound = json.loads((models / "built" / "model.flowc.json").read_text())
    path = manifest_at(rng, models / "built")
    if rng.random() < 0.5:
        text = path.read_bytes().replace(b"{", b'{"flowc_lock": 1, ', 1)
        path = path.with_name("x.flowc.lock.json")
        path.write_bytes(text)
    try:
        check_lock(read_lock(path), sound, whole=rng.random() < 0.5)
    except FlowError as error:
        told(error, "bad-manifest", "locked")


TRIES: dict[str, Callable[[random.Random, Path], None]] = {
    "npy": try_npy, "tokenizers": try_tokenizers, "onnx": try_onnx, "templates": try_templates,
    "manifests": try_manifests, "locks": try_locks,
}  # fmt: skip


def run(kind: str, models: Path, count: int, seed: int) -> None:
    for number in range(count):
        TRIES[kind](random.Random(f"{kind} {seed} {number}"), models)


@pytest.mark.parametrize("kind", [k for k in TRIES if k != "onnx"])
def test_some(kind: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_tokenizer, "TIME_LIMIT", 10.0)
    run(kind, models, COUNTS[kind] * FEW // (5 if kind in ("tokenizers", "templates") else 1), 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRIES)
def test_many(kind: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_tokenizer, "TIME_LIMIT", 10.0)
    run(kind, models, COUNTS[kind] * MANY, 2)


def test_arrays_of_numpy_itself_are_read(models: Path) -> None:
    np.save(models / "x.npy", np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(read_npy(models / "x.npy"), np.arange(6).reshape(2, 3))
