"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import settings

from tests.oracle_io import Oracle, case_folders, shared_folder

# The same examples in every run and no deadline: a failure must not depend on luck or on a busy machine.
settings.register_profile("flowc", derandomize=True, deadline=None, database=None)
settings.load_profile("flowc")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The switch of text cases."""
    parser.addoption("--update", action="store_true", help="write what came out into tests/cases, to be read in a diff")


def pytest_configure(config: pytest.Config) -> None:
    """A robot does not say what is right."""
    if config.getoption("--update") and os.environ.get("CI"):
        raise pytest.UsageError("--update is not for CI: run it by hand and read the difference")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """What was skipped and why, on one line: in a plain clone it is hundreds of tests for one reason."""
    line = skipped_line([report.longrepr for report in terminalreporter.stats.get("skipped", [])])
    if line:
        terminalreporter.write_line(line)


def skipped_line(reasons: list[object]) -> str:
    """The line of the reasons that pytest gives, (file, line, text); empty where nothing was skipped."""
    texts = [str(r[2]).removeprefix("Skipped: ") if isinstance(r, tuple) else str(r) for r in reasons]  # pyright: ignore[reportUnknownArgumentType]
    kinds = Counter("they read what is in no clone (set FLOWC_SHARED)" if "FLOWC_SHARED" in t else t for t in texts)
    told = "; ".join(f"{count} as {why}" for why, count in kinds.most_common())
    return f"skipped: {told} (pytest -rs lists them)" if texts else ""


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether text cases are written again."""
    return bool(request.config.getoption("--update"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that reads an oracle replays a golden."""
    for item in items:
        if isinstance(item, pytest.Function) and "oracle" in item.fixturenames:
            item.add_marker("golden")


@pytest.fixture
def shared() -> Path:
    """The folder of shared pages and oracles (FLOWC_SHARED, default: `shared` beside the checkout)."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("no shared folder: set FLOWC_SHARED")
    return folder


@pytest.fixture
def oracle() -> Callable[[str], Oracle]:
    """Reads a case by name, from golden/oracles or else from the shared folder."""

    def read(case: str) -> Oracle:
        return Oracle(case_folders()[case])

    return read
