"""What is used of other packages without their promise stands behind one door each, which says when it is gone."""

import ast
import sys
from pathlib import Path

import grain
import pytest

from nmt.data.prefetch import prefetch
from nmt.errors import UserError
from nmt.sharding.clusters import known_clusters
from nmt.sharding.hosts import Launch, _found

CODE = Path(__file__).parents[2] / "nmt"
DOORS = {"jax._src": "sharding/clusters.py", "grain.experimental": "data/prefetch.py"}


@pytest.fixture
def without_clusters(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax._src.clusters", None)


def test_jax_without_its_clusters_is_one_line(without_clusters):
    with pytest.raises(UserError, match=r"jax \d.*jax\._src\.clusters.*pip install -c constraints\.txt jax") as error:
        known_clusters()
    assert "\n" not in str(error.value)


def test_a_place_that_is_given_needs_no_clusters(without_clusters):
    found = _found(Launch(coordinator="localhost:1234", process=0, processes=2))
    assert found.place.processes == 2


def test_clusters_that_jax_has_can_be_asked():
    for cluster in known_clusters():
        assert callable(cluster.is_env_present)


def test_grain_without_prefetching_is_one_line(monkeypatch):
    monkeypatch.delattr(grain.experimental, "ThreadPrefetchIterDataset")
    with pytest.raises(UserError, match=r"grain \d.*ThreadPrefetchIterDataset.*pip install -c constraints\.txt grain"):
        prefetch(grain.MapDataset.range(3).to_iter_dataset(), 2)


def test_prefetching_keeps_the_order():
    assert list(prefetch(grain.MapDataset.range(7).to_iter_dataset(), 2)) == list(range(7))


@pytest.mark.parametrize("name", DOORS)
def test_private_names_stand_in_one_module(name):
    users = {
        str(path.relative_to(CODE))
        for path in CODE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if name in (ast.unparse(node) if isinstance(node, ast.Attribute | ast.Import | ast.ImportFrom) else "")
    }
    assert users == {DOORS[name]}
