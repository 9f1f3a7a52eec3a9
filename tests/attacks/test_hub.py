"""The hub, played by a server of one's own: what was named is fetched, once, from where it was named, and no more."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import seewhy
from seewhy.errors import WeightsError

COMMIT = "0" * 39 + "1"


class Hub(ThreadingHTTPServer):
    """Serves one folder as a repository, and writes down what is asked for."""

    def __init__(self, repo: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repo = repo
        self.folder = folder
        self.asked: list[str] = []


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        folder, repo = self.server.folder, self.server.repo
        files = sorted(p.name for p in folder.iterdir())
        data, headers = b"", {"X-Repo-Commit": COMMIT}
        code = 200
        if path.startswith(f"/api/models/{repo}") and "/tree/" in path:
            data = json.dumps(
                [{"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": "0" * 40} for f in files]
            ).encode()
            headers["Content-Type"] = "application/json"
        elif path.startswith(f"/api/models/{repo}"):
            data = json.dumps({"id": repo, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}).encode()
            headers["Content-Type"] = "application/json"
        elif path.startswith(f"/{repo}/resolve/") and path.rpartition("/")[2] in files:
            data = (folder / path.rpartition("/")[2]).read_bytes()
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        elif path != "/":
            code = 404
            headers["X-Error-Code"] = "EntryNotFound" if path.startswith(f"/{repo}/") else "RepoNotFound"
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    torch.manual_seed(0)
    about = {"pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3}}
    about["pretrained_cfg"] |= {"interpolation": "bilinear", "hf_hub_id": "someone/else", "url": "http://127.0.0.1:9/x"}
    model = timm.create_model("resnet18", num_classes=2)
    folder = tmp_path / "repository"
    timm.models.save_for_hf(model, folder, model_args=about, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= about["pretrained_cfg"]
    config.pop("model_args", None)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    served = Hub("someone/small", folder)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{served.server_port}"
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield served
    served.shutdown()
    served.server_close()


def test_what_was_named_is_fetched_and_then_found(hub: Hub) -> None:
    encoder = seewhy.encoder("timm:hf-hub:someone/small", engine="torch")
    assert encoder.transform.input_size == (64, 64)
    others = {path for path in hub.asked if "someone/small" not in path}
    assert others <= {"/", "/api/agent-harnesses"}, "the hub itself, and no other repository"
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"config.json", "model.safetensors"}
    hub.asked.clear()
    assert seewhy.encoder("timm:hf-hub:someone/small", engine="torch").fingerprint == encoder.fingerprint
    assert hub.asked == [], "what is in the cache needs no network"


def test_a_repository_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(WeightsError, match=r"the hub did not give it \(\w+Error\)"):
        seewhy.encoder("timm:hf-hub:someone/nothing")
