"""What likenesses rest on, from the fitted classifier to the card: planted colour, equal to the definition, honest."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.errors import InputError
from seewhy.evidence.like import leaders, sentence, source
from seewhy.explanation.base import Explanation
from seewhy.explanation.similar import Because, Like
from seewhy.pictures.images import read_picture
from seewhy.prototypes.bank import PatchBank
from seewhy.prototypes.base import Group, Match
from seewhy.prototypes.characteristics import Characteristics
from seewhy.prototypes.nearest import NearestPatches
from seewhy.prototypes.perturbations import PROPERTIES, PaperChanges, warp
from seewhy.report.evidence import NOT_COMPARED, bars_of, scale_of
from tiny import SIDE, class_folders, picture, tiny_cnn


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = class_folders(tmp_path_factory.mktemp("pictures") / "classes")
    return seewhy.fit(folder, tiny_cnn())


@pytest.fixture(scope="module")
def why(classifier: Classifier) -> Explanation:
    return classifier.explain(picture("rust", 77), because="calibrated", measure=False)


def neighbours(e: Explanation) -> Like:
    assert isinstance(e.like, Like)
    return e.like


def test_every_likeness_says_what_it_rests_on(why: Explanation) -> None:
    for near in neighbours(why).neighbours:
        assert near.because is not None
        assert list(near.because.lost) == list(near.because.phi) == list(near.because.change) == list(PROPERTIES)
        assert near.because.sentence == sentence(near.because.lost)
        for name in PROPERTIES:
            expected = near.because.phi[name] / near.similarity if near.similarity > 0 else 0.0
            assert near.because.lost[name] == pytest.approx(expected, abs=1e-4, rel=1e-3)


def test_it_is_left_out_unless_asked_for(classifier: Classifier) -> None:
    plain = classifier.explain(picture("rust", 77), measure=False)
    assert all(near.because is None for near in neighbours(plain).neighbours)
    assert "because" not in plain.to_json()["like"][0]
    assert 'class="because"' not in plain.to_html()


def test_influences_are_those_of_the_definition(classifier: Classifier, why: Explanation) -> None:
    """The warped view, read in the same cell with the patch's cosine."""
    view = read_picture(picture("rust", 77), classifier.encoder.transform).pixels
    e = classifier.explain(view, because="paper", measure=False)
    encoder, bank = classifier.encoder, classifier.bank
    assert bank is not None
    look = encoder.encode(encoder.pixels([view, warp(view, 4, 0.05)]))
    for near in neighbours(e).neighbours:
        cell = next(r for r in e.where.regions if r.letter == near.letter)  # type: ignore[union-attr]
        middle = [round((cell.query_box[i] + cell.query_box[i + 2]) / 2 / SIDE * 8 - 0.5) for i in (1, 0)]
        if 0 in middle or 7 in middle:
            continue  # boxes are cut at the border, so their middle is not the cell's
        patches = torch.arange(len(bank.vectors))
        maps = NearestPatches().activation(classifier, bank, look, patches)[:, :, middle[0], middle[1]]
        mine = int((maps[0] - near.similarity).abs().argmin())
        assert near.because is not None
        assert near.because.phi["shape"] == pytest.approx(float(maps[0, mine] - maps[1, mine]), abs=1e-4)


def test_the_paper_s_bars_are_not_to_be_compared(classifier: Classifier) -> None:
    e = classifier.explain(picture("rust", 77), because="paper", measure=False)
    like = neighbours(e)
    assert all(n.because is not None and n.because.sentence == "" for n in like.neighbours)
    found = bars_of(like.neighbours[0], scale_of(like))
    assert found is not None
    assert str(found.title) == NOT_COMPARED
    assert NOT_COMPARED in e.to_html()


def test_strengths_that_are_not_known_are_refused(classifier: Classifier) -> None:
    with pytest.raises(InputError, match="`strengths` must be 'calibrated' or 'paper', got 'paer'"):
        classifier.explain(picture("rust", 77), because="paer", measure=False)


