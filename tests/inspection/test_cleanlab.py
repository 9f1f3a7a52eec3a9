"""cleanlab itself, where it is installed: planted wrong labels come back flagged and in its own order of doubt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seewhy.studies.inspection.faults import HeldOutScores, ranker

pytest.importorskip("cleanlab", reason="the extra 'cleanlab' is not installed")
PLANTED = (3, 17, 31)
UNJUDGED = 40


def planted() -> HeldOutScores:
    """Forty pictures of two classes, three of them under the other's label, and one more that is not judged."""
    draw = np.random.default_rng(0)
    truth = np.arange(UNJUDGED + 1) % 2
    sure = draw.uniform(0.85, 0.97, UNJUDGED + 1)
    sure[[*PLANTED, UNJUDGED]] = 0.99
    p = np.where(truth[:, None] == np.arange(2), sure[:, None], 1 - sure[:, None])
    labels = truth.copy()
    labels[[*PLANTED, UNJUDGED]] ^= 1
    judged = torch.arange(UNJUDGED + 1) < UNJUDGED
    table = torch.tensor(p, dtype=torch.float32)
    return HeldOutScores(table, torch.tensor(labels), table, torch.arange(UNJUDGED + 1), judged)


def test_planted_labels_are_flagged_and_others_are_not() -> None:
    given = planted()
    found = ranker("cleanlab")(given)
    assert found.flagged.nonzero()[:, 0].tolist() == list(PLANTED)
    assert found.proposed[list(PLANTED)].tolist() == (1 - given.labels[list(PLANTED)]).tolist()


def test_doubt_is_one_minus_the_confidence_in_the_own_label() -> None:
    given = planted()
    found = ranker("cleanlab")(given)
    own = given.probabilities.gather(1, given.labels[:, None])[:, 0]
    assert found.doubt[:UNJUDGED].tolist() == pytest.approx((1 - own)[:UNJUDGED].tolist(), abs=1e-6)
    assert found.doubt[UNJUDGED] == 0
