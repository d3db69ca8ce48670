"""The wheel holds the tree: all of it, under the right names, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from flowc.targets.registry import TARGETS
from tests.oracle_io import ROOT

PACKAGES = {"flowc": "flowc", "lowering": "flowc/lowering", "passes": "flowc/passes"}  # folder -> place in the wheel
SHIPPED = (".py", "py.typed", "schema.json", "page.css", "page.html", "page.js")


def tree() -> set[str]:
    """Every file of the packages, by the name it must have in the wheel."""
    found: set[str] = set()
    for folder, place in PACKAGES.items():
        for path in (ROOT / folder).rglob("*"):
            below = path.relative_to(ROOT / folder)
            linked = (ROOT / folder / below.parts[0]).is_symlink()
            if path.is_file() and not linked and "__pycache__" not in below.parts:
                found.add(f"{place}/{below.as_posix()}")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel made from a copy: setuptools leaves things behind where it builds."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


def test_wheel_is_the_tree(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == tree()


def test_the_package_asks_for_the_onnxruntime_that_its_graphs_need() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    newest = max((t.min_onnxruntime for t in TARGETS.values()), key=lambda text: [int(n) for n in text.split(".")])
    assert f"onnxruntime>={newest}" in asked


def test_tree_holds_only_what_is_meant_to_ship() -> None:
    assert not [name for name in tree() if not name.endswith(SHIPPED)]


def test_wheel_carries_licence_types_and_command(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "flowc/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    (entry,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "flowc = flowc.cli:main" in wheel.read(entry).decode()


def test_every_package_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    there = {name.rpartition("/")[0].replace("/", ".") for name in tree() if name.endswith(".py")}
    assert sorted(there) == sorted(listed)
