"""Who hangs up is waited for by nobody: neither in line for the model, nor while an answer is written."""

import time

import httpx
import pytest
from tests.edge.web.web_servers import TOKEN, web

HEADERS = {"authorization": f"Bearer {TOKEN}"}
HELLO = [{"role": "user", "content": "a quiet story"}]
LONG = {"model": "fedperfit-base", "temperature": 2.0, "seed": 1}


@pytest.fixture(scope="module")
def url(edge):
    with web(edge[0].home.folder) as url:
        yield url


def hang_up(url, path, **asked):
    """Ask, and wait for half a second only."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/{path}", headers=HEADERS, json=LONG | asked, timeout=0.5)


def in_line(edge, most):
    """Callers that hold or wait for the model, once there are at most so many; in 3 seconds at the latest."""
    end = time.monotonic() + 3
    while len(edge[0]._model._line) > most and time.monotonic() < end:
        time.sleep(0.05)
    return len(edge[0]._model._line)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("completions", {"prompt": "a quiet story"}),
        ("chat/completions", {"messages": HELLO}),
        ("responses", {"input": "a quiet story"}),
    ],
)
def test_in_line_for_the_model(url, edge, path, asked, stream):
    with edge[0]._model.turn(lambda: True):  # a training, say
        hang_up(url, path, **asked, stream=stream)
        assert in_line(edge, 1) == 1


@pytest.mark.parametrize(
    ("path", "asked"), [("completions", {"prompt": "a film"}), ("chat/completions", {"messages": HELLO})]
)
def test_while_answers_are_written(url, edge, path, asked):
    hang_up(url, path, **asked, n=128, max_tokens=900)
    assert in_line(edge, 0) == 0
