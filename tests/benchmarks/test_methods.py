import pytest
from plait.benchmarks.cells import make_cell
from plait.benchmarks.methods import is_possible, list_methods, merge, methods_of, overrides_of
from plait.benchmarks.tasks import find_task
from plait.campaign import catalog
from plait.campaign.campaigns import check_algorithms
from plait.campaign.config import parse_config
from plait.design.errors import NotFoundError

TASK = find_task("splice6")


@pytest.mark.parametrize("suite", ["small", "real"])
@pytest.mark.parametrize("method", list_methods())
def test_every_method_is_a_campaign_that_can_be_created(method, suite):
    config = parse_config(make_cell(TASK, method, 0, suite).config)
    check_algorithms(config)
    if method in catalog.algorithms("finetune"):
        assert (config.finetuner, config.sampler.algorithm) == (method, "ancestral")
    elif method in catalog.algorithms("samplers"):
        assert (config.finetuner, config.sampler.algorithm) == ("none", method)
    assert (config.batch.exhaustive_limit == 0) == (method != "default")


def test_no_two_methods_share_a_name():
    assert len(set(list_methods())) == len(list_methods())
    assert set(catalog.algorithms("finetune")) | set(catalog.algorithms("samplers")) < set(list_methods())


@pytest.mark.parametrize("suite", ["small", "real", "ehrlich"])
def test_a_suite_names_only_methods_that_are_there(suite):
    assert methods_of(suite)[0] == "default"
    assert set(methods_of(suite)) <= set(list_methods())


def test_only_small_spaces_are_ranked_whole():
    long = find_task("ehrlich-s4-l50").space
    assert [is_possible("exhaustive", space) for space in (TASK.space, long)] == [True, False]
    assert is_possible("braid", long)


def test_an_unknown_method_is_refused_with_those_there_are():
    with pytest.raises(NotFoundError, match="alchemy") as raised:
        overrides_of("alchemy")
    assert "braid" in raised.value.hint


def test_later_documents_win_key_by_key():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}}, {"d": {"e": 5}}) == {
        "a": {"b": 4, "c": 2},
        "d": {"e": 5},
    }
