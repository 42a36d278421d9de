"""One call of the command line: its global options, the home it opens, and how a command is registered."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeAlias

import typer

if TYPE_CHECKING:
    from plait.bootstrap.home import Home
    from plait.interfaces.cli.output import Block

GLOBAL_OPTIONS: dict[str, Any] = {
    "home": Annotated[
        Path | None,
        typer.Option("--home", metavar="DIR", help="The home [PLAIT_HOME, else .plait in the working directory]."),
    ],
    "json": Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")],
    "quiet": Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")],
    "actor": Annotated[
        str | None, typer.Option("--actor", metavar="NAME", help="Who acts [PLAIT_ACTOR, else the login name].")
    ],
    "override": Annotated[
        list[str] | None,
        typer.Option(
            "--override", metavar="NAME=VALUE", help="Any setting of the home, for this call; may be repeated."
        ),
    ],
}
"""Understood before and after every subcommand; the one nearest to the end of the line wins."""

FROM_ELSEWHERE = {"home": "give --home", "scorers": "put scorers into the home's settings.yaml"}
"""Settings that --override does not take."""

Command: TypeAlias = Callable[..., None]


class Session:
    """What the global options said, and where output goes.

    Attributes:
        home: --home, None where it was not given.
        is_json: --json.
        is_quiet: --quiet.
        actor: --actor, None where it was not given.
        overrides: --override, by name.
        stdout: Where data goes, whatever libraries print meanwhile.
    """

    def __init__(self, stdout: TextIO) -> None:
        self.home: Path | None = None
        self.is_json = self.is_quiet = False
        self.actor: str | None = None
        self.overrides: dict[str, str] = {}
        self.stdout = stdout

    def adopt(
        self, *, home: Path | None, json: bool, quiet: bool, actor: str | None, override: list[str] | None
    ) -> None:
        """Take over global options given at one place of the line."""
        for text in override or ():
            self.overrides.update([_split(text)])
        self.home, self.actor = home or self.home, self.actor if actor is None else actor
        self.is_json, self.is_quiet = self.is_json or json, self.is_quiet or quiet

    @property
    def path(self) -> Path:
        """The folder of the home."""
        from plait.bootstrap.home import home_path

        return home_path(self.home)

    @property
    def options(self) -> dict[str, Any]:
        """Settings that this call overrides."""
        return self.overrides if self.actor is None else {**self.overrides, "actor": self.actor}

    @contextmanager
    def open(self, *, create: bool = False) -> Iterator[Home]:
        """The home, opened for the length of a block, with progress on stderr."""
        import plait
        from plait.interfaces.cli.progress import progress_on

        with (
            progress_on(sys.stderr, is_quiet=self.is_quiet) as progress,
            plait.open(self.home, create=create, progress=progress, **self.options) as home,
        ):
            yield home

    def show(self, document: Any, *blocks: Block) -> None:
        """Print a result: the document under --json, else the blocks (lines and tables)."""
        from plait.interfaces.cli.output import json_text, print_blocks, write

        if self.is_json:
            write(self.stdout, json_text(document))
        else:
            print_blocks(self.stdout, blocks)


def command(group: typer.Typer, name: str, *, example: str) -> Callable[[Command], Command]:
    """Register a function (session, arguments...) as a subcommand that understands the global options too."""

    def register(function: Command) -> Command:
        def call(**values: Any) -> None:
            session = _adopt(values)
            with redirect_stdout(sys.stderr):  # what libraries print is no data
                function(session, **values)

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        _disguise(call, own)
        group.command(name, help=inspect.getdoc(function), epilog=f"Example: {example}")(call)
        return function

    return register


def make_group(name: str, about: str, *own: inspect.Parameter) -> typer.Typer:
    """A group of subcommands that understands the global options too; `own` options have callbacks of their own."""

    def call(**values: Any) -> None:
        _adopt(values)

    _disguise(call, own)
    group = typer.Typer(name=name, help=about, rich_markup_mode=None, add_completion=False)
    group.callback()(call)
    return group


def _adopt(values: dict[str, Any]) -> Session:
    session: Session = values.pop("context").obj
    session.adopt(**{option: values.pop(option) for option in GLOBAL_OPTIONS})
    return session


def _split(text: str) -> tuple[str, str]:
    """NAME=VALUE in two.

    Raises:
        UsageError: It is not that, or names what has an option of its own.
    """
    from plait.design.errors import UsageError
    from plait.settings import Settings, redacted

    name, equals, value = text.partition("=")
    known = [field for field in Settings.model_fields if field not in FROM_ELSEWHERE]
    if name in FROM_ELSEWHERE:
        raise UsageError(f"--override does not take {name}", hint=FROM_ELSEWHERE[name])
    if not equals or name not in known:
        raise UsageError(f"--override takes NAME=VALUE, not '{redacted(text)}'", hint=f"names are {', '.join(known)}")
    return name, value


def _disguise(call: Command, own: Sequence[inspect.Parameter]) -> None:
    """Give `call` the signature that typer reads: its own parameters and the global ones."""
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("context", kind, annotation=typer.Context)]
    parameters += [parameter.replace(kind=kind) for parameter in own]
    for option, annotation in GLOBAL_OPTIONS.items():
        default = False if option in ("json", "quiet") else None
        parameters.append(inspect.Parameter(option, kind, default=default, annotation=annotation))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
