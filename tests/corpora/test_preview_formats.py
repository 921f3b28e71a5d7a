"""`nmt-data preview` on a small file of each format: a declaration in tests/corpora/formats/, and a folder of its name.

Each of them has the same pair; most have something beside it that is to be left out.
"""

import re
import sys
from pathlib import Path

import pytest

from nmt.cli import data as command

FORMATS = Path(__file__).parent / "formats"
PAIR = "  Die rote Tür des Hauses ist offen\n  The red door of the house is open\n"
TEXT = "  Die rote Tür des Hauses ist offen\n"


@pytest.mark.parametrize("name", sorted(path.stem for path in FORMATS.glob("*.yaml")))
def test_preview_shows_the_pair(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration = (FORMATS / f"{name}.yaml").read_text().replace(f"folder: {name}", f"folder: {FORMATS / name}")
    (tmp_path / f"{name}.yaml").write_text(declaration)
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    pair, shown = ("de-de", TEXT) if "monolingual: true" in declaration else ("de-en", PAIR)
    monkeypatch.setattr(sys, "argv", ["nmt-data", "preview", str(tmp_path / f"{name}.yaml"), "--pair", pair])
    with pytest.raises(SystemExit) as ended:
        command.main()
    output = capsys.readouterr()
    assert (ended.value.code or 0, output.out.strip("\n")) == (0, f"{pair}\n{shown}".strip("\n"))
    assert not re.search(r"damaged|unknown", output.err)


def test_every_format_has_its_files() -> None:
    assert {path.stem for path in FORMATS.glob("*.yaml")} == {path.name for path in FORMATS.iterdir() if path.is_dir()}
