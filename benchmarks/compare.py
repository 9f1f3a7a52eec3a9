"""Does `seewhy study compare` find as good a classifier as scikit-learn tuned by hand, or AutoGluon, in the same time?

All get the same pictures, the same network (timm's EfficientNet-Lite0 with the same weights) and the same test list.

- scikit-learn: what a careful user writes. Features by timm and a DataLoader; logistic regression, an RBF SVM and
  nearest neighbours, each with a grid of settings, chosen by five-fold cross-validation on the pictures to learn from.
- AutoGluon: ``TabularPredictor`` on the same features with `--minutes` as its limit; it needs a Python of its own
  (`--autogluon`), as its versions of libraries are older than ours. Its image predictor loads weights from a hub and
  was not run.
- ours: all methods that apply, with their defaults. The study chooses on the test pictures, so that the accuracy to
  compare is the one it reads on the half it did not choose on.

    python benchmarks/compare.py ../shared/data/grocery/train --test ../shared/data/grocery/test --minutes 10
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from fit_speed import features
from side_by_side import in_turn
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC

import seewhy
from seewhy.pictures.samples import Samples, gathered
from seewhy.storage.features import FeatureStore
from seewhy.studies.compare import CompareStudy

GRIDS = (
    (make_pipeline(Normalizer(), LogisticRegression(max_iter=2000)), {"logisticregression__C": [1, 10, 100, 1000]}),
    (make_pipeline(StandardScaler(), SVC()), {"svc__C": [1, 10, 100], "svc__gamma": ["scale", 3e-4]}),
    (make_pipeline(Normalizer(), KNeighborsClassifier()), {"kneighborsclassifier__n_neighbors": [1, 5, 15],
                                                           "kneighborsclassifier__weights": ["uniform", "distance"]}),
)  # fmt: skip
AUTOGLUON = """
import json, resource, sys
import numpy as np, pandas as pd
from autogluon.tabular import TabularPredictor
data = np.load(sys.argv[1], allow_pickle=False)
frames = {}
for part in ("train", "test"):
    frames[part] = pd.DataFrame(data[part]).add_prefix("f")
    frames[part]["y"] = data[part + "_y"]
model = TabularPredictor("y", path=sys.argv[3], verbosity=0).fit(frames["train"], time_limit=float(sys.argv[2]))
told = model.predict(frames["test"].drop(columns="y"))
print(json.dumps({"accuracy": float((told == frames["test"]["y"]).mean()), "chosen": model.model_best}))
"""


def by_hand(x: np.ndarray, y: np.ndarray, seen: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """The best of all grids by cross-validation, on the test list."""
    folds = StratifiedKFold(min(5, int(np.unique(y, return_counts=True)[1].min())), shuffle=True, random_state=0)
    tried = [GridSearchCV(kind, grid, cv=folds).fit(x, y) for kind, grid in GRIDS]
    best = max(tried, key=lambda one: one.best_score_)
    return {"accuracy": float(best.score(seen, truth)), "chosen": f"{best.best_estimator_[-1]}",
            "cross-validated": round(float(best.best_score_), 4)}  # fmt: skip


def autogluon(python: str, minutes: float, parts: dict[str, np.ndarray]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "features.npz", **parts)
        words = [
            python,
            "-W",
            "ignore",
            "-c",
            AUTOGLUON,
            f"{folder}/features.npz",
            str(60 * minutes),
            f"{folder}/model",
        ]
        return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def ours(train: Samples, test: Samples, minutes: float, folder: Path | None) -> dict[str, Any]:
    study = CompareStudy(minutes=minutes)
    with tempfile.TemporaryDirectory() as folder_name:
        store = FeatureStore(Path(folder_name) / "features.sqlite")
        data = study.run({"lite0": seewhy.encoder("lite0")}, train, folder, test=test, store=store).data
    rows = {row["method"]: row["accuracy"] for row in data["rows"]}
    recommended = next(row for row in data["rows"] if row["method"] == data["recommended"])
    return {
        "accuracy": data["expected_accuracy"], "chosen": data["recommended"], "of the chosen": recommended["accuracy"],
        "interval": [recommended["low"], recommended["high"]], "methods": rows,
        "skipped": {row["method"]: row["skipped"] for row in data["skipped"]}, "sentence": data["sentence"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--test", required=True)
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--least", type=int, default=2, help="classes with fewer pictures are left out")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--autogluon", help="a Python that has autogluon.tabular")
    parser.add_argument("--keep", type=Path, help="the study's folder, to go on after a stop")
    given = parser.parse_args()
    train, test = (seewhy.load_samples(p, label=given.label_column) for p in (given.data, given.test))
    test_classes = set(test.classes)
    known = [c for c in train.classes if sum(s.label == c for s in train.items) >= given.least and c in test_classes]
    train, test = (gathered([s for s in part.items if s.label in known]) for part in (train, test))
    module = seewhy.encoder("lite0", engine="torch").module
    parts: dict[str, np.ndarray] = {}
    results: dict[str, Any] = {"learn": len(train), "test": len(test), "classes": len(known)}

    def look() -> None:
        for name, part in (("train", train), ("test", test)):
            parts[name] = features(module, [s.image for s in part.items], 0)[:, 0]
            parts[f"{name}_y"] = np.array([s.label for s in part.items])

    def report(name: str, answer: dict[str, Any]) -> None:
        results[name] = answer
        print(name, json.dumps(answer), flush=True)

    programs = {
        "timm's features": look,
        "scikit-learn": lambda: report(
            "scikit-learn", by_hand(parts["train"], parts["train_y"], parts["test"], parts["test_y"])
        ),
        "seewhy study compare": lambda: report("seewhy", ours(train, test, given.minutes, given.keep)),
    }
    if given.autogluon:
        programs["AutoGluon"] = lambda: report("AutoGluon", autogluon(given.autogluon, given.minutes, parts))
    results["seconds"] = {name: time.to_json() for name, time in in_turn(programs, 1, list(programs)).items()}
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
