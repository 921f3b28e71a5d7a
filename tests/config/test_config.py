"""Recipes: loading, merging, overrides, what is said about mistakes, and the reference that is generated from them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from nmt.config import (
    MoEConfig,
    Recipe,
    VocabularySizes,
    compare_recipes,
    dump_recipe,
    load_recipe,
    read_run_recipe,
    resume_conflicts,
    save_recipe,
)
from nmt.config.documents import dump_document, parse_value, read_document
from nmt.config.keys import RESUMABLE, keys_by_name, recipe_keys
from nmt.config.presets import PRESETS
from nmt.config.reference import configuration_page, help_text, json_schema
from nmt.errors import UserError
from nmt.files import declarations

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "recipes"
UPDATE_GOLDEN = os.environ.get("UPDATE_GOLDEN") == "1"
MINIMAL = "data:\n  corpora: [tiny]\n  directions: [de-en]\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own with the recipe `tiny` and the models `small` and `dense`."""
    for folder in ("recipes", "models"):
        (tmp_path / folder).mkdir()
    (tmp_path / "recipes" / "tiny.yaml").write_text(MINIMAL)
    (tmp_path / "models" / "small.yaml").write_text("width: 64\nheads: 2\nmoe:\n  experts: 4\n  every: 1\n")
    (tmp_path / "models" / "dense.yaml").write_text("width: 32\nmoe: null\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str | bytes, *overrides: str) -> Recipe:
    """Load a recipe with this text from x.yaml in the working directory."""
    Path("x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_recipe("x.yaml", overrides)


def mistake(text: str | bytes, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(text, *overrides)
    return str(caught.value)


# Merging.


def test_defaults_are_those_of_the_schema(here: Path) -> None:
    recipe = load_recipe("tiny")
    data = {"corpora": ["tiny"], "directions": ["de-en"]}
    assert recipe == Recipe.model_validate({"name": "tiny", "data": data, "run_dir": "runs/tiny"})


def test_name_is_that_of_the_file_and_resolves_in_run_dir(here: Path) -> None:
    assert load(MINIMAL).run_dir == "runs/x"
    assert load(MINIMAL, "name=other", "run_dir=/r/{name}/{name}").run_dir == "/r/other/other"


def test_base_model_gives_defaults_that_the_recipe_and_then_arguments_replace(here: Path) -> None:
    recipe = load(MINIMAL + "model: {base: small, heads: 8, moe: {every: 2}}\n", "model.moe.capacity_factor=1.5")
    assert (recipe.model.width, recipe.model.heads) == (64, 8)
    assert recipe.model.moe == MoEConfig(experts=4, every=2, capacity_factor=1.5)


def test_base_model_may_be_an_argument(here: Path) -> None:
    text = MINIMAL + "model: {base: small, heads: 8}\n"
    assert load(text, "model.base=dense").model.width == 32
    assert load(text, "model.base=dense").model.moe is None
    assert load(text, "model.base=null").model.width == Recipe.model_fields["model"].default.width
    assert load(text, "model.base=models/dense.yaml").model.heads == 8


def test_null_replaces_a_section_and_a_later_key_brings_it_back(here: Path) -> None:
    text = MINIMAL + "model: {base: small, moe: null}\n"
    assert load(text).model.moe is None
    assert load(text, "model.moe.experts=16").model.moe == MoEConfig(experts=16)
    assert load(MINIMAL + "model: {base: dense, moe: {experts: 2}}\n").model.moe == MoEConfig(experts=2)


def test_a_preset_wins_over_what_is_below_it_and_yields_to_what_is_beside_or_above_it(here: Path) -> None:
    text = MINIMAL + "model: {base: small, moe: {preset: switch, jitter: 0.2}}\n"
    moe = load(text).model.moe
    assert moe is not None
    assert (moe.every, moe.top_k, moe.normalise, moe.jitter) == (2, 1, "none", 0.2)  # the base has every: 1
    moe = load(text, "model.moe.preset=nllb", "model.moe.top_k=3").model.moe
    assert moe is not None
    assert (moe.preset, moe.every, moe.top_k, moe.output_masking, moe.jitter) == ("nllb", 4, 3, 0.2, 0.0)
    assert MoEConfig(preset="st_moe", top_k=1).z_weight == 0.001


@pytest.mark.parametrize(
    ("written", "argument", "normalise"),
    [
        ("experts: 4", "top_k=1", "none"),
        ("preset: gshard", "top_k=1", "none"),
        ("top_k: 1", "preset=nllb", "after"),
        ("preset: nllb, top_k: 1", "preset=nllb", "after"),
        ("preset: st_moe, top_k: 1", "top_k=2", "before"),
        ("preset: switch", "top_k=2", "none"),
        ("normalise: after", "top_k=2", "after"),
    ],
)
def test_a_single_gate_is_not_normalised(here: Path, written: str, argument: str, normalise: str) -> None:
    recipe = load(MINIMAL + f"model: {{base: small, moe: {{{written}}}}}\n", f"model.moe.{argument}")
    assert recipe.model.moe is not None
    assert recipe.model.moe.normalise == normalise
    assert load(dump_recipe(recipe), f"run_dir={recipe.run_dir}") == recipe


def test_what_has_no_effect_any_more_gives_way(here: Path) -> None:
    text = MINIMAL + "model: {moe: {capacity_factor: 1.5, shared: gated, gated_dropout: 0.1, jitter: 0.1}}\n"
    recipe = load(text, "model.moe.dispatch=grouped", "model.moe.shared=none", "model.moe.routing=hash")
    assert recipe.model.moe == MoEConfig(dispatch="grouped", routing="hash")
    assert load(dump_recipe(recipe), f"run_dir={recipe.run_dir}") == recipe


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_with_everything_switched_off_is_no_mistake(here: Path, preset: str) -> None:
    moe = load(MINIMAL, f"model.moe.preset={preset}", "model.moe.routing=hash", "model.moe.dispatch=grouped").model.moe
    assert moe == MoEConfig(preset=preset, routing="hash", dispatch="grouped")
    load(MINIMAL + "model: {moe: {dispatch: grouped}}\n", "model.moe.capacity_factor=2")  # as it is anyway


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_survives_being_saved(here: Path, preset: str) -> None:
    recipe = load(MINIMAL, f"model.moe.preset={preset}", "model.moe.capacity_factor=3")
    assert load(dump_recipe(recipe), f"run_dir={recipe.run_dir}") == recipe
    assert recipe.model.moe == MoEConfig(preset=preset, capacity_factor=3)


def test_the_default_preset_is_the_default_of_its_keys() -> None:
    assert MoEConfig(**PRESETS["gshard"]) == MoEConfig()
    assert len({tuple(sorted(values)) for values in PRESETS.values()}) == 1


# Values.


def test_core_schema_of_yaml_1_2(here: Path) -> None:
    text = "data:\n  corpora: [no, on, off, yes, y, 12:30, 2020-01-01]\n  directions: [no-en]\nseed: 010\n"
    recipe = load(text + "train:\n  steps: 1e3\n  schedule: {learning_rate: 1e-3}\nmesh: {data: 0x10}\n")
    assert recipe.data.corpora == ("no", "on", "off", "yes", "y", "12:30", "2020-01-01")
    assert (recipe.seed, recipe.train.steps, recipe.mesh.data) == (10, 1000, 16)
    assert recipe.train.schedule.learning_rate == 0.001


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("True", True),
        ("no", "no"),
        ("null", None),
        ("~", None),
        ("1e-3", 0.001),
        ("1e3", 1000),
        (".5", 0.5),
        ("-7", -7),
        ("0o17", 15),
        ("017", 17),
        ("1_000", "1_000"),
        ("[a, 1]", ("a", 1)),
        ("{a: {b: no}}", {"a": {"b": "no"}}),
        ("'1'", "1"),
    ],
)
def test_parse_value(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_arguments_take_text_as_it_stands_and_lists_with_commas(here: Path) -> None:
    recipe = load(MINIMAL, "name=1e3", "description=no: [")
    assert (recipe.name, recipe.description) == ("1e3", "no: [")
    data = load(MINIMAL, "data.directions=no-en, en-no", "data.corpora=[on, 'a,b', 'null']").data
    assert (data.directions, data.corpora) == (("no-en", "en-no"), ("on", "a,b", "null"))
    assert load(MINIMAL, "data.directions=no").data.directions == ("no",)


def test_a_section_may_be_one_argument(here: Path) -> None:
    recipe = load(MINIMAL, "model.moe={experts: 4}", "model.moe.every=1", "train={steps: 7, optimizer: {beta1: 0.5}}")
    assert recipe.model.moe == MoEConfig(experts=4, every=1)
    assert (recipe.train.steps, recipe.train.optimizer.beta1) == (7, 0.5)


# Mistakes. Every message names the place, the key and what is valid.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.stepz=4"], "argument train.stepz=4: unknown key train.stepz; did you mean train.steps?"),
        (["steps=4"], "did you mean train.steps?"),
        (["temperature=4"], "did you mean data.temperature, vocab.temperature"),
        (["model.moe.expert=4"], "did you mean model.moe.experts"),
        (["zzz=4"], "argument zzz=4: unknown key zzz"),
        (["train.steps.x=4"], "unknown key train.steps.x: train.steps holds one value (whole number, at least 1)"),
        (["train={optimizer: {beta3: 1}}"], "unknown key train.optimizer.beta3; did you mean train.optimizer.beta1"),
        (["train.steps=1", "train.steps=1"], "train.steps is given twice: train.steps=1 and train.steps=1"),
        (["train={steps: 1}", "train.steps=2"], "train.steps is given twice: train={steps: 1} and train.steps=2"),
        (["model.moe=null", "model.moe.experts=4"], "model.moe=null and model.moe.experts=4 contradict each other"),
        (["model.moe.experts=4", "model.moe=null"], "model.moe.experts=4 and model.moe=null contradict each other"),
        (["model={moe: {every: 1, every: 2}}"], "key moe.every is given twice"),
        (["train.steps"], "'train.steps' is not of the form key=value"),
        (["=4"], "'=4' is not of the form key=value"),
        (["train..steps=4"], "is not of the form key=value"),
        (["train.steps="], "no value after the equals sign (whole number, at least 1)"),
        (["train.steps=[1"], "argument train.steps=[1: not valid YAML"),
        (["name=caf\udce9"], "has characters that cannot be printed"),
        (["train.steps=many"], 'train.steps must be a whole number, at least 1 (not "many")'),
        (["train.steps=1.5"], "train.steps must be a whole number, at least 1 (not 1.5)"),
        (["train.steps=0"], "train.steps must be a whole number, at least 1 (not 0)"),
        (["train.steps=true"], "train.steps must be a whole number, at least 1 (not true)"),
        (["train.steps='5'"], 'train.steps must be a whole number, at least 1 (not "5")'),
        (["model.dropout=1"], "model.dropout must be a number, at least 0, below 1 (not 1)"),
        (["train.max_minutes=.inf"], "train.max_minutes must be a number, above 0, or null"),
        (["train.max_minutes=.nan"], "train.max_minutes must be a number, above 0, or null"),
        (["vocab.model_type=unigrm"], 'one of unigram, bpe (not "unigrm"; did you mean unigram?)'),
        (["vocab=null"], "argument vocab=null: vocab must be a section (not null)"),
        (["model=small"], 'argument model=small: model must be a section (not "small")'),
        (["data.corpora="], "data.corpora must be a list of texts, at least 1 (not [])"),
        (["data.corpora=[a, 5]"], "item 2 of data.corpora must be text (not 5;"),
        (["name=a/b"], "argument name=a/b: name=a/b is to name a folder"),
        (["name="], "argument name=: name= is to name a folder"),
        (["run_dir="], "run_dir must be text, at least 1 character"),
        (["model.encoder_layers=2", "model.decoder_layers=3", "model.moe.every=4"], "number 4, and there are 3; lower"),
        (["model.moe.offset=2"], "x.yaml, arguments included: model.moe: moe.offset=2 is not below moe.every=2"),
        (
            ["model.moe.routing=expert_choice"],
            "x.yaml, arguments included: model.moe: moe.routing=expert_choice",
        ),
        (
            ["model.moe.decoder_routing=expert_choice"],
            "x.yaml, arguments included: model.moe: moe.decoder_routing=expert_choice",
        ),
        (["model.moe.top_k=1", "model.moe.normalise=before"], "moe.normalise=before with moe.top_k=1 makes every gate"),
        (["model.moe.preset=switch", "model.moe.normalise=after"], "moe.normalise=after with moe.top_k=1 makes every"),
        (
            ["model.moe.dispatch=grouped", "model.moe.capacity_factor=1.5"],
            "argument model.moe.capacity_factor=1.5: model.moe.capacity_factor has no effect here: dispatch=grouped",
        ),
        (["model.moe.dispatch=grouped", "model.moe.batch_prioritised=true"], "model.moe.batch_prioritised has no"),
        (
            ["model.moe.routing=hash", "model.moe.jitter=0.1"],
            "model.moe.jitter has no effect here: routing hash does not",
        ),
        (
            ["model.moe.routing=hash", "model.moe.second_expert=all"],
            "model.moe.second_expert has no effect here: routing",
        ),
        (["model.moe.gated_dropout=0.1"], "model.moe.gated_dropout has no effect here: there is a gate with shared="),
        (["model.moe.shared_hidden=8"], "model.moe.shared_hidden has no effect here: with shared=none there is"),
        (["train.accumulate=5"], "x.yaml, arguments included: the 64 rows of a batch are not a multiple of"),
        (
            ["model.moe.group_size=1000"],
            "model.moe.group_size=1000 does not divide the tokens of the 64 rows of a batch, 4,096 of sources and "
            "4,096 of targets: make it a divisor of both, such as 512,",
        ),
        (
            ["model.moe.group_size=4096", "train.accumulate=2", "data.source_length=48"],
            "does not divide the tokens of the 32 rows of a micro-batch, 1,536 of sources and 2,048 of targets: make "
            "it a divisor of both, such as 512,",
        ),
        (["vocab.target_size=400"], "x.yaml, arguments included: vocab.target_size asks for a vocabulary of its own"),
        (["train.tokens_per_batch=65"], "x.yaml, arguments included: train.tokens_per_batch=65 is not a multiple"),
        (["model.base=smal"], "argument model.base=smal: unknown model 'smal'; did you mean small?"),
    ],
)
def test_mistakes_in_arguments(here: Path, arguments: list[str], message: str) -> None:
    said = mistake(MINIMAL, *arguments)
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml:1: a file of `key: value` lines is expected, this one is empty"),
        ("- a\n", "x.yaml:1: a file of `key: value` lines is expected, this one is a list"),
        ("text\n", "x.yaml:1: a file of `key: value` lines is expected, this one is the single value text"),
        (b"seed: 1\nname: caf\xe9\n", "x.yaml:2: not UTF-8 text"),
        ("seed: 1\nname: \x07\n", "x.yaml:2: not valid YAML: special characters are not allowed"),
        ("seed: 1\ndata: [\n", "x.yaml:3: not valid YAML:"),
        ("data:\n\tx: 3\n", "x.yaml:2: not valid YAML:"),
        ("seed: 1\n---\nseed: 2\n", "x.yaml:2: not valid YAML: expected a single document"),
        ("seed: &loop [*loop]\n", "x.yaml:1: nested too deeply"),
        ("seed: " + "[" * 5000, "x.yaml:1: not valid YAML: nested too deeply"),
        ("? [a]\n: b\n", "x.yaml:1: a key must be a word"),
        ("seed: !!python/object:os.system x\n", "x.yaml:1: 'x' with the tag !!python/object:os.system"),
        ("seed: !!int x\n", "x.yaml:1: 'x' with the tag !!int is not understood"),
        (MINIMAL + "seed: 1\ntrain:\n  steps: 1\n  seed: 2\n", "x.yaml:7: unknown key train.seed; did you mean seed"),
        (MINIMAL + "train:\n  steps: 1\n  steps: 1\n", "x.yaml:6: key train.steps is given twice, first on line 5"),
        (MINIMAL + "train.steps: 1\n", "x.yaml:4: unknown key 'train.steps': write it nested, train: {steps: ..."),
        (MINIMAL + "5: 1\n", "x.yaml:4: unknown key 5"),
        (MINIMAL + "train:\n  steps: many\n", 'x.yaml:5: train.steps must be a whole number, at least 1 (not "many")'),
        (MINIMAL + "train:\n", "x.yaml:4: train must be a section (not null)"),
        (MINIMAL + "name: 1e3\n", "x.yaml:4: name must be text (not 1000; text that looks like something else"),
        (MINIMAL + "description: null\n", "x.yaml:4: description must be text (not null)"),
        ("seed: 1\n", "x.yaml: data is missing, a section with data.corpora and data.directions"),
        ("seed: 1\ndata:\n  corpora: [a]\n", "x.yaml:2: data.directions is missing, a list of texts, at least 1 ("),
        (MINIMAL.replace("[tiny]", "tiny"), 'x.yaml:2: data.corpora must be a list of texts, at least 1 (not "tiny")'),
        (MINIMAL + "model:\n  base: smal\n", "x.yaml:5: unknown model 'smal'; did you mean small?"),
        (MINIMAL + "model:\n  base: [a]\n", "x.yaml:5: model.base must be the name of a model"),
    ],
)
def test_mistakes_in_files(here: Path, text: str | bytes, message: str) -> None:
    said = mistake(text)
    assert message in said
    assert "\n" not in said


