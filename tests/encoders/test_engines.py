"""Engines: the same numbers whoever computes them, whatever stands beside them, however they start."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.encoders import engines
from seewhy.encoders import engines as precisions
from seewhy.encoders.convert import openvino
from seewhy.encoders.engines import (
    ENGINES,
    TOLERANCE,
    UNASKED,
    Engine,
    available_engines,
    differs,
    kept_folder,
    make_engine,
)
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.errors import EngineError, MissingExtraError
from tiny import tiny_cnn, tiny_tokens

SIZE = (32, 32)
NAMES = ("torch", "torch:bf16", "onnxruntime", "openvino:f32", "openvino:bf16")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    return tmp_path


class Counted:
    """A trunk callable that knows how often it was called."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()
        self.calls = 0

    def __call__(self) -> nn.Module:
        self.calls += 1
        return self.module


def cnn() -> Counted:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 24, 3, 2, 1), nn.SiLU()]
    return Counted(nn.Sequential(*layers))


class Tokens(nn.Module):
    """A small vision transformer up to its tokens."""

    def __init__(self) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        torch.manual_seed(0)
        self.vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=0)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vit.forward_features(pixels)


def pixels(n: int, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(n))


def build(name: str, trunk: Counted, size: tuple[int, int] = SIZE, key: str = "key") -> Engine:
    engine = name.partition(":")[0]
    if missing := [module for module in engines._MODULES[engine] if find_spec(module) is None]:
        pytest.skip(f"{engine} cannot run without {', '.join(missing)}")
    return make_engine(name, trunk, size, key)


def assert_agrees(engine: Engine, module: nn.Module, batch: Tensor) -> None:
    with torch.no_grad():
        wanted = module(batch)
    got = engine(batch)
    assert got.dtype == torch.float32
    assert got.shape == wanted.shape
    difference = (got - wanted).flatten(1).abs().amax(1) / wanted.flatten(1).abs().amax(1)
    assert difference.max() <= TOLERANCE[engine.precision]


