"""``--set NAME=VALUE`` as people write it."""

from __future__ import annotations

import pytest

from seewhy.cli.method_options import settings
from seewhy.errors import InputError


def test_names_and_values() -> None:
    assert settings(None) == {}
    assert settings(["n-masks = 20", "layer=a=b"]) == {"n_masks": "20", "layer": "a=b"}


@pytest.mark.parametrize("given", ["n_masks", "=3", "n_masks=", " "])
def test_what_is_no_pair_is_refused(given: str) -> None:
    with pytest.raises(InputError) as error:
        settings([given])
    assert str(error.value) == (f"--set was given {given!r}. NAME=VALUE was expected. For example: --set n_masks=2000")


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--set was given p twice, 1 and 2\. Keep one of them\.$"):
        settings(["p=1", "p=2"])
