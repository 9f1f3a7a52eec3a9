"""Pictures of a colour and a shape: the instruction must pick which of the two a picture is near."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, normalize

from instructed import changed
from seewhy.classifiers.encoded_set import EncodedSet
from seewhy.encoders.base import Layout
from seewhy.encoders.stream import Encoded
from seewhy.errors import DataError
from seewhy.learning.api import ByInstructions, InstructedTask, triplets
from seewhy.learning.encoders.adapted import Adaptation
from seewhy.learning.encoders.instructed import Instructed
from seewhy.learning.objectives.pairs import CLIP, FocalLens
from seewhy.pictures.samples import Sample
from seewhy.progress import Progress
from seewhy.training.batches import Batch
from seewhy.training.loop import train
from tiny import HashedWords, build

COLOURS, SHAPES = ("red", "green", "blue"), ("bar", "frame", "dot")
KNOWN = [*product(COLOURS, SHAPES)]
ASKED = {"colour": ("the colour", "its colour"), "shape": ("the shape",)}
HOW = ByInstructions(ASKED, rank=12, n_layers=1, n_asked=2, n_through=8, epochs=20, batch_size=16, lr=2e-2)


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
        trunk = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False))
        for layer in trunk:
            nn.init.dirac_(layer.weight)  # type: ignore[arg-type]
        on = build(trunk, Cells(), Layout(), 67, text=HashedWords(67))
    said = {name: tuple((pair[i],) for pair in pairs) for i, name in enumerate(ASKED)}
    names = tuple(str(i) for i in range(len(pairs)))
    seen = how.begun(on).below.encode(drawn(pairs, 1)).pooled
    encoded = [Encoded(n, n, one[None]) for n, one in zip(names, seen, strict=True)]
    own = EncodedSet(list(map(Sample, names)), encoded, columns=said)
    part, task, data = how.prepared(on, own, Progress())
    done = train(task, data, how.training(data, on))
    return Adaptation(on, part, 1.0, {**how.told(own, data, done), "n_steps": len(done.history)})


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


def part() -> Instructed:
    trained = taught().trained
    assert isinstance(trained, Instructed)
    return trained


def test_what_learns_and_what_stays() -> None:
    """What the instruction makes of the layers, and the projection; no weight of the network."""
    before = HOW.begun(taught().base)
    moved = {n.split(".")[0] for n, p in part().named_parameters() if not torch.equal(p, before.get_parameter(n))}
    assert moved == {"layers", "projection"}
    assert {n.rpartition(".")[0] for n, _ in part().layers.named_parameters()} == {"hidden", "film"}
    for layer in taught().base.trunk:  # type: ignore[attr-defined]
        assert torch.equal(layer.weight, nn.init.dirac_(torch.empty(3, 3, 1, 1)))


def test_with_none_through_the_layers_only_the_projection_learns() -> None:
    alone = trained(replace(HOW, n_through=0, epochs=2)).trained
    assert isinstance(alone, Instructed)
    assert not alone.layers.film.weight.any()  # type: ignore[union-attr]
    assert alone.projection.up.weight.any()


def test_an_answer_that_nobody_knows_is_no_triplet_and_wordings_are_drawn() -> None:
    on = taught().base
    asked = [
        (("the colour", "its colour"), ["red", "", "blue", ""]),
        (("the shape",), ["dot", "bar", "red", " "]),
    ]
    rows, column = triplets(on, part(), asked, 2)
    assert rows == [0, 1, 2], "a picture of which nothing is known is left out"
    words = ["bar", "blue", "dot", "red"]
    assert [[(k, words[j]) for k, j in known] for known in column.known] == [
        [(0, "red"), (1, "dot")],
        [(1, "bar")],
        [(0, "blue"), (1, "red")],
    ]
    read = {said: part().read(on.encode_text([said]))[0][0] for several, _ in asked for said in several}
    heard = set()
    for seed in range(12):
        draws = [np.random.default_rng([seed, i]) for i in range(3)]
        instruction, answer, label = column.drawn([0, 1, 2], draws)
        assert (instruction.shape, answer.shape, label.shape) == ((3, 2, 67), (3, 2, 67), (3, 2))
        for i, known in enumerate(column.known):
            assert sorted(label[i].tolist()) == sorted([j for _, j in known] * (2 // len(known))), (
                "each once, then again"
            )
            for k in range(2):
                torch.testing.assert_close(answer[i, k], on.encode_text([words[int(label[i, k])]])[0])
                (said,) = (w for w, vector in read.items() if torch.equal(instruction[i, k], vector))
                question = next(q for q, j in known if j == label[i, k])
                assert said in asked[question][0]
                heard.add(said)
    assert heard == set(read)


def test_several_triplets_of_a_picture_are_compared_and_equal_answers_are_right() -> None:
    """The loss of a batch, written out: half of the pictures through the layers, half as the encoder pools them."""
    on = taught().base
    task = InstructedTask(on, changed(on), FocalLens(0.1), 1)
    draw = torch.Generator().manual_seed(0)
    image, pooled = torch.randn(2, 3 * 32 * 32, generator=draw), torch.randn(2, 67, generator=draw)
    instruction, answer = (torch.randn(2, 2, 67, generator=draw) for _ in range(2))
    labels = torch.tensor([[0, 1], [2, 0]])
    batch = Batch([0, 1], {"image": image, "pooled": pooled, "asked": (instruction, answer, labels)})
    made = task.loss(task.features(batch), batch)["loss"]
    seen = []
    for i, k in product(range(2), range(2)):
        c = instruction[i, k]
        own = task.part.pooled(image[i : i + 1], c[None]) if i == 0 else pooled[i : i + 1]
        seen.append(on.text.project(task.part.projection(own, c))[0])
    x, y, label = normalize(torch.stack(seen), dim=1), normalize(answer.flatten(0, 1), dim=1), labels.flatten()
    total = torch.zeros(())
    for scores in (10 * x @ y.T, 10 * y @ x.T):
        for i in range(4):
            alike = [j for j in range(4) if label[j] == label[i]]
            total = total + scores[i].logsumexp(0) - scores[i, alike].mean()
    torch.testing.assert_close(made, total / 8)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ([(("the colour",), ["red", "blue"]), (("x",), ["red"])], "lengths [2, 1] and 2 different answers."),
        ([((), ["red", "blue", "red"])], "lengths [3] and 2 different answers."),
        ([(("the colour",), ["red", "red", ""])], "lengths [3] and 1 different answers."),
        ([], "lengths [] and 0 different answers."),
    ],
)
def test_what_cannot_be_asked_is_refused(asked: Any, given: str) -> None:
    with pytest.raises(DataError) as caught:
        triplets(taught().base, part(), asked, 1)
    assert str(caught.value) == (
        "Every list of answers must have an instruction, all lists must have the same length, and together they must "
        f"have at least 2 different answers, got the {given}"
    )


def test_another_objective_over_pairs_can_be_taken() -> None:
    assert trained(replace(HOW, epochs=1, objective=CLIP())).provenance["objective"] == "clip"
