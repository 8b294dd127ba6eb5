import os
import sys
from pathlib import Path

import pytest

from fedperfit.protocol.system.logs import PipedLog
from fedperfit.protocol.system.processes import Children, wait_until


def written(log: PipedLog, *chunks: bytes) -> None:
    with open(log.writer, "wb", buffering=0) as pipe:
        for chunk in chunks:
            pipe.write(chunk)


def test_it_appends_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "x.log"
    for line in (b"one\n", b"two\n"):
        written(PipedLog(path), line)
        assert wait_until(lambda line=line: path.read_bytes().endswith(line), 10)
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_never_takes_more_than_twice_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    lines = [b"%04d" % number * 25 for number in range(100)]
    written(PipedLog(path, limit=1000), *lines)
    assert wait_until(lambda: path.exists() and path.read_bytes().endswith(lines[-1]), 10)
    sizes = {one.name: one.stat().st_size for one in tmp_path.iterdir()}
    assert set(sizes) == {"x.log", "x.log.1"}
    # a chunk read at once may be longer than the limit, never longer than what a pipe holds
    assert sum(sizes.values()) <= 100 * 100
    assert max(sizes.values()) <= max(1000, os.sysconf("SC_PAGE_SIZE") * 16)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "x.log").symlink_to(target)
    with pytest.raises(OSError, match=r"x\.log"):
        PipedLog(tmp_path / "x.log")
    assert target.read_text() == "mine"


def test_a_full_disk_does_not_stop_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PipedLog(tmp_path / "x.log")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("fedperfit.protocol.system.logs.PipedLog._append", full)
        with open(log.writer, "wb", buffering=0) as pipe:
            for _ in range(64):
                pipe.write(bytes(1 << 16))  # more than a pipe holds
    assert (tmp_path / "x.log").read_bytes() == b""


def test_a_childs_output_comes_through_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    code = "import os, stat; print(stat.S_ISFIFO(os.fstat(1).st_mode), stat.S_ISFIFO(os.fstat(2).st_mode))"
    with Children() as children:
        children.start("x", [sys.executable, "-c", code], log=path, piped=True).process.wait(60)
        assert wait_until(lambda: path.read_text() == "True True\n", 10)
