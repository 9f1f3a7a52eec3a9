"""Cards, evaluations and pages of tiny classifiers: their JSON, and the numbers and words that a card shows."""

from __future__ import annotations

import html
import io
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tiny import CLASSES, class_folders, colours, picture, tiny_cnn

TEXTS = {
    "moss": ["soft green cushions", "grows on stones"],
    "rust": ["a brown flaking crust", "on old iron"],
    "sky": ["blue with clouds", "above the roofs"],
}
HUES = {"moss": ["very green", "a door"], "rust": ["very brown", "a cup"], "sky": ["very blue", "two windows"]}


def card_text(page: str) -> dict[str, Any]:
    """Figures and definitions on a page, whatever their order."""
    page = page.partition("<body")[2].partition('<section class="glossary"')[0]
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.S)
    words = html.unescape(re.sub(r"<[^>]*>", " ", body))
    figures = sorted(set(re.findall(r"[−+<>]?\d+(?:[.,]\d+)*(?:[ \u202f]?%)?", words)))
    return {
        "figures": figures,
        "pictures": page.count("<img"),
        "links": sorted(set(re.findall(r'href="#([\w-]+)"', page))),
    }


def explained(classifier: Any, **options: Any) -> dict[str, Any]:
    why = classifier.explain("query.png", **options)
    page = why.to_html().replace(why.model.get("fingerprint", "no fingerprint"), "")
    return {"json": _without(why.to_json(), ("fingerprint",)), "card": card_text(page)}


def pages(classifier: Any, sky: bytes) -> dict[str, Any]:
    from starlette.testclient import TestClient

    from seewhy.pictures.samples import load_samples
    from seewhy.service.app import Settings, make_app

    app = make_app(classifier, Settings(), data=load_samples("mixed"))
    with TestClient(app, base_url="http://localhost:8000") as client:
        for _ in range(400):
            if client.get("/mistakes?format=json").json()["done"] == 6:
                break
            time.sleep(0.02)
        shown = client.post("/look?format=json", files={"picture": ("a.png", sky)}).json()
        card = shown.pop("card")
        words = {"label": ["moss", "sky"], "texts": ["blue with clouds", "grey"]}
        answers = {
            "look": shown,
            "card": client.get(f"{card}?format=json&measure=1&contrast=moss").json(),
            "page": card_text(client.get(f"{card}?measure=1&contrast=moss").text),
            "words": client.get(f"{card}/words").json(),
            "place": client.get(f"{card}/place?row=3&column=3").json(),
            "edit": client.post(f"{card}/edit?format=json", data=words).json(),
            "changes": client.get("/changes?format=json").json(),
            "mistakes": client.get("/mistakes?format=json").json(),
            "one by one": client.get("/mistakes?format=json&order=surest").json(),
            "descriptions": client.get("/descriptions").json(),
            "refused": client.get("/card/nothing?format=json").json(),
        }
    answers["card"].pop("card", None)
    return _without(answers, ("overlay", "patch", "id"))


def _without(data: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(data, dict):
        return {k: _without(v, keys) for k, v in data.items() if k not in keys}
    return [_without(v, keys) for v in data] if isinstance(data, list) else data


def cards() -> dict[str, Any]:
    import seewhy
    from seewhy.classifiers.by_sentences import SparseConcepts
    from seewhy.classifiers.neighbours import Neighbours
    from seewhy.classifiers.unfitted import Described
    from seewhy.descriptions import Descriptions
    from seewhy.pictures.samples import load_samples
    from seewhy.prototypes.epic.training import FitEPIC

    samples = load_samples("classes")
    linear = seewhy.fit("classes", tiny_cnn(), descriptions=TEXTS)
    found: dict[str, Any] = {
        "linear": explained(linear),
        "contrast": explained(linear, contrast="moss", target="rust"),
        "because": explained(linear, because="calibrated", neurons=2, measure=False),
        "sentence": explained(linear, target_text="a brown flaking crust", contrast_text="blue"),
        "against": explained(linear, settings={"counterfactual": True}),
        "pretrained": explained(seewhy.pretrained(tiny_cnn())),
        "described": explained(Described().build(tiny_cnn(), Descriptions.of(TEXTS))),
        "concepts": explained(
            SparseConcepts(kept=2, n_concepts=3).fit(colours(), samples, descriptions=Descriptions.of(HUES))
        ),
        "voters": explained(Neighbours(k=8).fit(tiny_cnn(), samples)),
    }
    listed = [(s.image, linear.index_of(s.label)) for s in samples.items]
    FitEPIC(duplicate=0.99999).fit(linear, listed).save(Path("epic"))
    found["epic"] = explained(linear, like="epic", prototypes="epic")
    found["evaluate"] = linear.evaluate("classes", faithfulness=True, n_explained=4, unknown="mixed/sky").to_json()
    file = io.BytesIO()
    Image.fromarray(picture("sky", 90)).save(file, "PNG")
    found["app"] = pages(linear, file.getvalue())
    found["batch"] = batch()
    return found


def batch() -> dict[str, Any]:
    """The real command with the embedded encoder, from names alone."""
    from typer.testing import CliRunner

    from seewhy.cli import app

    names = [f"classes/{label}/{label}_0.png" for label in CLASSES[:2]]
    how = ["--labels", "moss,rust,sky"]
    run = CliRunner().invoke
    loud = run(app, ["explain", *names, *how, "-o", "why"], catch_exceptions=False)
    lines = run(app, ["predict", *names, *how, "--json"], catch_exceptions=False).stdout.splitlines()
    return {
        "text": [line for line in loud.stdout.splitlines() if "card:" not in line],
        "files": sorted(p.name for p in Path("why").iterdir() if not p.name.startswith(".")),
        "index": card_text(Path("why/index.html").read_text()),
        "predict": [json.loads(line) for line in lines],
    }


def record() -> dict[str, Any]:
    os.environ["SEEWHY_PRECISION"] = "f32"
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEEWHY_CACHE"] = str(Path(folder) / "cache")
        os.chdir(folder)
        try:
            class_folders(Path("classes"), n=8)
            for label, source in (("moss", "sky"), ("sky", "sky"), ("rust", "moss")):
                Path("mixed", label).mkdir(parents=True)
                for i in range(2):
                    Image.fromarray(picture(source, 60 + i)).save(Path("mixed", label, f"{source}_{i}.png"))
            Image.fromarray(picture("rust", 77)).save("query.png")
            return cards()
        finally:
            os.chdir(before)