def test_mistakes_in_a_model_name_its_file(here: Path) -> None:
    Path("models/bad.yaml").write_text("width: 8\nwidht: 8\n")
    said = mistake(MINIMAL + "model: {base: bad}\n")
    assert said.startswith("models/bad.yaml:2: unknown key model.widht; did you mean model.width?")
    Path("models/bad.yaml").write_text("width: 8\nheads: two\n")
    assert mistake(MINIMAL + "model: {base: bad}\n").startswith("models/bad.yaml:2: model.heads must be a whole number")


def test_several_mistakes_are_told_at_once_a_line_each(here: Path) -> None:
    said = mistake(MINIMAL, "stepz=1", "train.sed=2", "seed=1", "seed=2").splitlines()
    assert [line.split(":")[0] for line in said[:2]] == ["argument stepz=1", "argument train.sed=2"]
    assert said[2] == "seed is given twice: seed=1 and seed=2"
    assert len(mistake(MINIMAL + "seed: -1\nsede: 1\nmesg: {}\n").splitlines()) == 2
    assert len(mistake(MINIMAL + "seed: -1\n", "train.steps=0").splitlines()) == 2


def test_unknown_recipe_suggests(here: Path) -> None:
    with pytest.raises(UserError, match="unknown recipe 'tinny'; did you mean tiny"):
        load_recipe("tinny")
    with pytest.raises(UserError, match=r"no recipe file gone\.yaml"):
        load_recipe("gone.yaml")


