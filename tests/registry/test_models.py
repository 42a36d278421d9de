import pytest
from plait.design.errors import NotFoundError, UsageError
from sqlalchemy import text

SHAS = [letter * 64 for letter in "abcd"]


def register(registry, name, sha, **other):
    with registry.begin() as uow:
        return uow.add_model(
            name,
            **{"kind": "prior", "algorithm": "masked_diffusion", "details": {"steps": 3}, "actor": "ada", **other},
            artifact_sha256=sha,
        )


def test_versions_count_up_and_the_same_artifact_is_one(registry, version):
    first = register(registry, "p", SHAS[0], dataset_version_id=version.id)
    second = register(registry, "p", SHAS[1], kind="policy")
    other = register(registry, "q", SHAS[0])
    assert register(registry, "p", SHAS[0], actor="eve") == first
    assert [m.version for m in (first, second, other)] == [1, 2, 1]
    assert first.id < second.id < other.id
    assert (first.kind, first.details, first.dataset_version_id) == ("prior", {"steps": 3}, version.id)
    with registry.begin() as uow:
        assert uow.models() == [first, second, other]
        assert uow.model("p") == second
        assert uow.model("p@1") == first


def test_an_alias_moves_and_its_history_stays(registry):
    for sha in SHAS[:3]:
        register(registry, "p", sha)
    with registry.begin() as uow:
        for reference in ("p@1", "p@3", "p@champion", "p@2"):
            assert uow.promote(reference, "champion", "ada").aliases == ("champion",)
        uow.promote("p@2", "best", "ada")
        assert uow.model("p@champion").version == 2
        assert [m.aliases for m in uow.models()] == [(), ("best", "champion"), ()]
        history = uow.connection.execute(
            text("SELECT model_id, previous_model_id FROM alias_history ORDER BY id")
        ).all()
    assert history == [(1, None), (3, 1), (2, 3), (2, None)]


def test_what_is_not_there_is_named(registry):
    register(registry, "p", SHAS[0])
    with registry.begin() as uow:
        for reference, known in (("q", "p"), ("p@champion", "p@1"), ("p@2", "p@1")):
            with pytest.raises(NotFoundError, match=f"no model '{reference}'") as caught:
                uow.model(reference)
            assert caught.value.hint == f"known: {known}"
        for alias in ("2", "", "a@b"):
            with pytest.raises(UsageError):
                uow.promote("p", alias, "ada")
