"""Web application over one run folder: it reads, and changes nothing."""

import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError, MissingFileError, printable, refusal_of
from fedperfit.simulation.watch.page import REFRESH_SECONDS, page
from fedperfit.simulation.watch.state import EventReader

REPORT = "report.html"
"""File in the run folder that `/report` serves."""
_HOSTS = ["127.0.0.1", "localhost"]
"""Names by which the page may be called, so that no other page can call it by a name of its own."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def build(folder: Path) -> FastAPI:
    """Build the application over a run folder.

    Args:
        folder: The run folder, finished, at work or not yet begun.
    """
    app = FastAPI(title="fedperfit watch", docs_url=None, redoc_url=None, openapi_url=None)
    reader = EventReader(folder)

    @app.middleware("http")
    async def headers(request: Request, serve: RequestResponseEndpoint) -> Response:
        response = await serve(request)
        response.headers.update(_HEADERS)
        return response

    @app.exception_handler(InputError)
    @app.exception_handler(OSError)
    async def tell(request: Request, error: Exception) -> Response:
        told = refusal_of(error) if isinstance(error, OSError) else error
        said = f"{printable(f'error: {told}')}\n"
        return PlainTextResponse(said, 500, headers={"Refresh": str(REFRESH_SECONDS)})

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False)

    @app.get("/")
    async def show() -> HTMLResponse:  # one at a time, as the reader wants it
        if not folder.is_dir():
            raise MissingFileError(f"{folder}: the folder is no longer there")
        path = folder / SETTINGS
        settings = read_form(path, dict[str, Any]) if path.exists() else {}
        there = (folder / REPORT).exists()
        shown = page(folder.name, reader.news(), time.time(), settings, report=there)
        return HTMLResponse(shown.encode(errors="replace"))  # names of files may hold half a character

    @app.get("/report")
    def report() -> HTMLResponse:
        path = folder / REPORT
        if not path.exists():
            raise HTTPException(404, "there is no report yet")
        return HTMLResponse(path.read_bytes())

    return app
