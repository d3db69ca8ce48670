from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from flowc.cli.run import run
from flowc.errors import CheckFailed, FlowError, SpecError
from tests.oracle_io import ROOT
from tests.runtime.tiny import TinyLlama, write_model
from tests.runtime.words import byte_level, files

MODEL = TinyLlama(vocab=258, hidden=48, seed=3)
IDS = [70, 103, 110]
CHAT = {"chat_template": "<s>{{ messages[-1].content }}{{ '?' if messages|length > 1 }}", "eos_token": "<|end|>"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    MODEL.write(tmp_path / "out", tokenizer=files(byte_level(), CHAT))
    return tmp_path / "out" / "model.onnx"


def invoke(*args: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(run, [str(arg) for arg in args], input=stdin)


def done(*args: object, stdin: bytes | None = None) -> Result:
    result = invoke(*args, stdin=stdin)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def ids_of(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


@pytest.mark.parametrize("graph", [(), ("--graph", "pair"), ("--graph", "unified")])
def test_ids_in_ids_out(model: Path, graph: tuple[str, ...]) -> None:
    result = done(model, "--ids", "70,103, 110", "-n", 6, *graph)
    assert result.stdout == ",".join(map(str, MODEL.greedy(IDS, 6))) + "\n"
    assert result.stderr.startswith(f"{graph[-1] if graph else 'pair'}: opened in ")
    assert "prompt of 3; 6 new tokens" in result.stderr
    assert result.stderr.endswith("stopped: the number of tokens asked for\n")


def test_the_default_is_64_tokens_within_the_context(model: Path) -> None:
    result = done(model, "--ids", "70,103")
    assert ids_of(result.stdout) == MODEL.greedy([70, 103], 63)
    assert "the model's context is full" in result.stderr


def expected_text(prompt: str, count: int) -> str:
    tokenizer = byte_level()
    ids = (
        [0, *tokenizer.encode(prompt.removeprefix("<s>")).ids]
        if prompt.startswith("<s>")
        else tokenizer.encode(prompt).ids
    )
    return tokenizer.decode(MODEL.greedy(ids, count), skip_special_tokens=True)


@pytest.mark.parametrize(
    ("args", "stdin", "seen"),
    [
        (["--prompt", "hi"], None, "<s>hi"),
        (["--prompt", "hi", "--raw"], None, "hi"),
        (["--prompt", "hi", "--system", "be brief"], None, "<s>hi?"),
        (["--prompt", "-", "--raw"], "naïve\n".encode(), "naïve"),
        (["--prompt", "-", "--raw"], b"two\n\n", "two\n"),
    ],
)
def test_text_in_text_out(model: Path, args: list[str], stdin: bytes | None, seen: str) -> None:
    result = done(model, *args, "-n", 12, "--ignore-eos", stdin=stdin)
    assert result.stdout == expected_text(seen, 12) + "\n"


def test_it_stops_at_the_end_token_unless_told(tmp_path: Path) -> None:
    expected = MODEL.greedy(IDS, 12)
    end = next(token for i, token in enumerate(expected) if i >= 2 and token not in expected[:i])
    ending = TinyLlama(vocab=258, hidden=48, seed=3, eos=(end,))
    ending.write(tmp_path, tokenizer=files(byte_level()))
    result = done(tmp_path, "--ids", "70,103,110", "-n", 12)
    assert ids_of(result.stdout) == expected[: expected.index(end) + 1]
    assert "the model ended its text" in result.stderr
    assert ids_of(done(tmp_path, "--ids", "70,103,110", "-n", 12, "--ignore-eos").stdout) == expected


def test_the_end_token_is_no_text(tmp_path: Path) -> None:
    tokens = MODEL.greedy(byte_level().encode("hi").ids, 12)
    end = next(token for i, token in enumerate(tokens) if i >= 2 and token not in tokens[:i])
    TinyLlama(vocab=258, hidden=48, seed=3, eos=(end,)).write(tmp_path, tokenizer=files(byte_level()))
    result = done(tmp_path, "--prompt", "hi", "-n", 12)
    assert result.stdout == byte_level().decode(tokens[: tokens.index(end)]) + "\n"


def test_json_is_one_object(model: Path) -> None:
    prompt = [0, *byte_level().encode("hi").ids]
    result = done(model, "--prompt", "hi", "-n", 5, "--ignore-eos", "--json")
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["prompt_ids"] == prompt
    assert found["ids"] == MODEL.greedy(prompt, 5)
    assert found["text"] == expected_text("<s>hi", 5)
    assert (found["graph"], found["stopped"], found["seed"]) == ("pair", "max-tokens", None)
    assert set(found["seconds"]) == {"open", "first_token", "rest"}
    assert json.loads(done(model, "--ids", "1,2", "-n", 1, "--json").stdout)["text"] is None


def test_drawing_is_repeatable_by_the_seed_it_tells(model: Path) -> None:
    free = done(model, "--ids", "70,103", "-n", 12, "--top-p", "0.99")
    seed = free.stderr.rpartition("seed ")[2].strip()
    again = done(model, "--ids", "70,103", "-n", 12, "--temperature", 1, "--top-p", "0.99", "--seed", seed)
    assert again.stdout == free.stdout
    assert free.stdout != done(model, "--ids", "70,103", "-n", 12).stdout
    assert (
        done(model, "--ids", "70,103", "-n", 12, "--temperature", 9, "--top-k", 1).stdout
        == done(model, "--ids", "70,103", "-n", 12).stdout
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "say what to run"),
        (["--prompt", "a", "--ids", "1"], "exclude each other"),
        (["--ids", "1,a"], "not a list of token ids"),
        (["--ids", ""], "not a list of token ids"),
        (["--ids", "1", "-n", "0"], "0 is not in the range"),
        (["--ids", "1", "--graph", "triple"], "triple"),
        (["--ids", "1", "--top-p", "0"], "0.0 is not in the range"),
        (["--ids", "1", "--top-p", "nan"], "nan is not a finite number"),
        (["--ids", "1", "--temperature", "inf"], "inf is not a finite number"),
        (["--ids", "1", "--output", "x.npz"], "--output is for arrays"),
        (["--input", "a"], "not NAME=FILE.npy"),
        (["--input", "a=b", "--input", "a=c"], "a is given twice"),
        (["--input", "a=b", "--ids", "1"], "cannot read input a"),
    ],
)
def test_command_lines_that_are_wrong(model: Path, args: list[str], message: str) -> None:
    result = invoke(model, *args)
    text = str(result.exception) if isinstance(result.exception, FlowError) else result.stderr
    assert message in text
    assert result.stdout == ""
    assert result.exit_code == 2 or isinstance(result.exception, SpecError)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--ids", "258"], "token id 258 lies outside"),
        (["--ids", ",".join(["1"] * 65)], "has 65 tokens"),
        (["--prompt", "", "--raw"], "error[bad-prompt]: the prompt has no tokens"),
        (["--prompt", "x", "--raw", "--system", "y"], "--raw leaves it out"),
    ],
)
def test_requests_that_the_model_refuses(model: Path, args: list[str], message: str) -> None:
    result = invoke(model, *args)
    assert isinstance(result.exception, SpecError)
    assert message in str(result.exception)
    assert result.stdout == ""


