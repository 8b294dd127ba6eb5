"""Errors in OpenAI's form."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fedperfit.edge.web.owner import AgentError

_PREFIX = "Value error, "
"""Words that the validation puts before an error of our own."""


class Refusal(ValueError):
    """A request asks for what is not offered; its text says why."""


def failure(
    status: int, message: str, kind: str = "invalid_request_error", code: str | None = None
) -> JSONResponse:
    """Write an error.

    Args:
        status: HTTP status.
        message: text for the caller.
        kind: type of the error, one of OpenAI's names or `agent_error`.
        code: OpenAI's code, where there is one.
    """
    return JSONResponse({"error": error_fields(message, kind, code)}, status)


def error_fields(message: str, kind: str, code: str | None) -> dict[str, str | None]:
    """Return the fields of an error; see `failure`."""
    param, colon, _ = message.partition(":")
    named = param if colon and param.replace("_", "").replace(".", "").isalnum() else None
    whole = message.encode("utf-8", "backslashreplace").decode()
    return {"message": whole, "type": kind, "param": named, "code": code}


def _is_form(part: str | int) -> bool:
    """Whether a part of a mistake's place is the name of a form that its value was tried as."""
    return part == "str" or "[" in str(part)


def add_handlers(app: FastAPI) -> None:
    """Have an application answer its errors in OpenAI's form."""

    @app.exception_handler(AgentError)
    async def on_agent_error(request: Request, error: AgentError) -> JSONResponse:
        return failure(error.status, error.text, error.kind, error.code)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        told = error.errors()
        for text in (str(one["msg"]) for one in told):
            if text.startswith(_PREFIX):
                return failure(400, text.removeprefix(_PREFIX))
        nearest = max(told, key=lambda one: len(one["loc"]))  # of several forms that a value may have
        if nearest["type"] == "json_invalid":
            return failure(400, f"the body is no JSON from character {nearest['loc'][-1]} on")
        if nearest["loc"] == ("body",):
            return failure(400, "the body is no JSON object, or its Content-Type is not application/json")
        where = ".".join(str(part) for part in nearest["loc"][1:] if not _is_form(part))
        return failure(400, f"{where}: {nearest['msg']}" if where else nearest["msg"])

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        return failure(error.status_code, str(error.detail))
