"""Pictures of a colour and a shape: the instruction must pick which of the two a picture is near."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from seewhy.encoders.base import Layout
from seewhy.errors import DataError
from seewhy.learning.api import ByInstructions, triplets
from seewhy.learning.encoders.adapted import Adaptation
from seewhy.learning.objectives.pairs import CLIP
from seewhy.learning.pooled import PooledSet
from seewhy.pictures.samples import Sample
from seewhy.progress import Progress
from seewhy.training.loop import train
from tiny import HashedWords, build

COLOURS, SHAPES = ("red", "green", "blue"), ("bar", "frame", "dot")
KNOWN = [*product(COLOURS, SHAPES)]
ASKED = {"colour": ("the colour", "its colour"), "shape": ("the shape",)}
HOW = ByInstructions(ASKED, rank=12, epochs=20, batch_size=32, lr=2e-2)


class Cells(nn.Module):
    """Each colour's mean, and the brightness of 8 by 8 cells, as one vector."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([8 * x.mean((2, 3)), avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)], 1)


def drawn(pairs: list[tuple[str, str]], seed: int) -> Tensor:
    """Pictures, of a brightness and with noise of their own."""
    generator, made = torch.Generator().manual_seed(seed), []
    for colour, shape in pairs:
        mask = torch.zeros(32, 32)
        if shape == "bar":
            mask[24:32, 4:28] = 1
        else:
            mask[0:24, 4:28] = 1 if shape == "frame" else 0
            mask[4:20, 8:24] = 0
            mask[8:16, 12:20] = 1 if shape == "dot" else 0
        picture = 0.1 * torch.randn(3, 32, 32, generator=generator)
        picture[COLOURS.index(colour)] += mask * (1 + torch.rand((), generator=generator))
        made.append(picture)
    return torch.stack(made)


def trained(how: ByInstructions) -> Adaptation:
    pairs = KNOWN * 8
    with torch.random.fork_rng():
        on = build(nn.Identity(), Cells(), Layout(), 67, text=HashedWords(67))
    said = {name: tuple((pair[i],) for pair in pairs) for i, name in enumerate(ASKED)}
    names = tuple(str(i) for i in range(len(pairs)))
    own = PooledSet(tuple(map(Sample, names)), names, on.encode(drawn(pairs, 1)).pooled, said=said)
    head, task, data = how.prepared(on, own, Progress())
    done = train(task, data, how.training(data, on))
    return Adaptation(on, head, 1.0, {**how.told(own, data, done), "n_steps": len(done.history)})


@cache
def taught() -> Adaptation:
    return trained(HOW)


def found(pairs: list[tuple[str, str]], instruction: str) -> list[str]:
    """The answer, of all six, that each picture is nearest."""
    encoder, words = taught().encoder(), [*COLOURS, *SHAPES]
    cosine = encoder.encode_image(drawn(pairs, 2), instruction) @ encoder.encode_text(words).T
    return [words[i] for i in cosine.argmax(1).tolist()]


def test_the_instruction_picks_what_a_picture_is_near() -> None:
    for instruction in ("the colour", "its colour"):
        assert found(KNOWN, instruction) == [colour for colour, _ in KNOWN]
    assert found(KNOWN, "the shape") == [shape for _, shape in KNOWN]


def test_under_one_instruction_pictures_of_one_colour_are_near_and_under_the_other_of_one_shape() -> None:
    encoder, pixels = taught().encoder(), drawn([("green", "bar"), ("green", "frame"), ("blue", "bar")], 3)
    for instruction, near, far in (("the colour", 1, 2), ("the shape", 2, 1)):
        seen = encoder.encode_image(pixels, instruction)
        assert float(seen[0] @ seen[near]) > float(seen[0] @ seen[far]) + 0.5


def test_what_is_written_down_of_a_training() -> None:
    told = taught().provenance
    assert {name: told[name] for name in ("objective", "instructions", "n_pictures", "n_triplets", "n_steps")} == {
        "objective": "focallens",
        "instructions": [["the colour", "its colour"], ["the shape"]],
        "n_pictures": 72,
        "n_triplets": 144,
        "n_steps": 80,
    }
    assert not any(p.requires_grad for p in taught().trained.parameters())  # type: ignore[attr-defined]


def test_an_answer_that_nobody_knows_is_no_triplet_and_wordings_are_drawn() -> None:
    on = taught().base
    pooled = torch.eye(67)[:3]
    asked = [
        (("the colour", "its colour"), ["red", "", "blue"]),
        (("the shape",), ["dot", "bar", "red"]),
    ]
    data = triplets(on, pooled, asked)
    assert data.n_samples == 5
    batch = data.batch(0, 5, seed=0)
    of = {"the colour": on.encode_text(["the colour"])[0], "its colour": on.encode_text(["its colour"])[0]}
    answers = ["red", "blue", "dot", "bar", "red"]
    heard = set()
    for step in range(6):
        batch = data.batch(step, 5, seed=0)
        for row, i in enumerate(batch.index):
            assert torch.equal(batch["image"][row], pooled[[0, 2, 0, 1, 2][i]])
            torch.testing.assert_close(batch["answer"][row], on.encode_text([answers[i]])[0])
            heard |= {words for words, vector in of.items() if i < 2 and torch.equal(batch["instruction"][row], vector)}
    assert heard == set(of)
    assert int(data.columns["labels"][0]) == int(data.columns["labels"][4]), "the same answer"
    assert len(set(data.columns["labels"].tolist())) == 4


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ([(("the colour",), ["red", "blue"])], "[2] answers, 2 of them different"),
        ([((), ["red", "blue", "red"])], "[3] answers, 2 of them different"),
        ([(("the colour",), ["red", "red", ""])], "[3] answers, 1 of them different"),
        ([], "[] answers, 0 of them different"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked: Any, given: str) -> None:
    with pytest.raises(DataError) as caught:
        triplets(taught().base, torch.eye(67)[:3], asked)
    assert str(caught.value) == (
        f"3 pictures were given with {given}. An instruction or more for each list of answers, an answer for each "
        "picture, and two different ones were expected. Give those."
    )


def test_another_objective_over_pairs_can_be_taken() -> None:
    assert trained(replace(HOW, epochs=1, objective=CLIP())).provenance["objective"] == "clip"
