import subprocess
import sys

import pytest

from seewhy.encoders import names as imagenet
from seewhy.encoders.names import imagenet_classes, imagenet_descriptions, imagenet_texts, split_gloss
from seewhy.errors import ModelError


def test_says_what_timm_says():
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    classes = imagenet_classes()
    assert [c.synset for c in classes] == info.label_names()
    assert [", ".join(c.names) for c in classes] == info.label_descriptions()
    assert [f"{', '.join(c.names)}: {c.gloss}" for c in classes] == info.label_descriptions(detailed=True)


def test_labels_are_unique_and_shared_names_are_told_apart():
    labels = [c.label for c in imagenet_classes()]
    assert len(set(labels)) == 1000
    assert [label for label in labels if "(" in label] == [
        "crane (large long-necked wading bird)",
        "crane (lifts and moves heavy objects)",
        "maillot (tights)",
        "maillot (tank suit)",
    ]


def test_every_class_has_descriptions_and_texts():
    descriptions = imagenet_descriptions()
    assert list(descriptions) == [c.label for c in imagenet_classes()]
    phrases = [phrase for own in descriptions.values() for phrase in own]
    assert all(phrase == phrase.strip() and phrase and '"' not in phrase and ";" not in phrase for phrase in phrases)
    assert [len(texts) for texts in imagenet_texts()] == [4] * 1000


@pytest.mark.parametrize(
    ("gloss", "phrases"),
    [
        ("one; two words; three short words", ["two words", "three short words"]),
        ("a small, grey, quiet animal", ["a small, grey, quiet animal"]),
        (
            "a heavy cart, drawn by a horse, used for farm work",
            ["a heavy cart", "drawn by a horse", "used for farm work"],
        ),
        ('a vessel; "he drank from it"', ["a vessel"]),
        ("(informal) a loose black robe (from head to toe)", ["a loose black robe"]),
        ("thing", ["thing"]),
    ],
)
def test_split_gloss(gloss, phrases):
    assert split_gloss(gloss) == phrases


def test_does_not_import_timm():
    code = "import sys, seewhy.encoders.names as w; w.imagenet_classes(); print('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_missing_timm_is_named_with_the_cure(monkeypatch):
    monkeypatch.setattr(imagenet, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        imagenet_classes.__wrapped__()
    assert str(caught.value) == (
        "The names of the ImageNet classes come with timm, which is not installed. Run: pip install timm"
    )
