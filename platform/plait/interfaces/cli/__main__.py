"""`python -m plait.interfaces.cli` is `plait`."""

from plait.interfaces.cli.main import run

run()
