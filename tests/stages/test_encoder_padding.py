"""A row of a batch equals the same row alone, wherever its padding stands and whatever the ids there are."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from tests.oracle_io import ROOT, Array
from tests.parity.harness import Model

# Where padding may stand. BERT's positions are those of the columns, MPNet's bias counts columns between tokens.
ANYWHERE = ("roberta", "nomic-bert", "modernbert")
AROUND = (*ANYWHERE, "mpnet")
BEHIND = (*AROUND, "bert", "distilbert")
PAD = {"roberta": 1, "mpnet": 1}
WIDTH = 14


@functools.cache
def model(example: str, target: str) -> Model:
    folder = Path(tempfile.mkdtemp())
    compiled = compile_file(ROOT / "examples" / f"{example}.yaml", Request(target=target))
    build(compiled, folder / "model.onnx", verify="off")
    built = Model(compiled, folder)
    assert built.sessions
    return built


def runs(lengths: list[int], leads: list[int]) -> Array:
    """A mask of one run of ones in each row."""
    columns = np.arange(WIDTH)
    return np.stack([(columns >= lead) & (columns < lead + n) for n, lead in zip(lengths, leads, strict=True)])


@st.composite
def behind(draw: st.DrawFn) -> Array:
    lengths = draw(st.lists(st.integers(1, WIDTH), min_size=1, max_size=4))
    return runs(lengths, [0] * len(lengths))


@st.composite
def around(draw: st.DrawFn) -> Array:
    lengths = draw(st.lists(st.integers(1, WIDTH), min_size=1, max_size=4))
    return runs(lengths, [draw(st.integers(0, WIDTH - n)) for n in lengths])


@st.composite
def anywhere(draw: st.DrawFn) -> Array:
    row = st.lists(st.booleans(), min_size=WIDTH, max_size=WIDTH).filter(any)
    return np.array(draw(st.lists(row, min_size=1, max_size=4)))


def assert_rows_alone(example: str, target: str, kept: Array, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, 97, kept.shape)
    types = rng.integers(0, 2, kept.shape)
    if example in PAD:
        ids = np.where(kept, ids, PAD[example])
    built = model(example, target)
    batch = built.run("encode", {"input_ids": ids, "attention_mask": kept.astype(np.int64), "token_type_ids": types})
    for i, row in enumerate(kept):
        alone = {"input_ids": ids[i : i + 1, row], "token_type_ids": types[i : i + 1, row]}
        single = built.run("encode", {**alone, "attention_mask": np.ones_like(alone["input_ids"])})
        for name, want in single.items():
            got = batch[name][i][row] if want.ndim == 3 else batch[name][i]
            np.testing.assert_allclose(got, want[0], rtol=1e-5, atol=1e-5, err_msg=f"{name} of row {i}")


some = settings(max_examples=12)
every_target = pytest.mark.parametrize("target", ["ort-cpu", "portable"])
seeds = st.integers(0, 2**31)


@every_target
@pytest.mark.parametrize("example", BEHIND)
@given(kept=behind(), seed=seeds)
@some
def test_padding_behind(example: str, target: str, kept: Array, seed: int) -> None:
    assert_rows_alone(example, target, kept, seed)


@every_target
@pytest.mark.parametrize("example", AROUND)
@given(kept=around(), seed=seeds)
@some
def test_padding_on_both_sides(example: str, target: str, kept: Array, seed: int) -> None:
    assert_rows_alone(example, target, kept, seed)


@every_target
@pytest.mark.parametrize("example", ANYWHERE)
@given(kept=anywhere(), seed=seeds)
@some
def test_padding_between_tokens(example: str, target: str, kept: Array, seed: int) -> None:
    assert_rows_alone(example, target, kept, seed)


def test_columns_count_where_they_are_said_to() -> None:
    """The rows that are left out above are left out because they differ."""
    for example in ("bert", "distilbert"):
        with pytest.raises(AssertionError, match="of row"):
            assert_rows_alone(example, "ort-cpu", runs([5], [4]), 0)
    holes = np.array([[True] * 4 + [False] * 5 + [True] * 5])
    with pytest.raises(AssertionError, match="of row"):
        assert_rows_alone("mpnet", "ort-cpu", holes, 0)


def test_a_row_of_padding_is_finite_and_touches_no_other() -> None:
    ids = np.random.default_rng(0).integers(2, 97, (2, WIDTH))
    mask = np.stack([np.ones(WIDTH, np.int64), np.zeros(WIDTH, np.int64)])
    for example in BEHIND:
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        batch = model(example, "ort-cpu").run("encode", feeds)
        alone = model(example, "ort-cpu").run("encode", {n: a[:1] for n, a in feeds.items()})
        for name, array in batch.items():
            assert np.isfinite(array).all(), (example, name)
            np.testing.assert_allclose(array[:1], alone[name], rtol=1e-5, atol=1e-5)


@every_target
def test_a_token_that_sees_itself_alone_gives_its_own_row(target: str, tmp_path: Path) -> None:
    """Where no layer looks further than the token, it gives the same wherever it stands, padding around it or not."""
    spec = (ROOT / "examples" / "modernbert.yaml").read_text(encoding="utf-8")
    alone = spec.replace("reach: [null, 3, 3, null]", "reach: [0, 0, 0, 0]")
    assert alone != spec
    (tmp_path / "alone.yaml").write_text(alone, encoding="utf-8")
    compiled = compile_file(tmp_path / "alone.yaml", Request(target=target))
    build(compiled, tmp_path / "out" / "model.onnx", verify="quick")
    built = Model(compiled, tmp_path / "out")
    ids = np.array([[5, 6, 7, 5], [7, 2, 6, 6]])
    mask = np.array([[1, 1, 1, 1], [0, 0, 1, 1]])
    rows = built.run("encode", {"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
    for row, column in zip(*np.nonzero(mask), strict=True):
        one = ids[row : row + 1, column : column + 1]
        lone = built.run("encode", {"input_ids": one, "attention_mask": np.ones_like(one)})["last_hidden_state"]
        np.testing.assert_allclose(rows[row, column], lone[0, 0], rtol=1e-5, atol=1e-5)
