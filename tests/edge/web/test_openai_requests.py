"""What OpenAI's client may ask: honoured, or refused with a reason, and never an error of ours."""

import json
import math
import random

import openai
import pytest
from tests.edge.web.openai_client import HELLO, MODEL, PROMPT, Client, chat, completion, written
from tests.edge.web.web_servers import TOKEN

from fedperfit.edge.engine.generation import Sampling
from fedperfit.edge.web.app import build
from fedperfit.edge.web.owner import Owner
from fedperfit.edge.web.requests import Chat
from fedperfit.edge.writing.streaming import free_prompt
from fedperfit.protocol.schema import owner_pb2
from fedperfit.protocol.tasks import Turn


def test_content_may_be_parts_of_text_or_nothing(client, edge):
    parts = [{"type": "text", "text": "a quiet story"}, {"type": "text", "text": "about the sea"}]
    messages = [
        {"role": "developer", "content": "a film:"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": parts},
    ]
    turns = (
        Turn("system", "a film:"),
        Turn("assistant", ""),
        Turn("user", "a quiet story\nabout the sea"),
    )
    expected = written(edge, prompt=turns, sampling=Sampling(max_new_tokens=8))
    assert chat(client, messages=messages).choices[0].message.content == expected


def test_several_answers_of_several_prompts(client, edge):
    few = Sampling(max_new_tokens=8)
    texts = [written(edge, prompt=text, sampling=few) for text in (PROMPT, "a film")]
    assert texts[0] != texts[1]
    whole = completion(client, prompt=[PROMPT, "a film"], n=2)
    assert [choice.text for choice in whole.choices] == [texts[0], texts[0], texts[1], texts[1]]
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    single = [completion(client, prompt=text).usage for text in (PROMPT, "a film")]
    assert whole.usage.prompt_tokens == sum(one.prompt_tokens for one in single)
    assert whole.usage.completion_tokens == 2 * sum(one.completion_tokens for one in single)
    chunks = completion(
        client, prompt=[PROMPT, "a film"], stream=True, stream_options={"include_usage": True}
    )
    streamed = ["", ""]
    for chunk in chunks[:-1]:
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert (streamed, chunks[-1].usage.prompt_tokens) == (texts, whole.usage.prompt_tokens)
    base = edge[0].agent.base
    tokens = [list(free_prompt(base, text)) for text in (PROMPT, "a film")]
    assert [choice.text for choice in completion(client, prompt=tokens).choices] == texts
    assert completion(client, prompt=tokens[1]).choices[0].text == texts[1]


def test_sampled_answers_differ_without_a_seed_and_repeat_with_one(client):
    def texts(**asked):
        choices = chat(client, temperature=2.0, max_completion_tokens=12, n=3, **asked).choices
        return [choice.message.content for choice in choices]

    assert len(set(texts())) > 1
    assert texts() != texts()
    assert texts(seed=0) == texts(seed=0)
    assert len(set(texts(seed=0))) > 1


def test_without_a_limit_a_text_ends_by_itself_or_fills_the_context(client, edge):
    whole = client("chat.completions.create", model="fedperfit-base", messages=HELLO)
    ended = whole.choices[0].finish_reason == "stop"
    assert ended or whole.usage.total_tokens == edge[0].agent.base.context
    assert chat(client, max_tokens=1).choices[0].finish_reason == "length"


def test_a_question_of_the_task_is_asked_as_ask_does_and_said_so(client, edge):
    question = edge[0].agent.history.questions[0]["input"]
    asked = [{"role": "user", "content": question}]
    for stage in ("base", "personal"):
        reply = client("chat.completions.create", model=f"fedperfit-{stage}", messages=asked)
        assert reply.choices[0].message.content == edge[0].answer(question, stage, lambda: True)[0]
        assert reply.metadata == {"task": "LaMP_2M"}
        assert reply.choices[0].finish_reason == "stop"
    assert chat(client, messages=asked, stream=True)[-1].metadata == {"task": "LaMP_2M"}
    as_it_is = Client(build(edge[0].home.folder, TOKEN, hosts=["127.0.0.1"], task_form=False))
    assert chat(as_it_is, messages=asked, max_tokens=1).metadata is None
    with pytest.raises(openai.BadRequestError, match="chosen among a task's labels"):
        chat(client, messages=asked, logprobs=True)


def test_what_has_no_effect_is_named(client):
    reply = chat(client, user="ada", extra_body={"reasoning_effort": "low", "zzz": 1})
    assert reply.metadata == {"ignored": "reasoning_effort, zzz"}
    said = {
        "role": "assistant",
        "content": "Hi.",
        "reasoning_content": "Hm.",
        "annotations": [],
        "name": None,
    }
    assert chat(client, messages=[said, *HELLO]).metadata == {"ignored": "messages.reasoning_content"}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools: this model calls no tools"),
        ({"tool_choice": "required"}, "tool_choice: this model calls no tools"),
        ({"response_format": {"type": "json_object"}}, "response_format: no grammar is enforced"),
        ({"presence_penalty": 0.5}, "presence_penalty: penalties are not offered"),
        ({"frequency_penalty": -1}, "frequency_penalty: penalties"),
        ({"logit_bias": {"5": 1}}, "logit_bias: it is not offered"),
        ({"modalities": ["audio"]}, "modalities: this model writes text only"),
        ({"extra_body": {"guided_json": {}}}, "guided_json: no grammar"),
        ({"extra_body": {"top_k": 3}}, "top_k: only temperature"),
        ({"extra_body": {"stop_token_ids": [5]}}, "stop_token_ids: only stop is offered"),
        ({"extra_body": {"continue_final_message": True}}, "continue_final_message: every answer is begun"),
        ({"extra_body": {"ignore_eos": True, "min_tokens": 3}}, "it is not offered"),
        ({"top_logprobs": 2}, "top_logprobs: only with logprobs"),
        ({"n": 0}, "n: Input should be greater"),
        ({"n": 1000}, "n: Input should be less"),
        ({"max_tokens": 10**12}, "max_tokens: Input should be less"),
        ({"temperature": 3}, "temperature: Input should be less"),
        (
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]},
            "role 'tool': this model calls",
        ),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{**HELLO[0], "name": "ada"}]}, "name: who speaks is told by the role alone"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}, *HELLO]},
            "tool_calls: this model calls no tools",
        ),
        ({"messages": [{**HELLO[0], "function_call": {"name": "f"}}]}, "function_call: this model calls no"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "content of type 'image_url': models here read text only",
        ),
    ],
)
def test_what_is_not_offered_is_refused_with_a_reason(client, asked, words):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **asked)
    error = caught.value.body
    assert words in error["message"]
    assert (error["type"], set(error)) == ("invalid_request_error", {"message", "type", "param", "code"})


