"""ProtoPNet: the authors' numbers, each stage's closed forms, and a picture's part that decides its class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.classifiers.base import Classifier
from seewhy.encoders.base import EncoderOutput, Layout
from seewhy.encoders.split import freeze
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.errors import DataError, InputError
from seewhy.evidence.like import like_place
from seewhy.explanation.similar import Like
from seewhy.heads.head import Head, Target
from seewhy.heads.normalise import Normalise
from seewhy.learning.self_explaining.protopnet.network import (
    NearestSimilarity,
    ProtoPNetMap,
    ProtoPNetNetwork,
    ProtoPNetPrototypes,
    PrototypeLayer,
    Pushed,
    beats_chance,
    measure_prototypes,
    similarity,
)
from seewhy.learning.self_explaining.protopnet.recipe import (
    Maps,
    ProtoPNet,
    _Scored,
    first_weight,
    kept,
    push,
    smallest_distances,
    start_at_patches,
    terms,
)
from seewhy.pictures.samples import load_samples
from seewhy.prototypes.bank import PatchBank
from seewhy.prototypes.base import Query
from seewhy.prototypes.measure import LikenessMeasure
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from tiny import class_folders, tiny_cnn

PHOTO = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    path = Path(__file__).parents[1] / "golden" / "protopnet.json"
    return {k: torch.tensor(v) if isinstance(v, list) else v for k, v in json.loads(path.read_text()).items()}


@pytest.fixture(scope="module")
def layer(golden: dict[str, Any]) -> PrototypeLayer:
    made = PrototypeLayer(6, 4, 6)
    add_on = {f"add_on.{k}": torch.tensor(v) for k, v in golden["add_on"].items()}
    made.load_state_dict({**add_on, "prototypes": golden["prototypes"]})
    return freeze(made)  # type: ignore[return-value]


OWNER = torch.tensor([0, 0, 1, 1, 2, 2])


def test_distances_similarities_and_logits_are_the_authors(golden: dict[str, Any], layer: PrototypeLayer) -> None:
    close = {"atol": golden["tolerance"], "rtol": 1e-4}
    torch.testing.assert_close(layer.distances(golden["features"]), golden["distances"], **close)
    found = NearestSimilarity(layer, Layout())(golden["features"])
    torch.testing.assert_close(found, golden["similarity"], **close)
    torch.testing.assert_close(found @ golden["weight"].T, golden["logits"], **close)


def test_terms_of_the_loss_are_the_authors(golden: dict[str, Any], layer: PrototypeLayer) -> None:
    found = terms(layer(golden["features"]), golden["labels"], OWNER, golden["weight"])
    for name, value in found.items():
        assert float(value) == pytest.approx(golden[name], rel=1e-4), name
    total = golden["ce"] + 0.8 * golden["cluster"] - 0.08 * golden["separation"] + 1e-4 * golden["l1"]
    assert float(ProtoPNet().total(found)) == pytest.approx(total, rel=1e-4)


def test_similarity_is_largest_on_the_prototype_itself() -> None:
    assert float(similarity(torch.tensor(0.0))) == pytest.approx(9.2103, abs=1e-4)
    falling = similarity(torch.linspace(0, 50, 100))
    assert (falling.diff() < 0).all()
    assert (falling > 0).all()


def test_the_last_layer_starts_for_the_own_class_and_against_the_others() -> None:
    assert first_weight(torch.tensor([0, 1, 1]), 2).tolist() == [[1.0, -0.5, -0.5], [-0.5, 1.0, 1.0]]


class Plain(PrototypeLayer):
    """Prototypes in the features' own space, so that where each one goes is known."""

    def __init__(self, prototypes: Tensor) -> None:
        super().__init__(prototypes.shape[1], prototypes.shape[1], len(prototypes))
        self.add_on = torch.nn.Sequential()
        self.prototypes = torch.nn.Parameter(prototypes.clone())


def maps(values: list[list[float]], labels: list[int], n: int) -> Maps:
    """Pictures of two cells with one channel each."""
    return Maps(torch.tensor(values)[:, None, None, :].half(), torch.tensor(labels), n)


@pytest.fixture
def by_hand() -> Classifier:
    """Two classes, and two prototypes, 0 and 1, of features with one channel."""
    network = ProtoPNetNetwork(tiny_cnn(), freeze(Plain(torch.tensor([[0.0], [1.0]]))), torch.tensor([0, 1]), ())
    head = Head(Normalise(), torch.tensor([[2.0, -1.0], [0.0, 3.0]]))
    return Classifier("protopnet", {}, network.encoder(), ("a", "b"), head, network=network)


