"""The settings of a deployed cloud: those of the job, and where and how it is reached."""

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.rounds.settings import Deadline
from fedperfit.protocol.settings.fields import DeployedTask, ProcessMemory
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.policy import LEAST_HONEST, LEAST_ITEMS
from fedperfit.protocol.trust.published import parse_mirror

_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
Port = Annotated[int, Field(ge=1, le=65535), Unit("port")]


class CloudSettings(JobSettings):
    """A deployment; the keys of cloud.toml are these."""

    task: DeployedTask
    deadline_seconds: Deadline = 3600.0
    clients: Annotated[int, Field(ge=1), Unit("clients")] = 3
    """Clients that must be connected before a run begins."""
    connect_seconds: Annotated[float, Field(gt=0), Unit("seconds")] = 300.0
    """Time that a run waits for its clients."""
    host: Annotated[str, Unit("name or address")] = "127.0.0.1"
    """Name or address by which edges reach the cloud."""
    port: Port = 8443
    """Port of the reverse proxy, for edges."""
    superlink_port: Port = Field(default_factory=lambda values: values["port"] + 1, validate_default=True)
    """Port of the SuperLink behind the proxy, on the loopback only; by default the next one."""
    metrics_port: Annotated[int, Field(ge=0, le=65535), Unit("port")] = 0
    """Port of the loopback for /metrics and /healthz; with 0 they are at registrar/registrar.sock alone."""
    start_from: Literal["release", "anew"] = "release"
    """Where a new run starts: from the release in force, where there is one of its shape, or anew."""
    least_items: Annotated[int, Field(ge=4), Unit("items")] = LEAST_ITEMS
    """Fewest items whose sums an edge sends; its owner is asked to agree to it."""
    invitation_days: Annotated[int, Field(ge=1, le=3650), Unit("days")] = 7
    """Time within which an invited person's machine must join."""
    approve: bool = False
    """Whether a machine that joins waits until somebody at the cloud approves of its key."""
    lifetime_days: Annotated[int, Field(ge=1), Unit("days")] = 90
    """Time that a release is valid."""
    max_body_mib: Annotated[int, Field(ge=1), Unit("MiB")] = 16
    """Largest request let through to the SuperLink."""

    mirror: Annotated[str, Unit("web address, or nothing")] = ""
    """Web address of the static files that `release publish` writes, for edges to fetch releases from; empty:
    from the cloud. Their owners are asked to agree to it."""

    memory_gib: ProcessMemory = 0.0

    @property
    def address(self) -> str:
        """Address by which edges reach the cloud, host:port."""
        return host_and_port(self.host, self.port)

    @model_validator(mode="after")
    def _check_deployed(self) -> Self:
        if self.update_basis == "federated":
            raise InputError(
                "update-basis=federated: owners agree to a basis before their edges send anything; "
                "take public or random"
            )
        if self.prior_source == "public" and not self.prior_file:
            raise InputError(
                "prior-source=public: name a prior-file, which `fedperfit prior` makes of public people"
            )
        least = self.committee_corrupt + LEAST_HONEST
        if self.secure and self.fewest_contributors < least:
            raise InputError(
                f"fewest-contributors={self.fewest_contributors}: edges tell sums of at least {least}, "
                f"committee-corrupt={self.committee_corrupt} and {LEAST_HONEST} more"
            )
        return self

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        if _ip(self.host) is None and not _NAME.fullmatch(self.host):
            raise InputError(f"host={self.host!r}: expected a name, or an address without port and brackets")
        return self

    @model_validator(mode="after")
    def _check_mirror(self) -> Self:
        if self.mirror:
            parse_mirror(self.mirror)
        return self

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.port == self.superlink_port:
            raise InputError(f"port={self.port}: the proxy and the SuperLink need ports of their own")
        if self.metrics_port in (self.port, self.superlink_port):
            raise InputError(f"metrics-port={self.metrics_port}: in use by another setting; choose another")
        return self


def host_and_port(host: str, port: int) -> str:
    """Return host:port, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address of the loopback; a name is not."""
    address = _ip(host)
    return address is not None and address.is_loopback


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
