"""The table of presets in docs/moe.md, and what a preset does."""

from pathlib import Path

import pytest

from nmt.config import MoEConfig
from nmt.config.presets import PRESETS, table

PAGE = Path(__file__).parents[1] / "docs" / "moe.md"


def test_the_page_has_the_presets_as_they_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    begin, end = text.index("<!-- presets"), text.index("<!-- end of presets -->")
    fresh = "python -m nmt.config.reference presets"
    assert text[begin:end] + "<!-- end of presets -->" == table(), f"put the output of `{fresh}` into docs/moe.md"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_say_all_of_the_same_things_and_are_valid(name: str) -> None:
    assert PRESETS[name].keys() == PRESETS["gshard"].keys()
    config = MoEConfig.model_validate({"preset": name, "top_k": 1})
    for key, value in PRESETS[name].items():
        assert getattr(config, key) == (1 if key == "top_k" else value)
