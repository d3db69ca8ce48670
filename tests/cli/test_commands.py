"""What the commands print and write when nothing is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from flowc import __version__
from flowc.cli import COMMANDS
from flowc.passes import pipeline
from flowc.stages import load_all
from tests.cli.calling import BASE, done, flowc, process, save_file, write_spec
from tests.oracle_io import ROOT

HEAVY = ("onnx", "onnx_ir", "onnxruntime", "onnxscript", "gguf", "tokenizers")


def test_help_lists_every_command_with_one_line() -> None:
    shown = done("--help").stdout
    assert "\\b" not in shown
    listed = re.findall(r"^  (\w+) +(\S.*)$", shown.partition("Commands:")[2], re.MULTILINE)
    assert [name for name, _ in listed] == list(COMMANDS)
    assert "..." not in shown.partition("Commands:")[2]
    assert done().stdout == shown == done("-h").stdout


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself_by_example(command: str) -> None:
    shown = done(command, "--help").stdout
    assert "\\b" not in shown
    takes_nothing = f"flowc {command} [OPTIONS]\n" in shown
    assert takes_nothing or re.search(rf"^  flowc {command}\b", shown, re.MULTILINE)


def test_every_module_with_a_command_is_listed() -> None:
    folder = ROOT / "flowc" / "cli"
    texts = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.py") if path.stem != "__init__"}
    modules = {name for name, text in texts.items() if re.search(r"^@click\.(command|group)", text, re.MULTILINE)}
    assert modules == set(COMMANDS.values())


def test_the_version() -> None:
    assert done("--version").stdout == f"flowc {__version__}\n"


def imported_by(*words: object) -> set[str]:
    """Top-level names of what a command line imports."""
    call = f"from flowc.cli import main; main({[str(w) for w in words]!r})"
    program = f"import sys; {call}; print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in ran.stderr.split()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two specs, a.yaml and b.yaml, a HuggingFace folder hf, and a build m.onnx."""
    folder = tmp_path_factory.mktemp("small")
    write_spec(folder).rename(folder / "a.yaml")
    write_spec(folder, BASE.replace("1e-5", "1e-6")).rename(folder / "b.yaml")
    hf_folder(folder)
    done("build", folder / "a.yaml", "-o", folder / "m.onnx", "--verify", "off")
    return folder


LIGHT = [
    "--help", "nonsense", "check a.yaml", "diff a.yaml b.yaml", "diff a.yaml m.onnx", "explain a.yaml",
    "inspect a.yaml", "stages", "schema", "import hf", "golden --help", "golden check --help",
    "report a.yaml -o page.html", "report m.onnx -o page.html --verify off", "build a.yaml -o m.onnx --verify off",
]  # fmt: skip
ASKED = {
    "inspect m.onnx": {"onnxruntime"},  # where it placed the operators
    "doctor": {"onnx", "onnxruntime"},  # whether a graph of each target loads
    "verify m.onnx": {"onnx", "onnx_ir", "onnxruntime"},  # what the graphs give, and that they are lowered so
    "report m.onnx -o page.html": {"onnx", "onnxruntime"},  # the checks that it shows
    "build a.yaml -o m.onnx --verify off --force": {"onnx", "onnx_ir"},
    "build a.yaml -o m.onnx --verify off --target portable": {"onnx", "onnx_ir"},
    "build a.yaml -o m20.onnx --verify off --target portable-20": {"onnx", "onnx_ir", "onnxscript"},
}
"""What a command imports because of what it was asked for."""


@pytest.mark.parametrize("line", [*LIGHT, *ASKED])
def test_commands_import_nothing_heavy_but_what_they_are_asked_for(
    line: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small)
    assert imported_by(*line.split()) & set(HEAVY) == ASKED.get(line, set())


@pytest.mark.parametrize("line", ["build a.yaml -o m.onnx --force", "build a.yaml -o m.onnx --verify off --force"])
def test_a_build_leaves_sympy_to_whoever_uses_it(line: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small)
    used = "import onnx_ir; assert str(onnx_ir.SymbolicDim('a') + 1) == 'a + 1'; assert 'sympy.core' in sys.modules"
    before = "assert 'sympy.core' not in sys.modules"
    program = f"import sys; from flowc.cli import main; assert main({line.split()!r}) == 0; {before}; {used}"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize("given", [None, "3"])
