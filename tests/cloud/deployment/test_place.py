"""Where `init` makes a cloud, and that an odd name of its folder is no syntax anywhere."""

import socket
import subprocess
from pathlib import Path

import pytest
from tests.cloud.deployment.clouds import asked, make_cloud, needs_nginx, running

import fedperfit
from fedperfit.cloud.deployment.home import CloudHome, init, read_cloud
from fedperfit.cloud.deployment.up import processes
from fedperfit.cloud.enrolment.inviting import enroll
from fedperfit.cloud.enrolment.registration import enrolled, unenroll
from fedperfit.protocol.system.errors import FedperfitError, InputError
from fedperfit.protocol.system.flower import executable
from fedperfit.protocol.system.processes import wait_until
from fedperfit.protocol.trust.bundle import read_bundle
from fedperfit.protocol.trust.node_key import NodeKey

ODD = """it's a "cloud"; $HOME {x} [b] %41#é 🌩"""


@pytest.mark.parametrize("sign", ["folder", "file"])
def test_a_git_work_tree_is_refused_unless_forced(tmp_path: Path, sign: str) -> None:
    (tmp_path / ".git").mkdir() if sign == "folder" else (tmp_path / ".git").write_text("gitdir: elsewhere")
    home = CloudHome(tmp_path / "deep" / "cloud")
    with pytest.raises(InputError, match="git work tree"):
        init(home, "quickstart", {})
    assert not home.folder.exists()
    init(home, "quickstart", {}, anywhere=True)
    assert read_cloud(home)


@pytest.mark.parametrize("part", ["", "cloud", "protocol/system/new"])
def test_the_package_is_refused_by_any_of_its_names(part: str) -> None:
    package = Path(fedperfit.__file__).parent
    for place in (package / part, (package / part).resolve()):
        with pytest.raises(InputError, match="fedperfit's own folder"):
            init(CloudHome(place / "x"), "quickstart", {})
        assert not (place / "x").exists()


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    command = [executable("fedperfit-cloud"), "init", "our-cloud"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--force" in done.stderr
    assert subprocess.run([*command, "--force"], cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "our-cloud" / "cloud.toml").exists()


@needs_nginx
def test_an_odd_name_works_throughout(tmp_path: Path) -> None:
    home, settings = make_cloud(tmp_path / ODD)
    assert read_cloud(home) == settings
    with running(home):
        enroll(home, "ada", tmp_path / "ada.bundle")
        assert asked(home, read_bundle(tmp_path / "ada.bundle"), NodeKey()).status_code == 200
        assert list(enrolled(home).values()) == ["ada"]
        unenroll(home, "ada")
        assert (home.flower / "state.db").exists()
    assert processes(home) == []


@needs_nginx
@pytest.mark.parametrize(
    ("broken", "reason"), [("server.crt", "did not start: .*PEM"), ("ca.crt", "ca.crt: not a certificate")]
)
def test_what_is_wrong_is_in_the_error(tmp_path: Path, broken: str, reason: str) -> None:
    home, _ = make_cloud(tmp_path / "cloud")
    (home.tls / broken).write_text("nonsense")
    with pytest.raises(FedperfitError, match=reason), running(home):
        pass


@needs_nginx
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_a_cloud_at_an_ipv6_address_listens_there(tmp_path: Path) -> None:
    home, settings = make_cloud(tmp_path / "cloud", host="::1")
    assert settings.address == f"[::1]:{settings.port}"

    def answers() -> bool:
        with socket.socket(socket.AF_INET6) as one:
            return one.connect_ex(("::1", settings.port)) == 0

    with running(home):
        assert answers()
    assert wait_until(lambda: not answers(), 10)


@pytest.mark.parametrize("host", ["", "[::1]", "a b", "example.org:80", "https://x", "-" * 300])
def test_what_is_not_a_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(InputError, match="host="):
        make_cloud(tmp_path / "cloud", host=host)
    assert not (tmp_path / "cloud").exists()
