"""A port is free where it can be listened on: over IPv4, over IPv6, and on no address of another machine."""

import socket

import pytest

from fedperfit.protocol.system.flower import free, free_ports

has_ipv6 = socket.has_dualstack_ipv6()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6, reason="no IPv6"))]
)
def test_a_port_that_somebody_listens_on_is_not_free(host):
    (port,) = free_ports(1)
    assert free(port, host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family):
        assert not free(port, host)


def test_an_address_that_is_not_this_machines_is_not_free():
    assert not free(free_ports(1)[0], "192.0.2.1")
    assert not free(free_ports(1)[0], "2001:db8::1")
