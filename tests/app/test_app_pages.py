"""What the pages say, each beside its JSON twin."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.errors import DataError
from seewhy.evidence.like import like_place
from seewhy.evidence.words import word_maps
from seewhy.report.page import layer_uri
from seewhy.service.app import Settings, make_app
from seewhy.service.app.base import shown_name
from seewhy.service.app.state import Bounded, moved, with_texts

Client = Callable[..., TestClient]


def show(client: TestClient, picture: bytes, name: str = "sky.png") -> dict[str, Any]:
    response = client.post("/look?format=json", files={"picture": (name, picture)})
    assert response.status_code == 200, response.text
    return dict(response.json())


def seen(classifier: Classifier, picture: bytes) -> Encoded:
    request = EncodeRequest(features=lambda _index: True, pictures=True)
    found = next(encode_stream(classifier.encoder, [picture], request=request))
    assert isinstance(found, Encoded)
    return found


def test_a_picture_becomes_a_card(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted)
    response = page.post("/look", files={"picture": ("sky.png", sky)}, follow_redirects=False)
    assert response.status_code == 303
    card = page.get(response.headers["location"])
    assert card.status_code == 200
    assert '<h1 id="decision">sky' in card.text
    assert "sky.png" in card.text
    assert "Where it looked" in card.text
    recent = page.get("/?format=json").json()["recent"]
    assert [(one["label"], one["card"]) for one in recent] == [("sky", response.headers["location"])]
    assert response.headers["location"] in page.get("/").text


def test_the_card_is_the_one_the_library_makes(client: Client, fitted: Classifier, sky: bytes, tmp_path: Path) -> None:
    page = client(fitted)
    found = show(page, sky)
    path = tmp_path / "sky.png"
    path.write_bytes(sky)
    mine = fitted.explain(path)
    measured = page.get(f"{found['card']}?format=json&measure=true").json()
    about = {k: measured.pop(k) for k in ("id", "card", "measured", "edited", "labelled")}
    mine_alone = {"id": found["id"], "card": f"/card/{found['id']}", "edited": False, "labelled": None}
    assert about == {**mine_alone, "measured": True}
    wanted = json.loads(json.dumps(mine.to_json()))
    for near in wanted["like"]:
        near["image"] = Path(near["image"]).name
    assert {**measured, "image": str(path)} == wanted
    text = page.get(f"{found['card']}?measure=true").text
    assert layer_uri(mine.view) in text
    assert mine.where.verdict.sentence in re.sub(r"<[^>]*>", "", text)
    assert "was not measured" not in text
    first = page.get(found["card"]).text
    assert "The effect of hiding these places was not measured." in first
    assert "switched off" not in first, "they are measured while it is read"


def test_two_classes_are_compared(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted)
    card = show(page, sky)["card"]
    twin = page.get(f"{card}?target=moss&contrast=rust&format=json").json()
    assert (twin["where"]["target"], twin["where"]["contrast"]) == ("moss", "rust")
    assert "moss rather than rust" in page.get(f"{card}?target=moss&contrast=rust").text
    assert page.get(f"{card}?target=&contrast=&format=json").json()["where"]["contrast"] is None
    same = page.get(f"{card}?target=moss&contrast=moss&format=json")
    assert (same.status_code, same.json()) == (
        422,
        {"error": "The class 'moss' cannot be compared with itself. Choose another class."},
    )
    unknown = page.get(f"{card}?target=mos&format=json")
    assert unknown.status_code == 422
    assert "Did you mean 'moss'?" in unknown.json()["error"]


def test_a_words_map_adds_up_to_its_lead(fitted: Classifier, sky: bytes) -> None:
    """Moving one cell's features moves the lead as the map says, to first order."""
    one = seen(fitted, sky)
    assert one.features is not None
    assert fitted.words is not None
    maps = word_maps(fitted, one.features, one.pooled[0], 2, 0)
    assert isinstance(maps, tuple)
    assert [(m.label, m.text) for m in maps[:2]] == [("sky", "blue with clouds"), ("sky", "above the roofs")]
    assert len(maps) == 4
    row = fitted.words.vectors[fitted.words.of(2)[0]] - fitted.words.class_weight()[0]
    tower = fitted.encoder.text
    length = tower.project(one.pooled).norm()
    lead = [float((tower.project(v) @ row / length)[0]) for v in (one.pooled, torch.zeros_like(one.pooled))]
    assert maps[0].heat.sum() == pytest.approx(lead[0] - lead[1], rel=1e-4)


def test_each_word_has_its_map_on_the_page(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted)
    found = show(page, sky)
    maps = page.get(f"{found['card']}/words").json()["maps"]
    shown = {(w["label"], w["text"]) for w in found["words"]}
    assert {(m["label"], m["text"]) for m in maps} == shown
    assert {len(m["map"]) for m in maps} == {8}
    assert maps[0]["map"] != maps[1]["map"]
    assert all(m["overlay"] is None or m["overlay"].startswith("data:image/png;base64,") for m in maps)


