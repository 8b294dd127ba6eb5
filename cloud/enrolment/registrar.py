"""The registrar: the process of a cloud that takes requests to enrol, from behind the proxy.

It listens on a Unix socket that the cloud's account alone can open; nginx passes requests on to it, as many
as it lets through. Only who holds the token of an open invitation makes it do more than read one small file.
To the machine itself it also tells health and metrics.

    python -P -m fedperfit.cloud.enrolment.registrar FOLDER

A reply has status 200 (enrolled), 202 (waits for approval), 403 (refused), or 503 (the SuperLink did not do
its part: ask again).
"""

import os
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fedperfit.cloud.deployment.home import REGISTRAR_SOCKET, CloudHome
from fedperfit.cloud.enrolment.registration import redeem, repair
from fedperfit.cloud.monitoring.metrics import routes
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.trust.enrolment import MAX_BYTES, PATH, EnrolmentReply, parse_request
from fedperfit.protocol.trust.node_key import fingerprint

_STATUS = {"enrolled": 200, "waiting": 202, "refused": 403}
_MOST = 32
"""Most connections at a time."""


def application(home: CloudHome) -> Starlette:
    """Return the application that answers requests to enrol, and what operators ask.

    Args:
        home: The cloud.
    """

    async def answer(request: Request) -> Response:
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > MAX_BYTES:
                return Response(status_code=413)
        return await run_in_threadpool(_answer, home, data)

    return Starlette(routes=[Route(PATH, answer, methods=["POST"]), *routes(home)])


def serve(home: CloudHome) -> None:
    """Finish what was killed, then answer requests until the process is told to stop.

    Args:
        home: The cloud, whose SuperLink must be up.
    """
    home.registrar.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chdir(home.registrar)  # the name of a socket may have 107 bytes at most
    os.umask(0o077)
    repair(home)
    Path(REGISTRAR_SOCKET).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(REGISTRAR_SOCKET)
        server = uvicorn.Server(
            uvicorn.Config(
                application(home),
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="off",
                limit_concurrency=_MOST,
                timeout_graceful_shutdown=5,
            )
        )
        server.run(sockets=[listener])


def _answer(home: CloudHome, data: bytes) -> Response:
    try:
        request = parse_request(data)
    except InputError as error:
        return _response(EnrolmentReply(state="refused", reason=str(error)))
    try:
        reply = redeem(home, request)
    except RunFailed as error:
        print(f"{request.name}: {error}", flush=True)
        return Response(status_code=503)
    if reply.state != "refused":
        print(f"{request.name}: {reply.state}, key {fingerprint(request.key)}", flush=True)
    return _response(reply)


def _response(reply: EnrolmentReply) -> Response:
    return Response(reply.model_dump_json(), _STATUS[reply.state], media_type="application/json")


def main() -> None:
    """Serve the cloud whose folder the command line names."""
    serve(CloudHome(Path(sys.argv[1]).absolute()))


if __name__ == "__main__":
    main()
