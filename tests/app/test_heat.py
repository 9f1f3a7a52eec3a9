"""Heat of one picture on demand: one at a time, kept, given up with its reader; and a data folder that changes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gone_through import looked
from PIL import Image
from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.service.app import heats
from seewhy.service.app.heats import MOST_WAITING, Heats
from seewhy.service.app.worker import BusyError

Client = Callable[..., TestClient]


@pytest.fixture
def page(client: Client, fitted: Classifier, wrong: Path) -> TestClient:
    found = client(fitted, data=wrong)
    looked(found)
    return found


def counted(patch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures whose heat is computed from now on."""
    made: list[str] = []
    real = heats.cases

    def cases(question: Any, seen: Any) -> Any:
        made.append(seen[0].name)
        return real(question, seen)

    patch.setattr(heats, "cases", cases)
    return made


def test_a_picture_is_drawn_with_its_heat_once(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(monkeypatch)
    first, again = page.get("/heat/3"), page.get("/heat/3")
    assert first.headers["content-type"] == "image/jpeg"
    assert first.content == again.content
    assert len(made) == 1
    state = page.app.state.seewhy  # type: ignore[attr-defined]
    seen = asyncio.run(state.see_sample(3))
    plain = seen.picture.pixels.astype(int)
    drawn = np.asarray(Image.open(io.BytesIO(first.content)).convert("RGB"))
    assert drawn.shape == plain.shape
    assert np.abs(drawn - plain).mean() > 12, "the heat is seen"
    assert page.get("/heat/10").status_code == 404


def asking(gone: Callable[[], bool]) -> Any:
    async def body() -> bytes:
        return b""

    async def is_disconnected() -> bool:
        return gone()

    return SimpleNamespace(body=body, is_disconnected=is_disconnected)


def test_readers_who_moved_on_cost_nothing(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine points are passed while the first is looked at, as with a slow model; only the last reader stays."""
    made = counted(monkeypatch)
    monkeypatch.setattr(heats, "MOST_WAITING", 100)
    state = page.app.state.seewhy  # type: ignore[attr-defined]
    asked, there, seen, running = Heats(state), [0], [], [0]
    real = state.see_sample

    async def see_sample(index: int) -> Any:
        there[0] = 9  # by now the pointer is there
        seen.append(index)
        running[0] += 1
        found = await real(index)
        running[0] -= 1
        assert running[0] == 0, "one at a time"
        return found

    monkeypatch.setattr(state, "see_sample", see_sample)

    async def ask(*readers: tuple[int, bool]) -> list[int]:
        waits = [asked.heat(asking(lambda i=i, stays=stays: not stays and i < there[0]), i) for i, stays in readers]  # type: ignore[misc]
        return [a.status_code for a in await asyncio.gather(*waits)]

    async def pass_over() -> None:
        assert await ask(*((i, False) for i in range(10))) == [204] * 9 + [200]
        assert (seen, len(made)) == ([0, 9], 1)
        assert await ask((4, True), (4, True), (5, True)) == [200] * 3
        assert seen == [0, 9, 4, 5], "two readers of one picture wait for one heat"

    asyncio.run(pass_over())


def test_a_reader_who_leaves_while_it_is_decoded_gets_no_heat(
    page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    asked = Heats(page.app.state.seewhy)  # type: ignore[attr-defined]
    there = iter([False, True])
    assert asyncio.run(asked.heat(asking(lambda: next(there)), 0)).status_code == 204
    assert made == []


def test_no_more_readers_wait_than_can_be_served(page: TestClient) -> None:
    asked = Heats(page.app.state.seewhy)  # type: ignore[attr-defined]

    async def crowd() -> list[Any]:
        waits = [asked.heat(asking(lambda: False), i) for i in range(MOST_WAITING + 2)]
        return await asyncio.gather(*waits, return_exceptions=True)

    found = asyncio.run(crowd())
    assert [isinstance(one, BusyError) for one in found] == [False] * MOST_WAITING + [True] * 2
    assert asyncio.run(asked.heat(asking(lambda: False), 9)).status_code == 200, "and the next is served"


@pytest.mark.parametrize("address", ["/heat/{}?format=json", "/sample/{}?format=json"])
def test_another_picture_is_never_shown_under_an_old_label(page: TestClient, wrong: Path, address: str) -> None:
    files = [Path(s.image) for s in page.app.state.seewhy.rows.items]  # type: ignore[attr-defined]
    tile = page.get("/sample/0/thumbnail").content
    files[0].write_bytes(files[-1].read_bytes())
    files[1].unlink()
    changed, gone = (page.get(address.format(i)) for i in (0, 1))
    assert (changed.status_code, gone.status_code) == (422, 422)
    assert changed.json()["error"].startswith(f"{files[0].name} has changed since the page was started. ")
    assert gone.json()["error"].startswith(f"{files[1].name} is no longer in its folder. ")
    assert page.get("/sample/0/thumbnail").content == tile, "the picture that was predicted"
    assert page.get("/sample/1/thumbnail").status_code == 200


def test_a_file_that_cannot_be_read_any_more_says_why(page: TestClient) -> None:
    Path(page.app.state.seewhy.rows.items[0].image).write_bytes(b"nothing")  # type: ignore[attr-defined]
    answer = page.get("/heat/0?format=json")
    assert answer.status_code == 422
    assert "no longer in its folder" not in answer.json()["error"]