def look_of(model: Classifier, cells: list[float]) -> EncoderOutput:
    """A picture of one row of cells."""
    features = torch.tensor(cells)[None, None, None]
    return EncoderOutput(features, model.encoder.head(features))


def test_the_map_is_each_prototype_s_lead_over_its_lowest_cell_weighed_as_the_class_weighs_it(
    by_hand: Classifier,
) -> None:
    g0, g1, g4 = similarity(torch.tensor([0.0, 1.0, 4.0])).tolist()
    # The cells' squared distances are 0, 1 and 4 to the first prototype, 1, 0 and 1 to the second.
    first, second = torch.tensor([g0 - g4, g1 - g4, 0.0]), torch.tensor([0.0, g0 - g1, 0.0])
    look = look_of(by_hand, [0.0, 1.0, 2.0])
    # Weights less their mean over classes: 2 - 1 and -1 - 1.
    plain = ProtoPNetMap()(by_hand, look, Target(torch.tensor([0])))
    torch.testing.assert_close(plain, (first - 2 * second)[None, None])
    lead = ProtoPNetMap()(by_hand, look, Target(torch.tensor([0]), torch.tensor([1])))
    torch.testing.assert_close(lead, (2 * first - 4 * second)[None, None])


def test_a_match_has_similarity_1_on_the_patch_itself_and_less_beside_it(by_hand: Classifier) -> None:
    none = torch.empty(0, 4).long()
    bank = PatchBank((), torch.empty(0, 2), none[:, 0], none.float(), none, torch.empty(0, 1))
    look = look_of(by_hand, [2.0, 0.0])
    g0, g1 = similarity(torch.tensor([0.0, 1.0])).tolist()
    (near,) = ProtoPNetPrototypes()(by_hand, bank, Query(look, Target(torch.tensor([0]))))
    assert (near.channel, near.cell, near.share) == (0, (0, 1), 1)
    assert near.matches[0].similarity == pytest.approx(1, abs=1e-6)
    assert near.contribution == pytest.approx(g0, rel=1e-6)
    (beside,) = ProtoPNetPrototypes()(by_hand, bank, Query(look, Target(torch.tensor([1]))))
    assert (beside.channel, beside.cell) == (1, (0, 0))
    assert beside.matches[0].similarity == pytest.approx(g1 / g0, rel=1e-5)
    assert beside.contribution == pytest.approx(2 * g1, rel=1e-6)


def test_push_takes_the_nearest_patch_of_the_own_class_and_never_one_twice() -> None:
    layer = Plain(torch.tensor([[0.5], [0.5], [0.0]]))
    pictures = maps([[0.0, 0.75], [0.5, 0.125], [0.5, 0.25]], [0, 1, 0], 3)
    found = push(layer, torch.tensor([0, 0, 1]), pictures)
    # The nearest of all to prototype 0 is in picture 1, of the other class; picture 2 has an equal patch of its own.
    assert found == (Pushed(2, (0, 0)), Pushed(0, (0, 1)), Pushed(1, (0, 1)))
    assert layer.prototypes.flatten().tolist() == [0.5, 0.75, 0.125]
    assert smallest_distances(layer, pictures)[[2, 0, 1], [0, 1, 2]].tolist() == [0, 0, 0]


def test_push_never_takes_a_crop_and_shares_when_there_are_too_few_patches() -> None:
    layer = Plain(torch.tensor([[1.0], [1.0], [1.0]]))
    found = push(layer, torch.tensor([0, 0, 0]), maps([[0.0, 0.5], [1.0, 1.0]], [0, 0], 1))
    assert found == (Pushed(0, (0, 1)), Pushed(0, (0, 0)), Pushed(0, (0, 1)))


def test_pruning_asks_the_nearest_pictures_and_leaves_every_class_one() -> None:
    labels, owner = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])
    near, far = 0.0, 9.0
    distances = torch.tensor(
        [
            [near, far, near, near],
            [near, far, near, near],
            [near, far, far, near],
            [far, near, far, far],
            [far, near, far, far],
        ]
    )
    assert kept(distances, labels, owner, k=3, threshold=2).tolist() == [True, False, True, False]


def test_where_no_prototype_of_a_class_is_good_enough_its_best_one_stays() -> None:
    labels, owner = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])
    near, far = 0.0, 9.0
    # Of the two nearest pictures none, two and one are of class 0; of the last prototype both are of class 1.
    distances = torch.tensor(
        [[far, near, near, far], [far, near, far, far], [near, far, near, near], [near, far, far, near]]
    )
    assert kept(distances, labels, owner, k=2, threshold=3).tolist() == [False, True, False, True]


