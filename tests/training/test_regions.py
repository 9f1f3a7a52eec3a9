"""Words find the regions that they name, in parts as on the whole batch; an encoder's halves show both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import seewhy
from seewhy.encoders.split import example_pixels
from seewhy.learning.contrast import Drawn, ImageRegions, RegionalContrast, Still, TextWords
from seewhy.learning.objectives.contrastive import Regional
from seewhy.learning.objectives.regional import DreamLIP, GLoRIA
from seewhy.learning.pooled import spans
from seewhy.seeded import seeded
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.memory import cached_gradients
from tiny_words import tiny_pair

N, THINGS, CELLS, WIDTH = 60, 12, 4, 12
DRAW = torch.Generator().manual_seed(2)
LOOKS = torch.randn(THINGS, 16, generator=DRAW)
"""Of each thing, in a cell; a caption is a word for each cell, in an order of its own, and a sentence each."""
SHOWN = torch.stack([torch.randperm(THINGS, generator=DRAW)[:CELLS] for _ in range(N)])
CELL = LOOKS[SHOWN] + 0.1 * torch.randn(N, CELLS, 16, generator=DRAW)
SAID = [row[torch.randperm(CELLS, generator=DRAW)][: 2 + i % 3].tolist() for i, row in enumerate(SHOWN)]


class Cells(nn.Module):
    """A layer for each cell; a picture is their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(16, WIDTH), nn.Dropout(0.1))

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        regions = self.layer(cells)
        return regions.mean(1), regions


class Words(nn.Module):
    """A vector for each word, that of the first where nothing is said; a text is the mean of what is."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(THINGS, WIDTH)

    def forward(self, ids: Tensor, said: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        words = self.words(ids)
        return (words * said[..., None]).sum(1) / said.sum(1, keepdim=True), words, said


def tokens(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """As long as the longest."""
    longest = max(map(len, texts))
    ids = torch.tensor([[*one, *[0] * (longest - len(one))] for one in texts])
    return ids, torch.arange(longest) < torch.tensor([len(one) for one in texts])[:, None]


def data_for(objective: Regional) -> TrainingData:
    choices: Any = [[words] for words in SAID] if objective.n_texts == 1 else [[[w] for w in words] for words in SAID]
    return TrainingData(N, {"image": CELL, "text": Drawn(choices, tokens, objective.n_texts)})


def task_for(objective: Regional, seed: int = 0) -> RegionalContrast:
    with seeded(seed):
        return RegionalContrast(Cells(), Words(), objective, column="image")


def pointing(task: RegionalContrast) -> float:
    """How often the cell that a word is nearest to is the one that shows it; 1 / 4 by chance."""
    with torch.no_grad():
        regions, words = task.image(CELL)[1], task.text.words.weight  # type: ignore[union-attr]
        where = (normalize(regions, dim=2) @ normalize(words, dim=1).T).argmax(1)  # type: ignore[arg-type]
    right = [SHOWN[i, where[i, word]] == word for i, words in enumerate(SAID) for word in words]
    return sum(map(float, right)) / len(right)


OBJECTIVES = [GLoRIA(), DreamLIP(n_texts=3)]


@pytest.mark.parametrize(
    ("objective", "least"),
    [(GLoRIA(), 0.9), (GLoRIA(local_weight=1e3), 0.6), (DreamLIP(n_texts=3), 0.9)],
    ids=["gloria", "the parts of gloria alone", "dreamlip"],
)
def test_words_find_what_they_name(objective: Regional, least: float) -> None:
    task = task_for(objective)
    before = pointing(task)
    done = train(task, data_for(objective), Training(40, 30, lr=0.1))
    first, last = done.history[0], done.history[-1]
    assert before < 0.45
    assert pointing(task) > least
    assert last["parts"] < 0.7 * first["parts"]
    assert last["loss"] == pytest.approx(last["whole"] + last["parts"], rel=1e-5)


def test_what_fills_up_is_no_word_and_the_scale_is_held() -> None:
    task, batch = task_for(GLoRIA()).eval(), data_for(GLoRIA()).batch(0, 20, 0)
    ids, said = batch["text"]
    batch.columns["text"] = (torch.where(said, ids, 7), said)
    other = task.loss(task.features(batch), batch)
    batch.columns["text"] = (ids, said)
    assert float(other["parts"]) == pytest.approx(float(task.loss(task.features(batch), batch)["parts"]), rel=1e-6)
    held = task_for(DreamLIP())
    held.state.log_scale.data.fill_(9.0)  # type: ignore[operator, union-attr]
    held.after_step()
    assert float(held.state.log_scale.detach().exp()) == pytest.approx(100.0)  # type: ignore[arg-type, operator]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_gradients_in_parts_are_those_of_the_whole(objective: Regional) -> None:
    task, batch = task_for(objective).eval(), data_for(objective).batch(0, 20, 0)
    own = [p for p in task.parameters() if p.requires_grad]
    with seeded(0):
        cached_gradients(task, batch, own, 6, 7, 1.0)
    found = [p.grad for p in own]
    wanted = torch.autograd.grad(task.loss(task.features(batch), batch)["loss"], own)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_weight_of_the_parts() -> None:
    """Nothing for 0, twice as much for 2."""
    terms = []
    for weight in (0.0, 1.0, 2.0):
        task = task_for(GLoRIA(local_weight=weight)).eval()
        batch = data_for(GLoRIA()).batch(0, 20, 0)
        terms.append(task.loss(task.features(batch), batch))
    assert float(terms[0]["parts"]) == 0.0
    assert float(terms[2]["parts"]) == pytest.approx(2 * float(terms[1]["parts"]))
    assert float(terms[0]["loss"].detach()) == float(terms[2]["whole"])


def test_a_picture_half_shows_its_cells() -> None:
    on = tiny_pair()
    pixels = example_pixels(on.transform.input_size, batch=3, seed=1)
    with torch.no_grad():
        image, regions = ImageRegions(on.trunk, on.head, on.text.projection, on.layout)(pixels)  # type: ignore[attr-defined]
        torch.testing.assert_close(image, on.text.project(on.encode(pixels).pooled))
    torch.testing.assert_close(regions.mean(1), image)
    assert regions.shape[1] == on.layout.to_grid(on.forward_features(pixels))[0, 0].numel()


@pytest.mark.slow
def test_the_embedded_encoder_shows_words_and_cells() -> None:
    on = seewhy.encoder("lite0")
    tower: Any = on.text
    said = [*spans(["A red bird. It sits on a branch."], "sentence"), "a cat"]
    with torch.no_grad():
        text, words, own = TextWords(tower.module)(*tower.tokens(said))
        torch.testing.assert_close(normalize(text, dim=1), on.encode_text(said), rtol=1e-4, atol=1e-5)
    assert own.sum(1).tolist()[-1] == 2
    assert words.shape[2] == text.shape[1]


def test_what_stands_still_is_frozen_and_drops_nothing() -> None:
    still = Still(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)))
    assert not any(p.requires_grad for p in still.parameters())
    still.train()
    given = torch.ones(2, 4)
    assert torch.equal(still(given), still.network[0](given))  # type: ignore[index]
    assert not Still(nn.Dropout(0.5)).network.training