def test_a_place_names_its_nearest_patches(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted)
    found = show(page, sky)
    region = found["where"]["regions"][0]
    shares = {}
    for row in range(8):
        for column in range(8):
            place = page.get(f"{found['card']}/place?row={row}&column={column}").json()
            shares[row, column] = place["share"]
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.01)
    best = min(shares, key=lambda cell: abs(shares[cell] - region["share"]))
    assert shares[best] == pytest.approx(region["share"], abs=1e-3)
    place = page.get(f"{found['card']}/place?row={best[0]}&column={best[1]}").json()
    card = [n for n in found["like"] if n["letter"] == "A"]
    assert [(p["label"], p["similarity"]) for p in place["like"]] == [(n["label"], n["similarity"]) for n in card]
    assert all("/" not in p["image"] for p in place["like"])
    assert place["method"] == "nearest"
    outside = page.get(f"{found['card']}/place?row=8&column=0")
    assert outside.status_code == 422
    assert "Row 8, column 0 is outside the map of 8 rows and 8 columns" in outside.text


def test_a_place_without_pictures_is_like_nothing(by_words: Classifier, sky: bytes) -> None:
    place = like_place(by_words, seen(by_words, sky), (0, 0), 0)
    assert (place.resembled, place.method) == ((), None)
    assert 0 <= place.share <= 1


def test_edited_words_move_the_decision(client: Client, by_words: Classifier, sky: bytes) -> None:
    page = client(by_words)
    found = show(page, sky)
    other = found["top"][-1]["label"]
    winning = found["words"][0]["text"]
    texts = {"label": other, "texts": f"{winning}\n\n  {winning}  "}
    before = page.get(f"{found['card']}?format=json").json()
    said = page.post(f"{found['card']}/edit?format=json", data=texts).json()
    assert said["score_is"] == "probability"
    assert said["before"] == found["label"]
    row = next(r for r in said["classes"] if r["label"] == other)
    assert row["after"] != row["before"]
    after = page.get(f"{found['card']}?format=json").json()
    assert after["edited"] is True
    assert {t["label"]: t["score"] for t in after["top"]}[other] == pytest.approx(row["after"], abs=1e-4)
    assert page.get("/descriptions").json()[other] == [winning]
    assert "edited descriptions" in page.get(found["card"]).text
    page.cookies.clear()
    assert page.get(f"{found['card']}?format=json").json() == before, "another reader has the words as they were"


def test_words_as_evidence_leave_the_decision(fitted: Classifier, sky: bytes) -> None:
    one = seen(fitted, sky)
    edited = with_texts(fitted, {"moss": ["blue with clouds"], "sky": ["nothing of the kind"]})
    found = moved(fitted, edited, one.pooled, ["moss", "sky"])
    assert not found.by_words
    assert torch.equal(edited.head.weight, fitted.head.weight)
    assert {label: before != after for label, before, after in found.rows} == {
        "moss": True,
        "sky": True,
        "rust": False,
    }
    given = {
        "moss": ["soft green cushions", "grows on stones"],
        "sky": ["blue with clouds", "above the roofs"],
    }
    back = with_texts(edited, given)
    assert all(before == pytest.approx(after) for _, before, after in moved(fitted, back, one.pooled, []).rows)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"label": "moss", "texts": " \n "}, "must have at least one text"),
        ({"label": "moss", "texts": "x" * 301}, "A text may have at most 300 characters"),
        (
            {"label": "moss", "texts": "\n".join(map(str, range(51)))},
            "A class may have at most 50 texts",
        ),
        ({"label": "lichen", "texts": "grey"}, "There is no class 'lichen'"),
        (
            {"label": "moss"},
            ("The form must have one field 'texts' for each field 'label', got 1 fields 'label' and 0 fields 'texts'."),
        ),
        ({}, "The form must have one field 'texts' for each field 'label', got"),
    ],
)
def test_words_that_cannot_be_taken(
    client: Client, by_words: Classifier, sky: bytes, texts: dict[str, str], says: str
) -> None:
    page = client(by_words)
    card = show(page, sky)["card"]
    response = page.post(f"{card}/edit?format=json", data=texts)
    assert response.status_code == 422
    assert says in response.json()["error"]
    assert page.get(f"{card}?format=json").json()["edited"] is False


def test_without_a_script_a_form_edits_and_undoes(client: Client, by_words: Classifier, sky: bytes) -> None:
    page = client(by_words)
    card = show(page, sky)["card"]
    fields = {"label": "moss", "texts": "red", "target": "moss", "contrast": "sky"}
    taken = page.post(f"{card}/edit", data=fields, follow_redirects=False)
    assert (taken.status_code, taken.headers["location"]) == (303, f"{card}?target=moss&contrast=sky#edit")
    assert 'id="moved"' in page.get(card).text
    assert "Restore the original descriptions" in page.get(card).text
    back = page.post(f"{card}/reset", data={"target": "moss", "contrast": "sky"}, follow_redirects=False)
    assert back.headers["location"] == f"{card}?target=moss&contrast=sky#edit"
    assert "Restore the original descriptions" not in page.get(card).text


