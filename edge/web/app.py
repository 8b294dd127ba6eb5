"""Web application over an agent: checks who asks and how much, and serves API and page."""

import hmac
from collections.abc import Awaitable, Callable, Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.web.failures import add_handlers, failure
from fedperfit.edge.web.hosts import called_by
from fedperfit.edge.web.metrics import ChainCheck, agent_metrics
from fedperfit.edge.web.openai_api import router
from fedperfit.edge.web.owner import AgentError, Owner
from fedperfit.protocol.system.metrics import CONTENT_TYPE

SERVER: dict[str, Any] = {
    "http": "h11",  # httptools streams in chunks to HTTP/1.0 too, which knows none
    "log_level": "error",
    "access_log": False,
    "server_header": False,
}
"""Options with which uvicorn serves the application."""
_LARGEST = 1 << 20
"""Bytes of the largest body of a request."""
_NEWEST = 1_000
"""Most lines of the log that a page reads back from its end."""
_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEALTH, _METRICS = "/healthz", "/metrics"
"""Paths for operators: whether the agent answers, told to everybody here, and its numbers."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def build(
    folder: Path,
    token: str,
    *,
    hosts: Collection[str] | None,
    metrics_token: str = "",
    task_form: bool = True,
) -> FastAPI:
    """Build the application over the agent of a folder.

    Args:
        folder: the person's own folder.
        token: secret of the callers; without it only the page's own files are served.
        hosts: host names by which the application may be called, so that no other page can call it by a name
            of its own; None for any.
        metrics_token: secret of who may read the metrics, and nothing else; empty for the owner's alone.
        task_form: whether a conversation that closes with a question of the person's task is asked in the
            task's form.
    """
    owner = Owner(folder)
    chain = ChainCheck(Home(folder).audit)
    app = FastAPI(title="fedperfit", docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, serve: Callable[[Request], Awaitable[Response]]) -> Response:
        secrets = (token, metrics_token) if request.url.path == _METRICS and metrics_token else (token,)
        if hosts is not None and not called_by(request.headers.get("host", ""), hosts):
            return PlainTextResponse("this page has another name\n", 400, _HEADERS)
        response = _refusal(request, secrets) or await serve(request)
        response.headers.update(_HEADERS)
        return response

    add_handlers(app)
    app.include_router(router(owner, task_form=task_form))

    @app.get("/owner/state")
    async def state() -> dict[str, Any]:
        return await owner.state()

    @app.get("/owner/sent")
    async def sent(
        after: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
        newest: Annotated[int, Query(ge=0, le=_NEWEST)] = _NEWEST,
    ) -> list[dict[str, Any]]:
        return await owner.sent(after, newest)

    @app.get(_HEALTH)
    async def health() -> Response:
        try:
            await owner.explanation()
        except AgentError:
            return Response("the agent does not answer\n", 503, media_type="text/plain")
        return Response("ok\n", media_type="text/plain")

    @app.get(_METRICS)
    async def metrics() -> Response:
        sound = await run_in_threadpool(chain.sound)
        try:
            told = await owner.explanation()
        except AgentError:
            told = None
        return Response(agent_metrics(told, sound=sound), media_type=CONTENT_TYPE)

    for path, (name, kind) in _PAGE.items():
        _serve_file(app, path, name, kind)
    return app


def _refusal(request: Request, secrets: Sequence[str]) -> Response | None:
    """Response that refuses a request; None where it is served."""
    if request.url.path in (*_PAGE, _HEALTH):
        return None
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    known = [hmac.compare_digest(given.encode(), secret.encode()) for secret in secrets]
    if scheme.lower() != "bearer" or not any(known):
        return failure(401, "the token is missing or wrong", "authentication_error")
    if request.method == "POST":
        length = request.headers.get("content-length", "")
        if not length.isdigit():
            return failure(411, "the length of the body must be given")
        if int(length) > _LARGEST:
            return failure(413, f"a body has at most {_LARGEST} bytes")
    return None


def _serve_file(app: FastAPI, path: str, name: str, kind: str) -> None:
    content = (resources.files("fedperfit.edge.web") / name).read_bytes()

    @app.get(path)
    async def file() -> Response:
        return Response(content, media_type=kind)
