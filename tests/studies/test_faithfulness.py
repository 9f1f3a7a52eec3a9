"""The study: it finds what is planted, invents nothing, has its controls, and goes on after a kill."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor

from schemas import check
from seewhy.attributions.explainers import AttentionMechanism, TTAMEExplainer
from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.t_tame import TTAME
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.errors import DataError, InputError
from seewhy.metrics.complexity import Sparsity
from seewhy.metrics.localisation import EnergyPointingGame
from seewhy.metrics.random_sets import AverageDrop
from seewhy.metrics.randomised import ModelRandomisation, RandomLogit
from seewhy.metrics.removal import Deletion
from seewhy.progress import Progress
from seewhy.studies.bootstrap import paired
from seewhy.studies.faithfulness import FaithfulnessStudy, _said, chosen_methods, chosen_metrics, named
from seewhy.studies.faithfulness_findings import kendall_tau
from tiny import class_folders, colour_reader

N = 12


class Complement:
    """The worst map there is."""

    def __call__(self, model: Any, look: Any, target: Any) -> Tensor:
        return -GradCAM()(model, look, target)

    def __repr__(self) -> str:
        return "Opposite()"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Grey pictures with one red or blue square, which is all that the model reads."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for i in range(N):
        canvas = np.full((32, 32, 3), 128, np.uint8)
        row, column = rng.integers(0, 22, 2)
        canvas[row : row + 10, column : column + 10] = (255, 128, 0) if i % 2 else (0, 128, 255)
        Image.fromarray(canvas).save(root / f"{i:02}.png")
        mask = np.zeros((32, 32), np.uint8)
        mask[row : row + 10, column : column + 10] = 255
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "masks" / f"{i:02}.png")
    return [str(p) for p in sorted(root.glob("*.png"))]


@pytest.fixture(scope="module")
def model() -> Classifier:
    return Pretrained().build(colour_reader())


def small(**methods: Any) -> FaithfulnessStudy:
    return FaithfulnessStudy(methods, {"deletion": Deletion(n_steps=8), "sparsity": Sparsity()}, n_draws=500)


def pair(data: dict[str, Any], metric: str, a: str, b: str) -> dict[str, Any]:
    (table,) = (t for t in data["metrics"] if t["metric"] == metric)
    (found,) = (d for d in table["differences"] if (d["a"], d["b"]) == (a, b))
    return found


def test_a_planted_difference_is_found_and_controls_are_there(
    pictures: list[str], model: Classifier, tmp_path: Path
) -> None:
    found = small(right=GradCAM(), wrong=Complement()).run(model, pictures, tmp_path)
    assert found.data["n"] == N
    assert found.data["controls"][:4] == ["random", "gaussian", "edges", "uniform"]
    for table in found.data["metrics"]:
        assert [r["method"] for r in table["rows"]] == ["right", "wrong", *found.data["controls"]]
        assert all(
            r["interval"][0] <= r["value"] + 1e-9 and r["value"] <= r["interval"][1] + 1e-9 for r in table["rows"]
        )
    planted = pair(found.data, "deletion", "right", "wrong")
    assert planted["real"]
    assert planted["better"] == "right"
    assert pair(found.data, "deletion", "right", "random")["better"] == "right"
    assert pair(found.data, "deletion", "wrong", "random")["better"] == "random"
    assert "right is better than wrong on deletion" in found.sentence
    assert (
        "Metrics of faithfulness on which a method beats a random map: right on 1 of 1, wrong on 0 of 1."
        in found.sentence
    )
    assert [(line["method"], line["won"], line["lost"]) for line in found.data["ranking"]] == [
        ("right", 1, 0),
        ("wrong", 0, 1),
    ]


def test_identical_methods_do_not_differ(pictures: list[str], model: Classifier, tmp_path: Path) -> None:
    found = small(one=GradCAM(), two=GradCAM()).run(model, pictures, tmp_path)
    for metric in ("deletion", "sparsity"):
        twins = pair(found.data, metric, "one", "two")
        assert (twins["difference"], twins["real"], twins["better"]) == (0, False, None)
    assert found.data["same"] == [["one", "two"]]
    assert "no two methods have different maps" in found.sentence


def test_too_few_pictures_prove_nothing(pictures: list[str], model: Classifier, tmp_path: Path) -> None:
    found = small(right=GradCAM(), wrong=Complement()).run(model, pictures[:3], tmp_path)
    assert found.sentence == "3 pictures are too few to test differences. Give at least 10 pictures."
    assert not any(d["real"] for t in found.data["metrics"] for d in t["differences"])


def test_what_was_measured_is_not_measured_again(pictures: list[str], model: Classifier, tmp_path: Path) -> None:
    calls = 0

    class Counting(Complement):
        def __call__(self, model: Any, look: Any, target: Any) -> Tensor:
            nonlocal calls
            calls += 1
            return super().__call__(model, look, target)

    study = small(counted=Counting())
    first = study.run(model, pictures, tmp_path)
    lines = (tmp_path / "progress.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == N * 2 * (1 + len(first.data["controls"]))
    assert calls == N
    assert study.run(model, pictures, tmp_path).data == first.data
    assert calls == N
    # A run cut off in the middle of a line loses that line and no other.
    (tmp_path / "progress.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:40], "utf-8")
    assert study.run(model, pictures, tmp_path).data == first.data
    assert calls == N + 1
    assert all(json.loads(line) for line in lines)
    # Nor is a map that shares another's numbers taken for one of its own when only its line was lost.
    twins = small(one=GradCAM(), two=GradCAM())
    whole = twins.run(model, pictures, tmp_path / "twins")
    path = tmp_path / "twins" / "progress.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    lost = next(i for i, line in enumerate(lines) if json.loads(line)["method"] == "two")
    path.write_text("".join(lines[:lost] + lines[lost + 1 :]), "utf-8")
    assert twins.run(model, pictures, tmp_path / "twins").data == whole.data


def test_a_broken_picture_and_an_unfit_method_do_not_stop_it(
    pictures: list[str], model: Classifier, tmp_path: Path
) -> None:
    class Unfit(Complement):
        def __call__(self, model: Any, look: Any, target: Any) -> Tensor:
            raise DataError("This method needs attention. Choose another.")

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    progress = Progress()
    found = small(right=GradCAM(), unfit=Unfit()).run(model, [str(broken), *pictures], tmp_path / "out", progress)
    assert found.data["n"] == N
    assert found.data["methods"] == ["right"]
    assert progress.notes == ["unfit was not measured: This method needs attention. Choose another."]
    assert [f["image"] for f in found.data["failures"]] == [str(broken)]
    with pytest.raises(DataError, match="None of 1 pictures could be measured"):
        small(right=GradCAM()).run(model, [str(broken)], tmp_path / "none")


def test_what_cannot_explain_a_copy_that_forgets_is_left_out_of_that_metric_only(
    pictures: list[str], model: Classifier, tmp_path: Path
) -> None:
    class OwnNetwork(Complement):
        def __call__(self, model: Any, look: Any, target: Any) -> Tensor:
            assert getattr(model, "network", None) is None
            return super().__call__(model, look, target)

    metrics = {"deletion": Deletion(n_steps=4), "model_randomisation": ModelRandomisation(n_steps=1)}
    progress = Progress()
    study = dataclasses.replace(small(right=GradCAM(), own=OwnNetwork()), metrics=metrics)
    found = study.run(model, pictures[:3], tmp_path / "out", progress)
    assert found.data["methods"] == ["right", "own"]
    (said,) = progress.notes
    assert said.startswith(
        "model_randomisation was not measured for own: This attribution method reads the trained network"
    )
    again = study.run(model, pictures[:3], tmp_path / "out")
    assert again.data["metrics"] == found.data["metrics"]


def test_a_method_trained_anew_is_measured_anew(model: Classifier) -> None:
    """A method that is named by the place it lies in is told apart by what lies there."""
    seals = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        mechanism = AttentionMechanism([8], len(model.classes), "t_tame")
        explainer = TTAMEExplainer(mechanism, ("2",), "black", "", {})
        seals.append(_said(TTAME(explainer=explainer), model))
    assert seals[0] != seals[1]


def test_a_method_may_not_be_called_like_a_control(pictures: list[str], model: Classifier, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        small(random=GradCAM()).run(model, pictures, tmp_path)
    assert str(caught.value) == "`methods` must not have the name of a control map, got 'random'. Rename this method."


def test_masks_fills_and_the_page(pictures: list[str], model: Classifier, tmp_path: Path) -> None:
    metrics = {
        **{k: v for k, v in chosen_metrics().items() if k.startswith("deletion")},
        "energy_pointing_game": EnergyPointingGame(),
        "average_drop": AverageDrop(),
    }
    study = FaithfulnessStudy(
        {"right": GradCAM(), "wrong": Complement()}, metrics, masks=Path(pictures[0]).parent / "masks", n_draws=200
    )
    found = study.run(model, pictures, tmp_path)
    assert found.data["fills"] == {"mean, black": 1.0, "mean, blur": 1.0, "black, blur": 1.0}
    check("study-faithfulness", [{**found.data, "report": None}])
    assert pair(found.data, "energy_pointing_game", "right", "wrong")["better"] == "right"
    assert all("mean_map" in r for t in found.data["metrics"] if t["metric"] == "average_drop" for r in t["rows"])
    page = found.save(tmp_path / "study.html").read_text("utf-8")
    assert "Kendall" in page
    assert "http" not in page.replace("http-equiv", "")
    assert json.loads(found.save(tmp_path / "study.json").read_text("utf-8")) == found.data
    with pytest.raises(DataError):
        found.save(tmp_path / "study.txt")


def test_the_same_map_is_measured_once(
    pictures: list[str], model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two names, one map: as many maps are judged as without the second name, and its numbers are the first's."""
    judged: list[int] = []
    score = Deletion.score
    monkeypatch.setattr(Deletion, "score", lambda self, case, maps: judged.append(len(maps)) or score(self, case, maps))
    small(one=GradCAM(), two=GradCAM(), wrong=Complement()).run(model, pictures, tmp_path / "a")
    small(one=GradCAM(), wrong=Complement()).run(model, pictures, tmp_path / "b")
    assert judged[:N] == judged[N:]
    rows = [json.loads(line) for line in (tmp_path / "a" / "progress.jsonl").read_text("utf-8").splitlines()]
    values = {(r["method"], r["metric"], r["digest"]): (r["value"], r["same_as"]) for r in rows}
    for (method, metric, digest), (value, same_as) in values.items():
        if method == "two":
            assert (value, same_as) == (values["one", metric, digest][0], "one")


