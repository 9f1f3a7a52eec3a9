"""What retrieval, scale, generation, service, graphs, compat, pairs and the writers answer on small fixed data."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import seewhy
from forms import files, png
from seewhy.classifiers.linear.recipe import Linear
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.pictures.images import Picture
from seewhy.pictures.samples import load_samples
from seewhy.pictures.sources import list_pictures
from seewhy.types import Transform
from simulated_work import Simulated, make_pictures, rows
from tiny import class_folders, colour_reader, colours, picture, tiny_cnn, tiny_tokens

TEXTS = {"moss": ["soft green cushions"], "rust": ["a brown flaking crust"], "sky": ["blue with clouds"]}


def find(name: str, *rooms: str) -> Any:
    """A name that a room defines, in whatever file."""
    for room in rooms:
        package = importlib.import_module(f"seewhy.{room}")
        files = [one.name for one in pkgutil.walk_packages(package.__path__, f"seewhy.{room}.")]
        files = [one for one in files if not one.endswith(".outputs")]
        for module in map(importlib.import_module, [package.__name__, *sorted(files)]):
            found = getattr(module, name, None)
            if isinstance(found, ModuleType | None):
                continue
            if getattr(found, "__module__", module.__name__) == module.__name__:
                return found
    raise LookupError(f"{name} is in none of {rooms}")


def plain(value: Any, root: Path) -> Any:
    """JSON without what differs from run to run."""
    return json.loads(json.dumps(value).replace(str(root), "ROOT"))


def retrieval(root: Path) -> dict[str, Any]:
    index_of, entry, query = (find(n, "retrieval") for n in ("Index", "Entry", "Query"))
    settings = find("Settings", "retrieval")
    names = list(list_pictures([root / "pictures"]))
    asked = {
        "picture": query(picture("moss", 70)),
        "several": query([picture("moss", 70), picture("rust", 71)], unlike=picture("sky", 72)),
        "words": query(text="soft green"),
        "both": query(picture("rust", 70), text="a crust", without="clouds", weight=2.0),
    }
    answers: dict[str, Any] = {}
    kinds = {"plain": {}, "whitened": {"whiten": 5}, "spatial": {"parts": "spatial", "levels": 2}}
    for kind, options in kinds.items():
        with_index = index_of.create(root / f"index-{kind}", tiny_cnn(), settings(**options))
        change = with_index.add([entry(n, Path(n).parent.name) for n in names])
        answers[f"{kind} change"] = vars(change)
        for name, question in asked.items():
            answers[f"{kind} {name}"] = with_index.search(question, k=4, levels=1).data
        answers[f"{kind} labels"] = with_index.search(asked["picture"], labels=["sky"], collapse=None).data
        answers[f"{kind} about"] = with_index.describe()
        answers[f"{kind} verified"] = with_index.verify().to_json()
        answers[f"{kind} removed"] = with_index.remove([str(root / "pictures" / "sky")])
        answers[f"{kind} after"] = with_index.search(asked["picture"], k=3).data
        answers[f"{kind} sum"] = float(with_index.vectors().sum())
        with_index.close()
    text = json.dumps(plain(answers, root))
    for kind in kinds:
        for file in (root / f"index-{kind}").glob("whitening-*"):
            text = text.replace(file.name, "WHITENING")
    return json.loads(text)


def scale(root: Path) -> dict[str, Any]:
    find_input, run = find("find_input", "scale"), find("run", "scale")
    status, verify = find("status", "scale"), find("verify", "scale")
    make_pictures(root / "photos", 23, broken=(4,))
    report = run(Simulated(), find_input(root / "photos", per_shard=5), root / "out")
    found = {"report": report.to_json(), "rows": [[str(v) for v in row.values()] for row in rows(root / "out")]}
    found["status"], found["verified"] = status(root / "out").to_json(), verify(root / "out").to_json()
    found["status"].pop("seewhy")
    part = find("Part", "scale")
    parted = run(Simulated(), find_input(root / "photos", per_shard=5), root / "parted", part=part.read("2/3"))
    found["part"], found["missing"] = parted.to_json(), status(root / "parted").to_json()["missing"]
    manifest = json.loads((root / "out" / "_manifest.json").read_text())
    found["manifest"] = {k: v for k, v in manifest.items() if k not in ("seewhy", "digest", "sha256", "made_by")}
    embed = find("Embed", "scale")("new:resnet/16", "torch")
    run(embed, find_input(root / "pictures", per_shard=8), root / "vectors")
    found["vectors"] = [[row["image"], row["digest"], row["embedding"][:4]] for row in rows(root / "vectors")]
    return plain(found, root)


class Paint(nn.Module):
    """Codes of three units → a picture of that colour, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(self, codes: Tensor) -> Tensor:
        return (0.5 + self.gain * codes / 2)[:, :, None, None].expand(-1, 3, 8, 8)