@pytest.mark.parametrize("make", [cnn, lambda: Counted(Tokens())], ids=["cnn", "tokens"])
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_eager_torch(name: str, make) -> None:
    trunk = make()
    engine = build(name, trunk)
    assert_agrees(engine, trunk.module, pixels(5))
    assert engine.name == name.partition(":")[0]
    assert engine.precision == ("bfloat16" if name.endswith("bf16") else "float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_agrees_on_the_embedded_encoder(name: str) -> None:
    from seewhy.encoders.find import encoder

    lite0 = encoder("lite0")
    trunk = Counted(lite0._trunk())
    smooth = nn.functional.interpolate(pixels(4, (14, 14)), (224, 224), mode="bicubic")
    assert_agrees(build(name, trunk, (224, 224), lite0.fingerprint), trunk.module, smooth.clamp(-1, 1))


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino:f32"])
def test_rows_do_not_depend_on_the_batch(name: str) -> None:
    engine = build(name, cnn())
    batch = pixels(33)
    whole = engine(batch)
    for n in (1, 3, 32):
        torch.testing.assert_close(engine(batch[:n]), whole[:n], rtol=1e-5, atol=1e-5)
    assert engine(batch[:0]).shape == (0, *whole.shape[1:])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino:f32"])
def test_one_picture_on_many_cores(name: str) -> None:
    trunk = cnn()
    engine = build(name, trunk)
    assert isinstance(engine, engines.PictureEngine)
    engine._streams = 64
    assert_agrees(engine, trunk.module, pixels(2))
    assert engine._wide is not None


def test_the_first_picture_runs_alone() -> None:
    """Two first runs at once can stop OpenVINO for good (about one start in twelve)."""
    at_once, most = 0, []
    lock = threading.Lock()

    def run(row: np.ndarray, which: Sequence[int]) -> list[np.ndarray]:
        nonlocal at_once
        with lock:
            at_once += 1
            most.append(at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1
        return [row for _ in which]

    engine = engines.PictureEngine("openvino", "float32", [(3, 4, 4)], 2, lambda _wide: run)
    batch = torch.randn(6, 3, 4, 4)
    assert torch.equal(engine(batch), batch)
    assert most[:2] == [1, 1]
    assert max(most) == 2


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_any_memory_layout_is_read_right(name: str) -> None:
    engine = build(name, cnn())
    batch = pixels(3)
    strided = batch.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(engine(strided), engine(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_results_stay_as_they_were(name: str) -> None:
    engine = build(name, cnn())
    first = engine(pixels(3))
    kept = first.clone()
    engine(pixels(3) + 1)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_second_start_builds_no_module(name: str) -> None:
    trunk = cnn()
    first = build(name, trunk)
    second = build(name, trunk)
    assert trunk.calls == 1
    assert torch.equal(first(pixels(2)), second(pixels(2)))
    build(name, trunk, key="other weights")
    assert trunk.calls == 2


@pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino:f32"])
def test_a_damaged_conversion_is_made_again(
    name: str, damage: str, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trunk = cnn()
    build(name, trunk)
    file = max(own_cache.glob("engines/*/trunk.*"), key=lambda path: path.stat().st_size)
    whole = file.read_bytes()
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(whole[:100] if damage == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    with caplog.at_level(logging.WARNING, "seewhy"):
        engine = build(name, trunk)
    assert trunk.calls == 2
    assert "was damaged, so SeeWhy converted it again" in caplog.text
    assert_agrees(engine, trunk.module, pixels(2))
    assert not list(own_cache.glob("engines/.*"))


def test_starting_together_is_safe(own_cache: Path) -> None:
    """Two builders of one folder: both end with a whole one and nothing is left over."""
    meet = threading.Barrier(2)

    def fill(folder: Path) -> None:
        (folder / "trunk").write_text("same")
        meet.wait(10)

    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(kept_folder("name", fill))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [own_cache / "engines/name"] * 2
    assert [path.name for path in (own_cache / "engines").iterdir()] == ["name"]


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_threads_do_not_mix(name: str) -> None:
    engine = build(name, cnn())
    batches = [pixels(n) for n in (1, 4, 7, 9)]
    wanted = [engine(batch) for batch in batches]
    wrong: set[int] = set()

    def work(i: int) -> None:
        for _ in range(10):
            if not torch.allclose(engine(batches[i]), wanted[i], rtol=1e-5, atol=1e-5):
                wrong.add(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.fixture
def no_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("unsupported operator")

    monkeypatch.setattr(engines, "_to_openvino", fail)
    monkeypatch.setattr(engines, "_to_onnx", fail)


@pytest.mark.usefixtures("no_conversion")
def test_auto_says_when_it_passes_an_engine_over(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "seewhy"):
        engine = make_engine("auto", cnn(), SIZE, "key")
    assert engine.name == "torch"
    for name in ("openvino", "onnxruntime"):
        if engines._installed(name):
            assert f"The engine '{name}' cannot run this network: RuntimeError: unsupported operator" in caplog.text


@pytest.mark.usefixtures("no_conversion")
@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_an_engine_asked_for_is_never_replaced(name: str, own_cache: Path) -> None:
    with pytest.raises(EngineError) as caught:
        build(name, cnn())
    message = f"The engine {name!r} cannot run this network: RuntimeError: unsupported operator. Use engine='torch'."
    assert str(caught.value) == message
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert list((own_cache / "engines").iterdir()) == []


@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_conversion_that_answers_differently_is_refused(precision: str) -> None:
    """Beyond the tolerance that the documentation states for the precision."""
    wanted = torch.linspace(-2, 1, 12).reshape(1, 3, 2, 2)
    assert not differs(wanted + 1.9 * TOLERANCE[precision], wanted, precision)
    for got in (wanted + 2.1 * TOLERANCE[precision], -wanted, wanted * torch.nan, wanted[:, :2]):
        assert differs(got, wanted, precision)


@pytest.mark.parametrize("name", ["openvino:f32", "openvino:bf16", "openvino"])
def test_a_trunk_that_was_converted_wrongly_is_not_used(
    name: str, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    monkeypatch.setattr(engines, "differs", lambda *_: True)
    with pytest.raises(EngineError) as caught:
        build(name, cnn())
    engine = name.partition(":")[0]
    assert str(caught.value) == f"The output of the engine {engine!r} differs from torch's. Use engine='torch'."
    assert list((own_cache / "engines").iterdir()) == []


class TestUnasked:
    """What OpenVINO computes in where nobody names a precision."""

    @pytest.fixture(autouse=True)
    def nobody_asks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SEEWHY_PRECISION", raising=False)

    @pytest.mark.parametrize("native", [True, False])
    def test_bfloat16_where_the_processor_has_it(self, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engines, "_is_native", lambda engine: native and engine == "openvino")
        trunk = cnn()
        engine = build("openvino", trunk)
        assert engine.precision == ("bfloat16" if native else "float32")
        assert_agrees(engine, trunk.module, pixels(3))
        rows = {row["name"]: row["precision"] for row in available_engines()}
        assert rows["openvino"] == engine.precision
        assert rows["onnxruntime"] in ("float32", "")
        assert build("openvino", trunk).precision == engine.precision
        assert trunk.calls == 1

    def test_a_precision_asked_for_is_what_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engines, "_is_native", lambda engine: engine == "openvino")
        assert build("openvino:f32", cnn()).precision == "float32"
        monkeypatch.setenv("SEEWHY_PRECISION", "f32")
        assert build("openvino", cnn()).precision == "float32"
        assert build("openvino:bf16", cnn()).precision == "bfloat16"
        monkeypatch.setenv("SEEWHY_PRECISION", "bf16")
        assert build("onnxruntime", cnn()).precision == "float32"

    def test_a_trunk_that_bfloat16_moves_too_far_stays_as_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A small difference of large numbers: what bfloat16 cannot hold."""
        monkeypatch.setattr(engines, "_is_native", lambda engine: engine == "openvino")

        class Difference(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
                nn.init.constant_(self.first.bias, 100)
                with torch.no_grad():
                    self.second.weight -= self.second.weight.mean((1, 2, 3), keepdim=True)

            def forward(self, pixels: Tensor) -> Tensor:
                return self.second(self.first(pixels))

        trunk = Counted(Difference())
        engine = build("openvino", trunk)
        assert engine.precision == "float32"
        assert_agrees(engine, trunk.module, pixels(3))
        assert (trunk.calls, build("openvino", trunk).precision, trunk.calls) == (1, "float32", 1)

    def test_the_bound_is_on_the_root_mean_square(self) -> None:
        wanted = torch.tensor([1.0, -1.0, 1.0, -1.0])
        assert not precisions.is_rough(wanted * (1 + 0.99 * UNASKED), wanted)
        assert precisions.is_rough(wanted * (1 + 1.01 * UNASKED), wanted)
        assert precisions.is_rough(wanted * torch.nan, wanted)

    def test_an_unknown_precision_says_where_it_was_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEEWHY_PRECISION", "f16")
        with pytest.raises(EngineError) as caught:
            make_engine("auto", cnn(), SIZE, "key")
        assert str(caught.value) == (
            "There is no precision called 'f16'. Did you mean 'bf16'? It was named in SEEWHY_PRECISION."
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openvno", "There is no engine called 'openvno'. Did you mean 'openvino'?"),
        ("openvino:f16", "There is no precision called 'f16'. Did you mean 'bf16'?"),
        ("onnxruntime:bf16", "The precision of the engine 'onnxruntime' must be f32, got bf16. Use 'openvino:bf16'."),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(EngineError) as caught:
        make_engine(name, cnn(), SIZE, "key")
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines._MODULES, name, ("not_a_module_of_anyone",))
    with pytest.raises(MissingExtraError) as caught:
        make_engine(name, cnn(), SIZE, "key")
    assert str(caught.value) == (
        f"The engine '{name}' needs the extra '{name}', which is not installed. Run: pip install 'seewhy[{name}]'"
    )
    assert next(row for row in available_engines() if row["name"] == name)["version"] == ""


def test_auto_without_extras_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_installed", lambda name: name == "torch")
    assert make_engine("auto", cnn(), SIZE, "key").name == "torch"


def test_available_engines() -> None:
    rows = available_engines()
    assert [row["name"] for row in rows] == list(ENGINES)
    assert all(row["precision"] in TOLERANCE for row in rows if row["version"])


def test_openvino_reports_to_nobody() -> None:
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    openvino()
    from openvino.tools.ovc import telemetry_utils

    assert sys.modules["openvino_telemetry"] is None
    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino:f32", "openvino:bf16"])
def test_means_of_maps_come_from_the_engine(name: str) -> None:
    trunk, batch = cnn(), pixels(5)
    engine = build(name, trunk)
    assert isinstance(engine, engines.PictureEngine)
    assert engine.averages
    maps, means = engine.maps_and_means(batch)
    assert torch.equal(maps, engine(batch))
    assert torch.equal(means, engine.mean(batch)), "a vector depends on whether its map was asked for"
    # Also of bfloat16 the mean is one of float32: its own rounding would be four digits coarser.
    torch.testing.assert_close(means, maps.mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_what_is_no_map_has_no_mean() -> None:
    engine = build("openvino", Counted(Tokens()))
    assert isinstance(engine, engines.PictureEngine)
    assert not engine.averages


def test_pooled_is_what_encode_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoder in (tiny_cnn(), tiny_tokens()):
        encoder._engine = "openvino:f32"
        batch = pixels(4)
        assert torch.equal(encoder.pooled(batch), encoder.encode(batch).pooled)
        torch.testing.assert_close(encoder.pooled(batch), encoder.head(encoder.trunk(batch)), rtol=1e-4, atol=1e-5)
    asked: list[tuple[int, ...]] = []
    run = engines.PictureEngine._outputs
    monkeypatch.setattr(
        engines.PictureEngine, "_outputs", lambda self, x, *which: (asked.append(which), run(self, x, *which))[1]
    )
    encoder = tiny_cnn()
    encoder._engine = "openvino:f32"
    pictures = [np.zeros((32, 32, 3), np.uint8)] * 3
    list(encode_stream(encoder, pictures, batch_size=2))
    assert set(asked) == {(engines.MEAN,)}, "a map left the engine, and nobody wants one"
    asked.clear()
    request = EncodeRequest(features=lambda index: index == 0)
    seen = list(encode_stream(encoder, pictures, request=request, batch_size=2))
    assert asked == [(engines.FEATURES, engines.MEAN), (engines.MEAN,)]
    assert [one.features is not None for one in seen if isinstance(one, Encoded)] == [True, False, False]


def test_a_conversion_whose_means_differ_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = engines.PictureEngine.mean
    monkeypatch.setattr(engines.PictureEngine, "mean", lambda self, x: mean(self, x) * 1.2)
    with pytest.raises(EngineError, match="differs from torch's"):
        build("openvino:f32", cnn(), key="means")
