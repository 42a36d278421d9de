"""Numbers that are left open: where a range may stand, and what is checked of it at the door."""

import pytest
from plait.campaign.campaigns import check_algorithms
from plait.campaign.config import CampaignConfig, parse_config
from plait.campaign.ranges import axes_of, with_values
from plait.campaign.sweep_ports import Axis
from plait.design.errors import ConfigError

NAMED = {"name": "c", "dataset": "d"}
SWEPT = {"low": 0.01, "high": 1, "log": True}


def config(**sections):
    return parse_config({**NAMED, **sections})


def test_a_configuration_without_ranges_stands_as_it_stood():
    document = {**NAMED, "conservatism": {"scale": 0.5}, "finetune": {"kl_weight": 1, "settings": {"num_updates": 3}}}
    checked = config(**document)
    assert axes_of(checked, 1, 50) == {}
    dumped = checked.model_dump(mode="json", exclude_unset=True)
    assert dumped == document | {"conservatism": {"kind": "boot", "scale": 0.5}}
    assert type(dumped["finetune"]["kl_weight"]) is float
    assert "sweep" not in CampaignConfig(**NAMED).model_dump(exclude_unset=True)


@pytest.mark.parametrize("leash", ["auto", SWEPT])
def test_ranges_survive_being_stored(leash):
    first = config(conservatism={"kind": "boot", "scale": "auto"}, finetune={"kl_weight": leash})
    again = parse_config(first.model_dump(mode="json", exclude_unset=True))
    assert again == first
    check_algorithms(again)


def test_axes_are_the_open_numbers():
    open_ = config(
        conservatism=[{"scale": "auto"}, {"kind": "boot", "scale": {"low": -1, "high": -0.1}}, {"kind": "none"}],
        finetune={"settings": {"learning_rate": SWEPT, "num_updates": {"low": 10, "high": 50}}, "kl_weight": "auto"},
    )
    axes = axes_of(open_, 1, 50)
    assert axes["conservatism.scale"] == Axis(0.05, 2.0, True)
    assert axes["finetune.settings.learning_rate"] == Axis(0.01, 1.0, True)
    assert axes["finetune.settings.num_updates"] == Axis(10, 50, is_whole=True)
    leash = axes["finetune.kl_weight"]
    assert leash.high == pytest.approx(100 * leash.low)
    assert leash.is_log
    assert axes_of(open_, 2, 50)["conservatism.scale"] == Axis(-1.0, -0.1)
    assert "conservatism.scale" not in axes_of(open_, 3, 50)
    put = with_values(open_.finetune.settings | {"kl_weight": "auto"}, dict.fromkeys(axes, 7))
    assert put == {"learning_rate": 7, "num_updates": 7, "kl_weight": 7}


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"batch": {"size": SWEPT}}, r"batch\.size cannot be a range; a sweep varies conservatism\.scale"),
        ({"prior": {"settings": {"width": SWEPT}}}, r"prior\.settings\.width cannot be a range"),
        ({"assays": [{"dataset": "e", "weight": SWEPT}]}, r"assays\[1\]\.weight cannot be a range"),
        ({"conservatism": {"scale": {"low": 1, "high": 1}}}, "low must lie below high"),
        ({"conservatism": {"scale": {"low": 0, "high": 1, "log": True}}}, "begins above 0"),
        ({"conservatism": {"scale": {"low": -1, "high": 1}}}, "above 0 .* or below 0"),
        ({"conservatism": {"scale": {"low": 1, "high": 200}}}, "high end of the ranges .*less than or equal to 100"),
        ({"conservatism": {"kind": "auto", "scale": "auto"}}, "kind: auto finds its own scale"),
        ({"conservatism": {"kind": "none", "scale": SWEPT}}, "none subtracts nothing"),
        ({"finetune": {"kl_weight": {"low": 0, "high": 1}}}, "low end of the ranges"),
        ({"finetune": {"kl_weight": {"low": 1, "high": 1000}}}, "kl_weight.*less than or equal to 100"),
        ({"finetune": {"algorithm": "strl", "kl_weight": "auto"}}, "strl has no leash"),
        ({"finetune": {"algorithm": "none", "settings": {"a": SWEPT}}}, "trains nothing"),
        ({"sampler": {"algorithm": "smc"}, "conservatism": {"scale": "auto"}}, "trains nothing that a sweep could"),
        ({"finetune": {"settings": {"learning_rate": {"low": 0.1, "high": 3}}}}, "learning_rate.*less than or equal"),
        ({"finetune": {"settings": {"batch_size": {"low": 1.5, "high": 3}}}}, "must be whole"),
        ({"finetune": {"settings": {"precision": SWEPT}}}, "precision: a range stands for a number"),
        ({"finetune": {"settings": {"nonsense": SWEPT}}}, "nonsense: a range stands for a number"),
        ({"finetune": {"settings": {"clip": {"low": 2, "high": 1}}}}, "clip: low must lie below high"),
        ({"sweep": {"num_trials": 8}}, "nothing is to be swept"),
        ({"sweep": {"num_trials": 1}, "finetune": {"kl_weight": "auto"}}, "num_trials"),
    ],
)
def test_what_cannot_be_swept_is_refused_at_the_door(sections, reason):
    with pytest.raises(ConfigError, match=reason):
        check_algorithms(config(**sections))
