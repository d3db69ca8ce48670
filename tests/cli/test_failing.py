"""What goes wrong around flowc (disks, signals, pipes, bugs): the exit code, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flowc.cli import failing, main
from flowc.cli.failing import painted
from flowc.cli.progress import size
from tests.cli.calling import BASE, flowc, process, write_spec
from tests.oracle_io import ROOT

BIG = BASE.replace("hidden: 8", "hidden: 512").replace("count: 2", "count: 12").replace("ffn: 16", "ffn: 4096")
"""About 300 MB of weights: long enough to be caught while they are written."""


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def finish(running: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=300)
    return running.returncode, out.decode(), err.decode()


def test_a_full_disk(tmp_path: Path) -> None:
    spec, out = write_spec(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_text("what was there")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    with process("build", spec, "-o", out / "model.onnx", preexec_fn=limit) as running:
        code, stdout, stderr = finish(running)
    assert code == 4
    assert stdout == ""
    assert stderr == f"error[cannot-write]: cannot write {out}: file too large\n"
    assert files_below(tmp_path) == ["model.yaml", "out", "out/model.onnx"]
    assert (out / "model.onnx").read_text() == "what was there"


def test_a_disk_that_is_too_small_for_the_weights(tmp_path: Path) -> None:
    huge = write_spec(tmp_path, BASE.replace("ffn: 16", "ffn: 30000000000"))
    called = flowc("build", huge, "-o", tmp_path / "out" / "model.onnx", "--json")
    assert called.code == 4
    (diagnostic,) = called.diagnostics()
    assert diagnostic["code"] == "cannot-write"
    assert re.search(
        r"the build needs 5,76\d,\d{3},\d{3},\d{3} bytes in .*, where [\d,]+ are free", diagnostic["message"]
    )
    assert files_below(tmp_path) == ["model.yaml"]


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.EACCES, 4, "permission denied"),
        (errno.EROFS, 4, "read-only file system"),
        (errno.ENOSPC, 4, "the disk is full"),
        (errno.ENOTDIR, 2, "not a directory"),
    ],
)
def test_a_folder_that_takes_no_files(
    number: int, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    out = tmp_path / "new" / "out" / "model.onnx"
    called = flowc("build", write_spec(tmp_path), "-o", out)
    assert called.code == code
    assert words in called.stderr
    assert str(out.parent) in called.stderr
    assert files_below(tmp_path) == ["model.yaml"]
    dumped = flowc("build", tmp_path / "model.yaml", "-o", out, "--dump-dir", tmp_path / "dumps")
    assert dumped.code == code
    assert words in dumped.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    spec, out = write_spec(tmp_path), tmp_path / "out"
    out.mkdir(mode=0o555)
    called = flowc("build", spec, "-o", out / "model.onnx")
    assert called.code == 4
    assert "permission denied" in called.stderr


def test_an_output_that_cannot_be(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    (tmp_path / "file").write_text("")
    for out in ("model.txt", "file/model.onnx", "x" * 300 + "/model.onnx"):
        called = flowc("build", spec, "-o", tmp_path / out, "--json")
        assert called.code == 2
        assert [d["code"] for d in called.diagnostics()] == ["bad-output"]
    (tmp_path / "out" / "model.decode.onnx").mkdir(parents=True)
    called = flowc("build", spec, "-o", tmp_path / "out" / "model.onnx", "--verify", "off")
    assert called.code == 2
    assert "model.decode.onnx: it is a folder" in called.stderr
    assert files_below(tmp_path / "out") == ["model.decode.onnx"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_weights_are_written(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with process("build", write_spec(tmp_path, BIG), "-o", out / "model.onnx") as running:
        while running.poll() is None and not any(f.stat().st_size > 10_000_000 for f in out.glob(".flowc-*/*.data")):
            time.sleep(0.01)
        assert running.poll() is None, "the build was over before it could be stopped"
        running.send_signal(sent)
        found = finish(running)
    assert found == (code, "", "")
    assert files_below(tmp_path) == ["model.yaml"]


SLOW_IMPORT = """\
import sys, time
print("importing", flush=True)
try:
    time.sleep(1)
except BaseException as error:
    raise ImportError("initialization failed") from error
