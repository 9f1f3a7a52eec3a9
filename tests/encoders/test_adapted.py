"""Adapted encoders: what is added, what is kept of it, and a folder that comes back as it was or is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

import seewhy
from seewhy.encoders import new
from seewhy.encoders.base import Encoder
from seewhy.encoders.find import BEGINNINGS
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.errors import ForeignFileError, InputError, ModelError, UnknownNameError, WeightsError
from seewhy.learning.encoders.adapted import CARD, Adaptation, open_adaptation
from seewhy.learning.encoders.heads import PairedHeads
from seewhy.learning.encoders.towers import Halves, TunedTowers
from seewhy.storage.features import FeatureStore
from tiny import HashedWords, class_folders, noise, tiny_cnn
from tiny_words import tiny_pair

TEXTS = ["a red thing", "two dogs"]


def random_heads(on: Encoder) -> PairedHeads:
    """Heads as if they were trained."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        heads = PairedHeads.before(on, width=3).measure(on.text.project(on.encode(noise(4)).pooled))
    return heads.requires_grad_(False)


def random_towers(on: Encoder, form: Halves) -> TunedTowers:
    towers = TunedTowers.before(on, form)
    generator = torch.Generator().manual_seed(2)
    for p in towers.parameters():
        p.data += torch.randn(p.shape, generator=generator)
    return towers


def test_nothing_kept_is_the_encoder_as_it_was() -> None:
    on, pixels = tiny_pair(), noise(2)
    for trained in (random_heads(on), random_towers(on, "towers")):
        was = Adaptation(on, trained, keep=0.0).encoder()
        now = Adaptation(on, trained).encoder()
        before, none, all_of_it = (e.encode_image(pixels) @ e.encode_text(TEXTS).T for e in (on, was, now))
        torch.testing.assert_close(none, before)
        assert float((all_of_it - before).abs().min()) > 0.01


def test_a_cosine_is_parts_of_the_old_one_and_of_the_new() -> None:
    on, pixels = tiny_cnn(), noise(3)
    heads = random_heads(on)
    some = Adaptation(on, heads, keep=0.2).encoder()
    p, t = on.text.project(on.encode(pixels).pooled), on.encode_text(TEXTS)
    new = heads.size * ((p - heads.mean) / heads.spread @ heads.pictures.weight.T + heads.pictures.bias)
    said = normalize(8 * t @ heads.sentences.weight.T + heads.sentences.bias, dim=1)
    length = (0.8 * p.square().sum(1) + 0.2 * new.square().sum(1)).sqrt()[:, None]
    expected = (0.8 * p @ t.T + 0.2 * new @ said.T) / length
    torch.testing.assert_close(some.encode_image(pixels) @ some.encode_text(TEXTS).T, expected)


def test_both_parts_of_a_picture_are_as_long_as_one_another() -> None:
    on = tiny_cnn()
    both = random_heads(on).image(on.text.project(on.encode(noise(4)).pooled), 0.5)
    ratio = both[:, 8:].norm(dim=1) / both[:, :8].norm(dim=1)
    assert ratio.min() < 1.001
    assert ratio.max() > 0.999


def test_a_side_that_is_not_trained_stays() -> None:
    on, pixels = tiny_cnn(), noise(2)
    words = Adaptation(tiny_pair(), random_towers(tiny_pair(), "text")).encoder()
    assert torch.equal(words.encode_image(pixels), tiny_pair().encode_image(pixels))
    image = Adaptation(tiny_pair(), random_towers(tiny_pair(), "image")).encoder()
    torch.testing.assert_close(image.encode_text(TEXTS), tiny_pair().encode_text(TEXTS))
    assert (words.classes, image.classes) == (on.classes, ())


def test_towers_of_which_nothing_is_kept_have_the_classes_and_looks_of_their_own(tmp_path: Path) -> None:
    on = tiny_pair()
    for form in get_args(Halves):
        folder = Adaptation(on, random_towers(on, form), 0.0).save(tmp_path / form)
        again = open_adaptation(folder, base=tiny_pair()).encoder()
        assert (again.classes, again.looks) == (on.classes, on.looks)
        assert again.classifier is not None
        some = Adaptation(on, random_towers(on, form), 0.1).encoder()
        assert (some.classes, some.looks == on.looks) == ((on.classes, True) if form == "text" else ((), False))


