"""Times of issue and expiry: ISO 8601 in UTC, to the second."""

from datetime import UTC, datetime, timedelta

from fedperfit.protocol.system.errors import MalformedFileError

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def validity(issued: datetime | None, lifetime: timedelta) -> tuple[str, str]:
    """Return the times of issue and expiry as text.

    Args:
        issued: Time of issue, with its zone; None is now.
        lifetime: Time from then to expiry.
    """
    start = (issued or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    return start.strftime(_TIME), (start + lifetime).strftime(_TIME)


def parse_time(text: object) -> datetime:
    """Read a time as `validity` writes it.

    Raises:
        MalformedFileError: It is not one.
    """
    try:
        if not isinstance(text, str):
            raise ValueError
        moment = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
        if moment.strftime(_TIME) != text:
            raise ValueError
        return moment
    except ValueError:
        raise MalformedFileError("its times are not ISO 8601 in UTC, to the second") from None
