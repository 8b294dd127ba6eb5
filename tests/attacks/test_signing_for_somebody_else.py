"""C3: code that was handed in as a run, or another account, gets at the key that edges trust."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.attacks.test_commanding_the_cloud import as_nobody
from tests.cloud.deployment.clouds import make_cloud, needs_bwrap
from tests.cloud.deployment.test_signer import agreed

from fedperfit.cloud.deployment.confinement import confined
from fedperfit.cloud.deployment.connection import write_connection
from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.signer import ask_for_release, signer_command, signer_ready
from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.processes import Children, wait_until

GREEDY = """
import json, os, sys
from pathlib import Path

folder, signer = Path(sys.argv[1]), sys.argv[2]
read, written = [], []
places = [*sys.argv[3:], *(f"/proc/{signer}/root{place}" for place in sys.argv[3:])]
places.append(f"/proc/{signer}/environ")
for place in places:
    try:
        read += [place] if Path(place).read_bytes() else []
    except OSError:
        pass
for place in (folder, folder / "nodes", folder / "releases", folder / "runs", folder / "signer", Path.home()):
    try:
        (place / "planted").write_text("x")
        written.append(str(place.name))
        (place / "planted").unlink()
    except OSError:
        pass
print(json.dumps({"read": read, "written": written}))
"""


@contextmanager
def signer(home: CloudHome, command: list[str]) -> Iterator[int]:
    with Children() as children:
        child = children.start("signer", command, log=home.logs / "signer.log")
        assert wait_until(lambda: signer_ready(home), 120), (home.logs / "signer.log").read_text()
        yield child.process.pid


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter, as those that pytest makes are not."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@needs_bwrap
@pytest.mark.timeout(300)
@pytest.mark.parametrize("guarded", [False, True], ids=["off", "on"])
def test_code_of_a_run_reads_no_key_and_plants_nothing(tmp_path: Path, guarded: bool) -> None:
    home, settings = make_cloud(tmp_path / "it's a cloud")
    write_connection(home, settings)
    for part in ("nodes", "releases", "runs"):
        (home.folder / part).mkdir()
    keys = [home.folder / "signing.pem", home.tls / "ca.key", home.tls / "server.key", home.control_token]
    secrets = [str(key) for key in [*keys, home.flower / "credentials.yaml"]]
    with signer(home, signer_command(home)) as pid:
        command = [sys.executable, "-P", "-c", GREEDY, str(home.folder), str(pid), *secrets]
        if guarded:
            command = confined(home, command, shown=[home.tls / "ca.crt"])
        told = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        if guarded:
            assert told == {"read": [], "written": ["runs"]}
        else:
            assert set(secrets) < set(told["read"])
            assert {"nodes", "releases", "signer"} < set(told["written"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("guarded", [False, True], ids=["off", "on"])
def test_another_account_gets_no_signature(open_folder: Path, guarded: bool) -> None:
    """Even where the modes of folder and socket would let it in."""
    home, settings = make_cloud(open_folder / "cloud")
    command = signer_command(home)
    if not guarded:
        unchecked = "import os; from fedperfit.cloud.deployment import signer as s; "
        unchecked += "s._caller = lambda connection: os.geteuid(); s.main()"
        command = [sys.executable, "-P", "-c", unchecked, str(home.folder)]
    request = agreed(settings, 5)

    def attack() -> int:
        with suppress(RunFailed):
            ask_for_release(home, *request)
        return 0

    def released() -> int:
        return len(CloudReleases(home.folder).all())

    with signer(home, command):
        socket_file = home.signer / "signer.sock"
        assert (home.signer.stat().st_mode & 0o777, socket_file.stat().st_mode & 0o077) == (0o700, 0)
        as_nobody(attack)
        assert released() == 0, "by the modes"
        for place in (home.folder, home.signer):
            place.chmod(0o755)
        socket_file.chmod(0o777)
        as_nobody(attack)
        assert released() == (0 if guarded else 1)
        assert ask_for_release(home, *request).version == 1