def test_limits_choose_the_first_pictures_and_every_number_says_how_many(
    pictures: list[str], model: Classifier, tmp_path: Path
) -> None:
    study = small(right=GradCAM(), wrong=Complement())
    limited = dataclasses.replace(study, limits={"wrong": 10, "sparsity": 4})
    found = limited.run(model, pictures, tmp_path).data
    n = {t["metric"]: {r["method"]: r["n"] for r in t["rows"]} for t in found["metrics"]}
    assert n["deletion"] == {"right": N, "wrong": 10, **dict.fromkeys(found["controls"], N)}
    assert set(n["sparsity"].values()) == {4}
    assert pair(found, "deletion", "right", "wrong")["n"] == 10
    assert not pair(found, "sparsity", "right", "wrong")["real"]
    # The difference is that of the ten pictures both have, whatever the others say.
    both = study.run(model, pictures[:10], tmp_path).data
    assert pair(found, "deletion", "right", "wrong") == pair(both, "deletion", "right", "wrong")
    # Raised, the limit only adds what is missing.
    lines = len((tmp_path / "progress.jsonl").read_text("utf-8").splitlines())
    assert dataclasses.replace(study, limits={"sparsity": 4}).run(model, pictures, tmp_path).data["n"] == N
    assert len((tmp_path / "progress.jsonl").read_text("utf-8").splitlines()) == lines + 2


