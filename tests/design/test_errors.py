import pickle

import pytest
from plait.design.errors import (
    BadInputError,
    ConfigError,
    CorruptArtifactError,
    NotFoundError,
    PlaitError,
    RowProblem,
    RunFailedError,
    StoppedError,
    StoreError,
    UsageError,
    WrongStateError,
)

EXIT_CODES = {
    UsageError: 2,
    BadInputError: 3,
    ConfigError: 3,
    NotFoundError: 4,
    WrongStateError: 4,
    StoppedError: 4,
    CorruptArtifactError: 5,
    RunFailedError: 5,
    StoreError: 5,
}


@pytest.mark.parametrize("kind", EXIT_CODES, ids=lambda kind: kind.__name__)
def test_errors_have_their_exit_code_and_cross_processes(kind):
    error = pickle.loads(pickle.dumps(kind("it broke", hint="mend it")))  # noqa: S301
    assert isinstance(error, PlaitError)
    assert (error.exit_code, str(error), error.hint) == (EXIT_CODES[kind], "it broke", "mend it")
    assert error.to_json()["error"]["hint"] == "mend it"


def test_problems_are_listed_in_json():
    problem = RowProblem(3, "value", "x", "not a number")
    error = pickle.loads(pickle.dumps(BadInputError("1 bad row", problems=[problem])))  # noqa: S301
    assert error.to_json()["error"]["problems"] == [
        {"row": 3, "column": "value", "value": "x", "reason": "not a number"}
    ]
