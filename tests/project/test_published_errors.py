"""Errors found in the published code of these methods, and the tests that would catch each of them here."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CAUGHT_BY = {
    "mask probability (1 - eps) t: a piece of the bound and of the chain is left out": [
        "priors/test_masking.py::test_elbo_is_the_mean_over_orders_and_bounds_log_p",
        "benchmarks/test_exact.py::test_elbo_is_the_law_where_letters_know_no_context",
        "benchmarks/test_exact.py::test_masks_fall_evenly_from_all_to_none",
    ],
    "averaged weights without warm-up: a short run keeps its initial weights": [
        "priors/test_masked_diffusion.py::test_averaged_weights_of_a_short_run_are_not_the_initial_ones",
        "priors/test_masked_diffusion.py::test_pretraining_learns_the_pattern_and_keeps_it",
    ],
    "the last step leaves masks": [
        "priors/test_masking.py::test_template_is_respected_and_no_mask_is_left",
        "benchmarks/test_exact.py::test_masks_fall_evenly_from_all_to_none",
    ],
    "the KL weights unmasked positions, so that it is 0 on hard states": [
        "priors/test_masking.py::test_kl_counts_masked_positions_not_settled_ones",
        "benchmarks/test_exact.py::test_path_kl_is_the_mean_over_chains_and_bounds_that_of_designs",
        "finetune/test_ppo.py::test_the_kl_of_hard_states_is_the_path_kl",
    ],
    "the KL of hard steps is silently left out of the loss": [
        "finetune/test_direct_backprop.py::test_settling_the_hard_kl_at_once_changes_no_gradient",
        "finetune/test_direct_backprop.py::test_kl_of_hard_steps_can_be_reported_only",
    ],
    "a soft step keeps w (1 - w) of the mask's mass": [
        "priors/test_masking.py::test_soft_steps_keep_mass_and_end_without_mask",
    ],
    "the mask is relaxed with the letters: chains unmask too fast and show too little path KL": [
        "priors/test_masking.py::test_soft_steps_unmask_at_the_pace_of_hard_ones",
        "finetune/test_direct_backprop.py::test_the_kl_that_is_reported_is_the_path_kl",
    ],
    "the optimiser is created anew for each rollout and loses its moments": [
        "finetune/test_contract.py::"
        "test_one_optimiser_serves_the_whole_run_and_gradients_are_averaged_before_each_of_its_updates",
    ],
    "the covariance of the elliptical bonus is normalised, so that data do not shrink it": [
        "rewards/test_uncertainty.py::test_elliptical_shrinks_as_data_grows",
        "rewards/test_uncertainty.py::test_elliptical_is_its_closed_form",
    ],
    "the elliptical bonus is not in the assay's unit": [
        "rewards/test_uncertainty.py::test_elliptical_sigma_is_the_residual_of_one_reading",
    ],
    "a configuration contradicts its algorithm's name (a leash of 0, pessimism without uncertainty)": [
        "finetune/test_contract.py::test_an_objective_that_contradicts_the_name_is_refused",
        "finetune/test_contract.py::test_a_kl_weight_that_contradicts_the_name_is_refused",
    ],
    "PPO makes one pass per rollout: its ratio is always 1": [
        "finetune/test_ppo.py::test_later_epochs_see_ratios_that_are_not_one_and_are_clipped",
    ],
}


@pytest.mark.parametrize("error", CAUGHT_BY)
def test_each_error_has_its_test(error):
    for test in CAUGHT_BY[error]:
        file, name = test.split("::")
        functions = {f.name for f in ast.parse((TESTS / file).read_text()).body if isinstance(f, ast.FunctionDef)}
        assert name in functions, f"{test} is gone: name the test that catches this error now"
