"""Folders of a run in an object store: everything of ours works there but Orbax, which has a driver of its own.

The bucket is a local folder behind a file system that, like the real one, knows no appending and no locks.
"""

import os

import numpy as np
import pytest
from etils import epath
from etils.epath import backend, gpath
from fsspec.implementations.local import LocalFileSystem

from nmt.config import load_recipe
from nmt.config.runs import read_run_recipe, save_recipe
from nmt.corpora import CorpusSpec
from nmt.corpora.obtain.identity import corpus_identity
from nmt.corpora.opening import open_spec
from nmt.data.records import ShardWriter, TokenPairs
from nmt.errors import UserError
from nmt.evaluate.plot import save_figure
from nmt.files import atomic_write, check_store, is_remote
from nmt.recipes.lock import locked
from nmt.train.checkpoints import Progress
from nmt.train.telemetry import Recorder
from nmt.train.usage import Usage, read_usage, usage_steps, write_usage


class Bucket(LocalFileSystem):
    """gs://NAME is the folder NAME of a folder."""

    root = ""
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        path = os.fspath(path)
        if path.startswith("gs://"):
            path = path.removeprefix("gs://")
            return path if path.startswith(cls.root) else f"{cls.root}/{path}".rstrip("/")
        return super()._strip_protocol(path)

    def glob(self, path, **options):
        return [os.path.relpath(found, self.root) for found in super().glob(path, **options)]

    def open(self, path, mode="rb", **options):
        if "a" in mode:
            raise NotImplementedError("File mode not supported")
        return super().open(path, mode, **options)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A bucket, gs://bucket, and the folder behind it."""
    root = tmp_path / "store"
    root.mkdir()
    monkeypatch.setattr(Bucket, "root", str(root))
    files = Bucket(auto_mkdir=True)

    class Backend(type(backend.fsspec_backend)):
        def fs(self, path):
            return files if os.fspath(path).startswith("gs://") else super().fs(path)

    fake = Backend()
    monkeypatch.setattr(gpath, "_PREFIX_TO_BACKEND", gpath._PREFIX_TO_BACKEND | {"gs": fake})
    monkeypatch.setattr(gpath, "_GCS_BACKENDS", frozenset({fake}))
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    return root / "bucket"


RUN = epath.Path("gs://bucket/runs/x")


def test_files_are_written_whole(bucket):
    RUN.mkdir(parents=True)
    with atomic_write(RUN / "a") as temporary:
        temporary.write_text("b")
    assert [path.name for path in (bucket / "runs" / "x").iterdir()] == ["a"]
    with pytest.raises(TypeError), atomic_write(RUN / "a") as temporary:
        temporary.write_text(None)
    assert [path.read_text() for path in (bucket / "runs" / "x").iterdir()] == ["b"]
    assert is_remote(RUN)
    assert not is_remote("runs/x")


def test_a_recipe_comes_back(bucket):
    recipe = load_recipe("quickstart")
    save_recipe(recipe, RUN)
    assert (bucket / "runs" / "x" / "recipe.yaml").exists()
    assert read_run_recipe(RUN) == recipe


def test_metrics_are_copied_when_they_are_to_be_kept(bucket):
    path = bucket / "runs" / "x" / "metrics.jsonl"
    with Recorder(RUN, 0) as recorder:
        recorder.write(Progress(step=1), {"loss": 2.0}, "train")
        assert not path.exists()
        recorder.keep()
        assert len(path.read_text().splitlines()) == 1
        recorder.write(Progress(step=2), {"loss": 1.0}, "train")
    assert len(path.read_text().splitlines()) == 2
    assert len(list((bucket / "runs" / "x" / "tensorboard").iterdir())) == 1
    with Recorder(RUN, 1) as recorder:
        assert recorder.has("train", 1)
        assert not recorder.has("train", 2)
        recorder.write(Progress(step=2), {"loss": 3.0}, "train")
    assert ['"loss": 2.0' in line for line in path.read_text().splitlines()] == [True, False]


def test_tables_of_experts_come_back(bucket):
    usage = Usage(1, 20, ("de-en",), {"encoder": (1,)}, {"encoder": np.array([[[3, 4]]])})
    write_usage(RUN, usage)
    assert usage_steps(RUN) == [20]
    np.testing.assert_array_equal(read_usage(RUN).counts["encoder"], usage.counts["encoder"])


def test_token_ids_are_read_from_copies(bucket, tmp_path):
    writer = ShardWriter(RUN / "data" / "train" / "de-en", 2, 2)
    writer.write([[number] for number in range(3)], [[number, 7] for number in range(3)])
    writer.close()
    pairs = TokenPairs(RUN / "data" / "train" / "de-en", writer.counts)
    assert [pair.source.tolist() for pair in pairs.__getitems__([2, 0, 1])] == [[2], [0], [1]]
    copies = list((tmp_path / "cache" / "shards").rglob("*.npy"))
    assert len(copies) == 4
    (bucket / "runs" / "x" / "data" / "train" / "de-en" / "00001.tokens.npy").unlink()
    with pytest.raises(UserError, match="is damaged"):
        TokenPairs(RUN / "data" / "train" / "de-en", writer.counts)[2]


def test_pictures_are_drawn(bucket):
    from matplotlib.figure import Figure

    RUN.mkdir(parents=True)
    save_figure(Figure(), RUN / "a.svg")
    assert "<svg" in (bucket / "runs" / "x" / "a.svg").read_text()


def test_there_is_no_lock_and_a_line_says_so(bucket):
    said = []
    with locked(RUN, said.append):
        assert RUN.exists()
    assert said == [f"warning: {RUN} cannot be locked: take care that no other nmt-train works in it"]


def test_a_store_that_needs_a_package_says_which():
    with pytest.raises(UserError, match=r"pip install 'nmt-moe\[gcs\]'"):
        check_store(epath.Path("gs://no-such-bucket/run"))


def test_own_text_is_known_by_its_size_and_time(bucket):
    folder = bucket / "text"
    folder.mkdir(parents=True)
    (folder / "train.de").write_text("eins zwei drei vier\n")
    (folder / "train.en").write_text("one two three four\n")
    values = {
        "name": "mine",
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": "gs://bucket/text"},
        "read": {"kind": "parallel_text", "files": "{component}.{language}"},
        "split": {"by": "name"},
    }
    spec = CorpusSpec.model_validate(values)
    for name in ("train.de", "train.en"):
        os.utime(folder / name, (1_000_000_000, 1_000_000_000))
    before = corpus_identity(spec)
    assert corpus_identity(spec) == before
    with open_spec(spec) as source:
        assert [(one.source, one.sha256, one.version) for one in source.provenance] == [
            (name, "", "2001-09-09T01:46:40+00:00") for name in ("train.de", "train.en")
        ]
    os.utime(folder / "train.de", (1_000_000_001, 1_000_000_001))
    assert corpus_identity(spec) != before
