"""Showing a report in a browser of this computer, and of no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from elsewhere.errors import StorageError
from elsewhere.report.writing import make_report
from elsewhere.storage.files import read_plain

LOOPBACK = "127.0.0.1"
_LARGEST = 2**30


def make_server(page: bytes, port: int = 0) -> HTTPServer:
    """Return a server on the loopback address that knows one page, at its root.

    Raises
    ------
    StorageError
        The port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if self.path != "/" or host not in (LOOPBACK, "localhost"):  # names may be rebound
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: a page is asked for once."""

    try:
        return HTTPServer((LOOPBACK, port), Handler)
    except OSError as error:
        raise StorageError(
            f"port {port} of {LOOPBACK} cannot be used: {error.strerror or error}; choose another "
            "--port, or 0 for one that is free"
        ) from error


def serve_report(
    directories: Sequence[str | Path],
    written: Path | None = None,
    *,
    title: str | None = None,
    port: int = 0,
    ready: Callable[[str], None],
) -> None:
    """Show a report until the process is interrupted; `ready` is told the address.

    `written` is a report of these directories that is there already.
    """
    if written is None:
        page = make_report(directories, title=title).encode()
    else:
        page = read_plain(written, limit=_LARGEST)
    server = make_server(page, port)
    ready(f"http://{LOOPBACK}:{server.server_address[1]}/")
    try:
        server.serve_forever()
    finally:
        server.server_close()
