"""What holds for every test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import ops  # noqa: F401 - sets how gRPC works, as in the product, before a test imports gRPC

# How long an example takes says nothing about the code where other work runs beside it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What commands keep of this machine goes with the tests."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for all tests of a module. It goes with the last of them: a cluster's logs take hundreds of MB."""
    path = tmp_path_factory.mktemp("module")
    yield path
    shutil.rmtree(path)