def seer(name: str, weight: Tensor) -> Encoder:
    trunk = nn.Conv2d(3, len(weight), 1, bias=False)
    trunk.weight = nn.Parameter(weight[:, :, None, None], requires_grad=False)
    transform = Transform((8, 8), (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3)
    layer = nn.Linear(len(weight), 3).requires_grad_(False)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-2, 2, 3 * len(weight)).view(3, -1))
        layer.bias.zero_()
    parts = {"transform": transform, "trunk": lambda: trunk, "head": GlobalAverage(), "layout": Layout()}
    return Encoder(name=name, **parts, fingerprint=name, classifier=layer, classes=("a", "b", "c"), engine="torch")


def generation(root: Path) -> dict[str, Any]:
    generator, reader = (
        find("Generator", "generation"),
        find("Reader", "generation"),
    )
    make, asking = find("make", "generation"), find("Asking", "generation")
    of_class, of_neuron = (find(n, "generation") for n in ("of_class", "of_neuron"))
    ppgn = find("PPGN", "generation")
    codes = torch.randn(64, 3, generator=torch.Generator().manual_seed(3)) / 3
    own = seer("colours", torch.eye(3))
    world = generator(Paint(), reader(own), (-1.0, 1.0), codes, {"side": 8})
    model = seewhy.pretrained(own)
    other = seewhy.pretrained(
        seer("others", torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.5, 0.0, 1.0], [1, 1, 1]]))
    )
    walk = ppgn(n_steps=6, n_shown=3)
    answers = {}
    for name, condition in {"class": of_class(model, "b"), "neuron": of_neuron(own, 1, 3)}.items():
        for start in ("facets", "noise"):
            made = make(world, condition, sampler=walk, asking=asking(3, start, True, 5), judge=other)
            answers[f"{name} {start}"] = made.data
            answers[f"{name} {start} sums"] = [int(p.sum()) for p in made.pictures]
    return plain(answers, root)


def service(root: Path) -> dict[str, Any]:
    from starlette.testclient import TestClient

    make, service_settings = (find(n, "service.serve", "service") for n in ("make_service", "ServiceSettings"))
    web = find("Settings", "service.app", "service")
    model = Linear(n_crops=1).fit(
        tiny_cnn(), load_samples(root / "pictures"), descriptions=find("Descriptions", "descriptions").of(TEXTS)
    )
    app = make({"tiny": model}, service_settings(web(), n_pictures=4))
    images = [png(picture(label, 90)) for label in TEXTS]
    tensor = {"name": "picture", "shape": [1], "datatype": "BYTES", "data": ["bm8="]}
    answers: dict[str, Any] = {}
    with TestClient(app, base_url="http://localhost:8000") as client:
        for path in ("/healthz", "/readyz", "/version", "/v2", "/v2/health/live", "/v2/health/ready"):
            answers[path] = client.get(path).json()
        for path in ("/v2/models/tiny", "/v2/models/tiny/ready", "/v2/models/other", "/none"):
            found = client.get(path)
            answers[path] = [found.status_code, found.json()]
        answers["predict"] = client.post("/predict", files=files(*images, b"no picture")).json()
        explained = client.post("/predict?explain=where,words,like&top=2", files=files(images[0])).json()
        answers["explain"] = explained
        for question in ("explain=other", "target=none&explain=where", "format=html", "top=0"):
            found = client.post(f"/predict?{question}", files=files(*images[:2]))
            answers[question] = [found.status_code, found.json()]
        found = client.post("/predict", files=files(*images, *images))
        answers["too many"] = [found.status_code, found.json()]
        pixels = torch.linspace(-1, 1, 2 * 3 * 32 * 32).tolist()
        asked = {"name": "pixels", "shape": [2, 3, 32, 32], "datatype": "FP32", "data": pixels}
        for name, one in {"infer": asked, "broken": tensor, "wrong": {**tensor, "shape": [2]}}.items():
            found = client.post("/v2/models/tiny/infer", json={"id": "x", "inputs": [one]})
            answers[name] = [found.status_code, found.json()]
        paths = client.get("/openapi.json").json()["paths"]
        answers["openapi"] = {path: sorted(methods) for path, methods in paths.items()}
    text = json.dumps(answers).replace(seewhy.__version__, "VERSION")
    digest = answers["/version"]["models"][0]["digest"]
    return json.loads(text.replace(digest, "DIGEST").replace(digest[:12], "SHORT"))


