"""The machine around a command: its home, its memory, its encoding, other builds."""

from __future__ import annotations

import ast
import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import flowc.build.publish as publishing
from flowc.build.publish import staging_folder
from flowc.cli import main
from flowc.errors import Diagnostic, SpecError, harmless
from flowc.outside.foreign import LEAST_MEMORY, foreign, lack_of
from tests.oracle_io import ROOT
from tests.robust.builds import TINY, agrees, finish, larger, start
from tests.robust.calling import below, flowc

COMMANDS = {
    "run": ("run", "m/model.onnx", "--ids", "1,2", "-n", "2"),
    "verify": ("verify", "m/model.onnx"),
    "inspect": ("inspect", "m/model.onnx"),
    "report": ("report", "m/model.onnx"),
    "doctor": ("doctor",),
    "diff": ("diff", "m/model.onnx", "m/model.onnx"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("home")
    assert flowc("build", TINY, "-o", "m/model.onnx", cwd=made).code == 0
    return made


def foreign_to_flowc(home: Path) -> list[str]:
    """What lies below a home beside flowc's own cache, which docs/robustness.md and docs/ci.md tell of."""
    own = {".cache", ".cache/flowc", ".cache/flowc/builds", ".cache/flowc/hashes"}
    return [name for name in below(home) - own if not name.startswith((".cache/flowc/builds/", ".cache/flowc/hashes/"))]


def test_building_writes_nothing_below_home_but_its_own_cache(folder: Path) -> None:
    assert not foreign_to_flowc(folder / "home")


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_written_below_home(folder: Path, command: str) -> None:
    done = flowc(*COMMANDS[command], cwd=folder)
    assert done.code == 0, done.err
    assert not foreign_to_flowc(folder / "home")
    assert not [line for line in done.out.splitlines() if "Telemetry" in line or "EP Error" in line]


def test_one_door_to_onnxruntime() -> None:
    """Its import is made in one place, which turns its telemetry off before."""
    doors: list[str] = []
    for room in ("flowc", "lowering", "passes"):
        for path in (ROOT / room).rglob("*.py"):
            tree = ast.parse(path.read_text())
            typing = {id(n) for i in ast.walk(tree) if isinstance(i, ast.If) for n in ast.walk(i)}
            for node in ast.walk(tree):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if id(node) not in typing and any(n.partition(".")[0] == "onnxruntime" for n in names):
                    doors.append(str(path.relative_to(ROOT)))
    assert doors == ["flowc/outside/runtime.py"]


@pytest.mark.parametrize("limit", [60_000, 130_000, 190_000, 230_000, 300_000])
@pytest.mark.parametrize("command", ["run", "verify", "inspect"])
def test_little_memory(folder: Path, command: str, limit: int) -> None:
    done = flowc(*COMMANDS[command], cwd=folder, shell=f"ulimit -v {limit}")
    if limit >= 100_000:  # below, Python itself does not start
        done.refused(4, "error[no-memory]")
        assert limit * 1024 < LEAST_MEMORY
    assert not done.out


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("numpy/_common.so: failed to map segment from shared object"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
        RuntimeError("Failed to allocate memory for requested buffer of size 400"),
        OSError(12, "Cannot allocate memory"),
        SystemError("error return without exception set"),
        RuntimeError("can't start new thread"),
    ],
)
def test_what_libraries_say_of_a_lack(error: Exception) -> None:
    lack = lack_of(error)
    assert lack is not None
    assert lack.exit_code == 4
    with pytest.raises(type(lack)), foreign(lambda why: SpecError.of("bad-input", why)):
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), ImportError("no module"), OSError(2, "No such file"), KeyError(1)])
def test_what_is_no_lack(error: Exception) -> None:
    assert lack_of(error) is None
    with pytest.raises(SpecError), foreign(lambda why: SpecError.of("bad-input", why)):
        raise error


def test_ctrl_c_is_not_caught() -> None:
    with pytest.raises(KeyboardInterrupt), foreign(lambda why: SpecError.of("bad-input", why)):
        raise KeyboardInterrupt


def test_a_name_that_the_locale_cannot_spell(tmp_path: Path) -> None:
    command = ("build", TINY, "-o", "café/model.onnx", "--verify", "off")
    done = flowc(*command, cwd=tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    done.refused(2, "error[bad-output]: cannot write ", "is not text here")
    assert below(tmp_path) == {"home"}
    assert flowc(*command, cwd=tmp_path, LC_ALL="C.UTF-8").code == 0


def test_a_message_is_one_line() -> None:
    forged = Diagnostic("bad-value", "no 'a\n\n18 checks passed\x1b[2J'", hint="b\rc\u2028d")
    assert forged.render().splitlines() == [
        r"error[bad-value]: no 'a\n\n18 checks passed\x1b[2J'",
        r"help: b\rc\u2028d",
    ]
    assert harmless("été, 日本\u00a0") == "été, 日本" + r"\xa0"


def test_names_in_tables_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "x.yaml"
    spec.write_text(TINY.read_text().replace("name: tiny-llama", r'name: "tiny\nok   files"'))
    for command in (["check", str(spec)], ["inspect", str(spec)]):
        assert main(command) == 0
        assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("ok ")]


def test_two_builds_at_once_show_no_error(tmp_path: Path) -> None:
    for attempt in range(4):
        out = tmp_path / str(attempt) / "model.onnx"
        racers = [start(larger(tmp_path, seed, 500), out) for seed in (1, 2, 3)]
        for racer in racers:
            finish(racer)
        assert agrees(out.parent)


def test_a_file_that_another_build_replaces_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = publishing.publish

    def then_replaced(*arguments: Any) -> Any:
        found = published(*arguments)
        (tmp_path / "model.decode.onnx").unlink()  # the other one is about to rename its own
        return found

    monkeypatch.setattr(publishing, "publish", then_replaced)
    assert main(["build", str(TINY), "-o", str(tmp_path / "model.onnx"), "--verify", "off"]) == 0


def test_a_failing_build_does_not_take_the_folder_from_another(tmp_path: Path) -> None:
    stop = threading.Event()

    def fail() -> None:
        while not stop.is_set():
            with contextlib.suppress(SpecError), staging_folder(tmp_path / "a" / "b", 0):
                raise SpecError.of("bad-value", "it fails")

    failing = [threading.Thread(target=fail) for _ in range(3)]
    for thread in failing:
        thread.start()
    try:
        for _ in range(300):
            with staging_folder(tmp_path / "a" / "b", 0) as work:
                (work / "x").write_text("x")
    finally:
        stop.set()
        for thread in failing:
            thread.join()
    assert os.listdir(tmp_path) in ([], ["a"])
