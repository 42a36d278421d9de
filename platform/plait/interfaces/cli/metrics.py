"""plait metrics."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Annotated

import typer

from plait.interfaces.cli.session import Session, command

if TYPE_CHECKING:
    from plait.bootstrap.metrics import Metrics

SECONDS_OF_A_CLIENT = 10
"""A client that sends nothing for so long is hung up on: there is one at a time."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "metrics", example="plait metrics --listen 127.0.0.1:9464")(metrics)


def metrics(
    session: Session,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Answer GET /metrics there until stopped; no password.")
    ] = None,
) -> None:
    """Campaigns, rounds, queue and failures for Prometheus: printed once, or served with --listen."""
    from plait.bootstrap.metrics import Metrics
    from plait.interfaces.cli.output import write

    address = None if listen is None else _address(listen)
    with session.open() as home:
        figures = Metrics(home)
        if address is not None:
            _serve(figures, address)
        elif session.is_json:
            session.show({"metrics": figures.text()})
        else:
            write(session.stdout, figures.text())


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter(f"{text!r} is no HOST:PORT", param_hint="'--listen'")
    return host, int(port)


def _serve(figures: Metrics, address: tuple[str, int]) -> None:
    """Answer one request after the other until interrupted.

    Raises:
        ConfigError: Nothing can listen there.
    """
    from plait.design.errors import ConfigError

    try:
        server = HTTPServer(address, _handler(figures))
    except OSError as error:
        raise ConfigError(
            f"nothing can listen on {address[0]}:{address[1]}: {error.strerror or error}",
            hint="choose another --listen",
        ) from None
    with server:
        server.serve_forever()


def _handler(figures: Metrics) -> type[BaseHTTPRequestHandler]:
    from plait.campaign.exposition import CONTENT_TYPE
    from plait.design.errors import PlaitError

    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS_OF_A_CLIENT

        def do_GET(self) -> None:
            if self.path != "/metrics":
                self._answer(404, "see /metrics\n")
                return
            try:
                self._answer(200, figures.text())
            except PlaitError as error:
                self._answer(503, f"{error}\n")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nobody reads a line a scrape."""

    return Handler
