"""The scikit-learn estimator: in a pipeline, a cross-validation, a grid search, and under scikit-learn's own checks."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn import base
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import seewhy
import tiny
from seewhy import Explanation, FeatureStore
from seewhy.errors import InputError, UnknownNameError
from seewhy.pictures.datasets import samples_or_pictures
from seewhy.sklearn import SeeWhyClassifier

X = np.stack([tiny.picture(label, i) for label in tiny.CLASSES[:3] for i in range(8)])
Y = np.repeat([10, 3, 7], 8)


def estimator(**parameters: Any) -> SeeWhyClassifier:
    return SeeWhyClassifier(tiny.tiny_cnn(), n_crops=1, **parameters)


def mirrored(pictures: np.ndarray) -> np.ndarray:
    return pictures[:, :, ::-1]


def test_it_works_in_a_pipeline_and_a_cross_validation(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features.sqlite")
    pipeline = Pipeline([("mirrored", FunctionTransformer(mirrored)), ("classifier", estimator(store=store))])
    assert cross_val_score(pipeline, X, Y, cv=4).tolist() == [1, 1, 1, 1]
    known = len(store)
    assert cross_val_score(pipeline, X, Y, cv=4).mean() == 1
    assert len(store) == known, "every look is found again"
    probabilities = pipeline.fit(X, Y).predict_proba(X)
    assert probabilities.shape == (24, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert pipeline.classes_.tolist() == [3, 7, 10], "in scikit-learn's order, of the type given"
    assert pipeline.predict(X).tolist() == Y.tolist()
    assert pipeline.score(X, Y) == 1


def test_several_outputs_of_one_picture_are_those_of_an_estimator_each(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features.sqlite")
    both = np.stack([Y, Y == 3], axis=1).astype(int)
    found = MultiOutputClassifier(estimator(store=store)).fit(X, both)
    known = len(store)
    assert found.predict(X).tolist() == both.tolist()
    assert [one.shape for one in found.predict_proba(X)] == [(24, 3), (24, 2)]
    assert found.score(X, both) == 1
    assert len(store) == known, "each picture is looked at once"
    alone = estimator(store=store).fit(X, both[:, 1])
    np.testing.assert_allclose(found.predict_proba(X)[1], alone.predict_proba(X), atol=1e-6)


def test_it_can_be_searched_over() -> None:
    """Copies of the list of warnings' filters, as a grid search makes them, do no harm."""
    found = GridSearchCV(estimator(), {"solver": ["logistic", "svm"], "n_crops": [0]}, cv=2).fit(X, Y)
    assert found.best_score_ == 1
    assert set(found.cv_results_["param_solver"]) == {"logistic", "svm"}


@pytest.mark.parametrize("three", [["wren", "b", "a10"], [2, 1, 10], [True, False, True]])
def test_labels_come_back_as_they_were_given(three: list[Any], tmp_path: Path) -> None:
    labels = np.repeat(three, 8)
    files = [str(tiny_file(tmp_path, i)) for i in range(24)]
    fitted = estimator().fit(files, labels)
    assert fitted.classes_.dtype == labels.dtype
    assert fitted.predict(np.array(files)[:, None]).dtype == labels.dtype
    assert fitted.predict_proba(files).argmax(1).tolist() == [
        fitted.classes_.tolist().index(v) for v in fitted.predict(files)
    ]


def tiny_file(folder: Path, i: int) -> Path:
    from PIL import Image

    path = folder / f"{i}.png"
    Image.fromarray(X[i]).save(path)
    return path


def test_grey_pictures_and_rows_that_are_reshaped_into_them() -> None:
    grey = X[:, :, :, 0]
    assert estimator().fit(grey, Y).score(grey, Y) > 0.5
    with pytest.raises(
        InputError, match=r"X must be file names.*got a table with the shape \(24, 1600\).*X.reshape\(-1, 64, 64\)"
    ):
        estimator().fit(grey.reshape(24, -1), Y)


def test_it_explains() -> None:
    fitted = estimator().fit(X, Y)
    (why,) = fitted.explain(X[:1], measure=False, target="3")
    assert isinstance(why, Explanation)
    assert why.where.target == "3"
    assert fitted.classifier_.evaluate(X, Y, n_explained=0).accuracy == 1


def test_what_is_wrong_is_told() -> None:
    with pytest.raises(NotFittedError):
        estimator().predict(X)
    with pytest.raises(InputError, match="requires y to be passed, but the target y is None"):
        estimator().fit(X, None)
    with pytest.raises(InputError, match="24 pictures and 3 labels"):
        estimator().fit(X, Y[:3])
    with pytest.raises(InputError, match=r"'tiny'.*Use estimator.classifier_.save\(folder\)"):
        pickle.dumps(estimator().fit(X, Y))


def test_a_fitted_one_is_pickled_and_copied(tmp_path: Path) -> None:
    fitted = SeeWhyClassifier(n_crops=0, store=FeatureStore(tmp_path / "f.sqlite")).fit(X, Y)
    expected = fitted.predict_proba(X[:4])
    copies = [copy.deepcopy(fitted), copy.copy(fitted), pickle.loads(pickle.dumps(fitted))]
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    for one in (*copies, joblib.load(tmp_path / "fitted.joblib")):
        np.testing.assert_allclose(one.predict_proba(X[:4]), expected, atol=2e-3)
        assert one.predict(X[:1]).tolist() == [10]
        assert one.store.path == fitted.store.path
        assert isinstance(one.explain(X[:1], measure=False)[0], Explanation)
    copies[0].set_params(held_out=0.5)
    assert fitted.held_out == 0.2
    named = SeeWhyClassifier(seewhy.encoder("lite0"))
    assert pickle.loads(pickle.dumps(named)).encoder == "lite0"
    own = estimator().fit(X, Y)
    again = copy.deepcopy(own)
    assert again.encoder is own.encoder, "which no name finds"
    assert again.predict(X[:1]).tolist() == [10]