def graphs(root: Path) -> dict[str, Any]:
    export = find("export", "service")
    answers = {}
    for name, model in (("cnn", seewhy.pretrained(tiny_cnn())), ("plain", seewhy.pretrained(tiny_tokens()))):
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            found = export(model, root / f"graph-{name}").to_json()
        largest = max(found["check"].pop("differences").values())
        for key in ("files", "seewhy", "made_with"):
            found.pop(key)
        found["check"].pop("runtime")
        answers[name] = {**found, "equal": largest < 1e-4}
        answers[f"{name} files"] = sorted(str(p.relative_to(root)) for p in (root / f"graph-{name}").rglob("*"))
    return plain(answers, root)


def compat(root: Path) -> dict[str, Any]:
    from seewhy import compat

    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(6, 4),
        ).eval()  # fmt: skip
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    answers = {}
    for name in sorted(n for n, v in vars(compat).items() if callable(v)):
        kind = getattr(compat, name)
        if not isinstance(kind, type) or ("CAM" not in name and name not in ("FEM", "FullGrad")) or name == "PeerCAM":
            continue
        np.random.seed(0)
        cam = kind(network, [network[2]])
        maps = [cam(pixels), cam(pixels, [compat.ClassifierOutputTarget(2)] * 2, eigen_smooth=True)]
        answers[name] = [[float(m.sum()), float(m[0, 5, 9])] for m in maps]
    cam = compat.GradCAM(network, [network[0], network[2]])
    answers["smooth"] = float(cam(pixels, [compat.ClassifierOutputSoftmaxTarget(1)] * 2, aug_smooth=True).sum())
    return answers