class Regression(HashedWords):
    """Hashed words in two steps, of which the second can be fitted anew: then it turns the axes round."""

    sentence_fingerprint = "hashed"

    def sentences(self, texts: Sequence[str]) -> Tensor:
        return self.encode_text(texts)

    def place(self, vectors: Tensor) -> Tensor:
        return vectors

    def refit(self) -> dict[str, Tensor]:
        return {"coefficients": torch.eye(8).flip(0) / 3}  # of which half precision rounds

    def place_by(self, vectors: Tensor, refit: Mapping[str, Tensor]) -> Tensor:
        return normalize(vectors @ refit["coefficients"], dim=1)


def test_the_place_of_sentences_is_fitted_anew_where_anything_is_kept(tmp_path: Path) -> None:
    on = tiny_cnn(text=Regression())
    t = on.encode_text(TEXTS)
    heads = PairedHeads.before(on, 3)
    torch.testing.assert_close(Adaptation(on, heads, 0.5).encoder().encode_text(TEXTS)[:, :8], t.flip(1) / 2**0.5)
    torch.testing.assert_close(Adaptation(on, heads, 0.0).encoder().encode_text(TEXTS)[:, :8], t)
    left = Adaptation(on, PairedHeads.before(on, 3, refit=False), 0.5).encoder()
    torch.testing.assert_close(left.encode_text(TEXTS)[:, :8], t / 2**0.5)
    folder = Adaptation(on, heads, 0.5).save(tmp_path / "enc")
    again = open_adaptation(folder, base=on).encoder()
    assert torch.equal(again.encode_text(TEXTS), Adaptation(on, heads, 0.5).encoder().encode_text(TEXTS))
    assert load_file(next(folder.glob("*.safetensors")))["trained.coefficients"].dtype == torch.float16


def test_what_more_centres_add_is_saved_in_few_digits(tmp_path: Path) -> None:
    more = {"centres": torch.tensor([[127.0, -3.0]]), "left": torch.ones(2, 1) / 3, "right": torch.ones(1, 8) / 7}
    words = Regression()
    words.refit = lambda: {"coefficients": torch.eye(8), **more}  # type: ignore[method-assign]
    on = tiny_cnn(text=words)
    heads = PairedHeads.before(on, 3)
    folder = Adaptation(on, heads, 0.5).save(tmp_path / "enc")
    kinds = {n: t.dtype for n, t in load_file(next(folder.glob("*.safetensors"))).items()}
    assert kinds["trained.centres"] == torch.int8
    assert kinds["trained.left"] == kinds["trained.right"] == torch.float16
    again = open_adaptation(folder, base=on).trained
    assert isinstance(again, PairedHeads)
    assert {n: t.dtype for n, t in again.refit.items()} == dict.fromkeys(("coefficients", *more), torch.float32)
    assert all(torch.equal(again.refit[n], t) for n, t in heads.refit.items())


def test_levelled_weights_are_saved_in_half_the_digits_as_they_are() -> None:
    on = tiny_cnn()
    heads = random_heads(on).level(torch.randn(4, 8))
    found = heads.delta(on)
    assert all(found[n].dtype == torch.float16 for n, _ in heads.named_parameters())
    assert all(torch.equal(found[n].float(), t) for n, t in heads.state_dict().items())


def test_what_is_kept_is_part_of_the_fingerprint() -> None:
    on = tiny_pair()
    for trained in (random_heads(on), random_towers(on, "towers")):
        some, more = (Adaptation(on, trained, keep).encoder() for keep in (0.3, 0.4))
        assert some.fingerprint != more.fingerprint
        assert some.text.fingerprint != more.text.fingerprint