def test_neutral_values_of_what_is_not_offered_pass(client):
    plain = chat(client).choices[0].message
    asked = {
        "tools": [],
        "tool_choice": "none",
        "presence_penalty": 0,
        "logit_bias": {},
        "modalities": ["text"],
        "extra_body": {
            **{"top_k": -1, "min_p": 0, "typical_p": 1.0, "repetition_penalty": 1, "ignore_eos": False},
            **{"min_tokens": 0, "add_generation_prompt": True, "stop_token_ids": [], "num_beams": 1},
        },
    }
    same = chat(client, **asked, response_format={"type": "text"}, logprobs=False, stop=[], n=1)
    assert same.choices[0].message == plain


def test_a_prompt_too_long_is_the_callers_mistake(client):
    for ask in (
        lambda: chat(client, messages=[{"role": "user", "content": "word " * 3000}]),
        lambda: completion(client, prompt="word " * 3000),
        lambda: completion(client, prompt=[5] * 3000),
    ):
        with pytest.raises(openai.BadRequestError, match="the base model reads") as caught:
            ask()
        assert caught.value.code == "context_length_exceeded"
    for prompt, words in (([10**6], "the base model knows"), ([], "from 1 to 128"), (["a"] * 200, "from 1")):
        with pytest.raises(openai.BadRequestError, match=words):
            completion(client, prompt=prompt)


