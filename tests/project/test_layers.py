"""Data moves one way: a room imports only rooms that come before it, and the command line starts light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.oracle_io import ROOT

# Rooms in the order in which data passes through them. A module belongs to the room that holds it.
ROOMS = (
    ("flowc.codes", "flowc.errors"),
    ("flowc.outside",),
    ("flowc.text",),
    ("flowc.records",),
    ("flowc.ir",),
    ("flowc.weights",),
    ("flowc.tokenizer",),
    ("flowc.spec",),
    ("flowc.frontend",),
    ("flowc.stages",),
    ("flowc.targets",),
    ("flowc.passes",),
    ("flowc.lowering",),
    ("flowc.build",),
    ("flowc.compile",),
    ("flowc.runtime", "flowc.verify"),
    ("flowc.golden",),
    ("flowc.report",),
    ("flowc.reference",),
    ("flowc.api",),
    ("flowc.cli",),
)
LOOSE = {"flowc", "flowc.__main__", "flowc.compile", "flowc.errors", "flowc.codes"}
"""Modules that lie in no folder: entry points, the path of a build, and diagnostics."""
# Importers write specs: they see checkpoints' headers and the spec, nothing that compiles or runs it.
IMPORTERS = "flowc.importers"
IMPORTERS_SEE = (
    "flowc.codes",
    "flowc.errors",
    "flowc.outside",
    "flowc.text",
    "flowc.ir",
    "flowc.weights",
    "flowc.spec",
)
IMPORTERS_SEEN_BY = ("flowc.cli",)

# `flowc` itself holds the version; `flowc.__main__` is the command line under another name.
ALIASES = {"flowc.__main__": "flowc.cli"}

FORBIDDEN = ("torch", "transformers")
HEAVY = ("onnxruntime", "onnxscript", "onnx_ir", "onnx", "torch", "transformers")


def modules() -> dict[str, ast.Module]:
    """Syntax trees of every module of flowc, by name."""
    found: dict[str, ast.Module] = {}
    for folder, package in (("flowc", "flowc"), ("lowering", "flowc.lowering"), ("passes", "flowc.passes")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            below = path.relative_to(ROOT / folder).with_suffix("").parts
            if any((ROOT / folder / part).is_symlink() for part in below[:1]):
                continue
            name = ".".join([package, *below]).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


MODULES = modules()


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                yield node.lineno, member if member in MODULES else node.module


def inside(module: str, package: str) -> bool:
    """Whether a module is a package or lies in it."""
    return module == package or module.startswith(package + ".")


def room(module: str) -> int | None:
    """Place of a module's room in ROOMS."""
    name = ALIASES.get(module, module)
    return next((place for place, names in enumerate(ROOMS) if any(inside(name, n) for n in names)), None)


def offence(importer: str, imported: str) -> str:
    """Why an import is not allowed; empty when it is."""
    if imported == "flowc" or not inside(imported, "flowc"):
        return ""
    if inside(importer, IMPORTERS):
        seen = inside(imported, IMPORTERS) or any(inside(imported, name) for name in IMPORTERS_SEE)
        return "" if seen else f"importers see only {', '.join(IMPORTERS_SEE)}"
    if inside(imported, IMPORTERS):
        allowed = any(inside(ALIASES.get(importer, importer), name) for name in IMPORTERS_SEEN_BY)
        return "" if allowed else f"only {', '.join(IMPORTERS_SEEN_BY)} may import an importer"
    here, there = room(importer), room(imported)
    if here is None or there is None:
        return "one of them belongs to no room"
    return "" if there <= here else "its room comes later"


OPERATORS = ("flowc.ir.core", "flowc.ir.kernel")
NAME_OPERATORS = (*OPERATORS, "flowc.stages", "flowc.targets", "flowc.passes", "flowc.lowering")


def is_package(module: str) -> bool:
    """Whether a module is a folder."""
    place = module.removeprefix("flowc.").replace(".", "/")
    return any((ROOT / below / "__init__.py").is_file() for below in (f"flowc/{place}", place))


