"""Looking at pictures: order kept, failures in their place, each picture encoded once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seewhy.classifiers.linear.jitter import random_crops
from seewhy.encoders import stream as features
from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream, encode_texts, file_digest
from seewhy.storage.features import FeatureStore, look_key
from seewhy.types import Crop, Failure
from tiny import class_folders, picture, tiny_cnn, tiny_tokens


class Counting:
    """An engine that counts the pictures it was shown."""

    name, precision = "torch", "float32"

    def __init__(self, engine: object) -> None:
        self.engine = engine
        self.seen = 0
        self.batches: list[int] = []

    def __call__(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        self.batches.append(len(pixels))
        return self.engine(pixels)  # type: ignore[operator]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = class_folders(tmp_path_factory.mktemp("data"), 4)
    return sorted(map(str, root.rglob("*.png")))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features.sqlite")


@pytest.fixture
def encoder() -> Encoder:
    found = tiny_cnn()
    found.engine = Counting(found.engine)  # type: ignore[misc]
    return found


FULL = EncodeRequest(features=lambda _: True, pictures=True)


def looks(results: Iterator[Encoded | Failure]) -> list[Encoded]:
    found = list(results)
    assert all(isinstance(r, Encoded) for r in found)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_order_and_numbers_do_not_depend_on_the_batch(encoder: Encoder, names: list[str], batch_size: int) -> None:
    found = looks(encode_stream(encoder, names, request=FULL, batch_size=batch_size, workers=3))
    assert [s.name for s in found] == names
    assert max(encoder.engine.batches) <= batch_size
    for seen, name in zip(found, names, strict=True):
        (alone,) = looks(encode_stream(encoder, [name], request=FULL))
        torch.testing.assert_close(seen.pooled, alone.pooled, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(seen.features, alone.features, atol=1e-6, rtol=1e-3)  # maps are 16-bit numbers
        assert (seen.picture.pixels == alone.picture.pixels).all()


def test_failures_stand_in_their_place(encoder: Encoder, names: list[str], tmp_path: Path) -> None:
    text = tmp_path / "note.jpg"
    text.write_text("Not a picture at all.\n")
    asked = [names[0], "nowhere.png", names[1], str(text), str(tmp_path), names[2]]
    found = list(encode_stream(encoder, asked, batch_size=2))
    assert [f.name if isinstance(f, Encoded) else f.image for f in found] == asked
    assert [isinstance(f, Failure) for f in found] == [False, True, False, True, True, False]
    assert found[1] == Failure("nowhere.png", "does not exist; check the spelling and the folder")


def test_all_failures_and_nothing_at_all(encoder: Encoder) -> None:
    assert len(list(encode_stream(encoder, ["a.png", "b.png"]))) == 2
    assert list(encode_stream(encoder, [])) == []
    assert encoder.engine.seen == 0


def test_it_is_a_stream(encoder: Encoder, names: list[str]) -> None:
    asked = []

    def endless() -> Iterator[str]:
        while True:
            asked.append(1)
            yield names[0]

    stream = encode_stream(encoder, endless(), batch_size=4)
    next(stream)
    assert len(asked) <= 12
    stream.close()


def test_no_thread_is_left_making_the_engine_of_a_stream_that_is_dropped(names: list[str]) -> None:
    """It would swap the filters of warnings under whatever runs next."""
    made: list[threading.Thread] = []
    encoder = tiny_cnn()
    engine = encoder.engine
    slow = Encoder(
        name="slow", transform=encoder.transform, trunk=lambda: encoder.trunk, head=encoder.head,
        layout=encoder.layout, fingerprint="slow", engine=lambda: made.append(threading.current_thread()) or engine,
    )  # fmt: skip

    def broken() -> Iterator[str]:
        yield names[0]
        raise ValueError("no second name")

    with pytest.raises(ValueError, match="no second name"):
        next(encode_stream(slow, broken()))
    assert made == []
    assert len(looks(encode_stream(slow, names))) == len(names)
    assert made == [threading.main_thread()]


def test_a_second_run_encodes_nothing(encoder: Encoder, names: list[str], store: FeatureStore) -> None:
    first = looks(encode_stream(encoder, names, store=store, request=FULL))
    assert encoder.engine.seen == len(names)
    second = looks(encode_stream(encoder, names, store=store, request=FULL))
    assert encoder.engine.seen == len(names)
    for a, b in zip(first, second, strict=True):
        assert (a.name, a.digest) == (b.name, b.digest)
        assert torch.equal(a.pooled, b.pooled)
        torch.testing.assert_close(a.features, b.features, atol=1e-3, rtol=1e-3)
        assert (a.picture.pixels == b.picture.pixels).all()


@pytest.mark.parametrize(("first", "second"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_what_was_looked_at_in_one_precision_does_not_answer_for_another(
    encoder: Encoder, names: list[str], store: FeatureStore, first: str, second: str
) -> None:
    encoder.engine.precision = first
    list(encode_stream(encoder, names, store=store, request=FULL))
    encoder.engine.precision = second
    list(encode_stream(encoder, names, store=store, request=FULL))
    assert encoder.engine.seen == 2 * len(names)
    assert len(store) == 2 * len(names)


def test_found_again_by_content_not_by_name(
    encoder: Encoder, names: list[str], store: FeatureStore, tmp_path: Path
) -> None:
    list(encode_stream(encoder, names, store=store))
    copy = tmp_path / "other name.png"
    copy.write_bytes(Path(names[3]).read_bytes())
    (found,) = looks(encode_stream(encoder, [copy], store=store))
    assert encoder.engine.seen == len(names)
    assert found.name == str(copy)
    copy.write_bytes(Path(names[4]).read_bytes())
    (changed,) = looks(encode_stream(encoder, [copy], store=store))
    assert not torch.equal(changed.pooled, found.pooled)


def test_a_file_replaced_while_it_is_read_is_not_taken_for_the_other(
    encoder: Encoder, names: list[str], store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing, new = tmp_path / "changing.png", Path(names[1]).read_bytes()
    changing.write_bytes(Path(names[0]).read_bytes())
    list(encode_stream(encoder, names[:1], store=store, request=FULL))
    read = features.read_views

    def replaced(source: str, *rest: object) -> object:
        Path(source).write_bytes(new)
        return read(source, *rest)

    monkeypatch.setattr(features, "read_views", replaced)
    (seen,) = looks(encode_stream(encoder, [str(changing)], store=store, request=FULL))
    monkeypatch.undo()
    first, second = looks(encode_stream(encoder, names[:2], store=store, request=FULL))
    assert torch.equal(seen.pooled, second.pooled)
    assert not torch.equal(first.pooled, second.pooled)
    assert (seen.digest, encoder.engine.seen) == (second.digest, 2)


def test_a_map_not_kept_is_looked_at_again_once(encoder: Encoder, names: list[str], store: FeatureStore) -> None:
    list(encode_stream(encoder, names, store=store))
    list(encode_stream(encoder, names, store=store, request=FULL))
    assert encoder.engine.seen == 2 * len(names)
    list(encode_stream(encoder, names, store=store, request=FULL))
    list(encode_stream(encoder, names, store=store))
    assert encoder.engine.seen == 2 * len(names)


def test_another_encoder_or_precision_is_not_confused(names: list[str], store: FeatureStore) -> None:
    list(encode_stream(tiny_cnn(0), names, store=store))
    other = tiny_cnn(1)
    other.engine = Counting(other.engine)  # type: ignore[misc]
    list(encode_stream(other, names, store=store))
    assert other.engine.seen == len(names)
    other.engine.precision = "bfloat16"
    list(encode_stream(other, names, store=store))
    assert other.engine.seen == 2 * len(names)


def test_interrupted_it_goes_on_where_it_was(encoder: Encoder, names: list[str], store: FeatureStore) -> None:
    stream = encode_stream(encoder, names, store=store, batch_size=2)
    for _ in range(5):
        next(stream)
    stream.close()
    done = encoder.engine.seen
    assert done >= 5
    list(encode_stream(encoder, names, store=store, batch_size=2))
    assert encoder.engine.seen == len(names)


def test_views(encoder: Encoder, names: list[str], store: FeatureStore) -> None:
    request = EncodeRequest(views=lambda i: [None, *random_crops(3, 0, i)], features=lambda i: i % 2 == 0)
    found = looks(encode_stream(encoder, names, store=store, request=request, batch_size=8))
    assert all(s.pooled.shape == (4, 8) for s in found)
    assert [s.features is not None for s in found] == [i % 2 == 0 for i in range(len(names))]
    plain = looks(encode_stream(encoder, names, request=FULL))
    for seen, own in zip(found, plain, strict=True):
        torch.testing.assert_close(seen.pooled[:1], own.pooled, atol=1e-6, rtol=1e-5)
        if seen.features is not None:
            torch.testing.assert_close(seen.features, own.features, atol=1e-6, rtol=1e-5)
    before = encoder.engine.seen
    again = looks(encode_stream(encoder, names, store=store, request=request))
    assert encoder.engine.seen == before
    assert all(torch.equal(a.pooled, b.pooled) for a, b in zip(found, again, strict=True))
    more = EncodeRequest(views=lambda i: [None, *random_crops(4, 0, i)])
    longer = looks(encode_stream(encoder, names, request=more))
    torch.testing.assert_close(longer[1].pooled[:4], found[1].pooled, atol=1e-6, rtol=1e-5)


def test_a_mirrored_view_is_the_mirrored_picture(encoder: Encoder) -> None:
    pixels = picture("moss", 0, 32)
    whole = (0.0, 0.0, 1.0, 1.0)
    request = EncodeRequest(views=lambda _: [Crop(whole, flip=True), Crop(whole)])
    (found,) = looks(encode_stream(encoder, [pixels], request=request))
    (mirrored,) = looks(encode_stream(encoder, [pixels[:, ::-1].copy()], request=request))
    torch.testing.assert_close(found.pooled, mirrored.pooled.flip(0), atol=1e-6, rtol=1e-5)


def test_pixels_in_memory_are_numbered(encoder: Encoder, store: FeatureStore) -> None:
    found = looks(encode_stream(encoder, [picture("moss", 0), picture("sky", 0)], store=store))
    assert [s.name for s in found] == ["picture 1", "picture 2"]


def test_numbers_that_are_not_finite_are_a_failure_and_not_kept(
    encoder: Encoder, names: list[str], store: FeatureStore
) -> None:
    class Broken(Counting):
        def __call__(self, pixels: Tensor) -> Tensor:
            out = super().__call__(pixels)
            out[1] = torch.nan
            return out

    encoder.engine = Broken(encoder.engine)  # type: ignore[misc]
    found = list(encode_stream(encoder, names[:3], store=store))
    assert found[1] == Failure(names[1], "the encoder's features of this picture are not finite; try --engine torch")
    assert isinstance(found[0], Encoded)
    assert len(store) == 2


def test_tokens_keep_their_layout(names: list[str], store: FeatureStore) -> None:
    encoder = tiny_tokens()
    for _ in range(2):
        (seen,) = looks(encode_stream(encoder, names[:1], store=store, request=FULL))
        assert seen.features.shape == (17, 8)


def test_sentences_are_encoded_once(encoder: Encoder, store: FeatureStore) -> None:
    first = encode_texts(encoder, ["a", "b", "a"], store)
    assert encoder.text.n_encoded == 2
    second = encode_texts(encoder, ["b", "c", "a"], store)
    assert encoder.text.n_encoded == 3
    assert torch.equal(first[[1, 0]], second[[0, 2]])
    assert torch.equal(first[0], first[2])
    assert encode_texts(encoder, [], store).shape == (0, 0)
    assert torch.equal(encode_texts(encoder, ["a", "b", "a"]), first)


def test_digest_of_a_file_alone(names: list[str], tmp_path: Path) -> None:
    assert len(file_digest(names[0])) == 64
    assert [file_digest(x) for x in (tmp_path, "nowhere", "a\0b", picture("sky", 0), None)] == [None] * 5


def test_a_run_that_fills_the_store_sees_what_one_that_finds_it_sees(
    encoder: Encoder, names: list[str], tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path / "features.sqlite")
    looks(encode_stream(encoder, names[2:], store=store, batch_size=1))
    cold = looks(encode_stream(encoder, names, store=store, request=FULL, batch_size=5))
    warm = looks(encode_stream(encoder, names, store=store, request=FULL, batch_size=3))
    bare = looks(encode_stream(encoder, names, request=FULL, batch_size=5))
    for one, two, three in zip(cold, warm, bare, strict=True):
        assert torch.equal(one.pooled, two.pooled)
        assert torch.equal(one.features, two.features)
        assert torch.equal(one.features, one.features.half().float())
        torch.testing.assert_close(three.features, one.features, atol=1e-6, rtol=1e-3)


def test_a_missing_map_leaves_the_vector_as_it_was_kept(encoder: Encoder, names: list[str], tmp_path: Path) -> None:
    (plain,) = looks(encode_stream(encoder, names[:1]))
    key = look_key(plain.digest, f"{encoder.fingerprint}:{encoder.engine.precision}", None)
    store = FeatureStore(tmp_path / "features.sqlite")
    store.put([(key, plain.pooled[0] + 1e-6, None)])  # as another batch may have rounded it
    (cold,) = looks(encode_stream(encoder, names[:1], store=store, request=FULL))
    (warm,) = looks(encode_stream(encoder, names[:1], store=store, request=FULL))
    assert cold.features is not None
    assert torch.equal(cold.pooled, plain.pooled + 1e-6)
    assert torch.equal(cold.pooled, warm.pooled)
    assert torch.equal(cold.features, warm.features)
