"""Each check of files tells what it is shown: access, names, certificates, ages."""

import os
import time
from datetime import timedelta

import pytest

from fedperfit.protocol.doctor.files import age, certificates, folder_name, secrets
from fedperfit.protocol.doctor.findings import Verdict
from fedperfit.protocol.trust.certificates import issue, new_authority


def test_a_secret_that_others_may_read_is_named(tmp_path):
    path = tmp_path / "signing.pem"
    path.touch(mode=0o600)
    tmp_path.chmod(0o700)
    assert [one.verdict for one in secrets([tmp_path, path, tmp_path / "absent"])] == [Verdict.OK]
    path.chmod(0o640)
    (told,) = secrets([tmp_path, path])
    assert told.verdict is Verdict.WRONG
    assert "signing.pem" in told.check
    assert "chmod" in told.advice


def test_a_secret_of_another_account_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    (told,) = secrets([tmp_path])
    assert told.verdict is Verdict.WRONG
    assert "chown" in told.advice


def test_names_that_programs_cannot_work_with_are_told(tmp_path):
    def verdicts(folder, *sockets):
        return [one.verdict for one in folder_name(folder, sockets)]

    assert verdicts(tmp_path / "a b'c", tmp_path / "s") == [Verdict.OK]
    assert verdicts(tmp_path / "a\nb") == [Verdict.WRONG]
    assert verdicts(tmp_path, tmp_path / ("x" * 100) / "agent.sock") == [Verdict.WRONG]


@pytest.mark.parametrize(("days", "verdict"), [(300, Verdict.OK), (10, Verdict.WARNING), (-1, Verdict.WRONG)])
def test_the_end_of_a_certificate_is_told_before_it_comes(tmp_path, days, verdict):
    path = tmp_path / "server.crt"
    path.write_bytes(issue(new_authority("x"), ["localhost"], life=timedelta(days=days)).certificate)
    (told,) = certificates(path, "certificate", days=30, advice="renew it")
    assert told.verdict is verdict
    assert told.advice == ("" if verdict is Verdict.OK else "renew it")


def test_a_certificate_that_cannot_be_read_is_wrong(tmp_path):
    path = tmp_path / "server.crt"
    for content in (None, b"not a certificate"):
        if content is not None:
            path.write_bytes(content)
        (told,) = certificates(path, "certificate", days=30, advice="renew it")
        assert told.verdict is Verdict.WRONG


def test_an_old_key_is_told(tmp_path):
    path = tmp_path / "signing.pem"
    path.touch()
    assert age(path, "key", days=10, advice="rotate").verdict is Verdict.OK
    os.utime(path, (0, time.time() - 20 * 86_400))
    assert age(path, "key", days=10, advice="rotate").verdict is Verdict.WARNING
