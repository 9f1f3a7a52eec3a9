"""The small CNN: its shapes and weights, what it learns, what it cannot learn, and that it is kept whole."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seewhy.classifiers import classifiers
from seewhy.classifiers.saving import load
from seewhy.errors import InputError
from seewhy.pictures.samples import Sample, Samples, gathered
from tiny import tiny_cnn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproductions"))

from small_cnn import SmallCNN, SmallCNNNetwork, Standardise, Topology, reader


def cast(n: int, seed: int, size: int = 16) -> Samples:
    """Noise; that of the second class is a little redder all over."""
    rng = np.random.default_rng(seed)
    items = []
    for i in range(n):
        for label, red in (("plain", 0), ("red", 60)):
            pixels = rng.integers(60, 160, (size, size, 3)) + np.array([red, 0, 0])
            items.append(Sample(f"{label} {i} {seed}", label, pixels=pixels.astype(np.uint8)))
    return gathered(items)


SMALL = SmallCNN(n_filters=4, n_units=8, side=16, n_epochs=20, batch_size=16, lr=1e-2, split="random")


@pytest.mark.parametrize(
    ("topology", "side", "map_side"),
    [(Topology(1, 3, 0, 8), 32, 32), (Topology(2, 32, 1, 64), 32, 16), (Topology(3, 5, 2, 7), 24, 6)],
)
def test_a_topology_has_the_shapes_and_weights_that_it_says(topology: Topology, side: int, map_side: int) -> None:
    trunk, head = topology.make(side, standardise=False)
    seen = trunk(torch.zeros(2, 3, side, side))
    assert seen.shape == (2, topology.n_filters, map_side, map_side)
    last = torch.nn.Linear(head(seen).shape[1], 2)
    made = sum(p.numel() for part in (trunk, head, last) for p in part.parameters())
    assert made == topology.n_weights(side, 2)
    assert sum(isinstance(layer, torch.nn.Linear) for layer in head) == topology.n_dense


def test_it_learns_what_is_there_and_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(classifiers._members, "small_cnn", SmallCNN)
    made = SMALL.fit(tiny_cnn(), cast(24, 0))
    assert made.measures["held_out_accuracy"] == 1.0
    assert made.measures["topology"] == "2 x 4 filters, 1 x 8 units"
    others = cast(8, 1)
    said = made.predict_proba([s.pixels for s in others.items])
    assert [made.classes[i] for i in said.argmax(1)] == [s.label for s in others.items]
    made.save(tmp_path / "model")
    again = load(tmp_path / "model", encoder=tiny_cnn())
    np.testing.assert_array_equal(again.predict_proba([s.pixels for s in others.items]), said)
    assert again.encoder.fingerprint == made.encoder.fingerprint
    assert made.explain(others.items[1].pixels, measure=False).to_json()["where"]["method"] == "grad_cam"


def test_other_seeds_are_other_networks_and_the_same_seed_the_same() -> None:
    few = SmallCNN(n_filters=4, n_units=8, side=16, n_epochs=1, batch_size=16, split="random")
    prints = [few.fit(tiny_cnn(), cast(8, 0)).encoder.fingerprint for _ in range(2)]
    other = SmallCNN(n_filters=4, n_units=8, side=16, n_epochs=1, batch_size=16, split="random", seed=1)
    assert prints[0] == prints[1] != other.fit(tiny_cnn(), cast(8, 0)).encoder.fingerprint


def test_a_colour_cast_tells_nothing_once_pictures_are_standardised() -> None:
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    gain = torch.tensor([0.3, 0.0, 0.1])[:, None, None]
    torch.testing.assert_close(Standardise()(2 * pixels + gain), Standardise()(pixels), atol=1e-5, rtol=1e-4)
    assert Standardise()(torch.ones(1, 3, 8, 8)).abs().max() == 0
    flat = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    trunk, head = Topology(1, 4, 0, 1).make(8, standardise=True)
    out = head(trunk(flat))
    assert torch.equal(out[0], out[1])


def test_the_reader_gives_the_pixels_and_their_colours() -> None:
    pixels = torch.rand(2, 3, 16, 16)
    seen = reader(16).encode(pixels)
    assert torch.equal(seen.features, pixels)
    torch.testing.assert_close(seen.pooled[:, 0], pixels[:, 0, :4, :4].mean((1, 2)))


def test_what_no_network_has_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        SmallCNN(n_convs=0)
    assert str(caught.value) == (
        "A small CNN was given n_convs=0, n_filters=32, n_dense=1, n_units=64. Expected 1 to 5 convolutions, 0 or "
        "more dense layers, and numbers above zero. Change them."
    )
    with pytest.raises(InputError, match=r"^A small CNN of 5 convolutions was given side=16\. "):
        SmallCNN(n_convs=5, side=16)
    with pytest.raises(InputError, match=r"weights\. Expected at most 200,000,000\. Use fewer units"):
        SmallCNN(n_filters=64, n_dense=2, n_units=16384, side=256)
    with pytest.raises(InputError, match=r"^`n_epochs` and `batch_size` must be"):
        SmallCNN(n_epochs=0)


def test_tensors_of_another_topology_are_refused() -> None:
    made = SmallCNN(n_filters=4, n_units=8, side=16, n_epochs=1, batch_size=8, split="random").fit(
        tiny_cnn(), cast(6, 0)
    )
    network = made.network
    assert isinstance(network, SmallCNNNetwork)
    facts = {**network.facts(), "topology": {**network.facts()["topology"], "n_units": 9}}
    with pytest.raises(ValueError, match="the tensors of its head are not those of 2 x 4 filters, 1 x 9 units"):
        SmallCNNNetwork.restore(tiny_cnn(), facts, network.tensors())