def test_slow_methods_are_left_out_where_every_map_is_made_again(
    pictures: list[str], model: Classifier, tmp_path: Path
) -> None:
    class Slow(Complement):
        cost = "40"

    study = FaithfulnessStudy({"right": GradCAM(), "slow": Slow()}, {"random_logit": RandomLogit()}, n_draws=50)
    found = study.run(model, pictures[:2], tmp_path).data
    assert [r["method"] for r in found["metrics"][0]["rows"]] == ["right", *found["controls"]]
    assert found["notes"] == [
        "random_logit need many maps per picture. So SeeWhy did not measure slow on them: they take more than "
        "2 forward passes per map."
    ]


def test_what_a_colon_says() -> None:
    assert named(None) == (None, {})
    assert named("grad_cam, rise:50,") == (["grad_cam", "rise"], {"rise": 50})
    with pytest.raises(InputError) as caught:
        named("rise:many")
    assert str(caught.value) == "A limit must be a whole number of pictures above 0, as in rise:50, got 'rise:many'."
    limits = FaithfulnessStudy.of("grad_cam,occlusion:9", "irof:7,road,deletion").limits
    assert limits == {"irof": 7, "road": 50, "occlusion": 9}


def test_all_is_everything_that_can_run() -> None:
    methods, metrics = chosen_methods(["all"]), chosen_metrics(["all"])
    assert {"grad_cam", "rise_quick", "score_cam_quick", "occlusion"} <= set(methods)
    assert not {"rise", "score_cam", "t_tame"} & set(methods)
    assert {"irof", "smooth_model_randomisation", "deletion_black"} <= set(metrics)
    assert not {"pointing_game", "mosaic_focus"} & set(metrics)
    assert "max_box_acc" in chosen_metrics(["all"], with_masks=True)


