import math

import pytest
from plait.campaign.records import OutboxMessage
from plait.design.errors import BadInputError, NotFoundError

KEY = "e" * 64
OUTPUTS = {"policy": "f" * 64, "kl": 1 / 3, "nested": {"list": [1, None, "x"]}}


def test_a_stage_is_finished_once(registry, campaign):
    with registry.begin() as uow:
        assert uow.stage(campaign, 1, "sample", KEY) is None
        done = uow.finish_stage(campaign, 1, "sample", KEY, OUTPUTS, 2.5)
        again = uow.finish_stage(campaign, 1, "sample", KEY, {"other": 1}, 9.0)
        assert again == done == uow.stage(campaign, 1, "sample", KEY)
    assert (done.outputs, done.seconds, done.round, done.mlflow_run_id) == (OUTPUTS, 2.5, 1, None)


def test_seconds_are_summed_by_stage(registry, campaign):
    with registry.begin() as uow:
        assert uow.stage_seconds() == {}
        for stage, key, seconds in (("sample", "a", 2.5), ("sample", "b", 0.25), ("select", "a", 1.0)):
            uow.finish_stage(campaign, 1, stage, key * 64, OUTPUTS, seconds)
        assert uow.stage_seconds() == {"sample": (2, 2.75), "select": (1, 1.0)}


def test_stages_are_told_apart_by_the_whole_key(registry, campaign):
    with registry.begin() as uow:
        keys = [(0, "prior", KEY), (1, "sample", KEY), (1, "sample", "0" * 64), (2, "sample", KEY), (1, "filter", KEY)]
        for key in keys:
            uow.finish_stage(campaign, *key, {}, 0.0)
        assert [(s.round, s.stage, s.input_hash) for s in uow.stages(campaign)] == keys
        assert [s.stage for s in uow.stages(campaign, 1)] == ["sample", "sample", "filter"]


def test_outputs_hold_no_nan(registry, campaign):
    with pytest.raises(BadInputError, match="JSON compliant"), registry.begin() as uow:
        uow.finish_stage(campaign, 1, "sample", KEY, {"kl": math.nan}, 1.0)


def message(key, **other):
    fields = {
        "experiment": "c1",
        "run_name": "c1-prior v1",
        "params": {"steps": 3},
        "metrics": {"elbo": 0.1},
        "curves": {"loss": [(1, 0.5), (2, 0.25)]},
        "dataset": {"name": "brca2", "version": 1, "id": KEY},
        "model": None,
    }
    return OutboxMessage(key=key, **{**fields, **other})


def test_mlflow_is_told_once_and_tied_to_stage_and_model(registry, campaign):
    with registry.begin() as uow:
        done = uow.finish_stage(campaign, 0, "prior", KEY, {}, 1.0)
        model = uow.add_model(
            "c1-prior", kind="prior", algorithm="a", artifact_sha256=KEY, details={}, actor="ada", stage_run_id=done.id
        )
        about = {"registry_id": model.id, "name": model.name, "version": 1, "kind": "prior", "artifact": KEY}
        first, second = message("k1", model=about, stage_run_id=done.id), message("k2")
        for each in (first, second, first):
            uow.push_outbox(each)
        assert uow.outbox() == [first, second]
    with registry.begin() as uow:
        uow.mark_sent("k1", "run-1")
        assert uow.outbox() == [second]
        uow.push_outbox(first)  # a stage that runs again after the message was sent
        assert uow.outbox() == [second]
        assert uow.model("c1-prior").mlflow_run_id == "run-1"
        assert uow.stages(campaign)[0].mlflow_run_id == "run-1"
        with pytest.raises(NotFoundError, match="k3"):
            uow.mark_sent("k3", "run-3")


def test_curves_may_hold_what_is_no_number(registry):
    odd = message("k1", metrics={"elbo": -math.inf}, curves={"loss": [(1, math.nan), (2, 1.0)]})
    with registry.begin() as uow:
        uow.push_outbox(odd)
        (back,) = uow.outbox()
    assert back.metrics == {"elbo": -math.inf}
    assert math.isnan(back.curves["loss"][0][1])
    assert back.curves["loss"][1] == (2, 1.0)
