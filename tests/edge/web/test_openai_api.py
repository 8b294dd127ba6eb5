"""The endpoint, asked by OpenAI's own client, over a real agent."""

import json
import socket
import time

import httpx
import openai
import pytest
from tests.edge.web.web_servers import TOKEN, web

from fedperfit.protocol.schema import owner_pb2

PROMPT = "a quiet story about the sea"


@pytest.fixture(scope="module")
def url(edge):
    with web(edge[0].home.folder) as url:
        yield url


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


def generated(owner, **request):
    *pieces, last = owner.Generate(owner_pb2.GenerateRequest(**request))
    return "".join(piece.text for piece in pieces), last


def test_models(client):
    assert [m.id for m in client.models.list()] == [
        "fedperfit",
        "fedperfit-base",
        "fedperfit-collective",
        "fedperfit-personal",
    ]


def test_the_model_without_a_stage_is_the_one_that_suits_the_person(client, edge):
    stage = edge[1].Explain(owner_pb2.ExplainRequest()).stage
    text, _ = generated(edge[1], prompt=PROMPT, stage=stage, max_new_tokens=12)
    whole = client.completions.create(model="fedperfit", prompt=PROMPT, max_tokens=12)
    assert (whole.model, whole.choices[0].text) == (f"fedperfit-{stage}", text)


@pytest.mark.parametrize("stage", ["base", "collective", "personal"])
def test_a_completion_is_what_generate_says(client, edge, stage):
    text, last = generated(edge[1], prompt=PROMPT, stage=stage, max_new_tokens=12)
    whole = client.completions.create(model=f"fedperfit-{stage}", prompt=PROMPT, max_tokens=12)
    assert whole.choices[0].text == text
    assert whole.choices[0].finish_reason == last.finish
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (
        last.prompt_tokens,
        last.completion_tokens,
    )
    streamed = list(
        client.completions.create(
            model=f"fedperfit-{stage}",
            prompt=PROMPT,
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].text for chunk in streamed[:-1]) == text
    assert streamed[-2].choices[0].finish_reason == last.finish
    assert streamed[-1].usage == whole.usage


def test_chat(client, edge):
    turns = [{"role": "system", "content": "a film:"}, {"role": "user", "content": PROMPT}]
    text, last = generated(edge[1], prompt=f"a film:\n{PROMPT}", max_new_tokens=10)
    asked = {"model": "fedperfit-personal", "messages": turns, "max_completion_tokens": 10}
    whole = client.chat.completions.create(**asked)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (text, last.finish)
    streamed = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == text
    assert streamed[-1].choices[0].finish_reason == last.finish


@pytest.mark.parametrize("more", [{}, {"n": 2}, {"stop": " "}])
def test_the_clients_own_streaming_ends_with_the_same_message(client, more):
    messages = [{"role": "user", "content": PROMPT}]
    asked = {"model": "fedperfit-personal", "messages": messages, **more}
    whole = client.chat.completions.create(**asked)
    assert [choice.finish_reason for choice in whole.choices] == ["stop"] * more.get("n", 1)
    with client.chat.completions.stream(**asked) as stream:
        last = stream.get_final_completion()
    for one, same in zip(last.choices, whole.choices, strict=True):
        assert (one.message.role, one.message.content or "") == ("assistant", same.message.content)


