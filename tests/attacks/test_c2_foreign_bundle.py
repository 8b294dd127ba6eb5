"""A run ships code of the cloud's choosing: an edge without the guard runs it, the others do not."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.cloud.deployment.clouds import make_cloud, needs_nginx, running
from tests.edge.deployment.sandboxes import joined, sandboxed, unguarded

from fedperfit.cloud.deployment.home import CONNECTION, CloudHome
from fedperfit.cloud.enrolment.inviting import enroll
from fedperfit.cloud.enrolment.registration import enrolled
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.protocol.system.flower import executable
from fedperfit.protocol.system.processes import Children
from fedperfit.protocol.trust.bundle import read_bundle

pytestmark = [needs_nginx, pytest.mark.timeout(600)]
NODES = ("unguarded", "guarded", "unconfined")
MARK = "code of the cloud ran here"
_SERVER = """
import json, time
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    end = time.monotonic() + 240
    while len(list(grid.get_node_ids())) < {count} and time.monotonic() < end:
        time.sleep(0.5)
    asked = [Message(RecordDict(), node, "query.status") for node in grid.get_node_ids()]
    told = {{}}
    for reply in grid.send_and_receive(asked, timeout=240):
        text = reply.error.reason if reply.has_error() else reply.content.config_records["told"]["said"]
        told[str(reply.metadata.src_node_id)] = [reply.has_error(), text]
    with open({out!r}, "w") as file:
        json.dump(told, file)
"""
_CLIENT = """
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

print({mark!r}, flush=True)
try:
    Path({marker!r}).write_text("x")
except OSError:
    pass
app = ClientApp()

@app.query("status")
def status(message, context):
    return Message(RecordDict({{"told": ConfigRecord({{"said": {mark!r}}})}}), reply_to=message)
"""


def run(home: CloudHome, app: Path, *, out: Path, marker: Path) -> dict[str, Any]:
    """Run the foreign app; what each node replied, by its name."""
    app.mkdir()
    (app / "server.py").write_text(_SERVER.format(out=str(out), count=len(NODES)))
    (app / "client.py").write_text(_CLIENT.format(mark=MARK, marker=str(marker)))
    (app / "pyproject.toml").write_text(
        '[project]\nname = "foreign"\nversion = "0.1.0"\ndependencies = []\n[tool.flwr.app]\n'
        'publisher = "foreign"\n[tool.flwr.app.components]\nserverapp = "server:app"\n'
        'clientapp = "client:app"\n'
    )
    subprocess.run(
        [executable("flwr"), "run", str(app), CONNECTION, "--stream"],
        env=home.environment(),
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    names = enrolled(home)
    return {names[int(node)]: told for node, told in json.loads(out.read_text()).items()}


def test_code_of_the_cloud_runs_only_where_the_guard_is_off(tmp_path: Path) -> None:
    sandboxed("", shown={})  # skips where there is no sandbox
    cloud, _ = make_cloud(tmp_path / "cloud")
    with running(cloud), Children() as children:
        bundles = {name: tmp_path / f"{name}.bundle" for name in NODES}
        for name, path in bundles.items():
            enroll(cloud, name, path)
        homes = {name: joined(tmp_path / name, read_bundle(path)) for name, path in bundles.items()}
        nodes = {name: SuperNode(home, unconfined=name == "unconfined") for name, home in homes.items()}
        with nodes["unguarded"].connected(), nodes["guarded"].connected(), nodes["unconfined"].connected():
            for name, node in nodes.items():
                node.start(children, unguarded(node) if name == "unguarded" else ())
            marker = tmp_path / "marker"
            told = run(cloud, tmp_path / "foreign", out=cloud.runs / "told.json", marker=marker)
    logs = {name: home.supernode_log.read_text() for name, home in homes.items()}
    assert told["unguarded"] == [False, MARK], "the control"
    assert MARK in logs["unguarded"]
    for name in ("guarded", "unconfined"):
        failed, reason = told[name]
        assert failed
        assert MARK not in logs[name]
        assert "'client.py' is not the one of this edge's package" in logs[name]
        assert "client.py" not in reason, "the cloud is told the type of the error alone"
    assert not marker.exists()
