"""Every scheme of encoders, ours and those of installed packages: its module, its names, its refusals, its looks."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest
import torch

from seewhy.encoders.find import encoder, list_encoders, schemes
from seewhy.errors import InputError, SeeWhyError
from tiny import noise

MODULES: dict[str, ModuleType] = {scheme: importlib.import_module(place) for scheme, place in schemes().items()}
SMALL = [scheme for scheme, module in MODULES.items() if hasattr(module, "SMALL")]


@pytest.mark.parametrize("scheme", MODULES)
def test_the_module_has_load_and_says_what_it_takes(scheme: str) -> None:
    load = MODULES[scheme].load
    first, *others = inspect.signature(load).parameters.values()
    assert first.name == "name"
    assert next(p for p in others if p.name == "engine").default == "auto"
    assert load.__doc__
    names = getattr(MODULES[scheme], "names", list)()
    assert all(isinstance(name, str) and name for name in names)
    assert list_encoders(f"{scheme}:*") == [f"{scheme}:{name}" for name in names]


@pytest.mark.parametrize("scheme", MODULES)
def test_an_unknown_name_is_refused_in_a_sentence(scheme: str) -> None:
    with pytest.raises(SeeWhyError) as caught:
        encoder(f"{scheme}:no/such-network")
    assert str(caught.value).endswith((".", "?", '"', ")")) or ": " in str(caught.value)


@pytest.mark.parametrize("scheme", SMALL)
def test_a_small_one_sees_alone_what_it_sees_in_a_batch(scheme: str) -> None:
    name = f"{scheme}:{MODULES[scheme].SMALL}"
    found, again = encoder(name, engine="torch"), encoder(name, engine="torch")
    assert (found.name, found.fingerprint) == (name, again.fingerprint)
    pixels = torch.nn.functional.interpolate(noise(3), found.transform.input_size)
    look = found.encode(pixels)
    assert found.layout.to_grid(look.features).ndim == 4
    for i in range(3):
        torch.testing.assert_close(found.encode(pixels[i : i + 1]).pooled[0], look.pooled[i], atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match=rf"^The loader of '{name}' does not accept the options strange"):
        encoder(name, strange=1)
