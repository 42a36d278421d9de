import pytest
from plait.campaign import catalog
from plait.design.errors import ConfigError


@pytest.mark.parametrize(
    ("room", "names"),
    [
        ("priors", {"masked_diffusion"}),
        ("rewards", {"ensemble", "black_box", "gaussian_process", "mixture", "motifs", "sparse"}),
        ("rewards.uncertainty", {"bootstrap_spread", "elliptical", "rarity"}),
        ("finetune", {"braid", "ctrl", "drakes", "path_consistency", "ppo", "reward_weighted_mle", "seiko", "strl"}),
        (
            "samplers",
            {
                "ancestral",
                "best_of_n",
                "cfg",
                "classifier_guidance",
                "ddom",
                "exhaustive",
                "smc",
                "svdd_mc",
                "svdd_pm",
                "svdd_r",
                "tds",
            },
        ),
        ("acquisition", {"as_drawn", "top_q", "pareto"}),
    ],
)
def test_every_algorithm_is_found_by_its_file_name(room, names):
    assert names <= set(catalog.algorithms(room))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        catalog.find("finetune", "os.system")
    assert "braid" in caught.value.hint


@pytest.mark.parametrize("settings", [{"colour": 1}, {"num_updates": 0}, {"num_updates": "many"}])
def test_settings_are_checked_by_the_algorithms_own_config(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        catalog.configure("finetune", "braid", settings)
