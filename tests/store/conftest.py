"""Stores on each engine."""

import itertools

import pytest

from lvlm2p_wrappers.store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def new_location(request, tmp_path):
    """A function that names the place of a new store, on each engine in turn."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").url
    numbers = itertools.count(1)
    return lambda: str(tmp_path / f"{next(numbers)}.sqlite")


@pytest.fixture
def location(new_location):
    return new_location()


@pytest.fixture
def store(location):
    with Store(location) as opened:
        yield opened
