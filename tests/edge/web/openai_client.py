"""OpenAI's client on the owner's application itself, within one process."""

import asyncio
from typing import Any

import httpx2
import openai
from tests.edge.web.web_servers import TOKEN

from fedperfit.edge.asking.asking import Asked

PROMPT = "a quiet story about the sea"
HELLO = [{"role": "user", "content": PROMPT}]
MODEL = "fedperfit-personal"


class Client:
    """OpenAI's client on the application itself; calls return what it returns, whole."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, call: str, **asked: Any) -> Any:
        async def ask() -> Any:
            transport = httpx2.ASGITransport(app=self._app, raise_app_exceptions=True)
            async with openai.AsyncOpenAI(
                base_url="http://127.0.0.1/v1",
                api_key=TOKEN,
                max_retries=0,
                http_client=openai.DefaultAsyncHttpxClient(transport=transport),
            ) as client:
                method: Any = client
                for name in call.split("."):
                    method = getattr(method, name)
                answer = await method(**asked)
                return [chunk async for chunk in answer] if asked.get("stream") else answer

        return asyncio.run(ask())

    def post(self, path: str, content: bytes, kind: str = "application/json") -> Any:
        async def ask() -> Any:
            transport = httpx2.ASGITransport(app=self._app, raise_app_exceptions=True)
            headers = {"authorization": f"Bearer {TOKEN}", "content-type": kind}
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.post(f"/v1/{path}", content=content, headers=headers)

        return asyncio.run(ask())


def chat(client, **asked):
    return client("chat.completions.create", **{"model": MODEL, "messages": HELLO, "max_tokens": 8} | asked)


def completion(client, **asked):
    return client("completions.create", **{"model": MODEL, "prompt": PROMPT, "max_tokens": 8} | asked)


def written(edge, **asked):
    pieces = []
    edge[0].generate(Asked(stage="personal", **asked), lambda part, stage: pieces.append(part), lambda: True)
    return "".join(pieces)