print("imported", flush=True)
"""
"""A module that answers whatever is raised while it is imported as numpy does."""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_module_is_imported(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_IMPORT)
    text = "import sys, time\nfrom flowc.cli.failing import guarded\n"
    text += "sys.exit(guarded(lambda: __import__('slow') and time.sleep(9), as_json=False))\n"
    paths = os.pathsep.join((str(ROOT), str(tmp_path)))
    with subprocess.Popen(
        [sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == b"importing\n"
        running.send_signal(sent)
        assert finish(running) == (code, "imported\n", "")


def test_a_reader_that_goes_away() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with process("schema", stdout=writing) as running:
        os.close(writing)
        _, errors = running.communicate()
    assert running.returncode == 141
    assert errors == b""


@pytest.mark.parametrize("words", [["stages"], ["stages", "--json"]])
def test_an_output_stream_that_is_full(words: list[str]) -> None:
    with open("/dev/full", "wb") as full, process(*words, stdout=full) as running:
        _, errors = running.communicate()
    assert running.returncode == 4
    assert errors.decode() == "error[io-failed]: input or output: no space left on device\n"


def test_an_output_stream_that_is_closed(tmp_path: Path) -> None:
    closed = process("check", write_spec(tmp_path), stdout=None, preexec_fn=lambda: os.close(1))
    _, errors = closed.communicate()
    assert (closed.returncode, errors) == (0, b"")


def test_an_error_stream_that_is_full_or_closed(tmp_path: Path) -> None:
    for words, code in ((["check", tmp_path / "none.yaml"], 2), (["build", write_spec(tmp_path), "-o", "x.txt"], 2)):
        with process(*words, stderr=None, preexec_fn=lambda: os.close(2)) as running:
            assert (running.communicate()[0], running.returncode) == (b"", code)
        with open("/dev/full", "wb") as full, process(*words, stderr=full) as running:
            assert (running.communicate()[0], running.returncode) == (b"", code)


def broken(*_: Any, **__: Any) -> None:
    raise KeyError("something\nof two lines")


def test_a_bug_is_called_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowc.compile.compile_file", broken)
    monkeypatch.delenv("FLOWC_DEBUG", raising=False)
    called = flowc("check", write_spec(tmp_path))
    assert called.code == 70
    assert called.stderr == (
        "error[internal]: a bug in flowc: KeyError: 'something\\nof two lines'\n"
        "help: FLOWC_DEBUG=1 shows the traceback; please report it with the spec\n"
    )
    assert flowc("check", tmp_path / "model.yaml", "--json").diagnostics()[0]["code"] == "internal"


def test_a_bug_shows_its_traceback_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flowc.compile.compile_file", broken)
    monkeypatch.setenv("FLOWC_DEBUG", "1")
    assert main(["check", str(write_spec(tmp_path))]) == 70
    assert "in broken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (MemoryError(), "error[no-memory]: there is not enough memory\n"),
        (RuntimeError("can't start new thread"), "error[no-threads]: this machine starts no more threads\n"),
    ],
)
def test_too_little_of_a_machine(raised: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr("flowc.compile.compile_file", fail)
    called = flowc("check", write_spec(tmp_path))
    assert (called.code, called.stderr) == (4, told)


@pytest.mark.parametrize(
    ("words", "message", "help_of"),
    [
        (["biuld"], "there is no command 'biuld'; did you mean 'build'?", "flowc"),
        (["build", "model.yaml"], "missing option '-o' / '--output'", "flowc build"),
        (["check"], "missing argument 'MODEL.yaml...'", "flowc check"),
        (["explain", "a", "b"], "unexpected extra argument", "flowc explain"),
        (["check", "a", "--contxt", "3"], "--context", "flowc check"),
        (["check", "a", "--context", "0"], "0 is not in the range", "flowc check"),
        (["check", "a", "--logits", "some"], "'some' is not one of", "flowc check"),
        (["check", "a", "--graph", "prefill,,decode"], "is not a list of names", "flowc check"),
        (["build", "a", "-o", "b.onnx", "--dump-ir", "--json"], "both write to stdout", "flowc build"),
        (["run", "a", "--ids", "1", "--threads", "1025"], "1025 is not in the range", "flowc run"),
        (["golden", "check", "a", "--threads", "1025"], "1025 is not in the range", "flowc golden check"),
        (["import", "a", "--json"], "--json needs -o", "flowc import"),
        (["--colour"], "no such option", "flowc"),
    ],
)
def test_a_command_line_that_is_wrong(words: list[str], message: str, help_of: str) -> None:
    called = flowc(*words)
    assert called.code == 2
    if "--json" in words:
        (diagnostic,) = called.diagnostics()
        text, hint = diagnostic["message"], diagnostic["hint"]
        assert diagnostic["code"] == "usage"
    else:
        assert called.stdout == ""
        first, _, hint = called.stderr.rstrip().rpartition("\nhelp: ")
        text = first
        assert text.startswith("error[usage]: ")
    assert message in text
    assert hint == f"`{help_of} --help` shows what it takes"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--target", "ort-cup"], "unknown-target"),
        (["--graph", "prefil"], "unknown-graph"),
        (["--no-pass", "nothing"], "unknown-pass"),
    ],
)
def test_options_that_name_what_is_not_there(words: list[str], code: str, tmp_path: Path) -> None:
    called = flowc("check", write_spec(tmp_path), *words, "--json")
    assert called.code == 2
    assert [d["code"] for d in called.diagnostics()] == [code]
    shown = flowc("build", tmp_path / "model.yaml", "-o", tmp_path / "out" / "m.onnx", *words)
    assert shown.code == 2
    assert files_below(tmp_path) == ["model.yaml"]


def test_a_spec_that_cannot_be_read(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "absent.yaml", "missing-file"), (tmp_path, "not-a-spec")):
        called = flowc("check", path, "--json")
        assert called.code == 2
        assert called.diagnostics()[0]["code"] == code


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("m.gguf", "a checkpoint"),
        ("w.safetensors", "a file of weights"),
    ],
)
@pytest.mark.parametrize("command", ["check", "build", "explain"])
def test_what_is_plainly_no_spec_is_told_as_what_it_is(name: str, words: str, command: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x08\x0a")
    told = flowc(command, tmp_path / name, *(["-o", tmp_path / "out/m.onnx"] if command == "build" else []))
    assert told.code == 2
    assert f"is no spec, but {words}" in told.stderr


def on_a_terminal(tmp_path: Path, **environment: str) -> bytes:
    """What `flowc check` of a wrong spec writes to a terminal."""
    ours, theirs = os.openpty()
    with process("check", write_spec(tmp_path, "flowc: 2\n"), stderr=theirs, env=environment) as running:
        os.close(theirs)
        written = b""
        while chunk := read(ours):
            written += chunk
        os.close(ours)
        assert running.wait() == 2
    return written


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says EIO when nobody holds the other end any more
        return b""


def test_colour_is_for_terminals_that_take_it(tmp_path: Path) -> None:
    assert b"\x1b[1;31merror[bad-version]\x1b[0m" in on_a_terminal(tmp_path, TERM="xterm")
    assert b"\x1b" not in on_a_terminal(tmp_path, TERM="xterm", NO_COLOR="1")
    assert b"\x1b" not in on_a_terminal(tmp_path, TERM="xterm", CI="true")
    assert b"\x1b" not in on_a_terminal(tmp_path, TERM="dumb")
    with process("check", tmp_path / "model.yaml", env={"TERM": "xterm"}) as running:
        assert "\x1b" not in finish(running)[2]


def test_what_is_coloured() -> None:
    text = "error[tag]: a\n --> s.yaml:1:1\n  |\n1 | note: ^\n  |       ^^\nhelp: b"
    assert painted(text) == (
        "\x1b[1;31merror[tag]\x1b[0m: a\n --> s.yaml:1:1\n  |\n1 | note: ^\n"
        "  |\x1b[31m       ^^\x1b[0m\n\x1b[1;36mhelp:\x1b[0m b"
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (5 * 10**18, "5000.0 PB"),
    ],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize("environment", [{}, {"CI": "1"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_bar_is_for_people_at_a_terminal(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowc.cli import progress

    for name in ("CI", "NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not progress.watched()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert progress.watched() is (not environment)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_drawn_and_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowc.cli import progress

    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "100")
    shown = progress.Progress()

    def drawn() -> str:
        text = terminal.getvalue()
        terminal.seek(0)
        terminal.truncate()
        return text

    shown("writing", 10, 4000)
    assert not drawn()  # half a second has not gone
    now = 2.0
    shown("writing", 2000, 4000)
    assert drawn() == "\r\x1b[Kwriting  [###############---------------]   50%  2.0 kB of 4.0 kB, 1.0 kB/s, 2.0 s left"
    now = 4.0
    shown.tick()  # nothing was told for two seconds
    assert drawn().endswith("2.0 kB of 4.0 kB, 500 B/s, 4.0 s left")
    shown("checking numbers", 0, 9)
    assert drawn() == "\r\x1b[K"
    now = 10.0
    shown("checking numbers", 3, 9)
    assert drawn() == "\r\x1b[Kchecking numbers  [##########--------------------]   33%  3 of 9, 2.0 s each, 12 s left"
    shown("importing", 0, 0)
    now = 400.0
    shown.tick()
    assert drawn().endswith("importing  6:30 min")
    monkeypatch.setenv("COLUMNS", "20")
    shown("checking numbers", 3, 9)
    now = 401.0
    shown.tick()
    assert drawn().endswith("\r\x1b[Kchecking numbers   ")
    monkeypatch.setenv("COLUMNS", "80")
    shown("writing", 10**8, 6 * 10**8)
    now = 402.0
    shown.tick()
    line = drawn().rpartition("\x1b[K")[2]
    assert line.startswith("writing  [##")
    assert line.endswith("100.0 MB of 600.0 MB, 100.0 MB/s, 5.0 s left")
    assert len(line) <= 79
    shown.close()
    assert drawn() == "\r\x1b[K"


def test_a_line_is_drawn_though_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowc.cli import progress

    monkeypatch.setattr(progress, "watched", lambda: True)
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_AGAIN_SECONDS", 0.001)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with progress.progress("importing") as shown:
        assert shown is not None
        while terminal.getvalue().count("importing") < 3:  # the thread draws, whatever else happens
            time.sleep(0.001)
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_nothing_is_drawn_where_nobody_watches() -> None:
    from flowc.cli import progress

    with progress.progress() as shown:
        assert shown is None


def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert failing.guarded(lambda: None, as_json=False) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_json_of_an_error_is_one_object(tmp_path: Path) -> None:
    called = flowc("check", write_spec(tmp_path, "flowc: 2\nx: 1\n"), "--json")
    found = json.loads(called.stdout)
    assert set(found) == {"exit_code", "diagnostics"}
    assert {d["code"] for d in found["diagnostics"]} == {"unknown-key", "bad-version", "missing-key"}
    assert found["diagnostics"][0]["file"].endswith("model.yaml")
