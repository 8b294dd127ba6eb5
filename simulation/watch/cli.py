"""The command `fedperfit watch`."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fedperfit.protocol.system.commands import console
from fedperfit.protocol.system.errors import InputError


def watch(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, a study or a cloud's run.")],
    port: Annotated[int, typer.Option(help="Port of this machine to listen on.", min=1, max=65535)] = 8200,
) -> None:
    """Show a live page of a run folder in the browser, until Ctrl-C.

    The page is made from the folder's events and changes nothing in it. It is there for this machine alone,
    whose other accounts can read it, too.

    Example: fedperfit watch runs/small
    """
    if not run_dir.is_dir():
        raise InputError(f"{run_dir}: no such folder")

    import uvicorn

    from fedperfit.protocol.system.flower import free
    from fedperfit.simulation.watch.server import build
    from fedperfit.simulation.watch.state import EventReader

    EventReader(run_dir).news()
    if not free(port):
        raise InputError(f"--port {port} is in use; choose another")
    out = console()
    out.print(f"{run_dir} at http://127.0.0.1:{port}/ until Ctrl-C", soft_wrap=True, markup=False)
    app = build(run_dir.resolve())
    with suppress(KeyboardInterrupt):
        uvicorn.run(
            app, host="127.0.0.1", port=port, log_level="error", access_log=False, server_header=False
        )
    out.print("no longer watched")
