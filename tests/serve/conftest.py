"""Services of small classifiers, and clients that talk to them without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forms import png
from tiny import class_folders, picture, tiny_cnn

pytest.importorskip("prometheus_client", reason="the extra 'serve' is not installed, so there is no service")

from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.saving import load
from seewhy.descriptions.base import Descriptions
from seewhy.pictures.samples import load_samples
from seewhy.service.app import Settings
from seewhy.service.serve import ServiceSettings, make_service

TEXTS = {"moss": ["soft green cushions"], "rust": ["a brown flaking crust"], "sky": ["blue with clouds"]}


def load_tiny(folder: Path) -> Classifier:
    return load(folder, encoder=tiny_cnn())


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folders = class_folders(tmp_path_factory.mktemp("classes") / "pictures", n=8)
    return Linear(n_crops=1).fit(tiny_cnn(), load_samples(folders), descriptions=Descriptions.of(TEXTS))


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Six different ones, two of each class."""
    return [png(picture(label, 90 + i)) for i in range(2) for label in TEXTS]


@pytest.fixture
def client() -> Iterator[Callable[..., TestClient]]:
    """Makes clients; settings of the page come under ``web``."""
    opened: list[TestClient] = []

    def make(models: Any, web: dict[str, Any] | None = None, log_to: int | None = None, **settings: Any) -> TestClient:
        sources = models if isinstance(models, dict) else {"tiny": models}
        chosen = ServiceSettings(Settings(**(web or {})), **settings)
        app = make_service(sources, chosen, load=load_tiny, log_to=log_to)
        found = TestClient(app, base_url="http://localhost:8000")
        found.__enter__()
        opened.append(found)
        return found

    yield make
    for one in opened:
        one.__exit__(None, None, None)
