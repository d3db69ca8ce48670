"""Property: whatever is masked and wherever calls end, a row ends in the state that its valid tokens alone give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowc.build.compiled import Compiled
from tests.passes.making import compile_text
from tests.stages.test_recurrent_states import HYBRID, TOLERANCE, play, states

LENGTH = 9


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_text(tmp_path_factory.mktemp("hybrid"), "", HYBRID, "hybrid")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    masks=st.lists(st.lists(st.integers(0, 1), min_size=LENGTH, max_size=LENGTH), min_size=1, max_size=4),
    ends=st.sets(st.integers(1, LENGTH - 1), max_size=4),
    way=st.sampled_from(["interpreter", "ort-cpu", "portable"]),
    seed=st.integers(0, 99),
)
def test_states_are_those_of_the_valid_tokens(
    hybrid: Compiled, masks: list[list[int]], ends: set[int], way: str, seed: int
) -> None:
    ids = np.random.default_rng(seed).integers(0, 61, (len(masks), LENGTH)).tolist()
    found = states(play(hybrid, way, list(zip(ids, masks, strict=True)), [*sorted(ends), LENGTH])[-1])
    assert len(found) == 4
    for row, mask in enumerate(masks):
        valid = [token for token, kept in zip(ids[row], mask, strict=True) if kept]
        if not valid:
            assert all(not value[row].any() for value in found.values())
            continue
        (alone,) = play(hybrid, way, [(valid, [1] * len(valid))], [len(valid)])
        for name, value in states(alone).items():
            np.testing.assert_allclose(found[name][row], value[0], atol=TOLERANCE, rtol=0, err_msg=f"{name} {mask}")
