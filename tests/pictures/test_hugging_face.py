"""Real data frames and real data sets of Hugging Face, as pairs and as pictures with classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import seewhy
from seewhy.errors import DataError, InputError
from seewhy.pictures.datasets import samples_of, samples_or_pictures
from seewhy.pictures.images import read_picture
from seewhy.pictures.pairs import load_pairs
from tiny import colours, picture, tiny_cnn
from tiny_words import opened

datasets = pytest.importorskip("datasets", reason="datasets is not installed, and only stand-ins of it are tested")
pd = pytest.importorskip("pandas", reason="pandas is not installed, and only stand-ins of it are tested")
pytestmark = pytest.mark.filterwarnings("ignore:Cannot locate reference")  # of pyarrow, by the pickler of datasets
KINDS = ["moss", "rust", "sky"] * 4


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    from PIL import Image

    root = tmp_path_factory.mktemp("rows")
    names = []
    for i, kind in enumerate(KINDS):
        Image.fromarray(picture(kind, i)).save(root / f"{i}.png")
        names.append(str(root / f"{i}.png"))
    return {"image": names, "text": [f"some {k} {i}" for i, k in enumerate(KINDS)], "label": KINDS}


@pytest.fixture
def frame(columns: dict[str, list[Any]]) -> Any:
    return pd.DataFrame(columns)


@pytest.fixture
def rows(columns: dict[str, list[Any]]) -> Any:
    names = datasets.ClassLabel(names=["moss", "rust", "sky"])
    kinds = {"image": datasets.Image(), "text": datasets.Value("string"), "label": names}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def said(found: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(item.label, item.texts) for item in found.items]


@pytest.mark.parametrize("form", [None, "torch", "numpy", "pandas", "bytes"])
def test_a_data_set_in_any_format_gives_its_pictures_texts_and_names_of_classes(form: str | None, rows: Any) -> None:
    given = rows.cast_column("image", datasets.Image(decode=False)) if form == "bytes" else rows.with_format(form)
    found, on = load_pairs(given), tiny_cnn()
    assert said(found) == [(k, (f"some {k} {i}",)) for i, k in enumerate(KINDS)]
    assert [item.label for item in samples_of(given).items] == KINDS
    for one in (found, samples_of(given)):
        seen = read_picture(one.items[4].source, on.transform).pixels
        assert np.array_equal(seen, read_picture(rows[4]["image"], on.transform).pixels)


def test_parts_of_a_data_set_and_columns_made_of_others(rows: Any) -> None:
    assert said(load_pairs(rows.select([5, 3])))[0] == ("sky", ("some sky 5",))
    assert load_pairs(rows.shuffle(seed=1)).n_texts == 12
    several = rows.map(lambda r: {"captions": [r["text"], "another"]}).remove_columns("text")
    assert load_pairs(several).items[0].texts == ("some moss 0", "another")
    raw = rows.map(lambda r: {"sentences": [{"raw": r["text"]}, {"raw": "another"}]}).remove_columns("text")
    assert load_pairs(raw).items[0].texts == ("some moss 0", "another")


def test_a_class_that_is_missing_is_none_of_a_pair_and_refused_where_classes_are_needed(rows: Any, frame: Any) -> None:
    gap = [None, -1, *range(10)]
    for label in gap[:2]:
        holed = rows.map(lambda r, i, label=label: {"label": label if i == 2 else r["label"]}, with_indices=True)
        assert [item.label for item in load_pairs(holed).items][1:4] == ["rust", "", "moss"]
        with pytest.raises(
            DataError,
            match=(
                r"The label of picture 3 must be the name or index of a class, got None\. Fill it in, "
                r"or leave the picture out\."
            ),
        ):
            samples_of(holed)
    for nothing in (None, float("nan"), pd.NA):
        given = frame.assign(label=[nothing, *KINDS[1:]])
        assert [item.label for item in load_pairs(given).items][:2] == ["", "rust"]
        with pytest.raises(
            DataError,
            match=(
                r"The label of picture 1 must be the name or index of a class, got None\. Fill it in, "
                r"or leave the picture out\."
            ),
        ):
            samples_of(given)


@pytest.mark.parametrize("kind", ["object", "string", "category"])
def test_missing_cells_of_a_frame_of_any_kind_are_empty(kind: str, frame: Any) -> None:
    texts = [None, pd.NA, float("nan"), *frame["text"][3:]]
    found = load_pairs(frame.assign(text=pd.Series(texts).astype(kind)))
    assert [item.texts[0] for item in found.items] == texts[3:]
    assert found.notes[0].startswith("left out 3 picture(s) without a text")
    visits = pd.array([1, None] * 6, dtype="Int64")
    assert [item.group for item in load_pairs(frame.assign(visit=visits), group="visit").items][:2] == ["1", None]


def test_frames_by_part_by_index_and_with_numbers_for_names(frame: Any) -> None:
    assert said(load_pairs(frame[frame.label == "sky"]))[1] == ("sky", ("some sky 5",))
    assert load_pairs(frame.set_index("text", drop=False)).items[1].texts == ("some rust 1",)
    numbered = frame.rename(columns={"label": 0})
    assert load_pairs(numbered, label="0").items[1].label == "rust"
    arrays = frame.assign(image=[picture(k, i) for i, k in enumerate(KINDS)])
    assert samples_of(arrays).items[3].label == "moss"
    assert len(load_pairs(arrays)) == 12


def test_what_cannot_be_read_is_told(frame: Any, rows: Any) -> None:
    for read in (load_pairs, samples_of):
        with pytest.raises(DataError) as caught:
            read(pd.concat([frame, frame[["text"]]], axis=1))
        assert str(caught.value) == ("Column names must differ, but 'text' occurs twice. Rename or drop one.")
        with pytest.raises(
            InputError, match=r"The data set must be one split, got the splits 'train'\. Select one by its name\."
        ):
            read(datasets.DatasetDict({"train": rows}))
        with pytest.raises(InputError, match="cannot be an IterableDataset"):
            read(rows.to_iterable_dataset())
    with pytest.raises(InputError, match=r"Dataset\.from_list\(list\(data\.take\(1000\)\)\)\.$"):
        load_pairs(rows.to_iterable_dataset())


@pytest.mark.parametrize("what", ["frame", "rows"])
def test_encoders_and_classifiers_learn_from_them(what: str, request: pytest.FixtureRequest) -> None:
    given = request.getfixturevalue(what)
    pairs = seewhy.adapt(given, opened(), epochs=2, keep=0.5, width=4)
    assert len(pairs.train) + len(pairs.held) == 12
    asked = seewhy.adapt(given, opened(), objective="focallens", instructions={"label": "the kind"}, epochs=2, keep=1.0)
    assert asked.judged["label under 'the kind'"].words == ("moss", "rust", "sky")
    named = seewhy.adapt(given, opened(), objective="prefix", label="label", learn="prefixes", epochs=2, keep=1.0)
    assert named.adaptation.provenance["n_named"] == len(named.train)
    assert seewhy.fit(given, colours()).classes == ("moss", "rust", "sky")


def test_a_data_set_is_predicted_and_keeps_its_labels(frame: Any, rows: Any) -> None:
    assert [item.label for item in samples_or_pictures(frame).items] == KINDS
    assert [item.label for item in samples_or_pictures(rows).items] == KINDS
    assert [item.label for item in samples_or_pictures(frame[["image"]]).items] == [""] * 12
    classifier = seewhy.fit(frame, encoder=tiny_cnn(), n_crops=0)
    assert [p.label for p in classifier.predict(frame)] == KINDS
    assert [p.label for p in classifier.predict(rows)] == KINDS
