"""What CI runs: the action's steps, the hook, annotations and locks, as docs/ci.md tells of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.cli.calling import BASE, done, flowc, write_spec
from tests.oracle_io import ROOT

PAGE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")


def shown(mark: str) -> str:
    """A block of the page."""
    block = PAGE.partition(f"<!-- {mark} -->\n```text\n")[2].partition("```")[0]
    assert block
    return block


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sample repository with a lock of its model."""
    folder = tmp_path / "repository"
    shutil.copytree(ROOT / "examples/ci", folder)
    monkeypatch.chdir(folder)
    done("build", "model.yaml", "-o", tmp_path / "out/model.onnx", "--verify", "off")
    assert done("lock", tmp_path / "out/model.onnx").stdout == "model.flowc.lock.json\n"
    return folder


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# The action


ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def steps(**inputs: str) -> list[tuple[str, int, str]]:
    """Run the action's steps in the current folder as GitHub would: name, exit code, stderr, up to one that fails."""
    given = {name: str(about["default"]) for name, about in ACTION["inputs"].items()} | inputs
    assert set(given) == set(ACTION["inputs"])
    ran: list[tuple[str, int, str]] = []
    command = f'exec "{sys.executable}" -m flowc "$@"'
    tools = Path("tools").absolute()
    tools.mkdir(exist_ok=True)
    (tools / "flowc").write_text(f"#!/bin/bash\n{command}\n")
    (tools / "flowc").chmod(0o755)
    for step in ACTION["runs"]["steps"]:
        condition: str = step.get("if", "")
        name = condition.removeprefix("inputs.").removesuffix(" != ''")
        if step["name"] == "install" or (condition and not given[name]):
            continue
        environment = {k: os.environ[k] for k in ("HOME",) if k in os.environ}
        environment |= {"PATH": f"{tools}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "RUNNER_TEMP": str(tools / "temp")}
        for key, value in cast("dict[str, str]", step["env"]).items():
            expression = value.removeprefix("${{ inputs.").removesuffix(" }}")
            environment[key] = given.get(expression, value)
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
        ran.append((step["name"], done.returncode, done.stderr))
        if done.returncode:
            break
    return ran


def test_the_action_passes_a_sound_repository(repository: Path) -> None:
    ran = steps(golden="golden", locks="*.flowc.lock.json")
    assert [(name, code) for name, code, _ in ran] == [("check", 0), ("locked", 0), ("golden", 0)], ran
    assert [name for name, _, _ in steps()] == ["check"]
    assert steps(specs="") == []
    assert not any("::error" in err for _, _, err in ran)


def test_the_action_stops_at_what_is_wrong(repository: Path) -> None:
    change(repository / "model.yaml", "norm_eps: 1e-5", "norm_eps: 1e-3")
    (_, checked, _), (name, code, err) = steps(locks="*.flowc.lock.json", golden="golden")
    assert (checked, name, code) == (0, "locked", 1)
    assert "::error title=flowc locked::spec.model.norm_eps is 0.001, the lock says 1e-05" in err
    name, code, err = steps(golden="golden")[-1]
    assert (name, code) == ("golden", 1)
    assert "::error title=flowc other-results::case 'assistant' gives something else than was recorded" in err
    change(repository / "model.yaml", "rms_norm:", "rms_nrom:")
    (only,) = steps(golden="golden")
    assert only[:2] == ("check", 2)
    assert shown("annotation").strip() in only[2]


def test_the_action_installs_the_flowc_that_it_belongs_to() -> None:
    step = ACTION["runs"]["steps"][0]
    assert step["run"] == 'python -m pip install --quiet "${REQUIREMENT:-$HERE}"'
    assert step["env"]["HERE"] == "${{ github.action_path }}"
    assert (ROOT / "pyproject.toml").is_file()
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"], "what a user gives goes through the environment, never into a script"
        assert step["shell"] == "bash"


# Annotations


@pytest.mark.parametrize(
    "words",
    [
        ("check", "model.yaml"),
        ("check", "model.yaml", "--json"),
        ("check", "model.yaml", "model.yaml", "--json"),
        ("build", "model.yaml", "-o", "o/m.onnx"),
    ],
)
def test_errors_are_annotated_where_it_is_asked_for(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    write_spec(tmp_path / "models", BASE.replace("rms_norm: norm", "rms_nrom: norm"))
    monkeypatch.chdir(tmp_path / "models")
    assert "::error" not in flowc(*words).stderr
    monkeypatch.setenv("FLOWC_ANNOTATIONS", "github")
    assert "::error file=model.yaml,line=8,col=5,endColumn=12,title=flowc unknown-stage::" in flowc(*words).stderr
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    called = flowc(*words)
    assert "::error file=models/model.yaml,line=8,col=5,endColumn=12,title=flowc unknown-stage::" in called.stderr
    assert "::" not in called.stdout


def test_a_strangers_name_begins_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowc.cli.annotations import annotate
    from flowc.errors import Diagnostic, Source, Span

    monkeypatch.setenv("FLOWC_ANNOTATIONS", "github")
    span = Span(Source("a,b:c%\n::error::x.yaml", "x"), 1, 1, 2, 1)
    out, err = tmp_path / "o", sys.stderr
    with out.open("w") as sys.stderr:
        annotate([Diagnostic("x", "one\n::warning::two 100%", span, severity="warning")])
    sys.stderr = err
    assert out.read_text().splitlines() == [
        "::warning file=a%2Cb%3Ac%25%0A%3A%3Aerror%3A%3Ax.yaml,line=1,col=1,endLine=2,title=flowc x::"
        "one\\n::warning::two 100%25"
    ]


def test_a_wrong_model_is_annotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "m.onnx"
    done("build", write_spec(tmp_path), "-o", out, "--graph", "unified", "--verify", "off")
    data = out.with_name("m.onnx.data")
    data.write_bytes(data.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    monkeypatch.setenv("FLOWC_ANNOTATIONS", "github")
    assert "::error title=flowc " in flowc("verify", out).stderr


# The hook


def test_the_hook_is_one_for_pre_commit() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-manifest", str(ROOT / ".pre-commit-hooks.yaml")]
    subprocess.run(command, check=True)
    sample: Any = yaml.safe_load((ROOT / "examples/ci/pre-commit.yml").read_text())
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert sample["repos"][0]["hooks"] == [{"id": hook["id"]}]


def test_the_hook_checks_the_specs_among_many_files(repository: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    words = hook["entry"].split()[1:]
    shutil.copyfile("../out/model.flowc.json", "model.flowc.json")
    others = ["golden/assistant.yaml", "workflow.yml", "golden/assistant.json", "model.flowc.lock.json"]
    others += ["model.flowc.json"]
    (repository / "second.json").write_text(json.dumps({"flowc": 1, "name": "x"}))
    assert done(*words, *others).stderr == "no file of these is a spec\n"
    assert done(*words, "model.yaml", *others).stdout.startswith("assistant: decoder")
    called = flowc(*words, *others, "model.yaml", "second.json", "gone.yaml")
    assert called.stdout == "model.yaml: sound\nsecond.json: wrong\ngone.yaml: wrong\n"
    assert called.code == 2


# Locks


def test_a_lock_refuses_another_build(repository: Path, tmp_path: Path) -> None:
    line = ("build", "model.yaml", "-o", "o/model.onnx", "--verify", "off", "--locked", "model.flowc.lock.json")
    done(*line)
    shutil.rmtree("o")
    done(*line[:-3], "quick", *line[-2:])  # how a build is checked is free
    change(repository / "model.yaml", "norm_eps: 1e-5", "norm_eps: 1e-3")
    refused = flowc(*line)
    assert (refused.code, refused.stderr) == (1, shown("locked"))
    assert done("lock", tmp_path / "out/model.onnx", "-o", "model.flowc.lock.json", "--json").json() == {
        "files": ["model.flowc.lock.json"]
    }


def test_a_lock_is_of_a_whole_build_and_lands_on_nothing_else(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = Path("model.flowc.lock.json").read_text()
    assert flowc("lock", out / "model.onnx", "-o", "model.yaml").code == 2
    Path("x.flowc.lock.json").write_text("mine")
    assert flowc("lock", out / "model.onnx", "-o", "x.flowc.lock.json").code == 2
    assert Path("x.flowc.lock.json").read_text() == "mine"
    data = (out / "model.onnx.data").read_bytes()
    (out / "model.onnx.data").write_bytes(data[:-4] + b"\x00\x00\x80\x3f")
    assert flowc("lock", out / "model.onnx").code == 3
    (out / "model.onnx.data").write_bytes(data)
    (out / "model.decode.onnx").unlink()
    assert flowc("lock", out / "model.onnx").code == 1
    assert Path("model.flowc.lock.json").read_text() == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"flowc_lock": 2}', '{"flowc_lock": true}', "[" * 100, "\xff"])
def test_what_is_no_lock(text: str, repository: Path) -> None:
    Path("x.flowc.lock.json").write_bytes(text.encode("latin-1"))
    called = flowc("build", "model.yaml", "-o", "o/model.onnx", "--locked", "x.flowc.lock.json")
    assert called.code == 2
    assert called.stderr.startswith("error[bad-manifest]: ")
    assert not Path("o").exists()


def test_an_empty_lock_lacks_everything(repository: Path) -> None:
    Path("x.flowc.lock.json").write_text('{"flowc_lock": 1}')
    called = flowc("build", "model.yaml", "-o", "o/model.onnx", "--locked", "x.flowc.lock.json")
    assert called.code == 1
    assert "spec.name is 'assistant', the lock says nothing" in called.stderr