def test_commands_that_multiply_nothing_start_no_threads(
    given: str | None, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small)
    name = "OPENBLAS_NUM_THREADS"
    monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv(name, given)
    threads = "len(os.listdir('/proc/self/task'))"
    program = (
        f"import os; from flowc.cli import main; assert main(['check', 'a.yaml']) == 0; "
        f"assert os.environ.get({name!r}) == {given!r}; assert ({threads} == 1) == {given is None}, {threads}"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def completed(line: str) -> list[str]:
    """What a shell is offered behind a line."""
    words = line.split(" ")
    asked = {"_FLOWC_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-c", "import sys; from flowc.cli import main; sys.exit(main())"]
    ran = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    return [text.partition(",")[2] for text in ran.stdout.split()]


def test_shells_are_told_how_to_complete() -> None:
    for shell in ("bash", "zsh", "fish"):
        command = [sys.executable, "-c", "import sys; from flowc.cli import main; sys.exit(main())"]
        asked = {**os.environ, "_FLOWC_COMPLETE": f"{shell}_source"}
        script = subprocess.run(command, env=asked, capture_output=True, text=True, check=True).stdout
        assert f"_FLOWC_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("flowc ", list(COMMANDS)),
        ("flowc ch", ["check"]),
        ("flowc build --ver", ["--verify"]),
        ("flowc build --verify ", ["quick", "full", "off"]),
        ("flowc check --target p", ["portable", "portable-20"]),
        ("flowc check --no-pass fuse", ["fuse_projections", "fuse_attention"]),
        ("flowc golden ", ["check", "diff", "export", "init", "record"]),
        ("flowc stages rms", ["rms_norm"]),
        ("flowc check ", ["/"]),
    ],
)
def test_what_is_completed(line: str, offered: list[str]) -> None:
    # Of a path, the shell is told that it is one.
    assert [name or "/" for name in completed(line)] == offered


def test_check_shows_what_a_spec_makes(tmp_path: Path) -> None:
    shown = done("check", write_spec(tmp_path)).stdout
    lines = shown.splitlines()
    assert lines[0] == "model: decoder, 1,448 parameters in 20 tensors"
    assert "  input past_key_values.N.key: float32[batch_size, 1, past_sequence_length, 4]  (2 layers)" in lines
    assert "  output logits: float32[batch_size, 1, 32]" in lines
    assert sum(line.startswith(("unified:", "prefill:", "decode:")) for line in lines) == 3


def test_check_of_several_specs_tells_of_each(tmp_path: Path) -> None:
    good, bad = write_spec(tmp_path), tmp_path / "bad.yaml"
    bad.write_text("flowc: 2\n")
    assert done("check", good, good).stdout == f"{good}: sound\n" * 2
    told = flowc("check", bad, tmp_path / "none.yaml", good)
    assert told.code == 2
    assert told.stdout == f"{bad}: wrong\n{tmp_path / 'none.yaml'}: wrong\n{good}: sound\n"
    assert "error[bad-version]" in told.stderr
    assert "error[missing-file]" in told.stderr
    found = flowc("check", bad, good, "--json")
    assert found.code == 2
    specs = found.json()["specs"]
    assert [s["file"] for s in specs] == [str(bad), str(good)]
    assert specs[0]["diagnostics"][0]["code"] == "bad-version"
    assert specs[1]["kind"] == "decoder"


def test_check_of_standard_input(tmp_path: Path) -> None:
    for text, code in ((BASE, 0), ("flowc: 2\n", 2), ("\xff", 2)):
        running = process("check", "-", cwd=tmp_path, stdin=subprocess.PIPE)
        out, err = running.communicate(text.encode("latin-1"))
        assert running.returncode == code
        assert (b"decoder" in out) == (code == 0)
        assert code == 0 or b"<stdin>:" in err


