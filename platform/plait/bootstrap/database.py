"""Verbs over a home's database and its artifacts as a whole: upgrade, check, export, import, back up, restore, gc."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from plait.bootstrap.verbs import Verbs
from plait.design.errors import NotFoundError, UnreachableError, UsageError, WrongStateError

if TYPE_CHECKING:
    from plait.bootstrap.backups import Backup
    from plait.bootstrap.home import Home
    from plait.campaign.garbage import Garbage
    from plait.registry.checks import Finding
    from plait.registry.exchange import Contents

SHORTEST_GRACE = timedelta(hours=1)
"""Things that were written later than this ago may belong to what runs now."""


class Database(Verbs):
    """The registry, whatever revision it is at."""

    def upgrade(self) -> tuple[str | None, str]:
        """Make the registry or bring it up to date; its revision before (None: there was none) and after.

        Raises:
            WrongStateError: It is newer than this Plait.
        """
        from plait.registry.store import Registry

        url = self._home.settings.database_url
        try:
            before = self._home.registry.revision()
        except NotFoundError:
            before = None
        made = Registry.create(url)
        try:
            return before, str(made.revision())
        finally:
            made.close()

    def downgrade(self, revision: str, *, is_confirmed: bool = False) -> tuple[str, str]:
        """Bring the registry back to an older revision, for an older Plait; its revision before and after.

        Raises:
            UsageError: It was not confirmed; the message says what is taken away.
            WrongStateError: Rows would be lost, or the registry is not newer than that.
        """
        from plait.registry.upgrades import known_revisions, refuse_newer, taken_away

        current = self._home.registry.revision()
        refuse_newer(current)
        known = [number for number in known_revisions() if current is not None and number < current]
        if current is None or revision not in known:
            hint = f"it can go back to {', '.join(known)}" if known else "there is nothing to go back to"
            raise WrongStateError(f"the registry is at {current or 'no revision'}, not above {revision}", hint=hint)
        if not is_confirmed:
            away = "; ".join(taken_away(current, revision))
            raise UsageError(f"going back to {revision} takes away {away}", hint="back up first, then add --yes")
        self._home.registry.downgrade(revision)
        return current, revision

    def check(self) -> list[Finding]:
        """Look at everything that can be wrong with the registry, and whether every model's files are kept.

        Raises:
            NotFoundError: The database cannot be reached.
        """
        from plait.registry.checks import Finding, check_registry

        found = check_registry(self._home.settings.database_url)
        if not all(finding.is_sound for finding in found):
            return found
        with self._home.registry.begin() as uow:
            wanted = {model.artifact_sha256 for model in uow.models()}
        lost = wanted - {kept.sha256 for kept in self._home.artifacts.kept()}
        words = f"the files of {len(lost)} models are missing" if lost else f"{len(wanted)} models have their files"
        return [*found, Finding("artifacts", words, not lost)]

    def export(self, file: str | Path) -> Contents:
        """Write the whole registry, as it is at one moment, into one portable file.

        Raises:
            BadInputError: The file cannot be written.
        """
        from plait.bootstrap.backups import new_zip
        from plait.registry.exchange import snapshot, write_tables

        with snapshot(self._home.settings.database_url) as connection, new_zip(Path(file)) as archive:
            return write_tables(connection, archive)

    def import_(self, file: str | Path, *, database_url: str | None = None) -> Contents:
        """Fill an empty registry from an export, of either database; all of it, verified row by row, or nothing.

        Args:
            file: From `export` or `backup`.
            database_url: Where to, from now on the home's database; the present one by default.

        Raises:
            BadInputError: It is no export.
            CorruptArtifactError: It was changed after it was written.
            WrongStateError: The registry has rows, or the home's present one has changed since, or is at work.
            UnreachableError: The home's present database does not answer.
        """
        from plait.bootstrap.backups import opened_zip
        from plait.registry.exchange import read_contents, read_tables
        from plait.settings import load_settings, save_settings

        present = self._home.settings.database_url
        url = load_settings(self._home.path, database_url=database_url).database_url if database_url else present
        with opened_zip(Path(file)) as archive:
            if url != present:
                self._refuse_another(read_contents(archive))
            contents = read_tables(url, archive)
        if url != present:
            save_settings(self._home.path, database_url=url)
        return contents

    def _refuse_another(self, contents: Contents) -> None:
        """A home changes its database only for its own rows, all of them."""
        from plait.registry.exchange import contents_of, snapshot

        try:
            with snapshot(self._home.settings.database_url) as connection:
                is_same = contents_of(connection) == contents
            running = [held.name for held in self._home.registry.lease_board().look() if held.is_living]
        except UnreachableError:
            raise
        except NotFoundError:
            return  # a home without a registry
        if running:
            raise WrongStateError(f"the home is at work: {', '.join(running)}", hint="stop it, then export again")
        if not is_same:
            raise WrongStateError(
                "the file does not hold the rows of this home's registry as they are now", hint="export again"
            )

    def backup(self, file: str | Path) -> Backup:
        """Write registry, artifacts and MLflow's local store into one file; campaigns may run meanwhile.

        Raises:
            CorruptArtifactError: An artifact is missing or changed.
        """
        from plait.bootstrap.backups import back_up

        return back_up(self._home, Path(file))

    def restore(self, file: str | Path) -> Backup:
        """Fill this new or empty home from a backup.

        Raises:
            BadInputError: It is no backup.
            CorruptArtifactError: It was changed after it was written.
            WrongStateError: The home's registry has rows.
        """
        from plait.bootstrap.backups import restore
        from plait.registry.exchange import refuse_filled

        refuse_filled(self._own_url())  # a home in use does not change its database
        return restore(self._home, Path(file))

    def gc(self, *, days: float = 7.0, is_dry: bool = False, is_alone: bool = False) -> Garbage:
        """Remove what nothing refers to.

        Args:
            days: For which things stay after they were written last; an hour at least.
            is_dry: Look only.
            is_alone: No other registry uses this artifact root; asked for where it is outside the home.

        Raises:
            UsageError: Another registry may use the artifact root.
        """
        from plait.campaign.garbage import collect, find_garbage

        root = self._home.settings.artifact_root
        is_own = Path(root).is_relative_to(self._home.path) and self._home.settings.database_url == self._own_url()
        if not is_alone and not is_dry and not is_own:
            raise UsageError(
                f"another registry may keep its artifacts in {root} too, and would lose them",
                hint="add --alone if none does, or --dry-run to look only",
            )
        do = find_garbage if is_dry else collect
        now, grace = self._home.ports.clock.now(), max(timedelta(days=days), SHORTEST_GRACE)
        return do(self._home.registry, self._home.artifacts, now, grace)

    def _own_url(self) -> str:
        """The database that this home has, whatever this one call was told."""
        from plait.settings import load_settings

        return load_settings(self._home.path, actor=self._home.settings.actor).database_url


def reach(home: Path, *, create: bool = False, **options: object) -> Home:
    """A home whose registry may be of any revision, or not there at all.

    Raises:
        NotFoundError: There is no such folder, or it cannot be made.
    """
    from plait.bootstrap.home import Home

    if create:
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise NotFoundError(f"{home} cannot be made: {error.strerror}", hint="choose another --home") from error
    if not home.is_dir():
        raise NotFoundError(f"there is no home at {home}", hint="run: plait init, or give --home")
    return Home(home, **options)  # type: ignore[arg-type]
