"""The lock of a file: one holder, freed with the block, told where the file system has none."""

import errno
import fcntl
import threading

import pytest

from nmt.locks import file_lock


def test_one_process_holds_it(tmp_path):
    path = tmp_path / "lock"
    with file_lock(path, wait=False) as held:
        assert held
        with pytest.raises(BlockingIOError), file_lock(path, wait=False):
            pass
    with file_lock(path, wait=False) as held:
        assert held


def test_waiting_ends_with_the_holder(tmp_path):
    path, order = tmp_path / "lock", []

    def second():
        with file_lock(path, wait=True):
            order.append("second")

    with file_lock(path, wait=False):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.1)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_an_error_in_the_block_frees_it(tmp_path):
    path = tmp_path / "lock"
    with pytest.raises(KeyError), file_lock(path, wait=False):
        raise KeyError
    with file_lock(path, wait=False) as held:
        assert held


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def unknown(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with file_lock(tmp_path / "lock", wait=True) as held:
        assert not held


def test_a_file_that_cannot_be_made(tmp_path):
    with pytest.raises(FileNotFoundError), file_lock(tmp_path / "missing" / "lock", wait=False):
        pass
