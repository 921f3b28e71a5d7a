"""A run whose folder is in an object store: gcsfs and TensorStore against a bucket on this machine."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from object_store import Store, serving
from synthetic import TINY, Playground, one_line

pytest.importorskip("gcsfs", reason="gs:// needs gcsfs: pip install -e '.[gcs]'")

RUN = "gs://bucket/runs/x"
SMALL = (*TINY, "train.checkpoint_every=10", "train.log_every=1", "train.dev_batches=1")


def command(name: str) -> list[str]:
    """Return an installed command, of the environment that has gcsfs."""
    return [sys.executable, "-m", f"nmt.cli.{name}"]


@pytest.fixture
def bucket(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """What is in gs://bucket, which the commands find in the place of Google's."""
    with serving() as (address, store):
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            monkeypatch.setenv(name, address)
        monkeypatch.setenv("NO_GCE_CHECK", "true")  # there is no metadata server to wait for
        yield store


def training(playground: Playground, steps: int) -> list[str]:
    return [*command("train"), f"recipe={playground.recipe}", f"run_dir={RUN}", *SMALL, f"train.steps={steps}"]


def kill_after(process: subprocess.Popen[str], store: Store, step: int) -> None:
    """Kill a training as soon as it has a whole checkpoint of a step."""
    deadline = time.monotonic() + 300
    while f"runs/x/checkpoints/{step}/commit_success.txt" not in store.objects:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()


def test_a_run_in_a_bucket(playground: Playground, bucket: Store) -> None:
    kill_after(playground.start(*training(playground, 100_000)), bucket, 10)
    begun = {int(name.split("/")[3]) for name in list(bucket.objects) if name.startswith("runs/x/checkpoints/")}
    last = max(begun) + 10
    done = playground.command(*training(playground, last))
    assert done.returncode == 0, done.stderr
    assert "resuming after step " in done.stderr
    assert "gs://bucket/runs/x cannot be locked" in done.stderr
    assert f"report: {RUN}/evaluation/{last}/test/report.html" in done.stdout
    assert f"runs/x/checkpoints/{last}/commit_success.txt" in bucket.objects
    lines = bucket.objects["runs/x/metrics.jsonl"][0].decode().splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if line["kind"] == "train"]
    assert steps == list(range(1, last + 1))
    translated = playground.command(*command("translate"), RUN, "--from", "en", "--to", "de", given="goka\n\ndonu\n")
    assert translated.returncode == 0, translated.stderr
    assert translated.stdout.count("\n") == 3


def test_a_bucket_that_is_not_there(playground: Playground, bucket: Store) -> None:
    refused = playground.command(*command("train"), f"recipe={playground.recipe}", "run_dir=gs://other/x", *SMALL)
    assert "cannot write to the run's folder gs://other/x: there is no such bucket; check the bucket" in one_line(
        refused, "nmt-train"
    )
    assert not bucket.objects