def test_the_card_shows_one_bar_a_property(why: Explanation) -> None:
    html, shown = why.to_html(), [n for n in neighbours(why).neighbours if n.times]
    assert html.count('<div class="because">') == len(shown)
    assert all(html.count(f"<span>{name}<") == len(shown) for name in PROPERTIES)
    assert 'href="#def-because"' in html
    assert 'id="def-because"' in html
    still = Image.open(io.BytesIO(why.to_png()))
    plain = replace(
        why,
        like=replace(neighbours(why), neighbours=tuple(replace(n, because=None) for n in neighbours(why).neighbours)),
    )
    assert still.height > Image.open(io.BytesIO(plain.to_png())).height + 100


def test_the_json_says_it_too(why: Explanation) -> None:
    row = why.to_json()["like"][0]
    assert set(row["because"]) == {"lost", "phi", "change", "strengths", "sentence"}
    assert row["because"]["strengths"] == "calibrated"
    assert row["times"] == 1


def test_bars_share_one_scale(why: Explanation) -> None:
    like = neighbours(why)
    scale = scale_of(like)
    lost = [v for n in like.neighbours for v in n.because.lost.values()]  # type: ignore[union-attr]
    bars = [b for n in like.neighbours for b in bars_of(n, scale).bars]  # type: ignore[union-attr]
    assert [b.value for b in bars] == pytest.approx([min(1.0, abs(v) / scale) for v in lost])


def test_patches_that_repeat_each_other_are_counted_once() -> None:
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.05], [0.0, 1.0]]), dim=1)
    bank = PatchBank(
        (), torch.zeros(0, 2), torch.tensor([0, 1, 2]), torch.zeros(3, 4), torch.zeros(3, 4).long(), vectors
    )
    group = Group((0, 0), 1.0, (Match(0, 0.9), Match(1, 0.8), Match(2, 0.1)))
    assert leaders(bank, [group], [[]]) == [0, 0, 2]
    assert leaders(bank, [replace(group, matches=(m,)) for m in group.matches], [[]] * 3) == [0, 1, 2]
    own = [replace(group, matches=(m,), channel=i) for i, m in enumerate(group.matches)]
    assert leaders(bank, own, [[]] * 3) == [0, 0, 2]
    other = [Because({"hue": v}, {}, {}, "calibrated", "") for v in (0.0, 0.5, 0.0)]
    assert leaders(bank, [group], [other]) == [0, 1, 2]


def test_a_repeated_patch_is_not_drawn_twice(why: Explanation) -> None:
    first, second, *rest = neighbours(why).neighbours
    merged = (replace(first, times=2), replace(second, times=0), *rest)
    html = replace(why, like=replace(neighbours(why), neighbours=merged)).to_html()
    assert "×2" in html.split('id="like"')[1].split('id="words"')[0]
    assert html.count("<figure title=") == why.to_html().count("<figure title=") - 1


def test_a_view_is_read_again_from_its_file_only_if_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture("sky", 1)).save(path)
    seen = read_picture(path, tiny_cnn().transform)
    assert source(seen) == path
    Image.fromarray(picture("sky", 2)).save(path)
    assert source(seen) is seen
    memory = read_picture(picture("sky", 1), tiny_cnn().transform)
    assert source(memory) is memory


def test_global_influences_of_a_bank(classifier: Classifier) -> None:
    bank = classifier.bank
    assert bank is not None
    which, files = torch.tensor([0, 3]), [p.name for p in bank.pictures]
    found = Characteristics(PaperChanges()).overall(
        classifier.encoder, lambda look: NearestPatches().activation(classifier, bank, look, which), files
    )
    assert found.phi.shape == (2, len(PROPERTIES))
    assert found.n_pictures == len(files)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"hue": 0.4, "saturation": 0.1, "shape": 0.0}, "mostly hue, hardly shape"),
        ({"hue": 0.0, "saturation": 0.1, "shape": 0.4}, "mostly shape, hardly hue"),
        ({"hue": 0.4, "saturation": 0.39, "texture": 0.38, "shape": 0.2}, "hue, saturation and texture"),
        ({"hue": 0.019, "shape": 0.0}, "none of these"),
        ({"hue": -0.2, "shape": -0.1}, "none of these"),
    ],
)
def test_sentences(lost: dict[str, float], said: str) -> None:
    assert sentence(lost) == said
