"""Changes a configuration field of an oracle checkpoint and tries to import it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flowc.errors import SpecError
from flowc.importers import import_checkpoint
from tests.oracle_io import case_folders


def changed(case: str, folder: Path, **fields: Any) -> Path:
    """A copy of an oracle's checkpoint whose configuration has these fields instead; `...` removes one."""
    source = case_folders()[case]
    for file in source.iterdir():
        if file.suffix != ".npz":
            shutil.copyfile(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text())
    for key, value in fields.items():
        if value is ...:
            config.pop(key, None)
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def assert_refused(case: str, folder: Path, **fields: Any) -> None:
    """Importing must stop with an error that names the (first) changed field and says where it stands."""
    with pytest.raises(SpecError) as caught:
        import_checkpoint(changed(case, folder, **fields))
    name = next(iter(fields))
    found = [d for d in caught.value.diagnostics if f"'{name}'" in d.message]
    assert found, caught.value.render()
    assert found[0].span is not None
