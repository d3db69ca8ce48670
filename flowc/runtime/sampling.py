"""The next token from a row of logits: greedy, or drawn from a cut and sharpened distribution."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

from flowc.errors import CheckFailed


class Sampler:
    """Picks token ids from logits; the same seed and logits give the same ids.

    The distribution is softmax(logits / temperature) in float64, cut to the `top_k` most likely tokens (0: all), then
    to the fewest tokens whose probability reaches `top_p` (Holtzman et al. 2020). Temperature 0 is greedy. Among equal
    logits the lowest id comes first, in greedy choice and in both cuts.
    """

    def __init__(self, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int | None = None) -> None:
        if not 0 <= temperature < float("inf") or top_k < 0 or not 0 < top_p <= 1:
            raise ValueError("needs a finite temperature >= 0, top_k >= 0 and 0 < top_p <= 1")
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        # A drawn seed is kept, so that a run that nobody seeded can be told and repeated.
        self.seed = secrets.randbelow(2**32) if seed is None else seed
        self._random = np.random.default_rng(self.seed)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0

    def pick(self, logits: npt.NDArray[np.floating]) -> int:
        """Id of the next token, from logits [vocab].

        Raises:
            CheckFailed: a logit is NaN or +infinity (minus infinity is a token that cannot be).
        """
        scores = logits.astype(np.float64)
        best = int(np.argmax(scores))
        if not np.isfinite(scores[best]):
            raise CheckFailed.of("bad-logits", f"the model gave {scores[best]} as the best logit, at token {best}")
        if self.greedy:
            return best
        order = np.argsort(-scores, kind="stable")
        if self.top_k:
            order = order[: self.top_k]
        with np.errstate(over="ignore"):  # a tiny temperature sends the others to minus infinity, as it should
            weights = np.exp((scores[order] - scores[best]) / self.temperature)
        reached = np.cumsum(weights / weights.sum())
        if self.top_p < 1:
            kept = int(np.searchsorted(reached, self.top_p)) + 1
            reached = reached[:kept] / reached[min(kept, len(reached)) - 1]
        drawn = int(np.searchsorted(reached, self._random.random(), side="right"))
        return int(order[min(drawn, len(reached) - 1)])
