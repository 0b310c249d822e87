"""Showing a report in a browser of this computer, and of no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

from elsewhere.errors import StorageError
from elsewhere.report.packing import INDEX

LOOPBACK = "127.0.0.1"
_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8"}


def make_server(pages: Mapping[str, bytes], port: int = 0) -> HTTPServer:
    """Return a server on the loopback address that knows a report, at its root, and nothing else.

    It answers when it serves; `pages` may be filled until then. Each connection has a thread:
    browsers open some of which they do not ask anything.

    Raises
    ------
    StorageError
        The port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            name = self.path[1:] or INDEX
            page = pages.get(name)
            if page is None or host not in (LOOPBACK, "localhost"):  # names may be rebound
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", _TYPES[name.rpartition(".")[2]])
            self.send_header("Content-Length", str(len(page)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: a page is asked for once."""

    try:
        return ThreadingHTTPServer((LOOPBACK, port), Handler)
    except OSError as error:
        raise StorageError(
            f"port {port} of {LOOPBACK} cannot be used: {error.strerror or error}; choose another "
            "--port, or 0 for one that is free"
        ) from error


def serve_report(server: HTTPServer, *, ready: Callable[[str], None]) -> None:
    """Show a report until the process is interrupted; `ready` is told the address."""
    ready(f"http://{LOOPBACK}:{server.server_address[1]}/")
    try:
        server.serve_forever()
    finally:
        server.server_close()
