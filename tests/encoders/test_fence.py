"""What a library raises while it loads is told in the words of what was to be loaded."""

from __future__ import annotations

import socket

import pytest

from seewhy.encoders.fence import FenceError, loading
from seewhy.errors import ModelError, WeightsError


def refusal(why: str) -> WeightsError:
    return WeightsError(f"It cannot be loaded: {why}. Weights were expected. Give another.")


def test_errors_of_a_library_become_one_sentence_with_their_reason_on_one_line() -> None:
    for error in (KeyError("width"), ValueError("no\n such  width"), RuntimeError()):
        with pytest.raises(WeightsError) as caught, loading(refusal):
            raise error
        said = {"KeyError": "'width'", "ValueError": "no such width", "RuntimeError": "RuntimeError"}
        expected = f"It cannot be loaded: {said[type(error).__name__]}. Weights were expected. Give another."
        assert str(caught.value) == expected
        assert caught.value.__cause__ is error


def test_errors_of_seewhy_stay_as_they_are() -> None:
    own = ModelError("Its preprocessing is not known.")
    with pytest.raises(ModelError) as caught, loading(refusal):
        raise own
    assert caught.value is own


def test_the_network_is_closed_unless_it_was_asked_for() -> None:
    with pytest.raises(FenceError), loading(refusal):
        socket.getaddrinfo("localhost", 1)
    with loading(refusal, online=True):
        socket.getaddrinfo("localhost", 1)
    socket.getaddrinfo("localhost", 1)