def test_an_upload_never_reaches_the_disk(
    client: Client, by_words: Classifier, sky: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one larger than what the parser of forms would move to a file by itself."""
    from tempfile import SpooledTemporaryFile

    moved_to_disk: list[int] = []
    monkeypatch.setattr(SpooledTemporaryFile, "rollover", lambda _file: moved_to_disk.append(1))
    page = client(by_words)
    assert show(page, sky + bytes(3_000_000))["label"] == show(page, sky)["label"]
    assert moved_to_disk == []


def test_mistakes_are_found_while_nobody_waits(client: Client, fitted: Classifier, folders: Path) -> None:
    wrong = folders.parent / "wrong"
    for label, source in (("moss", "sky"), ("sky", "sky"), ("lichen", "moss")):
        (wrong / label).mkdir(parents=True, exist_ok=True)
        for file in sorted((folders / source).iterdir())[:3]:
            (wrong / label / file.name).write_bytes(file.read_bytes())
    (wrong / "sky" / "broken.png").write_bytes(b"no picture")
    page = client(fitted, data=wrong)
    for _ in range(200):
        found = page.get("/mistakes?format=json").json()
        if found["done"] == found["n"]:
            break
        time.sleep(0.05)
    assert (found["n"], found["right"], found["failed"], found["unknown_class"]) == (7, 3, 1, 3)
    assert [(c["true"], c["predicted"], c["n"]) for c in found["confusions"]] == [("moss", "sky", 3)]
    link = found["confusions"][0]["pictures"][0]
    card = page.get(link["card"])
    assert card.status_code == 200
    assert '<h1 id="decision">sky' in card.text
    assert str(folders.parent) not in card.text
    thumbnail = page.get(f"{link['card']}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert thumbnail.content[:2] == b"\xff\xd8"
    assert "predicted as" in page.get("/mistakes").text
    assert page.get("/sample/10?format=json").status_code == 404
    broken = next(i for i in range(7) if page.get(f"/sample/{i}?format=json").status_code == 422)
    said = page.get(f"/sample/{broken}?format=json").json()["error"]
    assert said.startswith("broken.png: ")
    assert page.get(f"/sample/{broken}/thumbnail?format=json").json()["error"] == said


def test_labels_of_another_world_are_refused(fitted: Classifier, tmp_path: Path) -> None:
    from seewhy.pictures.samples import load_samples

    (tmp_path / "lichen").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "lichen" / "a.png")
    with pytest.raises(DataError, match="is one of the 3 classes"):
        make_app(fitted, Settings(), data=load_samples(tmp_path))


def test_what_is_kept_is_bounded(client: Client, fitted: Classifier, sky: bytes) -> None:
    page = client(fitted, n_pictures=3, n_recent=2)
    cards = [show(page, sky + bytes([i]))["card"] for i in range(4)]
    assert [page.get(card).status_code for card in cards] == [404, 200, 200, 200]
    assert len(page.get("/?format=json").json()["recent"]) == 2
    kept: Bounded[int] = Bounded(2)
    for i in range(3):
        kept.put(i, i)
        kept.get(1)
    assert (kept.get(0), kept.get(1), kept.get(2), len(kept)) == (None, 1, 2, 2)


def test_names_are_shown_and_nothing_more() -> None:
    names = ("../../etc/passwd", "C:\\a\\b.jpg", "a\x00\nb.png", "", "/", "x" * 500)
    assert [shown_name(n) for n in names] == ["passwd", "b.jpg", "ab.png", "picture", "picture", "x" * 120]


def test_the_help_leads_to_every_address(client: Client, fitted: Classifier) -> None:
    page = client(fitted)
    assert "/openapi.json" in page.get("/help").text
    assert "/card/{id}/place" in page.get("/openapi.json").json()["paths"]
    assert (page.get("/docs").status_code, page.get("/redoc").status_code) == (200, 404)


def test_an_error_has_the_style_of_every_page(client: Client, fitted: Classifier) -> None:
    page = client(fitted)
    for path in ("/card/gone", "/nothing"):
        answer = page.get(path)
        assert answer.status_code == 404
        assert "--paper:" in answer.text
        assert "Macro" not in answer.text
        assert "Go to the start page" in answer.text


def test_the_footer_says_what_of_the_data_is_kept_on_disk(client: Client, fitted: Classifier) -> None:
    text = client(fitted).get("/").text
    assert "Thumbnails, features and the map of the pictures given with <code>--data</code> and <code>--unl" in text