CHECKS = (
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable", "check_estimator_repr",
    "check_estimator_tags_renamed", "check_get_params_invariance", "check_mixin_order",
    "check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_set_params",
    "check_valid_tag_types",
)  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_it_keeps_to_the_rules_that_need_no_table(name: str) -> None:
    """All others feed tables of numbers, which are no pictures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(estimator_checks, name)("SeeWhyClassifier", SeeWhyClassifier())


def test_check_estimator_passes() -> None:
    with pytest.warns(SkipTestWarning, match="two_d_array=False"):
        results = estimator_checks.check_estimator(SeeWhyClassifier(), on_skip=None)
    assert {r["status"] for r in results} == {"passed"}
    assert base.is_classifier(SeeWhyClassifier())


def test_the_extra_is_named_where_it_is_missing() -> None:
    code = "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.base'] = None; import seewhy.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'seewhy[sklearn]'" in done.stderr


def test_a_frame_gives_its_column_of_pictures(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed, and only stand-ins of it are tested")
    root = tiny.class_folders(tmp_path, 4)
    files = sorted(map(str, root.rglob("*.png")))
    labels = [Path(file).parent.name for file in files]
    expected = estimator().fit(files, labels).predict_proba(files)
    for frame in (pd.DataFrame({"name": files}), pd.DataFrame({"age": 3, "image": files})):
        np.testing.assert_array_equal(estimator().fit(frame, labels).predict_proba(frame), expected)
        np.testing.assert_array_equal(estimator().fit(files, labels).classifier_.predict_proba(frame), expected)
    kept = samples_or_pictures(pd.DataFrame({"image": files, "label": labels})).items
    assert [item.label for item in kept] == labels, "for pretraining with labels"
    assert [item.label for item in samples_or_pictures(pd.DataFrame({"image": files})).items] == [""] * 12
    with pytest.raises(
        InputError, match=r"None of the columns 'a', 'b' has the pictures\. Rename that column to 'image'"
    ):
        estimator().fit(pd.DataFrame({"a": files, "b": 3}), labels)


def test_random_state_may_be_a_generator() -> None:
    state = np.random.RandomState(3)
    expected = estimator(random_state=int(np.random.RandomState(3).randint(2**31))).fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(estimator(random_state=state).fit(X, Y).predict_proba(X), expected)
    with pytest.raises(ValueError, match="cannot be used to seed"):
        estimator(random_state="seed").fit(X, Y)


def test_filters_of_warnings_go_to_other_processes(tmp_path: Path) -> None:
    """scikit-learn sends them to the processes of ``n_jobs``, also for estimators that are not SeeWhy's."""
    Image.fromarray(X[0]).save(tmp_path / "a.png")
    estimator().fit(X, Y).predict([tmp_path / "a.png"])
    sent = pickle.loads(pickle.dumps(warnings.filters))
    assert len(sent) == len(warnings.filters)
    ours = next(new[3] for new, old in zip(sent, warnings.filters, strict=True) if type(old[3]).__name__ == "_Hush")
    assert not ours.match("PIL.Image"), "another process reads no picture"


def test_what_belongs_to_a_process_is_not_pickled(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "f.sqlite")
    assert pickle.loads(pickle.dumps(store)).path == store.path
    classifier = estimator().fit(X, Y).classifier_
    with pytest.raises(InputError) as caught:
        pickle.dumps(classifier)
    assert str(caught.value) == (
        "The encoder 'tiny' cannot be pickled. Load it in the other process, or save the classifier with "
        "classifier.save(folder) and load it there with seewhy.load(folder)."
    )
    assert copy.copy(classifier.encoder) is classifier.encoder


def test_a_store_is_given_by_its_path(tmp_path: Path) -> None:
    for place in (tmp_path / "a.sqlite", str(tmp_path / "b.sqlite")):
        fitted = base.clone(estimator(store=place)).fit(X, Y)
        assert fitted.store == place
        known = len(FeatureStore(place))
        assert known >= len(X)
        assert fitted.predict(X).tolist() == Y.tolist()
        assert isinstance(fitted.explain(X[:1], measure=False)[0], Explanation)
        assert len(FeatureStore(place)) == known, "every look is found again"


def test_methods_and_their_settings_can_be_searched_over(tmp_path: Path) -> None:
    asked = [
        {"method": ["linear"], "settings": [None], "n_crops": [0]},
        {"method": ["neighbours"], "settings": [{"k": 1}, {"k": 5}]},
    ]
    found = GridSearchCV(estimator(store=tmp_path / "f.sqlite"), asked, cv=2).fit(X, Y)
    assert [row["method"] for row in found.cv_results_["params"]] == ["linear", "neighbours", "neighbours"]
    assert found.cv_results_["mean_test_score"].min() == 1
    near = estimator(method="neighbours", settings={"k": 5}).fit(X, Y).classifier_
    assert (near.recipe, near.parameters["k"]) == ("neighbours", 5)
    with pytest.raises(InputError, match="got zero_shot"):
        estimator(method="zero_shot").fit(X, Y)
    with pytest.raises(UnknownNameError, match="nonsense"):
        estimator(settings={"nonsense": 5}).fit(X, Y)
