"""Commands that are called wrongly: one sentence, a hint, the exit code 2, whatever the command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.types import FloatParamType

from flowc.cli import COMMANDS, cli
from tests.cli.calling import BASE, flowc, write_spec


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


NUMBERS = [
    pytest.param(words, option.opts[0], id=f"{' '.join(words)} {option.opts[0]}")
    for words, command in commands()
    for option in command.params
    if isinstance(option.type, FloatParamType)
]
GROUPS = [words for words, command in commands() if isinstance(command, click.Group)]


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
@pytest.mark.parametrize(("words", "option"), NUMBERS)
def test_a_number_is_finite_and_not_negative(words: tuple[str, ...], option: str, value: str) -> None:
    called = flowc(*words, "x", option, value)
    assert called.code == 2
    assert called.stderr.startswith(
        f"error[usage]: invalid value for '{option}': {value.replace('-1', '-1.0')} is not "
    )


@pytest.mark.parametrize("words", [(), *GROUPS], ids=" ".join)
def test_a_group_without_a_command_shows_its_help(words: tuple[str, ...]) -> None:
    called = flowc(*words)
    assert (called.code, called.stderr) == (0, "")
    assert called.stdout == flowc(*words, "--help").stdout
    listed = called.stdout.partition("Commands:\n")[2]
    assert "..." not in listed
    wrong = flowc(*words, "chek")
    assert wrong.code == 2
    assert wrong.stderr.startswith("error[usage]: there is no command 'chek'; did you mean 'check'?\n")


@pytest.mark.parametrize("command", ["check", "build", "explain"])
@pytest.mark.parametrize("file", ["model.onnx", "model.flowc.json", "model.onnx.data", "model.00001.onnx.data"])
def test_a_build_is_no_spec(command: str, file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_bytes(b"\xc7{}")
    called = flowc(command, path, *(["-o", tmp_path / "new.onnx"] if command == "build" else []))
    assert called.code == 2
    assert called.stderr == (
        f"error[usage]: '{path}' is a file of a build, and this command takes a spec\n"
        f"help: `flowc {command} --help` shows what it takes\n"
    )


@pytest.mark.parametrize("words", [("inspect",), ("report",), ("diff",), ("verify",), ("run", "--ids", "1")])
def test_a_model_that_is_not_there(words: tuple[str, ...], tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    called = flowc(words[0], missing, *(["b"] if words == ("diff",) else words[1:]))
    assert called.code == 2
    assert str(missing) in called.stderr


def test_inspect_refuses_a_graph_that_is_not_there(tmp_path: Path) -> None:
    called = flowc("inspect", write_spec(tmp_path, BASE), "--graph", "decode", "--graph", "decod")
    assert called.code == 2
    assert called.stderr == ("error[unknown-graph]: there is no graph 'decod'\nhelp: did you mean 'decode'?\n")
    assert called.stdout == ""


def test_a_tolerance_is_that_of_a_reference() -> None:
    called = flowc("verify", "model.onnx", "--tolerance", "1e-3")
    assert called.code == 2
    assert called.stderr.startswith("error[usage]: --tolerance is that of --against, which is not given\n")


def test_more_memory_than_there_is() -> None:
    assert "is not in the range 0.1<=x<=1000000" in flowc("verify", "model.onnx", "--memory", "1e300").stderr


def test_a_folder_named_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        flowc("build", write_spec(tmp_path, BASE), "-o", tmp_path / "out" / "model.onnx", "--verify", "off").code == 0
    )
    (tmp_path / "out" / "in").mkdir()
    for folder, dots in (("out", "."), ("out/in", "..")):
        monkeypatch.chdir(tmp_path / folder)
        assert flowc("report", dots, "--verify", "off").code == 0
        (tmp_path / "out" / "out.report.html").unlink()


def test_every_command_is_there() -> None:
    assert [words[0] for words, _ in commands() if len(words) == 1] == list(COMMANDS)
    assert len(NUMBERS) >= 4
