"""A second look: the mathematics by hand, the authors' numbers, planted words, and what the card says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from schemas import check
from seewhy.attributions.shares import cell_evidence
from seewhy.classifiers.base import Classifier, HeldOut
from seewhy.classifiers.by_sentences import Chosen, Discriminative, Pool, Selector, selection_matrix
from seewhy.classifiers.follow_up import Captions, FollowUp
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.saving import load
from seewhy.classifiers.unfitted import ZeroShot
from seewhy.descriptions import Descriptions
from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import Encoded, encode_stream, file_digest
from seewhy.errors import DataError, InputError
from seewhy.explanation.base import Words
from seewhy.heads.head import Head, Projected, Target
from seewhy.language.questions import Difference, Pair, read_pairs, write_pairs_file
from seewhy.pictures.samples import load_samples, split
from seewhy.trust.groups import group_folds
from tiny import CLASSES, HUES, HashedWords, class_folders, colours, noise, picture, tiny_cnn

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def pair(a: str, b: str, *texts: tuple[str, str, str]) -> Pair:
    return Pair((a, b), tuple(Difference(*t) for t in texts))


PAIRS = [
    pair("moss", "rust", ("colour", "moss, green", "rust, brown"), ("feel", "moss, soft", "rust, hard")),
    pair("sky", "moss", ("colour", "sky, blue", "moss, green")),
]


def test_a_second_look_by_hand() -> None:
    encoder = tiny_cnn()
    first = ZeroShot().build(encoder, CLASSES)
    made = FollowUp(k=3).after(first, PAIRS)
    assert isinstance(made.head.votes, Captions)
    rows = {c.text: c.row for c in made.head.votes.captions}
    assert list(rows) == ["moss, green", "rust, brown", "moss, soft", "rust, hard", "sky, blue"]
    # moss, rust and sky in question: no pair of rust and sky, so their own sentences stand for it.
    assert made.head.votes.rows_of(0, [0, 1, 2]) == [rows["moss, green"], rows["moss, soft"]]
    assert made.head.votes.rows_of(1, [0, 1, 2]) == [1, rows["rust, brown"], rows["rust, hard"]]
    assert made.head.votes.rows_of(2, [0, 1, 2]) == [2, rows["sky, blue"]]
    pooled = encoder.encode(noise(6)).pooled
    x, scale = made.head.feature(pooled), first.head.scale
    s = scale * x @ first.head.weight.T
    logits = made.head(pooled)
    for i in range(6):
        among = s[i].topk(3).indices.tolist()
        t = {}
        for a in among:
            own = made.head.weight[made.head.votes.rows_of(a, among)] / scale
            t[a] = scale * float(x[i] @ normalize(own.mean(0), dim=0))
        mass, total = float(s[i][among].logsumexp(0)), float(torch.tensor(list(t.values())).logsumexp(0))
        for c in range(4):
            wanted = t[c] - total + mass if c in among else float(s[i, c])
            assert float(logits[i, c]) == pytest.approx(wanted, abs=1e-4)
    before = s.softmax(1)
    outside = torch.ones_like(before, dtype=torch.bool).scatter(1, s.topk(3, dim=1).indices, False)
    torch.testing.assert_close(logits.softmax(1)[outside], before[outside])


def test_the_authors_numbers() -> None:
    golden = json.loads((GOLDEN / "follow_up.json").read_text("utf-8"))
    names = golden["classes"]
    pairs = [Pair(tuple(p["classes"]), tuple(Difference(**d) for d in p["differences"])) for p in golden["pairs"]]
    encoder = replace_width(16)
    made = FollowUp(k=golden["k"], scale=1.0, templates=("A photo of a {}.",)).build(encoder, names, pairs)
    assert isinstance(made.head.votes, Captions)
    x = normalize(torch.tensor(golden["images"]), dim=1)
    scores = x @ made.head.weight.T
    assert made.head.votes.ambiguous(scores).tolist() == golden["classes_in_question"]
    torch.testing.assert_close(
        made.head.votes.second(scores), torch.tensor(golden["logits"]), atol=golden["tolerance"], rtol=0
    )


def replace_width(width: int) -> Encoder:
    """The tiny network with sentences of another width, as the golden run drew them."""
    return tiny_cnn(text=HashedWords(width))


def test_the_authors_choice_of_descriptions() -> None:
    golden = json.loads((GOLDEN / "discriminative.json").read_text("utf-8"))
    generator = torch.Generator().manual_seed(golden["seed"])
    pictures, texts, captions, asked = (
        normalize(torch.randn(n, 12, generator=generator), dim=1) for n in (24, 30, 6, 7)
    )
    labels = torch.arange(6).repeat_interleave(golden["per_class"])
    among = (asked @ captions.T).topk(golden["k"], dim=1).indices
    assert among.tolist() == golden["ambiguous"]
    found = Selector(golden["m"])(selection_matrix(texts, pictures, labels, 6), among, ((0,),) * 6)
    chosen = [
        [sorted(t[u].tolist()) for t, u in zip(*rows, strict=True)]
        for rows in zip(found.texts, found.used, strict=True)
    ]
    assert chosen == golden["chosen"]


def test_fusion_and_gate_keep_the_first_look() -> None:
    encoder = tiny_cnn()
    first = ZeroShot().build(encoder, CLASSES)
    pooled = encoder.encode(noise(20)).pooled
    before, plain = first.head(pooled), FollowUp(k=3).after(first, PAIRS).head(pooled)
    assert not torch.equal(before.argmax(1), plain.argmax(1))
    fused = FollowUp(k=3, fusion=1e4).after(first, PAIRS).head(pooled)
    assert torch.equal(fused.argmax(1), before.argmax(1))
    gated = FollowUp(k=3, gate=0.0).after(first, PAIRS).head(pooled)
    torch.testing.assert_close(gated, before)
    top = before.softmax(1).topk(2, dim=1).values
    lead = (top[:, 0] - top[:, 1]).sort().values
    middle = float(lead[9] + lead[10]) / 2  # no picture's own: rounding decides nothing
    some = FollowUp(k=3, gate=middle).after(first, PAIRS).head(pooled)
    sure = (top[:, 0] - top[:, 1]) >= middle
    torch.testing.assert_close(some[sure], before[sure])
    torch.testing.assert_close(some[~sure], plain[~sure])


@pytest.mark.parametrize("against", [None, 2])
def test_the_evidence_of_cells_adds_up_to_the_second_looks_logit(against: int | None) -> None:
    """The slope is the logit's own, the picture's length held as it is."""
    encoder = tiny_cnn()
    model = FollowUp(k=3).build(encoder, CLASSES, PAIRS)
    head, pooled = model.head, encoder.encode(noise(4)).pooled
    assert head.votes is not None
    target = Target(head(pooled).argmax(1), None if against is None else torch.full((4,), against))
    leaf = pooled.clone().requires_grad_()
    length = encoder.text.project(pooled).norm(dim=1, keepdim=True)
    logits = head.votes(encoder.text.project(leaf) / length @ head.weight.T)
    lead = target(logits) - (logits.mean(1) if against is None else 0)
    gradient = torch.autograd.grad(lead.sum(), leaf)[0]
    torch.testing.assert_close(head.slope(pooled, target), gradient, atol=1e-5, rtol=1e-4)
    assert cell_evidence(model, encoder.encode(noise(4)), target).isfinite().all()


def test_words_that_know_the_colours_decide_right_and_noise_does_not(tmp_path: Path) -> None:
    encoder, samples = colours(), load_samples(class_folders(tmp_path, 8))
    words = Descriptions({c: (f"very {h}", f"quite {h}") for c, h in HUES.items()})
    nonsense = Descriptions({c: (f"xq {i}", f"zv {i}") for i, c in enumerate(HUES)})
    real = Discriminative(k=4, m=2, weight=0.0).fit(encoder, samples, descriptions=words)
    noisy = Discriminative(k=4, m=2, weight=0.0).fit(encoder, samples, descriptions=nonsense)
    assert real.measures["held_out_accuracy"] == 1.0
    assert real.words_accuracy == 1.0
    assert real.measures["in_question"] == 1.0
    assert noisy.measures["held_out_accuracy"] <= 0.5
    why = real.explain(picture("sky", 99), measure=False)
    assert why.prediction.label == "sky"
    assert isinstance(why.words, Words)
    assert [w.text for w in why.words.words if w.label == "sky"] == ["quite blue", "very blue"]
    assert [w.separates for w in why.words.words if w.label == "sky"] == [1.0, 1.0]
    assert why.words.verdict.level == "believable"


def test_a_text_of_another_class_says_whose_it_was(tmp_path: Path) -> None:
    encoder, samples = colours(), load_samples(class_folders(tmp_path, 8))
    exchanged = {"moss": "brown", "rust": "blue", "sky": "green"}
    words = Descriptions({c: (f"very {h}", f"quite {h}") for c, h in exchanged.items()})
    made = Discriminative(k=4, m=2, weight=0.0).fit(encoder, samples, descriptions=words)
    assert made.measures["held_out_accuracy"] == 1.0  # chosen by pictures, not by who wrote what
    why = made.explain(picture("sky", 99), measure=False)
    mine = [w for w in why.to_json()["words"] if w["label"] == "sky"]
    assert {(w["text"], w["written_for"]) for w in mine} == {("very blue", "rust"), ("quite blue", "rust")}
    check("explanation", [why.to_json()])
    assert "written for rust" in why.to_html()


def test_the_weight_is_chosen_on_pictures_that_did_not_choose_words(tmp_path: Path) -> None:
    encoder, samples = colours(), load_samples(class_folders(tmp_path, 8))
    words = Descriptions({c: (f"very {h}",) for c, h in HUES.items()})
    made = Discriminative(k=4).fit(encoder, samples, descriptions=words)
    assert made.measures["weight"] == 0.0  # names mean nothing to this tower
    assert made.measures["n_pictures"] + made.measures["n_held_out"] == len(samples)
    one_each = class_folders(tmp_path / "few", 1)
    with pytest.raises(DataError) as caught:
        Discriminative().fit(encoder, load_samples(one_each), descriptions=words)
    assert str(caught.value) == (
        "Every class must have at least two pictures, on which `weight` is chosen. Add pictures, or use --set weight=1."
    )
    with pytest.raises(DataError) as refused:
        Discriminative().fit(encoder, samples)
    assert str(refused.value) == ("The method discriminative requires descriptions. Add --descriptions FILE.")


def test_captions_on_the_card_say_what_they_part(tmp_path: Path) -> None:
    made = FollowUp(k=4).build(colours(), CLASSES, PAIRS)
    again = load(made.save(tmp_path / "model"), encoder=colours())
    for model in (made, again):
        why = model.explain(picture("moss", 5), target="moss", contrast="rust", measure=False)
        assert isinstance(why.words, Words)
        mine = [(w.text, str(w.origin)) for w in why.words.words if w.label == "moss"]
        assert ("moss, soft", "feel, against rust") in mine
        assert {text for text, _ in mine} == {"moss, green", "moss, soft"}
        assert why.words.method == "follow_up"
        assert why.words.would_change.startswith("The descriptions decided between ")
    held = HeldOut(torch.tensor([[-1.0, 0.5, -1.0], [1.0, -1.0, -1.0]]), torch.tensor([0, 1]))
    measured = replace(made, held_out=held).explain(picture("moss", 5), target="moss", contrast="rust", measure=False)
    assert isinstance(measured.words, Words)
    assert {w.text: w.separates for w in measured.words.words if w.label == "moss"} == {
        "moss, green": 1.0,
        "moss, soft": 0.5,
    }


def test_behind_a_classifier_of_pictures_it_is_refused(tmp_path: Path) -> None:
    fitted = Linear(n_crops=0).fit(tiny_cnn(), load_samples(class_folders(tmp_path, 4)))
    with pytest.raises(InputError) as caught:
        FollowUp().after(fitted, PAIRS)
    assert str(caught.value) == (
        "--follow-up requires a classifier made from names or descriptions, got linear. Give "
        "its classes with --labels, without --model."
    )


def test_files_of_pairs(tmp_path: Path) -> None:
    path = write_pairs_file(tmp_path / "pairs.json", PAIRS)
    assert read_pairs(path) == PAIRS
    with pytest.raises(DataError) as caught:
        FollowUp().build(tiny_cnn(), ("a", "b"), PAIRS)
    assert str(caught.value) == (
        "The pairs must have the names of the 2 classes ('a', 'b', …), but the 2 pairs name other classes ('moss', "
        "'rust', 'sky', …)."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "{path} must have at least one pair of classes:"),
        ("{}", "{path} must have at least one pair of classes:"),
        ('["a"]', "{path}, pair 1 must name two classes:"),
        ('[{"classes": ["a", "a"], "differences": []}]', "{path}, pair 1 names 'a' twice. Name two classes."),
        ('[{"classes": ["a", "b"], "differences": []}]', "{path}, pair 1 must have at least one difference."),
        (
            '[{"classes": ["a", "b"], "differences": [{"attribute": "x", "first": ""}]}]',
            "{path}, pair 1 must have the keys 'attribute', 'first' and 'second'",
        ),
        ("[", "{path} cannot be read:"),
    ],
)
def test_files_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(message.replace("{path}", str(path)))


def test_a_head_of_its_own_is_not_needed() -> None:
    """Without pairs it is zero-shot."""
    encoder = tiny_cnn()
    plain: Tensor = ZeroShot(("A photo of a {}.",)).build(encoder, CLASSES).head(encoder.encode(noise(5)).pooled)
    made: Classifier = FollowUp(k=4).build(encoder, CLASSES)
    torch.testing.assert_close(made.head(encoder.encode(noise(5)).pooled), plain)
    assert isinstance(made.head, Head)
    assert isinstance(made.head.feature, Projected)


def test_what_is_held_out_chooses_no_descriptions(tmp_path: Path) -> None:
    """Held-out pictures under other classes, or others held out: nothing moves but what is measured on them."""
    encoder, samples = colours(), load_samples(class_folders(tmp_path / "own", 3))
    words = Descriptions({c: (f"very {h}", f"quite {h}", f"nearly {c}") for c, h in HUES.items()})
    others = load_samples(class_folders(tmp_path / "others", 1, side=44))
    following = dict(zip(CLASSES[:3], CLASSES[1:3] + CLASSES[:1], strict=True))
    wrong = replace(others, items=tuple(replace(s, label=following[s.label]) for s in others.items))
    recipe = Discriminative(k=3, m=2, weight=1.0, n_bank=3, split="random")
    made, misled, alone = (
        recipe.fit(encoder, samples, descriptions=words, validation=v) for v in (others, wrong, None)
    )
    assert made.measures["held_out_accuracy"] == 1.0
    assert misled.measures["held_out_accuracy"] == 0.0
    for one in (made, misled, alone):
        votes = one.head.votes
        assert isinstance(votes, Chosen)
        names, labels = [s.image for s in samples.items], [s.label for s in samples.items]
        kept = torch.ones(9, dtype=torch.bool)
        if one is alone:
            kept = ~torch.tensor(split(labels, [file_digest(n) or "" for n in names], 0.2, 0))
            assert int(kept.sum()) == 6
        seen = Projected(encoder.text)(
            torch.cat([s.pooled for s in encode_stream(encoder, names) if isinstance(s, Encoded)])
        )
        of = torch.tensor([one.classes.index(c) for c in labels])
        texts = encoder.encode_text(votes.pool.texts)
        torch.testing.assert_close(votes.matrix, selection_matrix(texts, seen[kept], of[kept], 3))
    first, second = (m.head for m in (made, misled))
    assert torch.equal(first.weight, second.weight)
    assert first.votes.facts() == second.votes.facts()  # type: ignore[union-attr]
    assert made.bank is not None
    assert misled.bank is not None
    assert torch.equal(made.bank.vectors, misled.bank.vectors)


def test_the_weight_is_of_the_half_that_did_not_choose() -> None:
    """The half that chooses shows every class by the look that the next one has in the other half, where names decide.

    There the right class has ``w · 0.9`` and the wrong one 1, in units of one cosine.
    """
    labels, axes = torch.arange(24) % 3, torch.eye(6)
    half = group_folds(labels, torch.arange(24), 2, 0) != 1
    seen = normalize(axes[torch.where(half, labels, (labels + 1) % 3)] + 0.9 * axes[3 + labels], dim=1)
    pool = Pool.of(Descriptions({c: (f"look {i}",) for i, c in enumerate(CLASSES[:3])}))
    found = Discriminative()._weight(pool, torch.cat([axes[3:], axes[:3]]), seen, labels, torch.arange(24))
    assert found == 1.25


@pytest.mark.parametrize(("n_rows", "row"), [(1, 0), (2, 2)])
def test_captions_have_rows_of_the_head(n_rows: int, row: int) -> None:
    facts = {"classes": ["a", "b"], "captions": [[row, 0, 1, "", "x"]], "scale": 1.0, "k": 2, "fusion": 0, "gate": None}
    with pytest.raises(ValueError, match=f"captions or classes beyond the {n_rows} rows"):
        Captions.restore(facts, {}, torch.ones(n_rows, 3))