def test_models_by_name(client):
    assert client("models.retrieve", model="fedperfit-base").id == "fedperfit-base"
    for call, asked in (
        ("models.retrieve", {"model": "gpt"}),
        ("completions.create", {"model": "gpt", "prompt": "x"}),
    ):
        with pytest.raises(openai.NotFoundError, match="does not exist") as caught:
            client(call, **asked)
        assert caught.value.code == "model_not_found"
    assert client.post("nothing", b"{}").json()["error"]["message"] == "Not Found"


def test_the_simple_form_of_responses(client, edge):
    few = Sampling(max_new_tokens=8)
    reply = client("responses.create", model=MODEL, input=PROMPT, max_output_tokens=8)
    assert reply.output_text == written(edge, prompt=(Turn("user", PROMPT),), sampling=few)
    assert reply.usage.output_tokens <= 8
    said = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hello."}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]},
        {"role": "user", "content": PROMPT},
    ]
    turns = (
        Turn("system", "a film:"),
        Turn("user", "Hello."),
        Turn("assistant", "Hi."),
        Turn("user", PROMPT),
    )
    reply = client("responses.create", model=MODEL, input=said, instructions="a film:", max_output_tokens=8)
    assert reply.output_text == written(edge, prompt=turns, sampling=few)
    short = client("responses.create", model="fedperfit-base", input=PROMPT, max_output_tokens=1)
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    asked = {"model": MODEL, "input": PROMPT, "max_output_tokens": 1}
    reply = client("responses.create", **asked, text={"verbosity": "low", "format": {"type": "text"}})
    assert reply.metadata == {"ignored": "text.verbosity"}
    for wrong, words in (
        ({"text": {"format": {"type": "json_object"}}}, "text.format: no grammar"),
        ({"previous_response_id": "x"}, "send it whole"),
        ({"tools": [{"type": "x"}]}, "no tools"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            client("responses.create", model=MODEL, input=PROMPT, **wrong)


@pytest.mark.parametrize("most", [1, 64])
def test_responses_stream_what_they_would_be_as_a_whole(client, most):
    asked = {"model": MODEL, "input": PROMPT, "max_output_tokens": most}
    whole = client("responses.create", **asked)
    events = client("responses.create", **asked, stream=True)
    kinds = [event.type for event in events]
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(texts) == whole.output_text
    assert all(texts)
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[2:4] == ["response.output_item.added", "response.content_part.added"]
    done = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert kinds[-4:] == [*done, f"response.{whole.status}"]
    assert whole.status == ("incomplete" if most == 1 else "completed")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1].response
    assert (last.output_text, last.status, last.usage) == (whole.output_text, whole.status, whole.usage)
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {last.output[0].id}


def test_an_agent_that_ends_in_the_middle_ends_the_stream_with_its_error(client, monkeypatch):
    async def broken(self, request):
        yield owner_pb2.Piece(text="a quiet ", stage="personal")
        await anext(whole(self, owner_pb2.GenerateRequest(stage="none such")))

    whole = Owner.generate
    monkeypatch.setattr(Owner, "generate", broken)
    for ask in (completion, chat):
        with pytest.raises(openai.APIError, match="stage='none such'"):
            ask(client, stream=True)
    *before, last = client("responses.create", model=MODEL, input=PROMPT, stream=True)
    assert before[-1].delta == "a quiet "
    assert last.type == "error"
    assert "stage='none such'" in last.message


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        *(("completions", {"prompt": "\ud800"}), ("completions", {"prompt": ["a", "\ud800"]})),
        *(("completions", {"prompt": "a", "stop": "\ud800"}), ("responses", {"input": "\ud800"})),
        ("chat/completions", {"messages": [{"role": "user", "content": "\ud800"}]}),
        ("chat/completions", {"messages": HELLO, "stop": ["a", "\ud800"]}),
        ("responses", {"input": "a", "instructions": "\ud800"}),
        *(("completions", {"prompt": "a", "model": "\ud800"}), ("responses", {"input": "a", "\ud800": 1})),
        ("responses", {"input": "a", "text": {"\ud800": 1}}),
        ("chat/completions", {"messages": [{"role": "user", "content": "a", "\ud800": 1}]}),
    ],
)
def test_half_of_a_character_is_a_400(client, path, asked):
    answer = client.post(path, json.dumps({"model": MODEL, **asked}).encode())
    assert answer.status_code == 400
    assert "half of a character" in answer.json()["error"]["message"]