def test_help_is_a_command_too() -> None:
    assert done("help").stdout == done("--help").stdout
    assert done("help", "build").stdout == done("build", "--help").stdout
    assert done("help", "golden", "check").stdout == done("golden", "check", "--help").stdout
    assert "did you mean 'build'?" in flowc("help", "biuld").stderr


def test_check_as_json(tmp_path: Path) -> None:
    found = done("check", write_spec(tmp_path), "--json", "--graph", "decode").json()
    assert (found["name"], found["kind"], found["parameters"], found["context_length"]) == (
        "model",
        "decoder",
        1448,
        64,
    )
    assert list(found["graphs"]) == ["decode"]
    assert found["graphs"]["decode"]["inputs"]["input_ids"] == "int64[batch_size, 1]"
    assert found["graphs"]["decode"]["outputs"]["present.1.value"] == "float32[batch_size, 1, total_sequence_length, 4]"


def test_logits_and_context_reach_the_graphs(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, BASE.replace("{theta: 10000}", "{theta: 10000, type: dynamic, original_length: 32}"))
    assert flowc("check", spec).code == 2
    found = done("check", spec, "--context", 32, "--logits", "all", "--json").json()
    assert found["context_length"] == 32
    assert found["graphs"]["prefill"]["outputs"]["logits"] == "float32[batch_size, sequence_length, 32]"


def test_assume_reaches_the_graphs(tmp_path: Path) -> None:
    found = done("check", write_spec(tmp_path), "--assume", "no-padding", "--json").json()
    assert "attention_mask" not in found["graphs"]["decode"]["inputs"]


def test_build_prints_every_file_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spec(tmp_path)
    monkeypatch.chdir(tmp_path)
    called = done("build", "model.yaml", "-o", "out/model.onnx", "--verify", "off")
    assert called.stderr == "cache: aligned\nnot checked (--verify off)\n"
    shown = called.stdout
    files = ["model.decode.onnx", "model.onnx", "model.onnx.data", "model.prefill.onnx", "model.flowc.json"]
    assert [line.split()[0] for line in shown.splitlines()] == [f"out/{name}" for name in files]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(files)
    assert all(re.fullmatch(r"\S+  [\d.]+ (B|kB|MB)", line) for line in shown.splitlines())


def test_build_as_json(tmp_path: Path) -> None:
    out = tmp_path / "out" / "tiny.onnx"
    found = done("build", write_spec(tmp_path), "-o", out, "--graph", "prefill", "--json").json()
    assert set(found) == {"files", "graphs", "checks", "up_to_date"}
    assert {check["name"] for check in found["checks"]} >= {"files", "ports", "numbers"}
    assert all(check["passed"] for check in found["checks"])
    shown = done("build", tmp_path / "model.yaml", "-o", out, "--graph", "prefill", "--force")
    assert shown.stderr == f"cache: aligned\n{len(found['checks'])} checks passed (--verify quick)\n"
    assert found["files"] == [str(out.parent / n) for n in ("tiny.onnx.data", "tiny.prefill.onnx", "tiny.flowc.json")]
    assert all(Path(file).exists() for file in found["files"])
    assert found["graphs"]["prefill"]["file"] == "tiny.prefill.onnx"
    assert found["graphs"]["prefill"]["inputs"]["input_ids"] == "int64[batch_size, sequence_length]"
    assert len(found["graphs"]["prefill"]["sha256"]) == 64


