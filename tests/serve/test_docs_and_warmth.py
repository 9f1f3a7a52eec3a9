"""``/docs`` without scripts or other sites; what is warm before a service says that it is ready."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.cli.evaluate import _page_in
from seewhy.service.app import make_app
from seewhy.service.serve.service import Service

BROWSER = {"accept": "text/html"}


def test_the_interface_of_the_service_is_a_page(client: Callable[..., TestClient], fitted: Classifier) -> None:
    service = client(fitted, token="a-token-of-30-characters-or-so")
    page = service.get("/docs", headers=BROWSER, follow_redirects=False)
    assert page.status_code == 200
    assert service.get("/docs").text == page.text, "to curl too"
    for part in ("POST /predict", "picture", "list of file", "default 5", "retry-after", "PictureTensor", "moss"):
        assert (part in page.text) == (part != "moss"), part
    assert "<script" not in page.text
    assert "//cdn" not in page.text


def test_the_interface_of_the_pages_is_a_page(fitted: Classifier) -> None:
    app = make_app(fitted)
    with TestClient(app, base_url="http://localhost:8000") as page:
        text = page.get("/docs").text
        paths = page.get("/openapi.json").json()["paths"]
    assert "/docs" not in paths
    assert "<script" not in text
    for path, methods in paths.items():
        for method in methods:
            assert f"{method.upper()} {path}</code>" in text


def test_before_it_is_ready_one_and_a_full_batch_are_answered(
    client: Callable[..., TestClient], fitted: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    app: Any = client(fitted).app
    service: Service = app.state.service
    (model,) = service.models.all()
    explained: list[int] = []
    explain = Service.explain

    async def counted(self: Service, of: Any, seen: Any, options: Any) -> Any:
        explained.append(len(seen))
        return await explain(self, of, seen, options)

    monkeypatch.setattr(Service, "explain", counted)
    service.wake()
    assert sum(model.worker.batches) == 1 + service.settings.web.batch
    assert explained == [1, 1]
    assert "warm" not in str(service.counts())


def test_a_name_without_an_ending_is_a_folder(tmp_path: Path) -> None:
    assert _page_in(tmp_path / "report") == tmp_path / "report" / "evaluation.html"
    assert _page_in(tmp_path / "report.html") is None
    (tmp_path / "v1.2").mkdir()
    assert _page_in(tmp_path / "v1.2") == tmp_path / "v1.2" / "evaluation.html"
