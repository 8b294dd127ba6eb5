"""`fedperfit-edge serve`: the personal model for any chat front end, and the owner's page."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from fedperfit.protocol.system.commands import console, print_line
from fedperfit.protocol.system.errors import InputError


def serve(
    folder: Annotated[Path, typer.Argument(help="The person's own folder, as `join` made it.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8100,
    task_form: Annotated[
        bool,
        typer.Option(
            help="Ask a chat that closes with a question of your task in the task's form; else as it is."
        ),
    ] = True,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Listen beyond this machine.")] = False,
) -> None:
    """Serve an OpenAI-compatible endpoint, and at / a page for you alone, until Ctrl-C.

    Any chat front end speaks with the personal model by the printed address and token. Listens on this
    machine only, unless told otherwise.
    """
    import uvicorn

    from fedperfit.edge.deployment.home import Home, read_settings
    from fedperfit.edge.web.app import SERVER, build
    from fedperfit.edge.web.hosts import LOOPBACK
    from fedperfit.protocol.system.flower import free
    from fedperfit.protocol.system.memory import limit_memory

    home = Home(folder.absolute())
    limit_memory(read_settings(home).memory_gib)
    remote = host not in ("127.0.0.1", "localhost", "::1")
    if remote and not allow_remote:
        raise InputError(f"--host {host} would serve beyond this machine; --allow-remote accepts that")
    if not free(port, host):
        raise InputError(f"--port {port} of {host} is in use, or no address of this machine; choose another")
    token = _token(home.owner / "token")
    app = build(
        home.folder,
        token,
        hosts=None if remote else LOOPBACK,
        metrics_token=_token(home.owner / "metrics.token"),
        task_form=task_form,
    )
    name = f"[{host}]" if ":" in host else host
    out = console()
    out.print(f"your page: http://{name}:{port}/#token={token}", soft_wrap=True)
    out.print(f"OpenAI endpoint: http://{name}:{port}/v1, API key: {token}", soft_wrap=True)
    where = home.owner / "metrics.token"
    print_line(f"Prometheus: http://{name}:{port}/metrics, token in {where}")
    uvicorn.run(app, host=host, port=port, **SERVER)


def _token(path: Path) -> str:
    """The token in `path`, made where there is none."""
    from fedperfit.protocol.system.files import write_atomic

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, secrets.token_urlsafe(24).encode())
    return path.read_text(encoding="ascii")
