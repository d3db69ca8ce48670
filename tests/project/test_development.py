"""What the pages for contributors name is there, and every room and folder of tests has its line."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.oracle_io import ROOT
from tests.project.test_layers import ROOMS

PAGES = ("docs/design.md", "docs/development.md")
MADE = {".venv", ".venvs/peers"}
"""Named there, and made by make."""
STANDS_FOR = {"ROOM"}


def quoted(page: str) -> list[str]:
    """What stands between backticks, without blocks of code."""
    return re.findall("`([^`\n]+)`", (ROOT / page).read_text(encoding="utf-8"))


def paths(page: str) -> Iterator[str]:
    """Names of files and folders from the root."""
    tops = {path.name for path in ROOT.iterdir()}
    for name in quoted(page):
        if re.fullmatch(r"[\w./-]+", name) and name.split("/")[0] in tops and not STANDS_FOR & set(name.split("/")):
            yield name


@pytest.mark.parametrize("page", PAGES)
def test_every_path_is_there(page: str) -> None:
    named = list(paths(page))
    assert len(named) >= 10
    assert [name for name in named if name.rstrip("/") not in MADE and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_is_there(page: str) -> None:
    asked = {word for text in quoted(page) if text.startswith("make ") for word in text.split()[1:] if "=" not in word}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {word for word in asked if not re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE)} == set()


def test_every_room_has_a_line() -> None:
    told = " ".join(line for line in quoted("docs/development.md"))
    rooms = {name.split(".")[1] for names in ROOMS for name in names}
    assert {room for room in rooms if not re.search(rf"\b{room}\b", told)} == set()


def test_every_folder_of_tests_has_a_line() -> None:
    told = " ".join(quoted("docs/development.md"))
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("*.py")) or path.name == "cases"}
    assert {folder for folder in folders if not re.search(rf"\b{folder}\b", told)} == set()
