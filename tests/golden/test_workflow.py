"""From a first case to an update that a person agreed to: what a check tells, and what may be recorded."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest
from jsonschema import Draft7Validator

from flowc.golden.case import load
from flowc.golden.recording import load as recorded
from flowc.golden.recording import text
from flowc.ir.graph import Node
from flowc.ir.kernel.norms import RmsNormalization
from flowc.ir.op import Op
from flowc.lowering import emitter
from flowc.reference.case_schema import case_schema
from flowc.text.source import parse, plain
from tests.cli.calling import done, flowc, write_spec
from tests.oracle_io import ROOT

ENCODER = """\
flowc: 1
model: {hidden: 8, vocab: 32, norm_eps: 1e-5}
weights: {random: 0}
flow:
  - embed: embed.weight
  - rms_norm: norm.weight
"""


def case(folder: Path, name: str = "model", spec: str = "model.yaml") -> Path:
    path = folder / f"{name}-case.yaml"
    path.write_text(f"golden: 1\nname: {name}\nspec: {spec}\nprompts: [{{ids: [1, 2, 3], steps: 3}}]\n")
    return path


def read(text: str) -> Any:
    return plain(parse(text, "case.yaml"))


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A recorded case of a spec beside it."""
    write_spec(tmp_path)
    path = case(tmp_path)
    done("golden", "record", path)
    return path


def changed_spec(folder: Path, old: str = "norm_eps: 1e-5", new: str = "norm_eps: 0.3") -> None:
    text = (folder / "model.yaml").read_text()
    assert old in text
    (folder / "model.yaml").write_text(text.replace(old, new))


def test_a_check_tells_that_the_spec_changed(golden: Path) -> None:
    spec = golden.parent / "model.yaml"
    spec.write_text(spec.read_text() + "description: computes the same\n")
    told = flowc("golden", "check", golden)
    assert told.code == 0
    assert 'the spec is not the one that was recorded: description is "computes the same", was –' in told.stdout
    strict = flowc("golden", "check", golden, "--strict", "--json")
    assert strict.code == 1
    assert strict.json()["cases"][0]["verdict"] == "MATCH"
    assert strict.json()["cases"][0]["spec_changes"]


def test_a_recording_without_its_spec_still_tells_by_the_hash(golden: Path) -> None:
    file = golden.with_suffix(".json")
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "spec"}))
    changed_spec(golden.parent)
    assert "the spec is not the one that was recorded: its sha256 is" in flowc("golden", "check", golden).stdout


def test_one_broken_case_is_an_error_and_the_others_go_on(golden: Path) -> None:
    folder = golden.parent
    broken = {
        "a": case(folder, "a", "none.yaml"),  # no such spec
        "b": case(folder, "b"),  # no recording
        "c": folder / "c-case.yaml",  # no case
    }
    broken["a"].with_suffix(".json").write_text(golden.with_suffix(".json").read_text())
    broken["c"].write_text("golden: [\n")
    junit, report = folder / "golden.xml", folder / "report.json"
    told = flowc("golden", "check", *broken.values(), golden, "--junit", junit, "--report", report, "--json")
    assert told.code == 2
    assert json.loads(report.read_text()) == told.json()
    assert [c["verdict"] for c in told.json()["cases"]] == ["ERROR", "ERROR", "ERROR", "MATCH"]
    assert [c["diagnostics"][0]["code"] for c in told.json()["cases"][:3]] == ["missing-file", "missing-file", "yaml"]
    suites = ElementTree.parse(junit).getroot()
    assert [(s.get("errors"), s.get("failures")) for s in suites] == [("1", "0")] * 3 + [("0", "0")]
    assert len(suites.findall(".//error")) == 3
    assert len(suites[3].findall("testcase")) == 3