def test_stdin_that_is_not_text(model: Path) -> None:
    result = invoke(model, "--prompt", "-", stdin=b"\xff\xfe")
    assert isinstance(result.exception, SpecError)
    assert "standard input is not text" in str(result.exception)


def test_a_model_that_changed_on_disk(model: Path) -> None:
    model.with_name("model.decode.onnx").write_bytes(b"")
    result = invoke(model, "--ids", "1")
    assert isinstance(result.exception, CheckFailed)


ENCODER = """<ir_version: 10, opset_import: ["" : 23]>
encode (int64[B,S] input_ids, int64[B,S] attention_mask, int64[B,S] token_type_ids) => (float[B,S,2] last_hidden_state)
{
  rows = Gather(table, input_ids)
  mask = Cast<to=1>(attention_mask)
  axes = Constant<value_ints=[2]>()
  mask3 = Unsqueeze(mask, axes)
  types = Cast<to=1>(token_type_ids)
  types3 = Unsqueeze(types, axes)
  kept = Mul(rows, mask3)
  last_hidden_state = Add(kept, types3)
}"""
TABLE = np.arange(600, dtype=np.float32).reshape(300, 2) / 3


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    facts = {"vocab": 300, "context_length": 16, "eos": None}
    texts = files(byte_level())
    write_model(tmp_path, {"encode": ENCODER}, {"table": TABLE}, facts=facts, kind="encoder", tokenizer=texts)
    return tmp_path / "model.onnx"