def test_each_round_has_a_tenth_of_the_rate_and_after_pruning_the_last_layer_is_fitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, fits = [], []

    def trained(task: Any, data: TrainingData, how: Training, **_: Any) -> None:
        if not isinstance(task.weight, nn.Parameter):
            rates.append(how.lr)
            return
        fits.append((how.n_steps, task.owner.tolist(), data.columns["maps"].shape[1]))
        task.weight.data += 10.0 ** -len(fits)

    monkeypatch.setattr("seewhy.learning.self_explaining.protopnet.recipe.train", trained)
    strict = ProtoPNet(n_per_class=2, depth=8, n_rounds=3, last_steps=7, lr=0.5, n_crops=0, prune_threshold=99)
    made = strict.fit(tiny_cnn(), load_samples(class_folders(tmp_path / "data", 2)))
    assert rates == pytest.approx([0.5, 0.05, 0.005])
    assert fits == [(7, [0, 0, 1, 1, 2, 2], 6)] * 3 + [(5 * 7, [0, 1, 2], 3)]
    torch.testing.assert_close(made.head.weight, first_weight(torch.arange(3), 3) + 0.1111)


def test_the_last_layer_alone_lowers_its_loss_and_shrinks_what_speaks_for_other_classes() -> None:
    labels = torch.tensor([0, 1] * 8)
    distances = torch.where(labels[:, None] == torch.tensor([0, 1]), 0.1, 2.0)
    owner, weight = torch.tensor([0, 1]), first_weight(torch.tensor([0, 1]), 2)
    how = Training(200, 16, lr=1e-2, weight_decay=0, schedule="constant")
    task = _Scored(nn.Identity(), nn.Parameter(weight.clone()), owner, ProtoPNet(cluster=0.0, separation=0.0, l1=1.0))
    train(task, TrainingData(len(labels), {"maps": distances, "labels": labels}), how)
    found = task.weight.detach()
    before, after = (terms(distances, labels, owner, w) for w in (weight, found))
    assert after["ce"] + after["l1"] < before["ce"] + before["l1"]
    assert after["l1"] < 0.1 * before["l1"]


def test_prototypes_start_on_patches_of_their_class_with_the_sigmoid_in_its_middle() -> None:
    draw = torch.Generator().manual_seed(0)
    grids = 6 * torch.rand(4, 40, 2, 2, generator=draw)
    pictures = Maps(grids, torch.tensor([0, 1, 0, 1]), 4)
    owner, layer = torch.tensor([0, 0, 1]), PrototypeLayer(40, 8, 3, scaled=True)
    start_at_patches(layer, owner, pictures, 0)
    distances = smallest_distances(layer, pictures)
    for p, label in enumerate(owner.tolist()):
        assert distances[pictures.labels == label, p].min() == pytest.approx(0, abs=1e-6)
        assert distances[pictures.labels != label, p].min() > 1e-5
    z = layer.embed(grids).detach()
    assert 0.05 < float(z.min()) < float(z.max()) < 0.95
    torch.testing.assert_close(layer.embed(100 * grids).detach(), z)


def test_a_prototype_is_measured_on_as_many_held_out_pictures_as_its_class_has() -> None:
    labels, owner = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 1, 3])
    perfect = torch.where(labels[:, None] == owner, 9.0, 1.0)
    found = measure_prototypes(perfect, labels, owner)
    # Class 3 has no picture held out: its prototype is not counted.
    assert found is not None
    assert (found.precision, found.n) == (1, 6)
    assert found.chance == pytest.approx((2 / 6 + 3 / 6) / 2)
    worst = measure_prototypes(10 - perfect, labels, owner)
    assert worst is not None
    assert worst.precision == pytest.approx((0 + 0) / 2)
    assert measure_prototypes(perfect[:, 2:], labels, torch.tensor([3])) is None
    one = measure_prototypes(perfect, labels, owner, most=1)
    assert one is not None
    assert one.precision == 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folders = class_folders(tmp_path_factory.mktemp("data"), 6)
    (next(p for p in folders.iterdir() if p.is_dir()) / "broken.png").write_bytes(b"no picture")
    small = ProtoPNet(n_per_class=2, depth=8, n_rounds=1, n_steps=60, last_steps=5, n_crops=0, held_out=0.4)
    return small.fit(tiny_cnn(), load_samples(folders))