def test_dumps_on_stdout(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    out = ("-o", tmp_path / "out" / "model.onnx", "--verify", "off", "--graph", "prefill,decode")
    last = done("build", "--dump-ir", spec, *out).stdout
    first = done("build", spec, "--dump-ir=expand", *out).stdout
    for shown in (last, first):
        assert re.findall(r"^graph (\w+)\(", shown, re.MULTILINE) == ["prefill", "decode"]
        assert "lm_head.logits = " in shown
        assert "@ model.yaml:10:5" in shown
    assert first != last
    for step in pipeline.PIPELINE:
        assert done("build", spec, f"--dump-ir={step.__name__}", *out).stdout.startswith("graph prefill(")
    wrong = flowc("build", spec, "--dump-ir=expnd", *out)
    assert wrong.code == 2
    assert "did you mean 'expand'?" in wrong.stderr


def test_dumps_as_files(tmp_path: Path) -> None:
    spec, dumps = write_spec(tmp_path), tmp_path / "dumps"
    done("build", spec, "-o", tmp_path / "out" / "m.onnx", "--verify", "off", "--dump-dir", dumps, "--json")
    names = sorted(path.name for path in dumps.iterdir())
    assert [name for name in names if name.startswith("00-")] == [
        "00-expand.decode.flow",
        "00-expand.prefill.flow",
        "00-expand.unified.flow",
    ]
    assert all(re.fullmatch(r"\d\d-\w+\.(decode|prefill|unified)\.flow", name) for name in names)
    texts = [(dumps / name).read_text() for name in names if ".prefill." in name]
    assert len(texts) > 1
    assert all(before != after for before, after in pairwise(texts))


def test_a_pass_can_be_left_out(tmp_path: Path) -> None:
    spec, dumps = write_spec(tmp_path), tmp_path / "dumps"
    skipped = [word for name in pipeline.pass_names() for word in ("--no-pass", name)]
    done("build", spec, "-o", tmp_path / "out" / "m.onnx", "--verify", "off", "--dump-dir", dumps, *skipped)
    assert {path.name.partition(".")[0] for path in dumps.iterdir()} == {"00-expand", "01-select_kernels"}
    manifest = json.loads((tmp_path / "out" / "m.flowc.json").read_text())
    assert manifest["skip_passes"] == pipeline.pass_names()


def test_the_choice_of_kernels_cannot_be_left_out(tmp_path: Path) -> None:
    called = flowc("build", write_spec(tmp_path), "-o", tmp_path / "m.onnx", "--no-pass", "select_kernels")
    assert called.code == 2
    assert "the pass 'select_kernels' cannot be left out" in called.stderr


def test_stages_lists_every_kind() -> None:
    lines = done("stages").stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(load_all())
    assert all(len(line.split()) > 2 for line in lines)


def test_stages_as_json() -> None:
    found = done("stages", "--json").json()["stages"]
    assert [stage["name"] for stage in found] == sorted(load_all())
    for stage in found:
        assert {"name", "doc", "fields", "reads", "writes", "weights", "example"} <= set(stage)
    norm = next(stage for stage in found if stage["name"] == "rms_norm")
    assert norm["fields"][1] == {
        "name": "eps",
        "type": "number",
        "doc": "Added to the mean square.",
        "required": True,
        "default": None,
        "symbol": "norm_eps",
        "main": False,
        "minimum": 0,
        "exclusive_minimum": None,
        "maximum": None,
        "unit": "",
    }
    assert done("stages", "rms_norm", "--json").json()["stages"] == [norm]


def test_all_about_one_kind() -> None:
    shown = done("stages", "rms_norm").stdout
    assert "eps: number, at least 0\n    Added to the mean square. [default: $norm_eps]" in shown
    assert "weight {weight}: [hidden]" in shown
    wrong = flowc("stages", "rmsnorm")
    assert wrong.code == 2
    assert "did you mean 'rms_norm'?" in wrong.stderr


def test_schema_is_the_file_that_ships() -> None:
    assert done("schema").stdout == (ROOT / "flowc" / "schema.json").read_text(encoding="utf-8")


def hf_folder(folder: Path) -> Path:
    """A HuggingFace folder of BASE's model."""
    import numpy as np

    from flowc.build.compiled import Request
    from flowc.compile import compile_file

    text = BASE.replace('"layers.{i}"', '"model.layers.{i}"').replace(" norm.weight", " model.norm.weight")
    spec = write_spec(folder, text.replace("embed.weight", "model.embed_tokens.weight"))
    shapes = compile_file(spec, Request()).usage.tensors
    (folder / "hf").mkdir()
    save_file({n: np.ones(s, np.float32) for n, (s, _) in shapes.items()}, folder / "hf" / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": 16, "vocab_size": 32,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "hidden_act": "silu", "rope_theta": 10000.0,
        "tie_word_embeddings": True, "torch_dtype": "float32",
    }  # fmt: skip
    (folder / "hf" / "config.json").write_text(json.dumps(config))
    return folder / "hf"


def test_import_writes_a_spec_that_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hf_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert done("import", "hf", "-o", "specs/llama.yaml").stdout == "specs/llama.yaml\n"
    assert "file: ../hf" in (tmp_path / "specs" / "llama.yaml").read_text()
    assert done("check", "specs/llama.yaml").stdout.partition(": ")[2].startswith("decoder, 1,448 parameters")
    done("build", "specs/llama.yaml", "-o", "out/model.onnx", "--verify", "off")
    assert done("import", "hf").stdout == (tmp_path / "specs" / "llama.yaml").read_text().replace("../hf", "hf")
    assert done("import", "hf", "-o", "specs/llama.yaml", "--json").json()["files"] == ["specs/llama.yaml"]


def test_import_overwrites_specs_only(tmp_path: Path) -> None:
    source, target = hf_folder(tmp_path), tmp_path / "notes.yaml"
    target.write_text("my: notes\n")
    refused = flowc("import", source, "-o", target, "--json")
    assert refused.code == 2
    assert [d["code"] for d in refused.diagnostics()] == ["foreign-file"]
    assert target.read_text() == "my: notes\n"
    done("import", source, "-o", target, "--force")
    assert "flowc: 1" in target.read_text()
    done("import", source, "-o", target)


@pytest.mark.parametrize(
    ("changed", "exit_code", "code"),
    [
        ({"model_type": "lama"}, 2, "unknown-model-type"),
        ({"hidden_act": "cosine"}, 2, "unsupported-config"),
        ({"secret_sauce": 7}, 2, "unknown-config"),
    ],
)
def test_import_refuses_what_it_does_not_know(
    changed: dict[str, object], exit_code: int, code: str, tmp_path: Path
) -> None:
    source = hf_folder(tmp_path)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **changed}))
    called = flowc("import", source, "-o", tmp_path / "new.yaml", "--json")
    assert called.code == exit_code
    assert code in [d["code"] for d in called.diagnostics()]
    assert not (tmp_path / "new.yaml").exists()