def test_an_encoder_shows_its_outputs(encoder: Path, tmp_path: Path) -> None:
    ids = byte_level().encode("héy").ids
    result = done(encoder, "--prompt", "héy", "--output", tmp_path / "out.npz")
    assert result.stdout.startswith(f"last_hidden_state float32[1, 4, 2]: {TABLE[ids[0], 0]:.6g} ")
    assert not result.stdout.rstrip().endswith("…")
    with np.load(tmp_path / "out.npz") as written:
        np.testing.assert_array_equal(written["last_hidden_state"], TABLE[[ids]])
    found = json.loads(done(encoder, "--ids", "5,6,7,8,9", "--json").stdout)
    assert found["outputs"]["last_hidden_state"]["shape"] == [1, 5, 2]
    assert found["outputs"]["last_hidden_state"]["first"] == TABLE[[5, 6, 7, 8]].ravel().tolist()


def test_arrays_as_inputs(encoder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "types.npy", np.array([[0, 1]]))
    result = done(encoder, "--ids", "3,6", "--input", f"token_type_ids={tmp_path / 'types.npy'}")
    assert result.stdout == "last_hidden_state float32[1, 2, 2]: 2 2.33333 5 5.33333\n"


@pytest.mark.parametrize("name", ["model.onnx", "model.prefill.onnx", "model.decode.onnx"])
def test_arrays_through_the_graph_that_was_named(model: Path, name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array([[70]]))
    out = tmp_path / "out.npz"
    result = done(model.with_name(name), "--input", f"input_ids={tmp_path / 'ids.npy'}", "--output", out, "--json")
    assert json.loads(result.stdout)["graph"] == {"model.onnx": "unified"}.get(name, name.split(".")[1])
    with np.load(out) as written:
        np.testing.assert_allclose(written["logits"][0, 0], MODEL.reference([70])[-1], atol=1e-4)
        assert written["present.0.key"].shape == (1, 2, 1, 16)


def test_arrays_that_cannot_be_read_or_written(encoder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "short.npy").write_bytes(b"\x93NUMPY")
    for name in ("two.npz", "object.npy", "short.npy", "absent.npy"):
        result = invoke(encoder, "--input", f"input_ids={tmp_path / name}")
        assert isinstance(result.exception, SpecError)
        assert "cannot read input input_ids" in str(result.exception)
    result = invoke(encoder, "--ids", "1", "--output", tmp_path / "two.npz" / "out.npz")
    assert isinstance(result.exception, SpecError)
    assert "cannot write" in str(result.exception)


@pytest.fixture
def endless(tmp_path: Path) -> list[str]:
    """A command that goes on for longer than any test."""
    TinyLlama(context=30000, layers=1).write(tmp_path, form="shared")
    return [sys.executable, "-m", "flowc", "run", str(tmp_path / "model.onnx"), "--ids", "1,2", "-n", "29000"]


def test_an_interrupt_ends_it_quietly(endless: list[str]) -> None:
    with subprocess.Popen(endless, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert isinstance(process.stdout, io.BufferedReader)
        begun = process.stdout.read(4)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    assert process.returncode == 130
    assert errors == b""
    assert (begun + rest).endswith(b"\n")
    assert all(0 <= token < 40 for token in ids_of((begun + rest).decode().rstrip(",\n")))


def test_a_model_that_breaks_off_leaves_a_whole_line(tmp_path: Path) -> None:
    # Its rotary tables end before the context that its manifest promises.
    found = TinyLlama(context=8).write(tmp_path)
    found.write_text(found.read_text().replace('"context_length": 8', '"context_length": 64'))
    result = invoke(found, "--ids", "1,2")
    assert isinstance(result.exception, CheckFailed)
    assert ids_of(result.stdout) == TinyLlama(context=8).greedy([1, 2], 7)
    assert result.stdout.endswith("\n")
    assert invoke(found, "--ids", ",".join(["1"] * 9)).stdout == ""


def test_a_reader_that_goes_away_ends_it_quietly(endless: list[str]) -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(endless, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        os.read(reading, 4)
        os.close(reading)
        _, errors = process.communicate()
    assert process.returncode == 141
    assert errors == b""


def test_text_for_a_terminal_of_few_characters(model: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from flowc.cli.run import run; run()",
        str(model),
        "--prompt",
        "hi",
        "--ignore-eos",
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, env=environment, check=True)
    assert result.stdout.isascii()
    assert b"?" in result.stdout
