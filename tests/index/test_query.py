"""Composed questions, whitening and parts: each against its formula and against planted pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from schemas import check
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.errors import InputError
from seewhy.retrieval import Entry, Index, Query
from seewhy.retrieval.search import by_pictures, composed
from seewhy.retrieval.settings import Settings, n_patches, spatial_distance, sub_patches
from seewhy.retrieval.vectors import Whitening
from tiny import Channels, HashedWords, build, picture, tiny_cnn

COLOURS = {"red": (230, 40, 40), "green": (40, 230, 40), "blue": (40, 40, 230)}
TEXTURES = ("flat", "striped")


class ColourAndStripes(torch.nn.Module):
    """Mean of three colours, and the contrast between neighbouring columns, in each 4 by 4 cell; less grey."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        colours = torch.nn.functional.avg_pool2d(x, 4)
        step = (x[..., 1:] - x[..., :-1]).abs().mean(1, keepdim=True)
        stripes = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(step, (0, 1)), 4)
        return torch.cat([colours - colours.mean(1, keepdim=True), 2 * stripes], 1)


class Plain(HashedWords):
    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        return pooled


def planted() -> Encoder:
    """Reads colour and stripes; knows the words red, green, blue and striped."""
    axes = {"red": [2.0, -1.0, -1.0, 0.0], "green": [-1.0, 2.0, -1.0, 0.0], "blue": [-1.0, -1.0, 2.0, 0.0]}
    axes |= {"striped": [0.0, 0.0, 0.0, 1.0]}
    words = Plain(4, {word: torch.tensor(v) for word, v in axes.items()})
    layer = torch.nn.Linear(4, 4)
    return build(ColourAndStripes(), GlobalAverage(), Layout(), 4, classifier=layer, text=words)


def drawn(colour: str, texture: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, len(colour), len(texture)])
    pixels = np.full((32, 32, 3), COLOURS[colour], np.float64)
    if texture == "striped":
        pixels[:, ::2] *= 0.5
    return (pixels + rng.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    made = Index.create(tmp_path_factory.mktemp("planted") / "index", planted())
    made.add(Entry(drawn(c, t, i), f"{c} {t}", f"{c} {t} {i}") for c in COLOURS for t in TEXTURES for i in range(5))
    return made


def rates(index: Index, question: str) -> tuple[float, float]:
    """How often the first five have the colour asked for, and how often the texture of the picture."""
    changed, kept = [], []
    for colour in COLOURS:
        for other in COLOURS:
            if other == colour:
                continue
            for texture in TEXTURES:
                own = drawn(colour, texture, 99)
                query = {
                    "both": Query(own, text=other, without=colour, weight=1, unlike_weight=1),
                    "sum": Query(own, text=other, weight=2),
                    "picture": Query(own),
                    "words": Query(text=other),
                }[question]
                for hit in index.search(query, k=5, collapse=None).hits:
                    found = hit.label.split()
                    changed.append(found[0] == other)
                    kept.append(found[1] == texture)
    return float(np.mean(changed)), float(np.mean(kept))


def test_a_composed_query_changes_what_is_asked_and_keeps_the_rest(index: Index) -> None:
    changed, kept = rates(index, "both")
    assert changed == 1
    assert kept >= 0.9
    assert rates(index, "picture") == (0, 1), "the picture alone keeps everything"
    by_words = rates(index, "words")
    assert by_words[0] == 1
    assert by_words[1] <= 0.6, "words alone know nothing of the texture"
    assert rates(index, "sum")[0] == 1, "ALIGN's plain sum changes what is asked too"


def test_words_alone_find_what_they_say(index: Index) -> None:
    assert {h.label.split()[1] for h in index.search(Query(text="striped"), k=10, collapse=None).hits} == {"striped"}
    found = index.search(Query(text="red"), k=10, collapse=None)
    assert {h.label.split()[0] for h in found.hits} == {"red"}
    assert found.data["column"] == "words"


def test_like_these_and_unlike_those(index: Index) -> None:
    like = [drawn("red", "striped", 98), drawn("blue", "striped", 98)]
    plain = index.search(Query(like, unlike=drawn("blue", "flat", 98)), k=5, collapse=None)
    assert {h.label for h in plain.hits} == {"red striped"}


def test_queries_by_their_formulas() -> None:
    x, y, z = (normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(s)), dim=1) for s in (1, 2, 3))
    m = torch.linspace(-0.1, 0.2, 6)
    expected = normalize(normalize((x - m).mean(0), dim=0) - 0.3 * normalize((z - m).mean(0), dim=0), dim=0)
    torch.testing.assert_close(by_pictures(x, z, 0.3, m), expected)
    torch.testing.assert_close(by_pictures(x, z[:0], 0.3, m), normalize(x.mean(0), dim=0))
    query = Query(np.zeros((2, 2, 3), np.uint8), text="t", weight=1.5)
    align = composed((x[:1], z[:0]), (y[0], None), query)
    torch.testing.assert_close(align, normalize(x[0] + 1.5 * y[0], dim=0))


def test_negative_weights_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        Query(text="a", weight=-1)
    assert str(caught.value) == "`weight` and `unlike_weight` must be at least 0, got -1 and 0.5."