def cycle(arrows: Mapping[str, Set[str]]) -> list[str]:
    """Names in a circle, the first one again at the end; empty when there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_module_has_a_room() -> None:
    homeless = [name for name in MODULES if name != "flowc" and room(name) is None and not inside(name, IMPORTERS)]
    assert not homeless, "say in ROOMS where these belong"


def test_only_these_modules_are_loose() -> None:
    assert {name for name in MODULES if name.count(".") < 2 and not is_package(name)} | {"flowc"} == LOOSE


def test_a_room_is_a_folder() -> None:
    assert [n for names in ROOMS for n in names if not is_package(n) and n not in LOOSE] == []


def test_what_is_true_of_an_operator_stands_with_it() -> None:
    """Costs, reports, builds and verify ask an operator for its traits; those that make or rewrite one name it."""
    outside = [
        f"{name}:{line}"
        for name, tree in MODULES.items()
        if not any(inside(name, n) for n in NAME_OPERATORS)
        for line, imported in imports(tree)
        if any(inside(imported, n) for n in OPERATORS)
    ]
    assert outside == []


def test_no_import_cycles() -> None:
    """Imports for types alone count too: what knows each other belongs together."""
    arrows = {
        name: {i for _, i in imports(tree) if i in MODULES and i != name and not inside(name, i)}
        for name, tree in MODULES.items()
    }
    assert cycle(arrows) == []


def test_a_cycle_is_found() -> None:
    assert sorted(set(cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}))) == ["b", "c"]


def test_rooms_import_only_what_comes_before() -> None:
    offences = [
        f"{name}:{line} imports {imported}: {why}"
        for name, tree in MODULES.items()
        for line, imported in imports(tree)
        if name != "flowc" and (why := offence(name, imported))
    ]
    assert not offences, "\n".join(offences)


def test_the_package_itself_loads_nothing(tmp_path: Path) -> None:
    """It names the API for checkers of types alone; what is in it is imported when it is first used."""
    assert {imported for _, imported in imports(MODULES["flowc"]) if inside(imported, "flowc")} == {"flowc.api"}
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import flowc; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if inside(name, "flowc")] == ["flowc"]


def test_nothing_imports_torch() -> None:
    offences = [
        f"{name}:{line} imports {imported}"
        for name, tree in MODULES.items()
        for line, imported in imports(tree)
        if any(inside(imported, library) for library in FORBIDDEN)
    ]
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("flowc.passes.prune", "flowc.ir.graph", True),
        ("flowc.ir.graph", "flowc.passes.prune", False),
        ("flowc.errors", "flowc.ir", False),
        ("flowc.irritating", "flowc.ir", False),
        ("flowc.importers.llama", "flowc.spec.spec", True),
        ("flowc.importers.llama", "flowc.lowering", False),
        ("flowc.compile", "flowc.importers.llama", False),
        ("flowc.cli.import_", "flowc.importers.llama", True),
        ("flowc.cli", "click", True),
    ],
)
def test_the_rule_itself(importer: str, imported: str, allowed: bool) -> None:
    assert (offence(importer, imported) == "") is allowed


def loaded_by(statement: str, folder: Path) -> set[str]:
    """Top-level names in sys.modules after a statement ran in a new interpreter."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_command_line_starts_without_heavy_libraries(tmp_path: Path) -> None:
    assert not loaded_by("import flowc.cli", tmp_path) & set(HEAVY)


def test_no_second_copy_of_the_linked_packages(tmp_path: Path) -> None:
    assert not loaded_by("import flowc.cli, flowc.lowering, flowc.passes", tmp_path) & {"lowering", "passes"}


APART = {"bench", "cases", "mutation", "parity", "project", "real", "realistic", "robust"}
"""Folders of tests that are about no single room."""


def test_folders_of_tests_are_named_like_rooms() -> None:
    rooms = {name.split(".")[1] for names in ROOMS for name in names} | {IMPORTERS.split(".")[1]}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders - APART - rooms == set()


def test_pytest_enters_every_folder_of_tests(pytestconfig: pytest.Config) -> None:
    """By default it passes by folders with such names as `build`."""
    passed_by: list[str] = pytestconfig.getini("norecursedirs")
    folders = [path.name for path in (ROOT / "tests").rglob("*") if path.is_dir() and any(path.glob("test_*.py"))]
    assert "build" in folders
    assert [name for name in folders if any(fnmatch(name, pattern) for pattern in passed_by)] == []