def test_a_bug_in_one_case_is_an_error_too(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("flowc.golden.play.stage_statistics", fall)
    told = flowc("golden", "check", golden, "--json")
    assert told.code == 70
    assert told.json()["cases"][0]["diagnostics"][0]["code"] == "internal"


def test_strict_fails_on_the_same_steps_in_junit(golden: Path) -> None:
    file = golden.with_suffix(".json")
    value = json.loads(file.read_text())
    value["prompts"][0]["steps"][0]["digest"] = "0"
    file.write_text(json.dumps(value))
    junit = golden.parent / "golden.xml"
    assert flowc("golden", "check", golden, "--strict", "--junit", junit).code == 1
    assert ElementTree.parse(junit).getroot()[0].get("failures") == "1"
    assert flowc("golden", "check", golden, "--junit", junit).code == 0
    assert ElementTree.parse(junit).getroot()[0].get("failures") == "0"


def test_a_recording_is_written_over_only_when_asked(golden: Path) -> None:
    file = golden.with_suffix(".json")
    before = file.read_bytes()
    assert done("golden", "record", golden).stdout == "model: unchanged\n"
    changed_spec(golden.parent)
    told = flowc("golden", "record", golden)
    assert told.code == 1
    assert "spec: model.norm_eps is 0.3, was 1e-05" in told.stdout
    assert "stages moved, first repeat" in told.stdout
    assert "--update" in told.stderr
    assert file.read_bytes() == before
    shown = flowc("golden", "diff", golden)
    assert (shown.code, shown.stdout) == (1, told.stdout)
    assert file.read_bytes() == before
    assert done("golden", "record", "--update", golden).stdout.startswith(told.stdout)
    assert done("golden", "diff", golden).stdout == "model: unchanged\n"
    assert done("golden", "check", golden, "--strict").code == 0


def test_what_was_not_verified_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = emitter.EMITTERS[RmsNormalization]

    def emit(e: emitter.Emitter, op: Any, node: Node) -> None:
        sound(e, replace(op, eps=0.5), node)

    write_spec(tmp_path)
    path = case(tmp_path)
    monkeypatch.setitem(cast("dict[type[Op], Any]", emitter.EMITTERS), RmsNormalization, emit)
    assert flowc("golden", "record", path).code == 1
    assert not path.with_suffix(".json").exists()
    monkeypatch.undo()
    done("golden", "record", path)
    assert recorded(load(path))["verified"] == "quick"


def test_a_recording_is_for_people_to_read(golden: Path) -> None:
    lines = golden.with_suffix(".json").read_text().splitlines()
    assert '   "ids": [1, 2, 3],' in lines
    assert not any("0x1" in line for line in lines)
    value = recorded(load(golden))
    assert value["spec"]["model"]["norm_eps"] == 1e-5
    top = value["prompts"][0]["steps"][0]["top"]
    assert all(len(repr(number)) < 14 for number in top.values())
    assert text(value) == golden.with_suffix(".json").read_text()


def test_hexadecimal_recordings_are_still_read(golden: Path) -> None:
    file = golden.with_suffix(".json")

    def hexadecimal(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            value = cast("dict[str, Any]", value)
            return {k: v if k == "spec" else hexadecimal(v, k if key != "top" else "rms") for k, v in value.items()}
        if isinstance(value, list):
            value = cast("list[Any]", value)
            return [hexadecimal(v, "rms" if key == "projections" else "") for v in value]
        return float(value).hex() if key in ("margin", "rms", "max") else value

    file.write_text(json.dumps(hexadecimal(json.loads(file.read_text()))))
    assert '"margin": "0x' in file.read_text()
    assert "3 MATCH" in done("golden", "check", golden).stdout


def test_a_first_case(tmp_path: Path) -> None:
    write_spec(tmp_path)
    (tmp_path / "encoder.yaml").write_text(ENCODER)
    (tmp_path / "golden").mkdir()
    for name in ("model", "encoder"):
        path = tmp_path / f"golden/{name}.yaml"
        done("golden", "init", tmp_path / f"{name}.yaml", "-o", path)
        Draft7Validator(case_schema()).validate(read(path.read_text()))
        done("golden", "record", path)
        done("golden", "check", path, "--strict")
        refused = flowc("golden", "init", tmp_path / f"{name}.yaml", "-o", path)
        assert refused.code == 2
        assert "exists" in refused.stderr
    assert "inputs: {seed: 1" in (tmp_path / "golden/encoder.yaml").read_text()
    wrong = flowc("golden", "init", tmp_path / "encoder.yaml", "--text", "hello", "-o", tmp_path / "other.yaml")
    assert wrong.code == 2
    checkpoint = ROOT / "golden/oracles/llama_gqa4_bias"
    done("golden", "init", checkpoint, "-o", tmp_path / "llama.yaml", "--steps", 2)
    assert load(tmp_path / "llama.yaml").prompts[0].steps == 2


def test_cases_are_filtered_and_played_at_once(golden: Path) -> None:
    folder = golden.parent / "cases"
    folder.mkdir()
    (folder / "model.yaml").write_text((golden.parent / "model.yaml").read_text())
    for name in ("one", "two", "three"):
        path = case(folder, name)
        path.with_suffix(".json").write_text(golden.with_suffix(".json").read_text())
    (folder / "model.yaml").rename(golden.parent / "other.yaml")
    for path in folder.glob("*.yaml"):
        path.write_text(path.read_text().replace("model.yaml", "../other.yaml"))
    both = done("golden", "check", folder, "-j", 2, "--json").json()["cases"]
    assert [c["name"] for c in both] == ["one", "three", "two"]
    assert all(c["verdict"] == "MATCH" and c["seconds"] > 0 for c in both)
    assert [c["name"] for c in done("golden", "check", folder, "-k", "t", "--json").json()["cases"]] == ["three", "two"]
    assert [c["name"] for c in done("golden", "check", folder, "-k", "o*", "--json").json()["cases"]] == ["one"]
    none = flowc("golden", "check", folder, "-k", "tow")
    assert none.code == 2
    assert "did you mean 'two'?" in none.stderr


def test_models_are_given_by_case(golden: Path) -> None:
    folder = golden.parent
    second = case(folder, "second")
    second.with_suffix(".json").write_text(golden.with_suffix(".json").read_text())
    done("build", folder / "model.yaml", "-o", folder / "out/model.onnx", "--verify", "off")
    (folder / "model.yaml").unlink()  # nothing is built but what is given
    model = folder / "out"
    both = ("--model", f"model={model}", "--model", f"second={model}")
    assert flowc("golden", "check", golden, second, *both).code == 0
    one = flowc("golden", "check", golden, second, *both[:2], "--json")
    assert [c["verdict"] for c in one.json()["cases"]] == ["MATCH", "ERROR"]
    assert flowc("golden", "check", golden, second, "--model", model).code == 2
    unknown = flowc("golden", "check", golden, second, "--model", f"third={model}")
    assert "there is no case 'third'; they are model, second" in unknown.stderr


def test_recordings_are_compared_with_a_revision(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(golden.parent)
    for words in (("init", "-q"), ("add", "."), ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one")):
        subprocess.run(["git", *words], check=True)
    assert flowc("golden", "diff", golden, "--since", "HEAD").code == 0
    changed_spec(golden.parent)
    done("golden", "record", "--update", golden)
    told = flowc("golden", "diff", golden.name, "--since", "HEAD")
    assert told.code == 1
    assert "spec: model.norm_eps is 0.3, was 1e-05" in told.stdout


@pytest.mark.parametrize("file", sorted((ROOT / "golden/cases").glob("*.yaml")), ids=lambda p: p.stem)
def test_committed_cases_fit_the_schema(file: Path) -> None:
    errors = Draft7Validator(case_schema()).iter_errors(read(file.read_text()))
    assert not [error.message for error in errors]


@pytest.mark.parametrize(
    "broken", ["prompts: []", "prompts: [{ids: [1], text: a}]", "inputs: {seed: -1}", "steps: 3", "name: ../a"]
)
def test_the_schema_refuses_what_the_reader_refuses(broken: str, tmp_path: Path) -> None:
    whole = f"golden: 1\nspec: m.yaml\n{broken}\n" + ("" if "prompts" in broken else "prompts: [{ids: [1]}]\n")
    assert not Draft7Validator(case_schema()).is_valid(read(whole))
    (tmp_path / "case.yaml").write_text(whole)
    assert flowc("golden", "record", tmp_path / "case.yaml").code == 2
