"""A folder that the tests of a file share for their corpora and runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for corpora, with a cache of its own."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("corpora")
    patch.setenv("NMT_CACHE", str(folder / "cache"))
    yield folder
    patch.undo()