def test_sampling_follows_the_seed(client):
    asked = {"model": "fedperfit-base", "prompt": PROMPT, "temperature": 1.5, "top_p": 0.9}
    texts = [client.completions.create(**asked, seed=seed).choices[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_stop_cuts_also_across_pieces(client, edge):
    text, _ = generated(edge[1], prompt=PROMPT, stage="base", temperature=1.0, seed=5)
    words = text.split()
    assert len(words) > 4, text
    stop = text[text.index(words[2]) + 1 :][:6]
    asked = {"model": "fedperfit-base", "prompt": PROMPT, "temperature": 1.0, "seed": 5, "stop": stop}
    whole = client.completions.create(**asked)
    assert whole.choices[0].text == text[: text.index(stop)]
    assert whole.choices[0].finish_reason == "stop"
    *streamed, last = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text
    asked["max_tokens"] = whole.usage.completion_tokens
    del asked["stop"]
    here = client.completions.create(**asked)
    assert stop in here.choices[0].text, "so many tokens have the stop text in them"
    assert last.usage == whole.usage == here.usage
    asked["max_tokens"] -= 1
    assert len(client.completions.create(**asked).choices[0].text) < len(here.choices[0].text)


def test_errors_in_openais_form(client, url):
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="gpt", prompt="x")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="fedperfit-base", prompt="x", temperature=-1)
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="fedperfit-base", messages=[])
    with pytest.raises(openai.BadRequestError, match="the base model reads"):
        client.completions.create(model="fedperfit-base", prompt="word " * 3000)
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(model="fedperfit-base", prompt="x" * (1 << 20))
    assert caught.value.status_code == 413


@pytest.mark.parametrize("key", ["", "wrong", TOKEN + "x", TOKEN.upper()])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/completions", "/owner/state", "/owner/sent", "/nothing"])
def test_without_the_token_nothing_is_told(url, path, key):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    for method in ("GET", "POST"):
        answer = httpx.request(
            method, url + path, headers=headers, content=b"{}" if method == "POST" else None
        )
        assert answer.status_code == 401
        assert answer.json()["error"]["message"] == "the token is missing or wrong"


def test_other_names_and_other_sites_get_nothing(url):
    mine = {"authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{url}/owner/state", headers=mine).status_code == 200
    assert httpx.get(f"{url}/owner/state", headers=mine | {"host": "evil.example"}).status_code == 400
    preflight = httpx.options(f"{url}/v1/models", headers={"origin": "https://evil.example"})
    assert not [name for name in preflight.headers if name.startswith("access-control")]
    page = httpx.get(url)
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert TOKEN not in page.text


def test_it_listens_on_the_loopback_only(url):
    port = int(url.rsplit(":", 1)[1])
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1"}:
        if not address.startswith("127."):
            with pytest.raises(ConnectionRefusedError), socket.create_connection((address, port), timeout=1):
                pass


def test_who_hangs_up_ends_the_generation(url, edge):
    def whole(seed: int) -> str:
        return generated(edge[1], prompt=PROMPT, temperature=2.0, max_new_tokens=900, seed=seed)[0]

    seed = max(range(6), key=lambda seed: len(whole(seed)))  # some end after a few tokens
    body = {
        "model": "fedperfit-base",
        "prompt": PROMPT,
        "stream": True,
        "temperature": 2.0,
        "max_tokens": 900,
        "seed": seed,
    }
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.stream("POST", f"{url}/v1/completions", headers=headers, json=body) as answer:
        next(answer.iter_lines())
    started = time.monotonic()
    generated(edge[1], prompt=PROMPT, max_new_tokens=1)
    waited = time.monotonic() - started
    started = time.monotonic()
    whole(seed)
    assert waited < (time.monotonic() - started) / 2


def test_a_stream_for_a_client_of_http_1_0_has_no_chunks(url):
    body = json.dumps({"model": "fedperfit-base", "prompt": PROMPT, "max_tokens": 2, "stream": True})
    lines = ("POST /v1/completions HTTP/1.0", "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}")
    more = ("Content-Type: application/json", f"Content-Length: {len(body)}", "", body)
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=30) as caller:
        caller.sendall("\r\n".join((*lines, *more)).encode())
        head, _, streamed = caller.makefile("rb").read().partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert streamed.startswith(b"data: {")
    assert streamed.endswith(b"\n\ndata: [DONE]\n\n")


def test_without_an_agent_it_says_so(tmp_path):
    with (
        web(tmp_path) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as client,
        pytest.raises(openai.InternalServerError, match="the agent is not running"),
    ):
        client.models.list()
