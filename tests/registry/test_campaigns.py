import pytest
from plait.campaign.records import RoundState
from plait.design.errors import NotFoundError, WrongStateError


def test_a_campaign_comes_back_as_it_was_given(registry, campaign, version):
    with registry.begin() as uow:
        found = uow.campaign(campaign)
        assert uow.campaigns() == [found]
    assert (found.name, found.dataset, found.dataset_version_id) == ("c1", "brca2", version.id)
    assert found.config == {"name": "c1", "dataset": "brca2"}
    assert (found.space, found.notes, found.created_by) == ({"allowed": ["ACGT"]}, ("a note",), "ada")
    assert found.state == "running"


def test_a_name_is_taken_once(registry, campaign, version):
    with registry.begin() as uow, pytest.raises(WrongStateError, match="already"):
        uow.add_campaign(campaign, dataset_version_id=version.id, config={}, space={}, notes=[], actor="eve")


def test_what_is_not_there_is_named(registry, campaign):
    with registry.begin() as uow:
        for get in (uow.campaign, uow.rounds, uow.designs, uow.results, uow.stages, uow.approvals):
            with pytest.raises(NotFoundError, match="no campaign 'c2'") as caught:
                get("c2")
            assert caught.value.hint == "known: c1"
        with pytest.raises(NotFoundError, match="no round 'c1 9'"):
            uow.move_round("c1", 9, RoundState.PROPOSED, "ada")


def test_a_round_is_added_once_and_in_order(registry, campaign, version):
    with registry.begin() as uow:
        first = uow.rounds(campaign)[0]
        assert uow.add_round(campaign, 1, version.id, "eve") == first
        assert (first.number, first.state, first.dataset_version_id) == (1, RoundState.RUNNING, version.id)
        with pytest.raises(WrongStateError, match="the next round of 'c1' is 2"):
            uow.add_round(campaign, 3, version.id, "ada")
        uow.add_round(campaign, 2, version.id, "ada")
        assert [r.number for r in uow.rounds(campaign)] == [1, 2]


def test_decisions_are_kept(registry, ordered, version):
    with registry.begin() as uow:
        uow.add_round(ordered, 2, version.id, "ada")
        uow.move_round(ordered, 2, RoundState.PROPOSED, "ada")
        assert uow.move_round(ordered, 2, RoundState.REJECTED, "eve", "too similar").state is RoundState.REJECTED
        decisions = [(a.round, a.decision, a.actor, a.reason) for a in uow.approvals(ordered)]
    assert decisions == [(1, "approved", "grace", "looks good"), (2, "rejected", "eve", "too similar")]


def test_a_running_round_can_only_be_proposed(registry, campaign):
    with registry.begin() as uow:
        for state in set(RoundState) - {RoundState.PROPOSED}:
            with pytest.raises(WrongStateError, match=f"is running and cannot become {state}"):
                uow.move_round(campaign, 1, state, "ada")
        assert uow.move_round(campaign, 1, RoundState.PROPOSED, "ada").state is RoundState.PROPOSED


def test_an_ordered_round_is_not_approved_again(registry, ordered):
    with registry.begin() as uow:
        with pytest.raises(WrongStateError, match="is ordered and cannot become approved"):
            uow.move_round(ordered, 1, RoundState.APPROVED, "eve")
        assert len(uow.approvals(ordered)) == 1


def test_an_exception_takes_everything_back(registry, campaign):
    def fail():
        with registry.begin() as uow:
            uow.move_round(campaign, 1, RoundState.PROPOSED, "ada")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with registry.begin() as uow:
        assert uow.rounds(campaign)[0].state is RoundState.RUNNING