def test_the_card_calls_them_prototypes_with_a_similarity_and_measures_them(made: Classifier) -> None:
    assert len(made.measures["failures"]) == 1
    assert made.likeness is not None
    e = made.explain(PHOTO, measure=False)
    assert isinstance(e.like, Like)
    assert e.like.method == "protopnet"
    assert e.like.held_out_precision == round(made.likeness.precision, 4)
    assert e.like.verdict.sentence.startswith("On held-out pictures, prototypes match their own class ")
    page = e.to_html()
    assert "<span>prototype</span>" in page
    assert f">{e.like.neighbours[0].channel}</td>" in page.replace("\n", "")
    assert 'href="#def-similarity"' in page
    assert "<small>channel " not in page
    assert 'href="#def-purity"' not in page


def test_what_a_prototype_rests_on_can_be_asked(made: Classifier) -> None:
    like = made.explain(PHOTO, measure=False, because="calibrated").like
    assert isinstance(like, Like)
    assert all(near.because is not None for near in like.neighbours)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data", 1)
    for other in sorted(p for p in folders.iterdir() if p.is_dir())[1:]:
        shutil.rmtree(other)
    with pytest.raises(DataError, match="class"):
        ProtoPNet(n_steps=1).fit(tiny_cnn(), load_samples(folders))


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"`n_per_class` of protopnet must be .*, got 0"):
        ProtoPNet(n_per_class=0)
    with pytest.raises(InputError, match=r"`start` of protopnet must be .*, got 'nowhere'"):
        ProtoPNet(start="nowhere")  # type: ignore[arg-type]


def test_fit_starts_as_it_is_told(tmp_path: Path) -> None:
    """Too small a rate to go anywhere: what is left is how it began."""
    samples = load_samples(class_folders(tmp_path, 4))
    still = {**ProtoPNet.small, "lr": 1e-12, "prune_k": 0}
    layers = []
    for start in ("patches", "random"):
        made = ProtoPNet(**still, start=start).fit(tiny_cnn(), samples)  # type: ignore[arg-type]
        assert isinstance(made.network, ProtoPNetNetwork)
        layers.append(made.network.layer)
    for ours, theirs in zip(*(layer.add_on[::2] for layer in layers), strict=True):
        if isinstance(ours, torch.nn.Conv2d):
            torch.testing.assert_close(ours.weight, 0.3 * theirs.weight)
    assert [layer.scaled for layer in layers] == [True, False]


def test_a_place_has_the_prototypes_that_answer_there_the_strongest_first(tmp_path: Path) -> None:
    made = ProtoPNet(**{**ProtoPNet.small, "n_per_class": 3, "prune_k": 0}).fit(  # type: ignore[arg-type]
        tiny_cnn(), load_samples(class_folders(tmp_path, 4))
    )
    assert isinstance(made.network, ProtoPNetNetwork)
    (seen,) = encode_stream(made.encoder, [PHOTO], request=EncodeRequest(features=lambda _i: True, pictures=True))
    assert isinstance(seen, Encoded)
    assert seen.features is not None
    grid = made.encoder.layout.to_grid(made.network.base.layout.to_grid(seen.features[None]))
    with torch.no_grad():
        answers = similarity(made.network.layer.distances(grid))[0]
    query = Query(EncoderOutput(seen.features[None], seen.pooled[:1]), Target(torch.tensor([1])))
    assert made.bank is not None
    shown = {g.channel: g for g in ProtoPNetPrototypes()(made, made.bank, query) if g.matches}
    assert len(shown) > 1
    for cell in ((0, 0), (7, 7), (3, 5)):
        place = like_place(made, seen, cell, 1)
        assert place.method == "protopnet"
        part = {p: float(answers[p][cell] / answers[p].max()) for p in shown}
        expected = sorted(part, key=lambda p: -part[p])
        assert [r.channel for r in place.resembled] == expected
        assert [r.similarity for r in place.resembled] == pytest.approx([part[p] for p in expected], rel=1e-4)
        names = [made.bank.pictures[int(made.bank.owner[shown[p].matches[0].patch])].name for p in expected]
        assert [r.image for r in place.resembled] == names


@pytest.mark.parametrize(
    ("precision", "chance", "beats"),
    [
        (0.93, 0.9, False),
        (0.97, 0.9, True),
        (0.5, 0.5, False),
        (0.75, 0.5, True),
        (0.18, 0.01, True),
        (1.0, 1 / 3, True),
    ],
)
def test_three_times_the_odds_of_chance(precision: float, chance: float, beats: bool) -> None:
    assert beats_chance(LikenessMeasure(precision, chance, 20)) is beats
