"""The race of arms: halving, standing still, and what an arm is judged by."""

import pytest
from plait.campaign.race import best_eighth, runners, wells


def test_two_arms_split_the_first_round_and_the_better_takes_all():
    assert runners(["a", "b"], []) == ("a", "b")
    assert runners(["a", "b"], [{"a": [1.0, 0.0], "b": [0.9, 0.8]}]) == ("a",)
    assert runners(["a", "b"], [{"a": [1.0, 0.0], "b": [0.9, 1.1]}]) == ("b",)


def test_an_arm_is_judged_by_its_best_eighth():
    lucky, steady = [2.0] + [0.0] * 15, [1.5] * 16
    assert best_eighth(lucky) == 1.0
    assert best_eighth([3.0]) == 3.0
    assert runners(["lucky", "steady"], [{"lucky": lucky, "steady": steady}]) == ("steady",)


def test_all_share_again_after_three_stale_rounds_and_no_earlier():
    start = {"a": [1.0], "b": [0.5]}
    assert runners(["a", "b"], [start, {"a": [1.0]}, {"a": [0.9]}]) == ("a",)
    assert runners(["a", "b"], [start, {"a": [1.0]}, {"a": [0.9]}, {"a": [0.8]}]) == ("a", "b")
    assert runners(["a", "b"], [start, {"a": [1.0]}, {"a": [1.1]}, {"a": [0.8]}]) == ("a",)
    again = [start, *[{"a": [1.0]}] * 3, {"a": [0.2], "b": [0.3]}]
    assert runners(["a", "b"], again) == ("b",)


def test_more_arms_are_halved_round_by_round():
    readings = {name: [float(number)] for number, name in enumerate("abcde")}
    first = runners("abcde", [readings])
    assert first == ("c", "d", "e")
    second = {name: readings[name] for name in first}
    assert runners("abcde", [readings, second]) == ("d", "e")
    assert runners("abcde", [readings, second, {"d": [9.0], "e": [1.0]}]) == ("d",)


@pytest.mark.parametrize("history", [[{}], [{"a": [], "b": []}], [{"gone": [1.0]}]])
def test_a_round_that_tells_nothing_starts_again(history):
    assert runners(["a", "b"], history) == ("a", "b")


def test_an_arm_whose_wells_all_failed_is_out():
    assert runners(["a", "b"], [{"a": [], "b": [-3.0]}]) == ("b",)


def test_wells_add_up():
    assert wells(["a", "b", "c"], 97) == {"a": 33, "b": 32, "c": 32}
    assert wells(["a"], 96) == {"a": 96}


def test_an_arm_without_a_well_does_not_run():
    assert wells(["a", "b"], 1) == {"a": 1}
