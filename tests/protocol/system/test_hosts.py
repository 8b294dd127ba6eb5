"""By which names a page of this machine may be called: with and without a port, and by no foreign one."""

import pytest

from fedperfit.protocol.system.hosts import LOOPBACK, called_by


@pytest.mark.parametrize("name", LOOPBACK)
def test_a_page_is_called_by_its_names_whatever_the_port(name: str) -> None:
    assert called_by(name, LOOPBACK)
    assert called_by(f"{name}:8100", LOOPBACK)


@pytest.mark.parametrize(
    "host",
    [
        *("", ":8100", "owner.example", "owner.example:8100", "[2001:db8::1]:8100", "[::1", "::1"),
        *("[::1].owner.example", "localhost.owner.example", "owner.example:[::1]", "[::1]:8100:8100"),
        *("owner.example@localhost", "localhost ", "[::1]\n"),
    ],
)
def test_a_foreign_name_is_none_of_them(host: str) -> None:
    assert not called_by(host, LOOPBACK)
