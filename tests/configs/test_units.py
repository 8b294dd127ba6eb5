"""systemd's units are what systemd understands, run what the programs offer, and leave sandboxes possible."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cloud.deployment.clouds import needs_bwrap
from typer.main import get_command

from fedperfit.cloud.cli.main import app as cloud
from fedperfit.edge.cli.main import app as edge

UNITS = Path(__file__).parents[2] / "configs" / "systemd"
NAMES = ["fedperfit-cloud.service", "fedperfit-edge@.service"]
BIN = "/opt/fedperfit/bin"
APPS = {"fedperfit-cloud": cloud, "fedperfit-edge": edge}
BROKEN = (
    "ProtectKernelTunables",
    "ProtectKernelLogs",
    "ProtectProc",
    "RestrictNamespaces",
    "ProtectHostname",
)
"""Settings under which bubblewrap cannot make the namespaces of a sandbox."""


def values(name: str) -> Iterator[tuple[str, str]]:
    for line in (UNITS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            yield key, value


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's tools are not installed")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spoiled", [False, True])
def test_systemd_verifies_them(tmp_path: Path, name: str, spoiled: bool) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in APPS:
        (programs / program).symlink_to("/bin/true")
    unit = (UNITS / name).read_text().replace(BIN, str(programs))
    path = tmp_path / name.replace("@", "@root")
    path.write_text(unit.replace("UMask=", "UMsk=") if spoiled else unit)
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0 and str(path.name) not in done.stderr) is not spoiled, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_they_run_commands_and_options_that_there_are(name: str) -> None:
    (line,) = [value for key, value in values(name) if key == "ExecStart"]
    program, command, *words = shlex.split(line)
    known = get_command(APPS[Path(program).name]).commands[command]  # type: ignore[attr-defined]
    options = {option for parameter in known.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("name", NAMES)
def test_they_forbid_no_namespaces_and_bound_memory_and_tasks(name: str) -> None:
    keys = {key for key, _ in values(name)}
    assert not keys & set(BROKEN)
    assert {"MemoryMax", "TasksMax", "NoNewPrivileges", "UMask"} <= keys


@needs_bwrap
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_a_sandbox_can_be_made_without_capabilities_and_new_privileges() -> None:
    sandbox = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    view = ["--hostname", "x", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "uname", "-n"]
    account = ["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
    restricted = ["setpriv", "--no-new-privs", *(account if os.geteuid() == 0 else []), *sandbox, *view]
    done = subprocess.run(restricted, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "x\n"), done.stderr


@pytest.mark.parametrize("name", ["Containerfile.cloud", "Containerfile.edge"])
def test_container_files_copy_what_is_there_and_start_a_program_of_ours(name: str) -> None:
    text = (UNITS.parent / "container" / name).read_text()
    (program,) = re.findall(r'ENTRYPOINT \["([^"]+)"\]', text)
    assert program in APPS
    assert "/src/constraints.txt" in text
    known = get_command(APPS[program]).commands  # type: ignore[attr-defined]
    named = set(re.findall(rf"{program} ([a-z]\w*)", text))
    assert named
    assert named <= set(known)
