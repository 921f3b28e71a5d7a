"""What a run is told of groups of tokens that its devices cannot have to themselves."""

import pytest
import toy_model as toy

from nmt.recipes.groups import group_advice


def advice(experts=4, devices=8, rows=16, accumulate=1, moe=None, **changes):
    model = toy.model_config(moe=toy.moe_config(**changes) if moe is None else moe)
    return group_advice(toy.recipe(model, rows, accumulate=accumulate), experts, devices)


@pytest.mark.parametrize(
    "fits",
    [
        {},
        {"experts": 1, "group_size": None},
        {"dispatch": "grouped", "group_size": None},
        {"group_size": 2 * toy.LENGTH},
    ],
)
def test_there_is_nothing_to_say_where_every_device_has_groups(fits):
    experts = fits.pop("experts", 4)
    assert advice(experts, **fits) is None


def test_one_group_is_gathered_everywhere():
    said = advice(group_size=None)
    assert said.startswith("model.moe.group_size is null, one group for all of a batch: 8 devices have no groups of")
    assert said.endswith(f"; model.moe.group_size={2 * toy.LENGTH} would send a token to its experts alone")
    assert "model.moe.group_size=16 would" in advice(group_size=None, accumulate=2)


def test_groups_that_are_fewer_than_devices():
    assert "group_size is 64: 8 devices have no groups of their own" in advice(group_size=4 * toy.LENGTH)
    assert "would send" not in advice(group_size=4 * toy.LENGTH, devices=7)
