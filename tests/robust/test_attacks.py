"""Every input of `shared/attacks` gives an exit code and a message, in bounded time and memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.robust.calling import below, flowc

GIGABYTES = 4e9
"""More than any worker may take beside the command itself."""


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writable copy of the folder, with a build of its model in `built`."""
    from tests.oracle_io import shared_folder

    shared = shared_folder()
    if shared is None or not (shared / "attacks").is_dir():
        pytest.skip("no shared folder with attacks: set FLOWC_SHARED")
    folder = tmp_path_factory.mktemp("attacks") / "attacks"
    shutil.copytree(shared / "attacks", folder, copy_function=shutil.copyfile)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert flowc("build", "tiny-llama.yaml", "-o", "built/model.onnx", "--verify", "off", cwd=folder).code == 0
    return folder


TOKENIZERS = {
    "chat-loop": (2, "error[chat-template]: the model's chat template takes more than"),
    "tok-panic-158": (3, "error[broken-tokenizer]: the model's tokenizer fails: index out of bounds"),
    "tok-panic-364": (3, "error[broken-tokenizer]: the model's tokenizer fails: Unk token"),
    "tok-regex": (3, "error[broken-tokenizer]: the model's tokenizer fails: "),
    "tok-replace-bomb": (3, "error[broken-tokenizer]: the model's tokenizer "),
    "tok-unk": (3, "error[broken-tokenizer]: the model's tokenizer fails: WordLevel error"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers(attacks: Path, name: str) -> None:
    laid = attacks / "built" / name
    shutil.copytree(attacks / "built", laid, ignore=lambda _, names: [n for n in names if n in TOKENIZERS])
    shutil.copytree(attacks / name, laid, dirs_exist_ok=True)
    ours, theirs = (json.loads((attacks / f / "model.flowc.json").read_text()) for f in ("built", name))
    (laid / "model.flowc.json").write_text(json.dumps({**ours, "tokenizer": theirs["tokenizer"]}))
    done = flowc("run", laid / "model.onnx", "--prompt", "a" * 60 + "b", "-n", "4", cwd=attacks)
    done.refused(TOKENIZERS[name][0], TOKENIZERS[name][1])


def test_a_file_that_no_run_reads_is_missed_by_verify(attacks: Path) -> None:
    laid = attacks / "built" / "tokcfg-deep"
    shutil.copytree(attacks / "built", laid, ignore=lambda _, names: [n for n in names if (attacks / n).is_dir()])
    shutil.copytree(attacks / "tokcfg-deep", laid, dirs_exist_ok=True)
    ours, theirs = (json.loads((attacks / f / "model.flowc.json").read_text()) for f in ("built", "tokcfg-deep"))
    (laid / "model.flowc.json").write_text(json.dumps({**ours, "tokenizer": theirs["tokenizer"]}))
    assert flowc("run", laid / "model.onnx", "--ids", "1,2", "-n", "4", cwd=attacks).code == 0
    done = flowc("verify", laid / "model.onnx", cwd=attacks)
    assert done.code == 1
    assert "generation_config.json (tokenizer) is not there" in done.err
    assert done.peak < GIGABYTES


@pytest.mark.parametrize("name", ["npy173", "npy207", "npy641", "overflow", "tokenerror"])
def test_arrays(attacks: Path, name: str) -> None:
    done = flowc("run", "built/model.onnx", "--input", f"input_ids={name}.npy", cwd=attacks)
    done.refused(2, f"error[bad-input]: cannot read input input_ids from {name}.npy: it is no .npy array")


def test_a_sound_array(attacks: Path) -> None:
    assert flowc("run", "built/model.onnx", "--input", "input_ids=ids.npy", cwd=attacks).code == 0


def test_a_broken_reference(attacks: Path) -> None:
    done = flowc("verify", "built/model.onnx", "--against", "broken.npz", cwd=attacks)
    done.refused(2, "error[bad-input]: cannot read broken.npz: it is no .npz archive")


def test_a_lock_of_a_thousand_levels(attacks: Path) -> None:
    lock = attacks / "locked-deep" / "model.flowc.json"
    done = flowc("build", "tiny-llama.yaml", "-o", "out/model.onnx", "--locked", lock, cwd=attacks)
    done.refused(2, "error[bad-manifest]", "nested more than 64 deep")


@pytest.mark.parametrize(
    ("name", "message"),
    [("golden-traversal", "cannot be the name of a golden case"), ("golden-home", "there is no home folder for")],
)
def test_golden_cases(attacks: Path, name: str, message: str) -> None:
    before = below(attacks.parent)
    done = flowc("golden", "export", f"{name}.yaml", "-o", "attacks/a/b/c/d", cwd=attacks)
    done.refused(2, "error[bad-value]", message)
    assert below(attacks.parent) - before <= {"attacks/home"}


def test_a_name_with_newlines(attacks: Path) -> None:
    done = flowc("check", "nl.yaml", cwd=attacks)
    done.refused(3, r"error[broken-safetensors]", r"tensor 'x'\n\n18 checks passed (--verify quick)\n'")
    assert not [line for line in done.err.splitlines() if line.startswith("18 checks passed")]


def test_a_spec_that_means_infinity(attacks: Path) -> None:
    done = flowc("build", "custom-nan.yaml", "-o", "nan/model.onnx", cwd=attacks)
    done.refused(1, "first wrong at stage 'custom' (custom-nan.yaml:25:5)", "the spec itself gives no finite number")
    assert "pass " not in done.err
    assert not (attacks / "nan").exists()
