import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.campaign.campaigns import check_algorithms
from plait.campaign.config import CampaignConfig, parse_config, read_config
from plait.design.errors import ConfigError, NotFoundError

MINIMAL = {"name": "a", "dataset": "d"}
BRAID = {"finetune": {"algorithm": "braid"}}


def test_only_name_and_dataset_have_no_default():
    config = parse_config(MINIMAL)
    assert (config.rounds, config.batch.size, config.finetuner) == (3, 96, "drakes")
    assert config.conservatism_of(1).kind == "auto"
    for missing in MINIMAL:
        with pytest.raises(ConfigError, match=missing):
            parse_config({k: v for k, v in MINIMAL.items() if k != missing})


@pytest.mark.parametrize(
    "section",
    [
        "objective",
        "space",
        "prior",
        "reward",
        "judge",
        "conservatism",
        "finetune",
        "sampler",
        "filter",
        "acquisition",
        "batch",
    ],
)
def test_unknown_keys_are_errors_that_name_the_field(section):
    with pytest.raises(ConfigError) as caught:
        parse_config(MINIMAL | {section: {"colour": 1}})
    assert any(problem.column == f"{section}.colour" or "colour" in problem.column for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"finetune": {"algorithm": "strl", "kl_weight": 0.1}}, "strl has no leash"),
        ({"finetune": {"algorithm": "drakes", "kl_weight": 0}}, "drakes needs kl_weight"),
        ({"finetune": {"algorithm": "drakes"}, "conservatism": {"kind": "boot"}}, "drakes subtracts nothing"),
        (BRAID | {"conservatism": {"kind": "none"}}, "braid is doubly conservative"),
        (BRAID | {"conservatism": {"kind": "auto"}}, "braid is doubly conservative"),
        (BRAID | {"conservatism": {"kind": "boot", "scale": 0}}, "braid is doubly conservative"),
        ({"finetune": {"algorithm": "braid", "kl_weight": 0}}, "braid is doubly conservative"),
        ({"finetune": {"kl_weight": 0}}, "name the fine-tuner"),
        (BRAID | {"conservatism": [{"kind": "boot"}, {"kind": "none"}], "rounds": 2}, "round 2"),
        ({"conservatism": {"kind": "auto", "scale": 2}}, "finds its own scale"),
        ({"conservatism": {"kind": "none", "scale": 2}}, "leave scale out"),
        (BRAID | {"conservatism": {"scale": -1}}, "seiko for optimism"),
        ({"finetune": {"algorithm": "seiko"}, "conservatism": {"scale": 1}}, "starts out optimistic"),
        ({"finetune": {"algorithm": "none", "kl_weight": 0.1}}, "trains nothing"),
        ({"sampler": {"algorithm": "smc"}, "finetune": {"settings": {"num_updates": 3}}}, "trains nothing"),
        ({"assays": [{"dataset": "d"}]}, "a dataset of its own"),
        ({"assays": [{"dataset": "e", "weight": 0}], "objective": {"weight": 0}}, "weight 0"),
        ({"objective": {"scalarisation": "chebyshev"}}, "needs several assays"),
        ({"objective": {"threshold": float("nan")}}, "threshold"),
        ({"prior": {"corpus": "a", "model": "b"}}, "one of"),
        ({"name": "../escape"}, "pattern"),
        ({"conservatism": []}, "one entry"),
        ({"workers": []}, "one entry"),
        ({"workers": [2, -1]}, "workers"),
        ({"batch": {"size": 0}}, "greater than"),
    ],
)
def test_contradictions_are_refused(change, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_config(MINIMAL | change)


def test_conservatism_may_be_a_schedule():
    config = parse_config(MINIMAL | {"conservatism": [{"kind": "boot", "scale": 2}, {"kind": "bonus", "scale": 1}]})
    assert [config.conservatism_of(n).scale for n in (1, 2, 3)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("conservatism", "name"),
    [
        ({"kind": "boot"}, "braid"),
        ({"kind": "none"}, "drakes"),
        ({"scale": -0.5}, "seiko"),
        ({"kind": "auto"}, "drakes"),
    ],
)
def test_the_fine_tuners_name_follows_what_is_subtracted(conservatism, name):
    assert parse_config(MINIMAL | {"conservatism": conservatism}).finetuner == name


def test_a_named_braid_is_conservative_by_default():
    assert parse_config(MINIMAL | BRAID).conservatism_of(1).effective_scale == 0.5


@pytest.mark.parametrize("algorithm", ["strl", "drakes"])
def test_without_a_word_about_conservatism_the_plain_algorithms_have_none(algorithm):
    assert parse_config(MINIMAL | {"finetune": {"algorithm": algorithm}}).conservatism_of(1).effective_scale == 0


def test_optimism_may_turn_into_conservatism_round_by_round():
    config = parse_config(
        MINIMAL | {"finetune": {"algorithm": "seiko"}, "conservatism": [{"scale": -1}, {"scale": 0}, {"scale": 0.5}]}
    )
    assert [config.conservatism_of(n).effective_scale for n in (1, 2, 3)] == [-1, 0, 0.5]
    assert parse_config(MINIMAL | {"finetune": {"algorithm": "seiko"}}).conservatism_of(1).effective_scale < 0


def test_a_sampler_that_steers_by_itself_needs_no_fine_tuning():
    assert parse_config(MINIMAL | {"sampler": {"algorithm": "svdd_pm"}}).finetuner == "none"
    both = {"sampler": {"algorithm": "svdd_pm"}, "finetune": {"algorithm": "drakes"}}
    assert parse_config(MINIMAL | both).finetuner == "drakes"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, "finetune: drakes"),
        ({"sampler": {"algorithm": "tds"}}, "samplers: tds"),
        ({"finetune": {"algorithm": "seiko"}}, "finetune: seiko"),
    ],
)
@pytest.mark.parametrize("black_box", ["reward", "hypervolume"])
def test_a_method_that_follows_gradients_is_refused_a_reward_without_them(change, named, black_box):
    given = {"reward": {"algorithm": "black_box", "settings": {"scorer": "mine"}}}
    if black_box == "hypervolume":
        given = {"assays": [{"dataset": "e"}], "objective": {"scalarisation": "hypervolume"}}
    with pytest.raises(ConfigError, match=named) as caught:
        check_algorithms(parse_config(MINIMAL | given | change))
    assert ("ppo" if "finetune" in named else "svdd_pm") in caught.value.hint
    check_algorithms(parse_config(MINIMAL | given | {"sampler": {"algorithm": "svdd_pm"}}))
    check_algorithms(parse_config(MINIMAL | given | {"finetune": {"algorithm": "ppo"}}))


