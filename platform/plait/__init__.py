"""Plait: active design of biological sequences.

A generative prior, a conservative reward, a batch to the lab, and back.

    import plait
    home = plait.open(".plait", create=True)
    home.data.import_("measurements.csv", dataset="promoters", alphabet="dna", unit="log2 fold")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from plait.bootstrap.home import Home

__all__ = ["open"]


def open(home: str | Path | None = None, *, create: bool = False, **options: Any) -> Home:  # noqa: A001
    """Open a home: the folder with the registry, the models and the settings.

    Args:
        home: The folder; PLAIT_HOME, else .plait in the working directory, by default.
        create: Make it (like `plait init`) where there is none.
        **options: Settings that win over file and environment (database_url, actor, ray_num_cpus, ...), and
            `progress`, a callable (task, done, total, message), and `scorers`, black-box scorers by name: callables
            that take sequences and return one number each (module-level functions where Ray workers are to call them).

    Raises:
        NotFoundError: There is no home and `create` is False.
        WrongStateError: The registry was written by a newer Plait.
        ConfigError: A setting is out of bounds.
    """
    from plait.bootstrap.home import open_home

    return open_home(home, create=create, **options)
