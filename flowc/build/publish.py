"""The files of a build in its folder: made in a hidden one inside it, and renamed together at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Generator
from pathlib import Path

from flowc.build.files import Outputs
from flowc.build.manifest import load
from flowc.errors import FlowError, MissingTool, SpecError, cannot_write
from flowc.outside.writing import same

_PIECE = 1 << 22
_ATTEMPTS = 20


@contextlib.contextmanager
def staging_folder(folder: Path, needed: int) -> Generator[Path]:
    """A folder for unfinished files, on the same file system; gone afterwards, whatever happens.

    `needed` bytes must be free there. What cannot be written raises what `cannot_write` gives.
    """
    created = [p for p in (folder, *folder.parents) if not os.path.exists(p)]  # unlike Path.exists, it never raises
    try:
        work = _made_inside(folder)
        try:
            free = shutil.disk_usage(folder).free
            if free < needed:
                message = f"the build needs {needed:,} bytes in {folder}, where {free:,} are free"
                raise MissingTool.of("cannot-write", message)
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except BaseException as error:
        for made in created:
            with contextlib.suppress(OSError):
                made.rmdir()
        if isinstance(error, OSError):
            raise cannot_write(folder, error) from None
        raise


def _made_inside(folder: Path) -> Path:
    """A new folder inside of one that another build, which fails, may be about to remove again."""
    for attempt in range(_ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return Path(tempfile.mkdtemp(prefix=".flowc-", dir=folder))
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def publish(work: Path, outputs: Outputs, sources: Collection[Path]) -> tuple[list[Path], list[Path]]:
    """Give every file its final name, in an order that leaves no graph beside another build's data, wherever it ends.

    Graphs of earlier builds under this name go first, those of this one come after their data, and the manifest comes
    last. A file that is one of `sources` stays what it is. Returns the files under their final names, and what was
    removed: graphs of earlier builds that read the data files as they were, and data files that nothing reads now.
    """
    folder = outputs.folder
    graphs = outputs.graphs() | _graphs_of(folder / outputs.manifest) | _graphs_of(work / outputs.manifest)
    new = [p for p in work.iterdir() if not p.is_symlink() and not any(same(folder / p.name, s) for s in sources)]
    names = sorted((p.name for p in new), key=lambda n: (n == outputs.manifest, n in graphs, n))
    for name in names:
        if (folder / name).is_dir():
            raise SpecError.of("bad-output", f"cannot write {folder / name}: it is a folder")
    umask = os.umask(0)
    os.umask(umask)
    removed: list[Path] = []
    writes_data = any(outputs.is_data(name) for name in names)
    with _alone_in(folder):
        before = _data_of(folder / outputs.manifest)
        # Until the new manifest is there, the folder has none: a set cut short by a kill is not taken for a model.
        (folder / outputs.manifest).unlink(missing_ok=True)
        for name in sorted(graphs):
            if name in names:
                (folder / name).unlink(missing_ok=True)
            elif writes_data and _reads(folder / name, outputs.data):
                (folder / name).unlink()
                removed.append(folder / name)
        for name in before:
            stale = folder / name
            if writes_data and name not in names and outputs.is_data(name) and stale.is_file():
                stale.unlink()
                removed.append(stale)
        for name in names:
            os.chmod(work / name, 0o666 & ~umask)
            os.replace(work / name, folder / name)
    return [folder / name for name in sorted(names, key=lambda n: (n == outputs.manifest, n))], removed


def _reads(graph: Path, data: str) -> bool:
    """Whether a file is a graph that flowc made and that has its weights in data files whose names begin so."""
    if not graph.is_file():
        return False
    marks = {b"flowc.graph", data.encode()}
    longest = max(map(len, marks))
    with graph.open("rb") as stream:  # it may be anybody's, of any size
        before = b""
        while marks and (piece := stream.read(_PIECE)):
            marks = {mark for mark in marks if mark not in before + piece}
            before = piece[-longest:]
    return not marks


def _graphs_of(manifest: Path) -> set[str]:
    """Names of the graph files in a manifest, those of components among them; none where it cannot be read."""
    try:
        return {record.file for record in load(manifest).graphs.values()}
    except FlowError:
        return set()


def _data_of(manifest: Path) -> list[str]:
    """Names of the data files in the manifest of an earlier build; none where that cannot be read."""
    try:
        return [record.file for record in load(manifest).data]
    except FlowError:
        return []


@contextlib.contextmanager
def _alone_in(folder: Path) -> Generator[None]:
    """Two builds into one folder name their files one after the other, so that the set is one build's."""
    try:
        import fcntl
    except ImportError:  # not on this system: the last one to rename wins, file by file
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