def test_whitened_vectors_have_equal_variances() -> None:
    shape = torch.linspace(3, 0.2, 12)
    x = torch.randn(3000, 12, generator=torch.Generator().manual_seed(0)) * shape
    white = Whitening.fit(normalize(x, dim=1), 12, floor=0.0)
    plain = (normalize(x, dim=1) - white.mean) @ white.matrix
    torch.testing.assert_close(torch.cov(plain.T), torch.eye(12), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(white(x).norm(dim=1), torch.ones(3000))
    few = Whitening.fit(normalize(x[:8], dim=1), 12)
    assert few.matrix.shape == (12, 7), "never more components than vectors less one"
    assert few(x).isfinite().all()
    signed = Whitening(white.mean, white.matrix, 2.0)(x)
    assert torch.equal(signed.sign(), white(x).sign()), "the power keeps the sign"
    with pytest.raises(InputError, match="Whitening needs at least 3 vectors"):
        Whitening.fit(x[:2])


def test_an_index_with_whitening(tmp_path: Path) -> None:
    encoder = tiny_cnn()
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (40, 40, 3), dtype=np.uint8) for _ in range(30)]
    made = Index.create(tmp_path / "index", encoder, Settings(whiten=5, words=False))
    made.add([Entry(p, name=str(i)) for i, p in enumerate(pictures[:20])])
    made.add([Entry(p, name=str(20 + i)) for i, p in enumerate(pictures[20:])])
    look, white = made.vectors("look"), made.vectors("whitened")
    fitted = Whitening.fit(look[:20], 5, 0.1)
    torch.testing.assert_close(white, fitted(look), atol=1e-4, rtol=1e-3)
    found = made.search(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8), k=3, collapse=None)
    assert found.data["column"] == "whitened"
    made.rebuild()
    torch.testing.assert_close(made.vectors("whitened"), Whitening.fit(look, 5, 0.1)(look), atol=1e-4, rtol=1e-3)
    assert Index.open(made.folder, encoder).vectors("whitened").shape == (30, 5)


def test_parts_cover_the_picture_and_overlap() -> None:
    for levels in (1, 2, 3, 4):
        parts = sub_patches(levels)
        assert len(parts) == n_patches(levels)
        last = [p.box for p in parts[n_patches(levels - 1) :]]
        seen = np.zeros((60, 60), int)
        for left, top, right, bottom in last:
            assert right - left == pytest.approx(2 / (levels + 1))
            seen[round(top * 60) : round(bottom * 60), round(left * 60) : round(right * 60)] += 1
        assert seen.min() >= 1
        assert seen.max() == (1 if levels == 1 else 4)
    with pytest.raises(InputError, match="`levels` must be at least 1, got 0"):
        sub_patches(0)


def test_the_distance_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    references = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]], [[-1.0, 0.0], [-1.0, 0.0]]])
    root = 2**0.5
    torch.testing.assert_close(
        spatial_distance(query, references), torch.tensor([0.0, root / 2, (2 + root) / 2]), atol=1e-3, rtol=1e-4
    )


def test_spatial_search_finds_an_object_that_moved_and_shrank(tmp_path: Path) -> None:
    """A red square somewhere on grey; as a whole the picture is like any grey one with a little red light on it."""
    encoder = build(Channels(), GlobalAverage(), Layout(), 3, classifier=torch.nn.Linear(3, 2))

    def scene(colour: tuple[int, int, int], left: int, top: int, side: int) -> np.ndarray:
        pixels = np.full((96, 96, 3), 127, np.uint8)
        pixels[top : top + side, left : left + side] = colour
        return pixels

    made = Index.create(tmp_path / "index", encoder, Settings(parts="spatial", levels=4, words=False))
    entries = [Entry(scene((255, 0, 0), x, y, 36), "square", f"square {x} {y}") for x in (0, 60) for y in (0, 60)]
    tint = scene((160, 110, 110), 0, 0, 96)
    entries += [Entry(np.roll(tint, i) + np.uint8(i), "tint", f"tint {i}") for i in range(4)]
    made.add(entries)
    asked = scene((255, 0, 0), 28, 28, 48)
    found = made.search(asked, k=4, collapse=None)
    assert {h.label for h in found.hits} == {"square"}
    distances = [h.distance for h in found.hits]
    check("search", [found.data])
    assert None not in distances
    assert distances == sorted(distances)  # type: ignore[type-var]
    again = Index.open(made.folder, encoder).search(asked, k=4, collapse=None)
    assert again.data == found.data


def test_parts_are_compared_by_their_directions(tmp_path: Path) -> None:
    """Each part's vector of unit length by itself, on either side: a bright part does not outweigh a dark one."""
    encoder = tiny_cnn()
    settings = Settings(parts="spatial", levels=3, words=False)
    made = Index.create(tmp_path / "index", encoder, settings)
    pictures = {f"{label} {i}": shaded(label, i) for label in ("moss", "rust") for i in range(3)}
    made.add([Entry(pixels, name[:4], name) for name, pixels in pictures.items()])
    asked = shaded("sky", 0)
    views = (None, *sub_patches(3))
    request = EncodeRequest(views=lambda _i: views)
    seen = {}
    for name, one in zip(
        ("asked", *pictures), encode_stream(encoder, [asked, *pictures.values()], request=request), strict=True
    ):
        assert isinstance(one, Encoded)
        seen[name] = one.pooled[1:]
    sizes = seen["asked"][: n_patches(2)].norm(dim=1)
    assert sizes.max() > 1.2 * sizes.min(), "parts of unequal length, else nothing is asked here"
    found = made.search(asked, k=6, collapse=None, levels=2)
    expected = {}
    for name in pictures:
        query, reference = normalize(seen["asked"][: n_patches(2)], dim=1), normalize(seen[name], dim=1)
        expected[name] = float(torch.cdist(query, reference).amin(1).mean())
    assert {h.image: h.distance for h in found.hits} == pytest.approx(expected, abs=2e-3)


def shaded(label: str, seed: int) -> np.ndarray:
    """Dark to the left, bright to the right."""
    return (picture(label, seed, 96) * np.linspace(0.1, 1, 96)[:, None]).astype(np.uint8)