def test_unreadable_file(here: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*recipes: Is a directory"):
        read_document(here / "recipes")


# Writing, reading back and comparing.


def a_value(schema: dict[str, Any], text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Values that a JSON schema allows."""
    if "anyOf" in schema:
        if {"type": "null"} in schema["anyOf"]:
            text = text.filter(lambda value: value != "null")  # the argument for no value at all
        return st.one_of([a_value(variant, text) for variant in schema["anyOf"]])
    if "$ref" in schema:
        return a_section(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], text)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "array":
        return st.lists(text, min_size=1, max_size=3)
    if schema["type"] == "integer":
        return st.integers(schema["minimum"], schema.get("maximum", 10**9))
    if schema["type"] == "number":
        low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("exclusiveMaximum", 1e30)
        high = schema.get("maximum", high)
        return st.floats(low, high, exclude_min="exclusiveMinimum" in schema, exclude_max="exclusiveMaximum" in schema)
    return {"string": text, "null": st.none(), "boolean": st.booleans()}[schema["type"]]


def a_section(schema: dict[str, Any], text: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {key: a_value(field, text) for key, field in schema["properties"].items()}
    fields |= {key: st.sampled_from(values) for key, values in TIED.items() if key in fields}
    if "run_dir" in fields:
        fields["name"] = text.map(lambda name: re.sub(r"[{}/\\]", "_", name))
    if "axis_types" in fields:
        fields["preset"] = st.sampled_from(["data", "expert_fsdp"])  # of meshes, which must be there
    return st.fixed_dictionaries({}, optional=fields)


SCHEMA = Recipe.model_json_schema()
TIED = {  # values that fit together whichever of them are given
    "encoder_layers": [4, 5],
    "decoder_layers": [4, 8],
    "every": [1, 2],
    "offset": [0, None],
    "routing": ["token_choice", "hash"],
    "decoder_routing": ["token_choice", "hash", None],
    "top_k": [1, 2],
    "normalise": ["none"],
    "head_width": [16, 64],
    "relative_buckets": [8, 32],
    "relative_distance": [64, 128],
    "max_positions": [10_000, 20_000],
    "target_size": [None],
    "accumulate": [1, 2],
    "tokens_per_batch": [128, 4096],
    "group_size": [16, 32, None],
    "source_length": [32, 64],
    "target_length": [32, 64],
    "temperatures": [["0:1", "10000:5.5"], []],
    "weights": [["*-en=2", "de-en=1e-3"]],
    "groups": [["*-en=0.5", "en-*=0.25"]],
    "min_share": [0.0, 0.01],
    "max_share": [0.5, 1.0],
    "beam": [4, 8],
    "beam_groups": [1, 2],
    "hypotheses": [1, 4],
    "min_length": [1, 5],
    "max_length": [5, None],
    "early_stopping": [True],
    "stages": [[], [{"directions": ["*-en"], "steps": 10}, {"temperature": 1.5, "patience": 3}]],
}
TRAPS = ["no", "1e3", "1.0", "null", "~", "=", "<<", "- a", "12:30", "true", "0o7", " x ", "a: b", "#", "...", "a,b"]
# Without patterns, which expand.
PRINTABLE = st.sampled_from(TRAPS) | st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30)
PRINTABLE = PRINTABLE.filter(lambda text: text != "*" and not text.startswith("*-") and not text.endswith("-*"))
ANY_TEXT = PRINTABLE | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="*"), min_size=1, max_size=30
)


def in_effect(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe without those that a recipe may not have, since they have no effect."""
    model = values.get("model", {})
    if not model.get("moe"):
        return values
    idle = {key for key, _, _ in MoEConfig.model_validate(model["moe"]).without_effect()}
    moe = {key: value for key, value in model["moe"].items() if key not in idle}
    return values | {"model": model | {"moe": moe}}


def expected_recipe(values: dict[str, Any]) -> Recipe:
    """The recipe of these values over MINIMAL in a file x.yaml, by way of pydantic alone."""
    data = {"corpora": ["tiny"], "directions": ["de-en"]} | values.get("data", {})
    recipe = Recipe.model_validate({"name": "x"} | values | {"data": data})
    return recipe.model_copy(update={"run_dir": recipe.run_dir.replace("{name}", recipe.name)})


def as_arguments(values: dict[str, Any], prefix: str = "") -> list[str]:
    arguments = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            arguments += as_arguments(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            arguments.append(f"{prefix}{key}={text}")
    return arguments


@settings(max_examples=100, deadline=None)
@given(a_section(SCHEMA, ANY_TEXT).map(in_effect))
def test_dumped_recipes_load_as_equal_ones(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    recipe, folder = expected_recipe(values), tmp_path_factory.getbasetemp() / "round"
    save_recipe(recipe, folder)
    assert read_run_recipe(folder) == recipe
    assert load_recipe(str(folder / "recipe.yaml")) == recipe


@settings(max_examples=100, deadline=None)
@given(a_section(SCHEMA, PRINTABLE).map(in_effect))
def test_arguments_say_the_same_as_values(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    path, arguments = tmp_path_factory.getbasetemp() / "x.yaml", as_arguments(values)
    path.write_text(MINIMAL)
    assert load_recipe(str(path), arguments) == expected_recipe(values)


def test_dump_spells_out_every_key_in_order(here: Path) -> None:
    names = [key.name for key in recipe_keys() if key.kind != "section" and key.name != "model.base"]
    document = dump_recipe(load_recipe("tiny"))
    Path("dumped.yaml").write_text(document)
    lines = read_document("dumped.yaml").lines
    sections = {key.name for key in recipe_keys() if key.kind == "section"}
    assert [".".join(path) for path in lines if ".".join(path) not in sections] == names


def test_dumped_text_is_safe_for_readers_of_yaml_1_1() -> None:
    values = {"a": "no", "b": "12:30", "c": "1e3", "d": 1e-9}
    assert yaml.safe_load(dump_document(values)) == values


def test_run_directories(here: Path) -> None:
    recipe = load_recipe("tiny")
    save_recipe(recipe, "runs/tiny")
    save_recipe(recipe.model_copy(update={"seed": 2}), "runs/tiny")
    assert read_run_recipe("runs/tiny").seed == 2
    assert [file.name for file in Path("runs/tiny").iterdir()] == ["recipe.yaml"]
    Path("runs/empty").mkdir()
    for wrong, message in {
        "runs/tinny": r"runs/tinny is not a run directory: there is no such folder; did you mean runs/tiny\?",
        "tiny": r"there is no such folder; did you mean runs/tiny\?",
        "zzzzzzzz": r"there is no such folder \(there are: runs/tiny\)",
        "runs/empty": r"runs/empty is not a run directory: there is no recipe.yaml in it",
        "runs/tiny/recipe.yaml": r"it is a file; did you mean runs/tiny\?",
    }.items():
        with pytest.raises(UserError, match=message):
            read_run_recipe(wrong)
    Path("runs/tiny/recipe.yaml").write_text("seed: {")
    with pytest.raises(UserError, match=r"runs/tiny/recipe.yaml:1: not valid YAML"):
        read_run_recipe("runs/tiny")


def test_no_runs_at_all(here: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder; nmt-train makes one"):
        read_run_recipe("runs/tiny")


def test_compare_names_every_difference(here: Path) -> None:
    old = load_recipe("tiny")
    new = load_recipe("tiny", ["decode.beam=1", "train.steps=5", "data.directions=no-en", "model.dropout=0.5"])
    assert compare_recipes(old, old) == []
    assert compare_recipes(old, new) == [
        "data.directions: [de-en] -> [no-en]",
        "model.dropout: 0.1 -> 0.5",
        "train.steps: 10000 -> 5",
        "decode.beam: 4 -> 1",
    ]
    assert resume_conflicts(old, new) == ["data.directions: [de-en] -> [no-en]", "model.dropout: 0.1 -> 0.5"]
    dense = load_recipe("tiny", ["model.moe=null"])
    (line,) = resume_conflicts(dense, old)
    assert line.startswith("model.moe: null -> {preset: gshard, experts: 8, every: 2,")


@pytest.mark.parametrize(
    ("schedule", "conflicts"),
    [
        *((name, 0) for name in ("rsqrt", "inverse_sqrt", "constant_rsqrt", "constant")),
        *((name, 1) for name in ("linear", "cosine", "wsd")),
    ],
)
def test_steps_may_change_only_where_the_schedule_ignores_them(here: Path, schedule: str, conflicts: int) -> None:
    overrides = [f"train.schedule.name={schedule}"]
    old, new = load_recipe("tiny", overrides), load_recipe("tiny", [*overrides, "train.steps=5"])
    assert len(resume_conflicts(old, new)) == conflicts


def test_resumable_keys_exist() -> None:
    assert set(RESUMABLE) <= set(keys_by_name())
    assert not keys_by_name()["seed"].resumable
    assert keys_by_name()["mesh.data"].resumable


# The reference.


def test_every_field_is_a_described_key() -> None:
    names = [key.name for key in recipe_keys()]
    assert sorted(set(names)) == sorted(names)
    assert set(names) == {*field_names(Recipe), "model.base"}
    assert all(key.description.endswith(".") for key in recipe_keys())


def field_names(section: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in section.model_fields.items():
        names.append(prefix + name)
        if get_origin(field.annotation) is tuple:
            continue  # the sections of a list are described as one key
        for kind in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names += field_names(kind, f"{prefix}{name}.")
    return names


def test_defaults_of_the_reference_are_those_of_a_recipe(here: Path) -> None:
    Path("dumped.yaml").write_text(dump_recipe(load_recipe("tiny")))
    values = read_document("dumped.yaml").values
    for key in recipe_keys():
        if key.kind != "section" and key.default is not None and key.name not in ("model.base", "run_dir"):
            value: Any = values
            for word in key.name.split("."):
                value = value[word]
            assert parse_value(key.default) == value, key.name


def test_help_names_every_key_with_its_default_in_100_columns() -> None:
    text = help_text()
    assert max(map(len, text.splitlines())) <= 100
    for key in recipe_keys():
        assert re.search(rf"^\s*{re.escape(key.name)}\b", text, re.MULTILINE), key.name
    assert re.search(r"^  train\.schedule\.learning_rate +0\.001 +Peak", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "path"), [([], "docs/configuration.md"), (["schema"], "recipes/recipe.schema.json")]
)
def test_generated_files_are_fresh(arguments: list[str], path: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "nmt.config.reference", *arguments]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, encoding="utf-8").stdout
    fresh = f"python -m nmt.config.reference {' '.join(arguments)} > {path}"
    assert (ROOT / path).read_text() == text, f"stale; run {fresh}"


def test_markdown_has_a_row_for_every_key() -> None:
    rows = re.findall(r"^\| `([a-z_0-9.]+)` \|(?:[^|]*\|){4}$", configuration_page(), re.MULTILINE)
    assert rows == [key.name for section in sections_in_order() for key in section]


def sections_in_order() -> list[list[Any]]:
    leaves = [key for key in recipe_keys() if key.kind != "section"]
    names = ["", *(key.name for key in recipe_keys() if key.kind == "section")]
    return [[key for key in leaves if key.name.rpartition(".")[0] == name] for name in names]


def test_json_schema_is_of_files_rather_than_of_recipes() -> None:
    schema = json_schema()
    assert schema["required"] == ["data"]
    assert schema["$defs"]["DataConfig"]["required"] == ["corpora", "directions"]
    assert schema["$defs"]["ModelConfig"]["properties"]["base"]["type"] == ["string", "null"]
    assert schema["additionalProperties"] is False


# What is shipped.


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")))
def test_shipped_recipes_resolve_as_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record a change that is meant with `UPDATE_GOLDEN=1 pytest tests/config/test_config.py`, and review its diff."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("M4_FILES", "/corpora/{source}-{target}.tsv")  # else mix100 takes the place of m4
    recipe = load_recipe(name)
    assert 0 < len(recipe.description) <= 120
    golden = GOLDEN / f"{name}.yaml"
    if UPDATE_GOLDEN:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(dump_recipe(recipe))
    assert golden.read_text() == dump_recipe(recipe), "changed; if so meant, run with UPDATE_GOLDEN=1"


def test_a_model_brings_the_sizes_of_its_vocabularies_which_a_recipe_may_change(here: Path) -> None:
    (here / "models" / "small.yaml").write_text("vocab:\n  size: 500\n  target_size: 400\nembeddings: separate\n")
    text = MINIMAL + "model:\n  base: small\n"
    assert load(text).vocab.sizes == VocabularySizes(500, 400)
    assert load(text + "vocab:\n  size: 600\n").vocab.sizes == VocabularySizes(600, 400)
    assert load(text, "vocab.target_size=null", "model.embeddings=shared").vocab.sizes == VocabularySizes(500, 500)


@pytest.mark.parametrize(
    ("vocabulary", "problem"),
    [
        ("vocab: {size: 500, seed: 1}", "models/small.yaml:1: vocab of a model is a section of size and target_size"),
        ("vocab: 500", "models/small.yaml:1: vocab of a model is a section of size and target_size alone"),
        ("vocab:\n  size: 5", "models/small.yaml:2: vocab.size must be a whole number, at least 300 (not 5)"),
    ],
)
def test_mistakes_in_the_vocabulary_of_a_model_are_told_where_they_are(
    vocabulary: str, problem: str, here: Path
) -> None:
    (here / "models" / "small.yaml").write_text(f"{vocabulary}\nwidth: 64\n")
    assert problem in mistake(MINIMAL + "model:\n  base: small\n")


def test_recorded_recipes_are_shipped() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}


@pytest.mark.parametrize("name", sorted(declarations("models")))
def test_shipped_models_are_valid(name: str, here: Path) -> None:
    load_recipe("tiny", [f"model.base={ROOT / 'models' / name}.yaml", "train.tokens_per_batch=1048576"])
