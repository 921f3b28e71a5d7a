"""The table of presets in docs/moe.md, and what a preset does."""

from pathlib import Path

import pytest

from nmt.config import MoEConfig
from nmt.config.presets import PRESETS, table

PAGE = Path(__file__).parents[2] / "docs" / "moe.md"
# The conventions of the papers, written down once more: a change of a preset is a change here.
PAPERS = """
                         gshard       switch       st_moe       nllb         deepseek_v3
every                    2            2            4            4            1
routing                  token_choice token_choice token_choice token_choice bias_balanced
top_k                    2            1            2            2            2
normalise                before       none         before       after        before
second_expert            random       all          random       all          all
second_threshold         0.5          0.5          0.2          0.5          0.5
capacity_factor          2.0          1.25         1.25         2.0          2.0
eval_capacity_factor     None         2.0          2.0          None         None
batch_prioritised        False        False        True         False        False
balance_weight           0.01         0.01         0.01         0.01         0.01
balance_reduction        mean         mean         mean         sum          mean
z_weight                 0.0          0.0          0.001        0.0          0.0
jitter                   0.0          0.01         0.0          0.0          0.0
router_init_scale        None         0.1          0.1          None         None
expert_dropout           0.0          0.1          0.1          0.0          0.0
output_masking           0.0          0.0          0.0          0.2          0.0
extra_dense              False        False        True         False        False
min_capacity             4            4            4            4            4
balance_choices          first        first        first        first        first
router_dtype             float32      float32      float32      float32      float32
affinity                 sigmoid      sigmoid      sigmoid      sigmoid      sigmoid
bias_rate                0.001        0.001        0.001        0.001        0.001
sequence_balance_weight  0.0          0.0          0.0          0.0          0.0001
shared                   none         none         none         none         add
"""


def test_the_page_has_the_presets_as_they_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    begin, end = text.index("<!-- presets"), text.index("<!-- end of presets -->")
    fresh = "python -m nmt.config.reference presets"
    assert text[begin:end] + "<!-- end of presets -->" == table(), f"put the output of `{fresh}` into docs/moe.md"


def test_presets_are_what_the_papers_say() -> None:
    names, *rows = (line.split() for line in PAPERS.strip().splitlines())
    assert names == list(PRESETS)
    assert {row[0] for row in rows} >= PRESETS["gshard"].keys()
    for key, *values in rows:
        found = [str(getattr(MoEConfig.model_validate({"preset": name}), key)) for name in names]
        assert found == values, key


@pytest.mark.parametrize("name", PRESETS)
def test_what_stands_beside_a_preset_wins(name: str) -> None:
    assert PRESETS[name].keys() == PRESETS["gshard"].keys()
    config = MoEConfig.model_validate({"preset": name, "top_k": 1})
    alone = {"top_k": 1, "normalise": "none"}  # a single gate is not normalised
    for key, value in (PRESETS[name] | alone).items():
        assert getattr(config, key) == value
