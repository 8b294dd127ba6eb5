"""The settings of a deployed cloud: those of the job, and where and how it is reached."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.rounds.settings import Deadline
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.system.errors import InputError

Port = Annotated[int, Field(ge=1, le=65535), Unit("port")]


class CloudSettings(JobSettings):
    """A deployment; the keys of cloud.toml are these."""

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
    lifetime_days: Annotated[int, Field(ge=1), Unit("days")] = 90
    """Time that a release is valid."""
    max_body_mib: Annotated[int, Field(ge=1), Unit("MiB")] = 16
    """Largest request let through to the SuperLink."""

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.port == self.superlink_port:
            raise InputError(f"port={self.port}: the proxy and the SuperLink need ports of their own")
        return self
