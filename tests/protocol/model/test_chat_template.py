"""Conversations by a model's own template, and the tokens around prompts and answers."""

import dataclasses

import pytest
from tests.protocol.model.chat_templates import CHATML, DATED, DEAF, STRICT, with_template
from tokenizers import processors
from transformers import AutoTokenizer

from fedperfit.protocol.model.base_model import BaseModel, embedded_folder, read_card
from fedperfit.protocol.model.chat_template import written_out
from fedperfit.protocol.model.prompt_tokens import prompt_length, prompt_tokens, target_tokens
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Turn

TALK = [("system", "Be brief."), ("user", "one"), ("assistant", "two"), ("user", "three")]


@pytest.fixture(scope="module")
def plain():
    return AutoTokenizer.from_pretrained(embedded_folder())


def model(tokenizer):
    return BaseModel(None, tokenizer, read_card("embedded"))


@pytest.mark.parametrize(
    ("template", "turns", "text"),
    [
        (CHATML, TALK[1:2], "[user]\none</s>\n[assistant]\n"),
        (
            CHATML,
            TALK,
            "[system]\nBe brief.</s>\n[user]\none</s>\n[assistant]\ntwo</s>\n"
            "[user]\nthree</s>\n[assistant]\n",
        ),
        (STRICT, TALK[1:2], "<s>[user] one<pad>\n[assistant] "),
        (
            STRICT,
            TALK,
            "<s>[user] Be brief.\n\none<pad>\n[assistant] two<pad>\n[user] three<pad>\n[assistant] ",
        ),
        (DEAF, TALK[:2], "<s>[user] Be brief.\n\none<pad>\n[assistant] "),
        (STRICT, [TALK[1], TALK[3]], "<s>[user] one\n\nthree<pad>\n[assistant] "),
        (STRICT, TALK[2:], "<s>[user] <pad>\n[assistant] two<pad>\n[user] three<pad>\n[assistant] "),
        (STRICT, [TALK[0], TALK[2]], "<s>[user] Be brief.<pad>\n[assistant] two<pad>\n[assistant] "),
        (STRICT, [TALK[1], TALK[0]], "<s>[user] one\n\nBe brief.<pad>\n[assistant] "),
        (DATED, TALK[1:2], "26 Jul 2024[user]\none</s>\n[assistant]\n"),
    ],
    ids=range(10),
)
def test_what_a_template_refuses_is_said_in_another_order(plain, template, turns, text):
    assert written_out(with_template(plain, template), turns) == text


def test_a_conversation_that_cannot_be_written_is_one_line(plain):
    with pytest.raises(InputError, match="prompt-form=chat needs an instruct model"):
        written_out(plain, TALK)
    with pytest.raises(InputError, match="refuses the conversation: no, and no again") as caught:
        written_out(with_template(plain, "{{ raise_exception('no,\nand no again') }}"), TALK)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="has no chat template"):
        read_card("embedded").check_form("chat")
    dataclasses.replace(read_card("embedded"), chat=True).check_form("chat")


def test_the_start_token_comes_once_and_where_it_is_wanted(plain):
    start, end = plain.bos_token_id, plain.eos_token_id
    bare = plain("a film", add_special_tokens=False)["input_ids"]
    assert prompt_tokens(model(plain), ["a film", "<s>a film"]) == [[start, *bare]] * 2
    refusing = with_template(plain, "")
    refusing.init_kwargs["add_bos_token"] = False
    assert prompt_tokens(model(refusing), ["a film"]) == [bare]
    assert prompt_tokens(model(with_template(plain, CHATML)), ["a film"]) == [bare]
    adding = with_template(plain, STRICT)
    adding.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", start), ("</s>", end)]
    )
    text, talk = prompt_tokens(model(adding), ["a film", (Turn("user", "a film"),)])
    assert text == [start, *bare]
    assert talk[0] == start != talk[1]
    adding.chat_template = CHATML
    (talk,) = prompt_tokens(model(adding), [(Turn("user", "a film"),)])
    assert talk[0] == start != talk[1]


def test_an_answer_ends_as_the_template_ends_a_turn(plain):
    bare = plain("drama", add_special_tokens=False)["input_ids"]
    assert target_tokens(model(plain), ["drama"], chat=False) == [[*bare, plain.eos_token_id]]
    broken = "{{ raise_exception('no') }}"
    ends = {CHATML: "</s>", STRICT: "<pad>", CHATML.replace("</s>", ";"): "</s>", broken: "</s>"}
    for template, end in ends.items():
        base = model(with_template(plain, template))
        assert target_tokens(base, ["drama"], chat=True) == [[*bare, plain.convert_tokens_to_ids(end)]]
    with pytest.raises(InputError, match="no end token"):
        target_tokens(model(with_template(plain, "", eos_token=None)), ["drama"], chat=False)


@pytest.mark.parametrize("template", [CHATML, STRICT, DEAF, DATED], ids=["chatml", "strict", "deaf", "dated"])
def test_a_prompt_ends_where_the_last_answer_begins(plain, template):
    base = model(with_template(plain, template))
    for talk in (TALK[1:2], TALK[1:]):
        turns = [Turn(role, text) for role, text in talk]
        (prompt,), (target,) = prompt_tokens(base, [turns]), target_tokens(base, ["four five"], True)
        assert prompt_length(base, [*prompt, *target]) == prompt_length(base, prompt) == len(prompt)


def test_a_text_that_opens_no_answer_is_prompt_to_its_end(plain):
    refusing = "{{ raise_exception('nobody speaks here') }}"
    for tokenizer in (plain, with_template(plain, CHATML), with_template(plain, refusing)):
        assert prompt_length(model(tokenizer), [5, 6, 7]) == 3