def test_half_of_a_tower_lies_between() -> None:
    on = tiny_pair()
    towers = random_towers(on, "towers")
    half = Adaptation(on, towers, keep=0.25).encoder()
    before, after = on.trunk.state_dict(), towers.trunk.state_dict()  # type: ignore[union-attr]
    for name, weight in half.trunk.state_dict().items():
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * after[name])


@pytest.mark.parametrize("form", ["heads", "image", "text", "towers"])
def test_saved_and_loaded_it_says_the_same(form: str, tmp_path: Path) -> None:
    on, pixels = tiny_pair(), noise(2)
    trained = random_heads(on) if form == "heads" else random_towers(on, form)  # type: ignore[arg-type]
    made = Adaptation(on, trained, 0.3, {"pairs": "six"}, ("0123456789abcdef0000", "fedcba9876543210ffff"))
    folder = made.save(tmp_path / "enc")
    again = open_adaptation(folder, base=tiny_pair())
    assert again.trained_on == ("0123456789abcdef", "fedcba9876543210")
    assert (again.keep, again.provenance, again.trained.facts()) == (0.3, {"pairs": "six"}, trained.facts())
    ours, theirs = made.encoder(), seewhy.encoder(str(folder), base=tiny_pair())
    assert theirs.fingerprint == ours.fingerprint != on.fingerprint
    assert theirs.name == f"adapted:{folder}"
    assert torch.equal(theirs.encode_image(pixels), ours.encode_image(pixels))
    assert torch.equal(theirs.encode_text(TEXTS), ours.encode_text(TEXTS))
    assert theirs.base is not None
    assert theirs.base.fingerprint == on.fingerprint


def test_saved_over_itself_it_leaves_one_file_of_tensors(tmp_path: Path) -> None:
    on = tiny_cnn()
    for width in (2, 1):
        folder = Adaptation(on, PairedHeads.before(on, width)).save(tmp_path / "enc", {"run.json": "{}"})
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".json", ".safetensors"]
    assert open_adaptation(folder, base=on).trained.facts()["width"] == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text('{"mine": 1}')
    with pytest.raises(ForeignFileError, match=r"exists and is not an adapted encoder\. Give another name"):
        Adaptation(tiny_cnn(), random_heads(tiny_cnn())).save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [CARD]
    with pytest.raises(ModelError, match=r"got None\. Update SeeWhy with"):
        seewhy.encoder(f"adapted:{tmp_path}")


def test_one_that_began_from_nothing_is_found_by_its_card(tmp_path: Path) -> None:
    assert {f"new:{name}" for name in new.names()} == set(BEGINNINGS)
    on = seewhy.encoder("new:resnet", engine="torch")
    folder = Adaptation(on, random_heads(on)).save(tmp_path / "enc")
    assert open_adaptation(folder).base.fingerprint == on.fingerprint
    change(folder, base={"encoder": "new:hat", "fingerprint": on.fingerprint})
    with pytest.raises(ModelError, match=r"made with the encoder 'new:hat'\. SeeWhy never loads an encoder"):
        open_adaptation(folder)


def test_another_base_is_refused(tmp_path: Path) -> None:
    folder = Adaptation(tiny_cnn(), random_heads(tiny_cnn())).save(tmp_path / "enc")
    with pytest.raises(ModelError, match=r"needs 'tiny' with the fingerprint .* got 'tiny' with"):
        open_adaptation(folder, base=tiny_cnn(seed=5))
    with pytest.raises(ModelError, match=r"names it\. No name loads this encoder, so pass it from Python: base="):
        seewhy.encoder(str(folder))


def change(folder: Path, **facts: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **facts}))


def test_damage_is_named_and_nothing_else_is_raised(tmp_path: Path) -> None:
    on = tiny_cnn()
    made = Adaptation(on, random_heads(on))
    heads = made.trained.facts()
    wrong = ({"form": "hats"}, heads | {"width": 4}, heads | {"width": -1}, heads | {"width": 1 << 40}, None, [], {})
    for i, facts in enumerate([{"adapted": w} for w in wrong] + [{"keep": "much"}, {"keep": 7.0}, {"tensors": "../x"}]):
        folder = made.save(tmp_path / f"card{i}")
        change(folder, **facts)
        with pytest.raises((ModelError, InputError)):
            open_adaptation(folder, base=on)
    folder = made.save(tmp_path / "bits")
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(WeightsError, match=r"is damaged \(its SHA-256 differs from the one in encoder\.json\)\. Copy"):
        open_adaptation(folder, base=on)


