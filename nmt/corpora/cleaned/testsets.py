"""Test sets in files (`data.clean.decontaminate`), the text of which is kept out of training."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from nmt.corpora.readers.compressed import decompressed, stem
from nmt.corpora.readers.tree import UNREADABLE, error_reason
from nmt.errors import UserError

_KEY = "data.clean.decontaminate"


def test_set_digest(name: str) -> str:
    """Return the SHA-256 of a file. Raises UserError if it cannot be read."""
    with _opened(name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_test_set(name: str) -> Iterator[str]:
    """Yield the texts of a file: the strings of a .jsonl file, the columns of a .tsv file, the lines of others.

    Raises:
      UserError: the file cannot be read, or has another format than its name says.
    """
    kind = stem(name).rpartition(".")[2]
    with _opened(name) as raw:
        try:
            with decompressed(raw, name) as lines:
                for number, line in enumerate(lines, start=1):
                    text = line.decode().rstrip("\r\n")
                    yield from _strings(_parsed(text, name, number)) if kind == "jsonl" else _columns(text, kind)
        except UNREADABLE as error:
            raise UserError(f"{_KEY}: {name} cannot be read: {error_reason(error)}") from None


def _opened(name: str) -> Any:
    try:
        return epath.Path(name).open("rb")
    except OSError as error:
        raise UserError(f"{_KEY}: cannot read {name}: {error.strerror or error}") from None


def _columns(text: str, kind: str) -> list[str]:
    return text.split("\t") if kind == "tsv" else [text]


def _parsed(text: str, name: str, number: int) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except ValueError as error:
        raise UserError(f"{_KEY}: {name}:{number} is not JSON: {error}") from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
