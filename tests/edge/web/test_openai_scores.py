"""Log-likelihoods of tokens, as OpenAI's client and lm-evaluation-harness ask for them."""

import pytest
import torch
from tests.edge.web.openai_client import PROMPT, chat, completion

from fedperfit.edge.web.places import Places
from fedperfit.edge.web.replies import Answered, Form
from fedperfit.edge.writing.scores import prompt_scores
from fedperfit.edge.writing.streaming import free_prompt
from fedperfit.protocol.messages.settings import Stage
from fedperfit.protocol.schema import owner_pb2


def test_log_likelihoods_of_what_is_written(client, edge):
    whole = chat(client, logprobs=True, top_logprobs=3)
    choice = whole.choices[0]
    content = choice.logprobs.content
    assert "".join(token.token for token in content) == choice.message.content
    for token in content:
        best = [other.logprob for other in token.top_logprobs]
        assert best == sorted(best, reverse=True)
        assert (token.top_logprobs[0].token, token.logprob) == (token.token, best[0])  # greedy
    chunks = chat(client, logprobs=True, top_logprobs=3, stream=True)
    streamed = [token for chunk in chunks if (told := chunk.choices[0].logprobs) for token in told.content]
    assert streamed == content
    sampled = chat(client, logprobs=True, temperature=2.0, seed=1).choices[0].logprobs.content
    again = completion(client, logprobs=0, temperature=2.0, seed=1).choices[0].logprobs
    assert [token.logprob for token in sampled] == again.token_logprobs
    assert chat(client).choices[0].logprobs is None


def test_echo_tells_the_prompts_own_log_likelihoods(client, edge):
    """As lm-evaluation-harness asks: one more token than the text, the likeliest beside each."""
    base = edge[0].agent.base
    tokens = list(free_prompt(base, PROMPT))
    for stage in (Stage.BASE, Stage.PERSONAL):
        for prompt in (PROMPT, tokens):
            asked = {"model": f"fedperfit-{stage}", "prompt": prompt, "max_tokens": 1, "temperature": 0}
            choice = client("completions.create", **asked, echo=True, logprobs=1, seed=1234).choices[0]
            told = choice.logprobs
            assert len(told.tokens) == len(told.token_logprobs) == len(tokens) + 1
            assert told.token_logprobs[0] is None
            for begin, token in zip(told.text_offset[1:], told.tokens[1:], strict=True):
                assert choice.text.startswith(token, begin)
            with edge[0].stages.edited(stage):
                expected = prompt_scores(base, edge[0].stages.stack(stage), tokens, 1)
            assert told.token_logprobs[1:-1] == pytest.approx([one.score for one in expected[1:]])
            assert choice.text.startswith(PROMPT if prompt == PROMPT else base.tokenizer.decode(tokens))
    with torch.inference_mode():
        logs = base.model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    plain = prompt_scores(base, edge[0].stages.stack(Stage.BASE), tokens, 1)
    slow = [float(row[token]) for row, token in zip(logs[:-1], tokens[1:], strict=True)]
    assert [one.score for one in plain[1:]] == pytest.approx(slow, abs=1e-4)
    assert [one.likeliest[0].score for one in plain[1:]] == pytest.approx(logs[:-1].max(-1).values.tolist())


def test_a_stop_text_cuts_the_scores_too(client):
    whole = completion(client, model="fedperfit-base", logprobs=1, temperature=1.0, seed=5, max_tokens=30)
    text = whole.choices[0].text
    stop = text[len(text) // 2 :][:3]
    cut = completion(
        client,
        model="fedperfit-base",
        logprobs=1,
        temperature=1.0,
        seed=5,
        max_tokens=30,
        stop=[stop, "\x00"],
    ).choices[0]
    assert (cut.text, cut.finish_reason) == (text[: text.index(stop)], "stop")
    told = cut.logprobs
    assert told.tokens == whole.choices[0].logprobs.tokens[: len(told.tokens)]
    assert len("".join(told.tokens[:-1])) < len(cut.text) <= len("".join(told.tokens))


def test_a_stop_text_within_an_echoed_prompt_ends_nothing(client):
    asked = {"model": "fedperfit-base", "prompt": "a quiet story, a film", "logprobs": 1}
    plain = completion(client, **asked, echo=True).choices[0]
    stopped = completion(client, **asked, echo=True, stop=["quiet", "\x00"]).choices[0]
    assert stopped == plain
    assert completion(client, **asked, echo=True, stop="m").choices[0].text.startswith(asked["prompt"])


def test_a_part_of_a_character_has_no_bytes_that_are_not_its_own():
    scores = [owner_pb2.TokenScore(text=text, score=-1.0) for text in ("é", "\ufffd")]
    reply = Form("m", chat=True, scored=True, ignored=()).part(Answered(0, "é"), "é", scores)
    told = [token["bytes"] for token in reply["choices"][0]["logprobs"]["content"]]
    assert told == [[0xC3, 0xA9], None]


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("a film", ["<s>", "a", " film"], [0, 0, 1]),
        ("<s>a film", ["<s>", "a", " film"], [0, 3, 4]),
        ("a film", ["<s>", " a", " film"], [0, 0, 1]),
        ("é😀 film", ["\ufffd", "\ufffd", "\ufffd", "\ufffd", " film"], [0, 0, 0, 0, 2]),
        ("a film", ["a", " film", "</s>"], [0, 1, 6]),
        ("a fi", ["a", " film", " yet"], [0, 1, 6]),  # a stream, or a stop text
        ("film film", ["<s>", "film", " ", "film"], [0, 0, 4, 5]),
    ],
)
def test_each_token_begins_where_its_text_stands(text, tokens, expected):
    assert Places().of(tokens, text, ended=True) == expected
    places, streamed = Places(), []
    for end in range(len(text) + 1):  # as it comes, letter by letter, all tokens before the first
        streamed += places.of(tokens[len(streamed) :], text[:end], ended=False)
    assert streamed + places.of(tokens[len(streamed) :], text, ended=True) == expected


def test_a_stream_tells_the_same_tokens_at_the_same_places(client):
    asked = {"model": "fedperfit-base", "prompt": [[5, 6, 7], [9]], "n": 2, "temperature": 2.0, "seed": 95}
    for more in ({}, {"echo": True}, {"stop": "e"}):
        whole = completion(client, logprobs=1, **asked, **more)
        chunks = completion(client, logprobs=1, stream=True, **asked, **more)
        for choice in whole.choices:
            parts = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == choice.index]
            told = [part.logprobs for part in parts if part.logprobs]
            assert "".join(part.text for part in parts) == choice.text
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                streamed = [value for one in told for value in getattr(one, name)]
                assert streamed == getattr(choice.logprobs, name)