def test_workers_may_be_a_list_by_round():
    assert [parse_config(MINIMAL | {"workers": [2, 0]}).workers_of(n) for n in (1, 2, 3)] == [2, 0, 0]
    assert parse_config(MINIMAL | {"workers": 3}).workers_of(2) == 3


def test_a_stored_configuration_reads_back_equal():
    config = parse_config(
        MINIMAL
        | {"finetune": {"algorithm": "drakes"}, "space": {"constraints": [{"kind": "max_homopolymer", "length": 4}]}}
    )
    again = CampaignConfig.model_validate(config.model_dump(mode="json", exclude_unset=True))
    assert again == config
    assert again.conservatism_of(1) == config.conservatism_of(1)


def test_a_corpus_path_is_taken_from_the_files_folder(tmp_path):
    (tmp_path / "c.yaml").write_text("name: a\ndataset: d\nprior: {corpus: natural.fa}\n")
    assert read_config(tmp_path / "c.yaml").prior.corpus == str(tmp_path / "natural.fa")


@pytest.mark.parametrize("text", ["- a list", "name: [", "\x00", "just text", "", "[" * 5_000])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError):
        read_config(tmp_path / "c.yaml")


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        read_config(tmp_path / "none.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda s: (
            st.lists(s, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "dataset", "space", "kind", "batch", "size"]), s, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_any_document_is_read_or_refused_by_name(document):
    with contextlib.suppress(ConfigError):
        assert parse_config(document).name


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ({"conservatism": [{"scale": -1}, {"scale": "foo"}]}, {"conservatism[2].scale": "valid number"}),
        ({"conservatism": {"scale": "foo"}}, {"conservatism.scale": "valid number"}),
        ({"conservatism": {"kind": "none", "scale": 2}}, {"conservatism": "leave scale out"}),
        ({"conservatism": 5}, {"conservatism": "dictionary"}),
        ({"workers": [2, -1]}, {"workers[2]": "greater than"}),
        ({"workers": "x"}, {"workers": "valid integer"}),
        ({"prior": {"settings": {1: 2}}}, {"prior.settings.1": "valid string"}),
        (
            {"space": {"constraints": [{"kind": "max_homopolymer", "lenght": 4}]}},
            {"space.constraints[1].length": "required", "space.constraints[1].lenght": "(did you mean length?)"},
        ),
        (
            {"batch": {"sise": 3}, "rond": 2, "colour": 1},
            {
                "batch.sise": "no key here (did you mean size?)",
                "rond": "no key here (did you mean rounds?)",
                "colour": "no key here",
            },
        ),
        (
            {"assays": [{"dataset": "e", "reward": {"membrs": 3}}]},
            {"assays[1].reward.membrs": "(did you mean members?)"},
        ),
        ({"objective": {"scalarisation": "chebyshev"}}, {"": "needs several assays"}),
    ],
)
def test_each_field_is_named_once_as_its_author_wrote_it(change, problems):
    with pytest.raises(ConfigError) as caught:
        parse_config(MINIMAL | change, "c.yaml")
    assert [p.column for p in caught.value.problems] == list(problems)
    for problem, reason in zip(caught.value.problems, problems.values(), strict=True):
        assert reason in problem.reason
    start = next(iter(problems))
    assert caught.value.message.startswith(f"c.yaml cannot be used: {start}{': ' if start else 'objective.scalar'}")


def test_an_unknown_setting_of_an_algorithm_names_the_nearest():
    with pytest.raises(ConfigError, match=r"num_update: is no key here \(did you mean num_updates\?\)"):
        check_algorithms(parse_config(MINIMAL | {"finetune": {"settings": {"num_update": 3}}}))