def test_a_misspelt_base_is_not_called_damage(tmp_path: Path) -> None:
    on = tiny_cnn()
    folder = Adaptation(on, random_heads(on)).save(tmp_path / "enc")
    with pytest.raises(UnknownNameError, match=r"^There is no encoder called 'lite9'\. Did you mean"):
        open_adaptation(folder, base="lite9")


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    on = tiny_cnn()
    heads = random_heads(on)
    heads.sentences.weight.data[0, 0] = float("nan")
    folder = Adaptation(on, heads).save(tmp_path / "enc")
    assert not load_file(next(folder.glob("*.safetensors")))["trained.sentences.weight"].isfinite().all()
    with pytest.raises(ModelError, match="must be finite"):
        open_adaptation(folder, base=on)


def test_what_the_base_has_looked_at_is_found(tmp_path: Path) -> None:
    pictures = sorted(map(str, class_folders(tmp_path / "photos", n=2).rglob("*.png")))
    store, on = FeatureStore(tmp_path / "looks.sqlite"), tiny_cnn()
    seen = list(encode_stream(on, pictures, store=store))
    words = Adaptation(on, random_heads(on)).encoder()
    words.__dict__["engine"] = on.engine
    again = list(encode_stream(words, pictures, store=store))
    assert len(store) == len(pictures)
    for a, b in zip(seen, again, strict=True):
        assert isinstance(a, Encoded)
        assert isinstance(b, Encoded)
        assert torch.equal(a.pooled, b.pooled)


def test_a_classifier_of_names_comes_back_with_it_alone(tmp_path: Path) -> None:
    made = Adaptation(tiny_cnn(), random_heads(tiny_cnn()))
    enc = seewhy.encoder(str(made.save(tmp_path / "enc")), base=tiny_cnn())
    classifier = seewhy.zero_shot(["moss", "rust"], enc)
    folder = classifier.save(tmp_path / "names")
    pixels = noise(3)
    again = seewhy.load(folder, encoder=enc)
    assert torch.equal(again.head(enc.encode(pixels).pooled), classifier.head(enc.encode(pixels).pooled))
    with pytest.raises(ModelError, match=r"If you trust it, name it: seewhy predict .* --encoder adapted:"):
        seewhy.load(folder)
    with pytest.raises(ModelError, match="with the fingerprint"):
        seewhy.load(folder, encoder=tiny_cnn())


def test_the_embedded_encoder_is_found_by_its_card(tmp_path: Path) -> None:
    on = seewhy.encoder("lite0", engine="torch")
    heads = PairedHeads.before(on, refit=False)
    assert (heads.own_width, heads.sentence_width, heads.width) == (1280, 384, 256)
    folder = Adaptation(on, heads, 0.5).save(tmp_path / "enc")
    again = seewhy.encoder(str(folder), engine="torch")
    assert again.classes == on.classes
    torch.testing.assert_close(again.encode_text(["a cat"])[:, :1280], on.encode_text(["a cat"]) / 2**0.5)


def test_its_own_classes_have_the_words_of_the_embedded_encoder() -> None:
    on = seewhy.encoder("lite0", engine="torch")
    grown = Adaptation(on, PairedHeads.before(on, refit=False), 0.5).encoder()
    own, found = (seewhy.pretrained(one) for one in (on, grown))
    assert own.words is not None
    assert found.words is not None
    assert found.words.texts == own.words.texts
    few = grown.encode_text(found.words.texts[:4])
    torch.testing.assert_close(found.words.vectors[:4], few, atol=2e-3, rtol=0)
    assert (own.words_accuracy, found.words_accuracy, found.words_accuracy_on) == (0.646, None, "")
    assert seewhy.pretrained(Adaptation(on, TunedTowers.before(on, "text"), 1.0).encoder()).words is None