def test_names_choose_methods_and_metrics() -> None:
    assert list(chosen_methods(["grad_cam"])) == ["grad_cam"]
    assert "grad_cam" in chosen_methods()
    assert chosen_metrics(["deletion_black", "road"])["deletion_black"] == Deletion(fill="black", n_steps=8)
    assert "pointing_game" in chosen_metrics(with_masks=True)


def test_bootstrap_of_a_known_difference() -> None:
    """Noise shared by both methods cancels in pairs: the difference is sharp though the numbers are not."""
    noise = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    found = paired(torch.stack([noise, noise + 0.1], 1)[..., None], lambda means: means[..., 0])
    difference, (low, high), real = found.difference(1, 0)
    assert (difference, low, high) == pytest.approx((0.1, 0.1, 0.1))
    assert real
    assert found.interval(0)[1] - found.interval(0)[0] > 0.3


def test_kendall_tau_is_scipys() -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(10):
        a, b = torch.randint(0, 5, (2, 9), generator=rng).tolist()
        assert kendall_tau(a, b) == pytest.approx(kendalltau(a, b).statistic, abs=1e-6)


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """The real command line, killed with no chance to tidy up, and run again."""
    folder = class_folders(tmp_path / "photos", n=2)
    command = [sys.executable, "-m", "seewhy", "study", "faithfulness", str(folder), "-o", str(tmp_path / "study")]
    command += ["--methods", "grad_cam", "--metrics", "deletion,sparsity", "--json", "-q"]
    progress = tmp_path / "study" / "progress.jsonl"
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        if progress.exists() and progress.read_text("utf-8").count("\n") >= 6:
            break
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = progress.read_text("utf-8")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, textwrap.shorten(done.stderr, 2000)
    assert progress.read_text("utf-8").startswith(before.rpartition("\n")[0])
    keys = [json.loads(line)["key"] for line in progress.read_text("utf-8").splitlines() if line.endswith("}")]
    assert len(keys) == len(set(keys))
    assert json.loads(done.stdout)["n"] == 6
