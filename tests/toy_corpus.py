"""Toy corpora for tests: a wheel of JSON tables that pip accepts, with its declaration, and files of any form."""

import base64
import hashlib
import json
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmt.config.documents import dump_document
from nmt.corpora import CorpusReader, CorpusSpec, open_corpus

WHEEL = "toy-1.0-py3-none-any.whl"
METADATA = {
    "toy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
    "toy-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
Tables = Mapping[tuple[str, str], Any]  # by (component, code): what is written as JSON, or raw bytes

TABLES: Tables = {
    ("abode", "en"): {"title": "Alarm", "step": {"one": "The alarm was set off", "two": "Enter the code of it"}},
    ("abode", "de"): {"step": {"two": "Den Code eingeben, bitte", "one": "Der Alarm wurde ausgelöst"}},
    ("abode", "es"): {"step": {"one": "La alarma se ha activado"}},
    ("hue", "en"): {"a": "Press the button on the bridge", "b": "The alarm was set off", "c": "Keep key 1 pressed now"},
    ("hue", "de"): {"a": "Drücke die Taste auf der Bridge", "b": "Der Alarm ging los", "c": "Taste 1 gedrückt halten"},
}


def make_wheel(path: Path, tables: Tables = TABLES, seed: int | None = None) -> Path:
    """Write a wheel that pip accepts; with a seed, its files are in another order."""
    files = {f"toy/{component}/strings/{code}.json": table for (component, code), table in tables.items()}
    contents = {
        name: content if isinstance(content, bytes) else json.dumps(content).encode() for name, content in files.items()
    }
    contents |= {name: text.encode() for name, text in METADATA.items()}
    record = [f"{name},sha256={_digest64(content)},{len(content)}" for name, content in contents.items()]
    contents["toy-1.0.dist-info/RECORD"] = "\n".join([*record, "toy-1.0.dist-info/RECORD,,\n"]).encode()
    names = list(contents)
    if seed is not None:
        random.Random(seed).shuffle(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, contents[name])
    return path


def _digest64(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def values_of(wheel: Path) -> dict[str, Any]:
    return {
        "name": "toy",
        "licence": "CC0-1.0",
        "obtain": {
            "kind": "pypi",
            "package": "toy",
            "version": "1.0",
            "file": WHEEL,
            "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "bytes": wheel.stat().st_size,
        },
        "read": {"kind": "json_tables", "files": "toy/{component}/strings/{language}.json", "key_language": "en"},
        "split": {"by": "component", "test": 4, "dev": 3},
    }


def spec_of(wheel: Path, **changes: Any) -> CorpusSpec:
    return CorpusSpec.model_validate(values_of(wheel) | changes)


def write_spec(tmp_path: Path, values: dict[str, Any], name: str = "toy.yaml") -> str:
    path = tmp_path / name
    path.write_text(dump_document(values))
    return str(path)


def open_files(folder: Path, read: dict[str, Any], files: Mapping[str, bytes | str], **changes: Any) -> CorpusReader:
    """Open a corpus of files, which are written into a folder first."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    values = {
        "name": "toy",
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(folder)},
        "read": read,
        "split": {"by": "text", "test": 0, "dev": 0},
    }
    return open_corpus(write_spec(folder, values | changes))


def texts(source: CorpusReader, *wanted: str) -> list[tuple[str, dict[str, str]]]:
    """Return the texts of a corpus with their translations, and close it."""
    with source:
        return [(row.text, dict(row.translations)) for row in source.rows(wanted or source.languages)]


def make_parquet(path: Path, columns: Mapping[str, list[Any]]) -> None:
    """Write a file of Parquet in groups of 100 rows."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=100)


def make_arrow(path: Path, columns: Mapping[str, list[Any]]) -> None:
    """Write a file in Arrow's stream format, as save_to_disk does, in batches of 100 rows."""
    import pyarrow

    table = pyarrow.table(columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=100)
