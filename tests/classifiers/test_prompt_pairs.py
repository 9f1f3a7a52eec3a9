"""Pairs of sentences: the formula, each finding by itself, broken pictures, and the pair as a classifier."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from torch.nn.functional import normalize

from seewhy.classifiers.prompt_pairs import Findings, PromptPairs
from seewhy.encoders.base import Encoder
from seewhy.errors import InputError
from seewhy.pictures.images import read_picture
from seewhy.storage.features import FeatureStore, text_key
from seewhy.types import Failure
from tiny import picture
from tiny_words import tiny_pair

PICTURES = [picture("moss", 0), picture("sky", 1)]
PAIRS = PromptPairs(("{}", "some {}"), ("no {}",), scale=7.0)


def found(on: Encoder, names: list[str], pairs: PromptPairs = PAIRS, **more: Any) -> list[Findings]:
    return [one for one in pairs(on, PICTURES, names, **more) if isinstance(one, Findings)]


def test_by_hand() -> None:
    on = tiny_pair()
    image = on.encode_image(on.pixels([read_picture(p, on.transform).pixels for p in PICTURES]))
    there = normalize(on.encode_text(["moss", "some moss"]).mean(0), dim=0)
    not_there = on.encode_text(["no moss"])[0]
    for one, u in zip(found(on, ["moss"]), image, strict=True):
        yes, no = math.exp(7 * float(u @ there)), math.exp(7 * float(u @ not_there))
        (said,) = one.found
        assert said.name == "moss"
        assert said.probability == pytest.approx(yes / (yes + no), abs=1e-5)
        assert said.margin == pytest.approx(float(u @ there - u @ not_there), abs=1e-5)


def test_findings_do_not_compete() -> None:
    on = tiny_pair()
    together = found(on, ["moss", "rust", "sky"])
    for name, place in (("rust", 1), ("sky", 2)):
        for alone, one in zip(found(on, [name]), together, strict=True):
            assert alone.found[0].probability == pytest.approx(one.found[place].probability, abs=1e-6)


def test_one_picture_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    on = tiny_pair()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    first, second = PAIRS(on, [PICTURES[0], tmp_path / "broken.png"], ["moss"])
    assert isinstance(first, Findings)
    assert isinstance(second, Failure)
    assert [*PAIRS(on, PICTURES[0], ["moss"])] == [first]


def test_the_pair_as_a_classifier_decides_alike() -> None:
    on, pairs = tiny_pair(), PromptPairs(absent=("no {}",), scale=7.0)
    made = pairs.classifier(on, "moss")
    assert made.classes == ("moss", "no moss")
    for image, one in zip(PICTURES, found(on, ["moss"], pairs), strict=True):
        shares = {r.label: r.score for r in made.predict(image).top}
        assert shares["moss"] == pytest.approx(one.found[0].probability, abs=1e-5)


def test_sentences_are_kept_in_a_store(tmp_path: Path) -> None:
    on = tiny_pair()
    store = FeatureStore(tmp_path / "store.sqlite")
    fresh = found(on, ["moss", "sky"], store=store)
    assert store.get_texts([text_key("no sky", on.text.fingerprint)])
    assert found(on, ["moss", "sky"], store=store) == fresh


@pytest.mark.parametrize("wrong", [{"present": ("yes",)}, {"absent": ()}, {"scale": 0.0}])
def test_what_is_no_setting_is_refused(wrong: dict[str, Any]) -> None:
    given = {"present": ("{}",), "absent": ("no {}",), "scale": None} | wrong
    with pytest.raises(InputError) as caught:
        PromptPairs(**given)
    assert str(caught.value) == (
        f"`present` and `absent` must each have at least one sentence with {{}} for the finding, "
        f"and `scale` must be greater than 0, got present={given['present']}, "
        f"absent={given['absent']}, scale={given['scale']}."
    )


@pytest.mark.parametrize("names", [[], ["moss", " "]])
def test_nothing_to_look_for_is_refused(names: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        found(tiny_pair(), names)
    assert str(caught.value) == (f"`names` must have at least one finding, in words, got {names}.")