def test_import_of_nothing(tmp_path: Path) -> None:
    called = flowc("import", tmp_path / "absent", "-o", tmp_path / "new.yaml", "--json")
    assert (called.code, called.diagnostics()[0]["code"]) == (3, "missing-file")


def test_weights_in_several_files(tmp_path: Path) -> None:
    """Any onnxruntime reads them; run and verify know them; a later build leaves none of them behind."""
    spec, out = write_spec(tmp_path), tmp_path / "out" / "model.onnx"
    done("build", spec, "-o", out, "--shard-size", "2KB", "--verify", "full")
    manifest = json.loads((out.parent / "model.flowc.json").read_text())
    names = [record["file"] for record in manifest["data"]]
    assert len(names) > 2
    assert names == [f"model.onnx.data-{i:05d}-of-{len(names):05d}" for i in range(1, len(names) + 1)]
    assert manifest["shard_bytes"] == 2000
    done("verify", out)
    sharded = done("run", out, "--ids", "1,2,3", "-n", "4").stdout
    told = done("build", spec, "-o", out)
    assert "no graph of this build reads it" in told.stderr
    assert sorted(p.name for p in out.parent.glob("*.data*")) == ["model.onnx.data"]
    assert done("run", out, "--ids", "1,2,3", "-n", "4").stdout == sharded


@pytest.mark.parametrize("size", ["2", "0GB", "-1GB", "two GB", "1XB"])
def test_a_size_has_a_unit(size: str, tmp_path: Path) -> None:
    called = flowc("build", write_spec(tmp_path), "-o", tmp_path / "model.onnx", "--shard-size", size)
    assert called.code == 2
    assert "is not a size such as" in called.stderr