def test_a_body_that_is_nested_too_deeply_to_be_checked_is_refused():
    deep = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        Chat.model_validate({"model": MODEL, "messages": HELLO, "more": deep})


IMAGE = {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}


@pytest.mark.parametrize(
    ("path", "asked", "told"),
    [
        ("responses", {"input": [IMAGE]}, "content of type 'input_image': models here read text only"),
        ("responses", {"input": [{"role": "tool"}]}, "role 'tool': this model calls no tools"),
        ("responses", {"input": [{"type": "reasoning"}]}, "input.0.role: Field required"),
        ("responses", {"input": 5}, "input: Input should be a valid string"),
        ("completions", {"prompt": {}}, "prompt: Input should be a valid string"),
        ("completions", {"prompt": [[1], [-1]]}, "prompt.1.0: Input should be greater than or equal to 0"),
        ("completions", {"prompt": "a", "stop": ["b", 5]}, "stop.1: Input should be a valid string"),
    ],
)
def test_a_mistake_in_a_value_of_several_forms_is_told_where_it_is(client, path, asked, told):
    answer = client.post(path, json.dumps({"model": MODEL, **asked}).encode())
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, told)


def test_a_body_that_is_no_json_is_told_where(client):
    answer = client.post("completions", b'{"model": "x" "y"}')
    error = {"type": "invalid_request_error", "param": None, "code": None}
    assert answer.json()["error"] == {"message": "the body is no JSON from character 14 on", **error}
    told = "the body is no JSON object, or its Content-Type is not application/json"
    for content in (b"[]", b"5"):
        assert client.post("completions", content).json()["error"]["message"] == told
    form = client.post("completions", b'{"model": "fedperfit", "prompt": "x"}', kind="text/plain")
    assert (form.status_code, form.json()["error"]["message"]) == (400, told)


ODD = [
    *(None, True, 0, -1, 1e400, math.nan, 2**63, -(2**63), 10**30, 0.5, "", "\ud800", "\x00", "x" * 5000),
    *(
        [],
        {},
        [[]],
        [None],
        [{}],
        ["\udfff"],
        {"\ud800": 1},
        [[1, -1]],
        [2**40],
        "0",
        {"type": "json_schema"},
    ),
]


@pytest.mark.parametrize("path", ["completions", "chat/completions", "responses"])
def test_odd_values_are_never_an_error_of_ours(client, path):
    draw = random.Random(path)
    good = {"model": "fedperfit-base", "prompt": "x", "messages": HELLO, "input": "x"}
    names = [
        *("model", "prompt", "messages", "input", "temperature", "top_p", "seed", "n", "max_tokens", "stop")
    ]
    names += [
        *("logprobs", "top_logprobs", "echo", "stream_options", "tools", "response_format", "suffix", "zzz")
    ]
    for _ in range(120):
        body = {**good, **{name: draw.choice(ODD) for name in draw.sample(names, 2)}}
        body = {"max_tokens": 1, "max_output_tokens": 1, **body}
        if body["max_tokens"] is None or draw.random() < 0.2:
            body["max_tokens"] = 1
        answer = client.post(path, json.dumps(body).encode())
        assert answer.status_code in (200, 400, 404), (answer.text, body)
        if answer.status_code != 200:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    for content in (b"", b"{", b"[]", b"\xff", b"null", b'"x"', b"[" * 50_000):
        assert client.post(path, content).status_code == 400
