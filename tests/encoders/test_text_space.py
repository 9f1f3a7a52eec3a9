import copy

import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from torch.nn import functional as F

from seewhy.encoders.base import TrainableText
from seewhy.encoders.embedded import EmbeddedText, TextSpace, class_centres, kernel
from seewhy.encoders.minilm import load_minilm
from seewhy.encoders.names import imagenet_classes, imagenet_texts

WORDS = ["red", "green", "blue", "round", "square", "long"]


def embed(texts):
    """A sentence encoder small enough to check by hand: which words are there, of unit length."""
    counts = torch.tensor([[float(word in text.split()) for word in WORDS] for text in texts]).reshape(-1, len(WORDS))
    return F.normalize(counts + 0.1, dim=1)


TEXTS = [["red round"], ["green square"], ["blue long", "blue"], ["red long", "long", "red"]]


@pytest.fixture
def weight():
    return torch.randn(4, 9, generator=torch.Generator().manual_seed(0))


def test_one_text_per_class_is_scikit_learns_kernel_ridge(weight):
    texts = [own[:1] for own in TEXTS]
    space = TextSpace.fit(weight, class_centres(texts, embed), embed, ridge=0.3)
    vectors = embed([own[0] for own in texts])
    rows = F.normalize(weight - weight.mean(0), dim=1)
    ridge = KernelRidge(alpha=0.3, kernel="rbf", gamma=1 / (2 * 0.5**2)).fit(vectors.numpy(), rows.numpy())
    asked = ["green long", "red", "blue square round"]
    expected = F.normalize(torch.from_numpy(ridge.predict(embed(asked).numpy())).float(), dim=1)
    torch.testing.assert_close(space.encode_text(asked), expected, atol=1e-5, rtol=0)


def test_a_class_is_the_mean_of_its_texts(weight):
    space = TextSpace.fit(weight, class_centres(TEXTS, embed), embed)
    twice = TextSpace.fit(weight, class_centres([own * 2 for own in TEXTS], embed), embed)
    torch.testing.assert_close(space.encode_text(["red long"]), twice.encode_text(["red long"]), atol=1e-5, rtol=0)


def test_without_ridge_a_class_lands_on_its_row(weight):
    texts = [own[:1] for own in TEXTS]
    space = TextSpace.fit(weight, class_centres(texts, embed), embed, ridge=1e-9)
    rows = F.normalize(weight - weight.mean(0), dim=1)
    torch.testing.assert_close(space.encode_text([own[0] for own in texts]), rows, atol=1e-4, rtol=0)


def test_no_text_is_no_vector(weight):
    assert TextSpace.fit(weight, class_centres(TEXTS, embed), embed).encode_text([]).shape == (0, 9)


def test_the_way_from_sentences_to_pictures_is_differentiable(weight):
    """Central differences of the kernel regression, in double precision."""
    space = TextSpace.fit(weight, class_centres(TEXTS, embed), embed)
    regression = TextSpace(space.centres.double(), space.coefficients.double(), embed)
    vectors = embed(["red long", "blue"]).double().requires_grad_()
    assert torch.autograd.gradcheck(regression, vectors)
    torch.testing.assert_close(F.normalize(regression(vectors), dim=1).float(), space.encode_text(["red long", "blue"]))


def test_coefficients_by_every_text_are_the_best_ones(weight):
    """Any other coefficients miss the rows by more, or are longer where the ridge is asked."""
    space, vectors = (
        TextSpace.fit(weight, class_centres(TEXTS, embed), embed),
        embed([t for several in TEXTS for t in several]),
    )
    owner = torch.tensor([i for i, several in enumerate(TEXTS) for _ in several])
    rows = (weight - weight.mean(0))[owner]
    found = space.fit_texts(rows, vectors, ridge=0.05).double()

    def cost(coefficients):
        missed = kernel(vectors, space.centres).double() @ coefficients - F.normalize(rows, dim=1).double()
        length = coefficients.T @ kernel(space.centres, space.centres).double() @ coefficients
        return float(missed.square().sum() + 0.05 * length.trace())

    seeded = torch.Generator().manual_seed(0)
    others = [found + 0.01 * torch.randn(found.shape, generator=seeded, dtype=torch.double) for _ in range(20)]
    assert cost(found) < min(map(cost, [*others, space.coefficients.double(), 0 * found]))
    placed = space.place_by(vectors, {"coefficients": space.coefficients})
    torch.testing.assert_close(placed, space.place(vectors))


def test_the_embedded_words_half_can_be_trained():
    """MiniLM and the regression behind it say what the encoder says, and every weight on the way gets a gradient."""
    seeded = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(6, 384, generator=seeded), dim=1)
    space = TextSpace.fit(torch.randn(6, 9, generator=seeded), centres, load_minilm().encode)
    tower, texts = EmbeddedText(space, "x", torch.zeros(6, 9)), ["a cat", "a rather long sentence about two dogs", "x"]
    assert isinstance(tower, TrainableText)
    module = copy.deepcopy(tower.module).requires_grad_(True)
    vectors = module(*tower.tokens(texts))
    torch.testing.assert_close(F.normalize(vectors.detach(), dim=1), tower.encode_text(texts), atol=1e-6, rtol=0)
    vectors.square().sum().backward()
    without = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert not any(p.requires_grad for p in tower.module.parameters())


@pytest.mark.slow
def test_an_unseen_class_is_found_among_its_kin():
    """Real weights, house cats left out of the fit: the word still lands nearer to cats than to trucks."""
    from seewhy.encoders.embedded import load

    weight = load("lite0").classifier.weight
    cats, trucks = list(range(281, 286)), [555, 569, 717, 864, 867]
    assert imagenet_classes()[281].label == "tabby"
    assert imagenet_classes()[717].label == "pickup"
    seen = [i for i in range(0, 1000, 2) if i not in cats]
    texts = imagenet_texts()
    space = TextSpace.fit(
        weight[seen], class_centres([texts[i] for i in seen], load_minilm().encode), load_minilm().encode
    )
    rows = F.normalize(weight - weight.mean(0), dim=1)
    cat, truck = space.encode_text(["a photo of a cat", "a photo of a truck"])
    assert (rows[cats] @ cat).mean() > (rows[trucks] @ cat).mean() + 0.1
    assert (rows[trucks] @ truck).mean() > (rows[cats] @ truck).mean() + 0.1


def test_more_centres_add_to_the_coefficients(weight):
    space = TextSpace.fit(weight, class_centres(TEXTS, embed), embed)
    vectors = embed(["red long", "blue"])
    more = {"centres": 3 * embed(["long", "blue square"]), "left": torch.ones(6, 2), "right": weight[:2]}
    plain = space.place_by(vectors, {"coefficients": weight})
    torch.testing.assert_close(plain, F.normalize(kernel(vectors, space.centres) @ weight, dim=1))
    near = kernel(vectors, torch.cat([space.centres, embed(["long", "blue square"])]))
    expected = F.normalize(near[:, :4] @ weight + near @ more["left"] @ more["right"], dim=1)
    torch.testing.assert_close(space.place_by(vectors, {"coefficients": weight, **more}), expected)