def pairs(root: Path) -> dict[str, Any]:
    check, clean = (find(n, "language.pairs", "language") for n in ("check", "clean"))
    folder = root / "pairs"
    folder.mkdir()
    texts = ["a red bird on a branch", "a cat", "the blue bus in town", "the  BLUE bus in town", "μια γάτα στο δέντρο"]
    table = []
    for i, text in enumerate(texts):
        size = (500, 200) if i == 1 else (630, 210) if i == 2 else (210, 210)
        Image.new("RGB", size, (10 * (i // 2), 90, 200)).save(folder / f"{i}.png")
        table.append({"image": f"{i}.png", "texts": [text, text] if i == 3 else [text]})
    table.append({"image": "gone.png", "texts": ["a picture that is gone"]})
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in table)
    (folder / "pairs.jsonl").write_text(lines)
    answers: dict[str, Any] = {"check": check(folder / "pairs.jsonl", encoder=colours()).to_json()}
    cleaned = clean(folder / "pairs.jsonl")
    answers["removed"] = [[Path(one.image).name, one.text, one.reasons] for one in cleaned.removed]
    cleaned.save(folder / "kept.jsonl")
    answers["files"] = [(folder / name).read_text() for name in ("kept.jsonl", "kept.removed.jsonl")]
    return plain(answers, root)


@dataclass(frozen=True)
class Detector:
    found: tuple[Any, ...]

    def detect(self, scene: Any) -> Sequence[Any]:
        return self.found

    def supports(self, scene: Any, phrase: str) -> bool:
        return phrase in ("cup", "plate")


def words(root: Path) -> dict[str, Any]:
    descriptions = find("Descriptions", "descriptions")
    birds = descriptions.of({"red-beet": ("Red beets are round", "dark red"), "wren": ("a buff breast", "thin legs")})
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reproductions"))
    from description_controls import CONTROLS, flaws
    from edit_words import Edit

    answers: dict[str, Any] = {name: dict(make(birds, 7).texts) for name, make in CONTROLS.items()}
    answers["flaws"] = flaws(birds)
    answers["sentences"] = birds.sentences()
    from text_metrics import readability, reference_scores, score_objects

    text = "The cat sat on the mat, beautifully. It was red. Two cups stood there."
    answers["readability"] = readability(text)
    answers["objects"] = vars(score_objects(text, ["cat", "dog"], ["cup", "mat"]))
    answers["reference"] = reference_scores(
        ["a cat sits", "two dogs run far"], [["a cat sits", "a cat"], ["two dogs run"]]
    )
    answers["edit"] = dict(Edit(("thin legs",), (("buff", "brown"),))(birds)[0].texts)
    match, matched = (find(n, "descriptions", "language") for n in ("Match", "match_pictures"))
    own = colour_reader()
    on = Encoder(name="c", transform=own.transform, trunk=lambda: own.trunk, head=own.head, layout=own.layout,
                 fingerprint=own.fingerprint, text=lambda: colours().text, engine="torch")  # fmt: skip
    labelled = {label: (f"{label} one", f"{label} two", "green", "blue") for label in TEXTS}
    captions = list(matched(on, load_samples(root / "pictures"), descriptions.of(labelled), match(top=2)))
    answers["captions"] = [c.to_json() for c in captions[::5]]
    answers["specificity"] = find("specificity", "descriptions", "language")(captions)
    return plain(answers, root)


def writers(root: Path) -> dict[str, Any]:
    from fake_service import serving

    writer, session, written = (find(n, "language") for n in ("ServiceWriter", "WriterSession", "Written"))
    classes, by_pair = (find(n, "language", "descriptions") for n in ("write_classes", "write_pairs"))
    asked: list[Any] = []

    def answer(request: dict[str, Any]) -> str:
        asked.append({k: v for k, v in request.items() if k != "model"})
        if "response_format" in request:
            return json.dumps({"differences": [{"attribute": "beak", "first": "a red beak", "second": "a long beak"}]})
        return "- red beak\n- black cap\n- thin legs"

    answers: dict[str, Any] = {}
    with serving(answer) as there:
        desk = session(writer("tiny", there.url), written(root / "answers.sqlite"))
        answers["classes"] = list(classes(desk, ["wren", "house_sparrow"], "birds"))
        answers["again"] = list(classes(desk, ["wren"], "birds"))
        answers["pairs"] = [pair.to_json() for _, pair in by_pair(desk, [("wren", "crow")], "birds")]
    answers["requests"] = asked
    textualizer, drafter, offline, everything = (
        find(n, "language") for n in ("Textualizer", "Drafter", "offline", "textualize_all")
    )
    thing, ellipse = (find(n, "language") for n in ("FoundObject", "BoxSegmenter"))
    cup = thing("cup", (0.0, 0.8, 0.1, 1.0), 0.9, "red", depth=8.0)
    plate = thing("plate", (0.3, 0.3, 0.7, 0.7), 0.8, "white", depth=4.0)
    found = Detector((cup, plate))
    shown = Picture("x.png", np.full((200, 200, 3), 255, np.uint8), (100, 50), (0, 0, 100, 50), "d" * 64)
    for i, draft in enumerate(
        ("A cup stands next to a dog. The light is warm.", "There is a cup, a dog and a plate.", "")
    ):
        answers[f"text {i}"] = textualizer(found, found, ellipse())(shown, draft).to_json()
    model = seewhy.pretrained(tiny_cnn())
    names = list(list_pictures([root / "pictures"]))[::6]
    made = offline(model, check=True, threshold=0.3)
    answers["texts"] = list(everything(names, made, drafter(model), root / "texts.jsonl", "me"))
    known = everything(names, made, drafter(model), root / "texts.jsonl", "me")
    answers["known"] = [row.get("known") for row in known]
    return plain(answers, root)


def record() -> dict[str, Any]:
    """Numbers and key results, by room."""
    rooms = (retrieval, scale, generation, service, graphs, compat, pairs, words, writers)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        class_folders(root / "pictures", 6)
        return {room.__name__: room(root) for room in rooms}


if __name__ == "__main__":
    whole = record()
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(whole, indent=1, sort_keys=True))
    else:
        print(json.dumps(whole, indent=1, sort_keys=True))
