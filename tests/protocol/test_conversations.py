"""Conversations in OpenAI's format: what is learned of them, and how the next turn is asked for."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedperfit.protocol.system.errors import FedperfitError, InputError
from fedperfit.protocol.tasks import Pair, PromptForm, Turn, task_by_name
from fedperfit.protocol.tasks.conversations import as_text, learned, turns_of, unfolded
from fedperfit.protocol.tasks.door import admitted_item, admitted_question
from fedperfit.protocol.tasks.task import first_words

TEXT = (
    'name = "Messages"\nkind = "text"\nfields = ["messages"]\ntarget = "reply"\nconversation = "assistant"\n'
)
TASK = task_by_name(TEXT)
MESSAGES = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": [{"type": "text", "text": "Three?"}, {"type": "text", "text": "Or four?"}]},
    {"role": "assistant", "content": "Five."},
]
TURNS = (
    Turn("system", "Be brief."),
    Turn("user", "One?"),
    Turn("assistant", "Two."),
    Turn("user", "Three?\nOr four?"),
    Turn("assistant", "Five."),
)


def test_turns_are_read_from_messages_and_their_json():
    assert turns_of(MESSAGES) == turns_of(json.dumps(MESSAGES)) == TURNS
    assert turns_of(as_text(TURNS)) == TURNS
    assert turns_of([{"role": "assistant", "content": None, "tool_calls": []}]) == (Turn("assistant", ""),)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("hello", "expected a list of messages"),
        ([], "expected a list of messages"),
        (["hello"], "a message is an object"),
        ([{"role": "tool", "content": "x"}], "role 'tool': expected system, user or assistant"),
        ([{"role": "my words", "content": "x"}], "an unknown role: expected system, user or assistant"),
        ([{"role": "user", "content": [{"type": "my words"}]}], "content of an unknown type"),
        ([{"role": "assistant", "tool_calls": [{"id": "c"}]}], "tool_calls: this model calls no tools"),
        (
            [{"role": "assistant", "content": "x", "function_call": {"name": "f"}}],
            "function_call: this model",
        ),
        (
            [{"role": "user", "name": "my words", "content": "x"}],
            "name: who speaks is told by the role alone",
        ),
        ([{"role": "assistant", "audio": {"id": "a"}}], "audio: models here read text only"),
        ([{"role": "assistant", "content": "x", "prefix": True}], "prefix: every answer is begun anew"),
        ([{"role": "user", "content": 5}], "the content of a message is a text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "content of type 'image_url'"),
    ],
)
def test_what_is_no_conversation_is_one_line(messages, words):
    with pytest.raises(InputError, match=words) as caught:
        turns_of(messages)
    assert "my words" not in str(caught.value)


def test_what_says_nothing_passes_and_a_refusal_is_what_was_said():
    nothing = {"name": None, "tool_calls": [], "function_call": None, "audio": None, "refusal": None}
    assert turns_of([{**message, **nothing} for message in MESSAGES]) == TURNS
    assert turns_of([{"role": "assistant", "content": None, "refusal": "No."}]) == (Turn("assistant", "No."),)


def test_a_turn_of_weight_0_is_not_learned_but_is_there_to_be_answered():
    messages = [MESSAGES[0], MESSAGES[1], {**MESSAGES[2], "weight": 0}, *MESSAGES[3:]]
    lines = [(1, {"messages": messages}), (2, {"messages": messages[:3]})]
    (_, item), (number, why) = unfolded(lines, "assistant", "messages", "reply")
    assert item == {"messages": as_text(TURNS[:4]), "reply": "Five."}
    assert number == 2
    assert "weight 0" in str(why)


def test_the_assistants_turns_are_learned_or_the_owners_with_roles_changed():
    assert list(learned(TURNS, "assistant")) == [(TURNS[:2], "Two."), (TURNS[:4], "Five.")]
    swapped = (TURNS[0], Turn("assistant", "One?"), Turn("user", "Two."))
    assert list(learned(TURNS, "user")) == [(swapped, "Three?\nOr four?")]
    assert list(learned(TURNS[2:3], "assistant")) == []
    assert list(learned((*TURNS[:2], Turn("assistant", " ")), "assistant")) == []


@pytest.mark.parametrize("key", ["tools", "functions"])
def test_a_line_with_tools_costs_itself(key):
    tool = {"type": "function", "function": {"name": "weather"}}
    lines = [(1, {"messages": MESSAGES, key: [tool]}), (2, {"messages": MESSAGES, key: []})]
    (number, why), *others = unfolded(lines, "assistant", "messages", "reply")
    assert (number, str(why)) == (1, f"{key}: this model calls no tools")
    assert [number for number, _ in others] == [2, 2]


def test_lines_unfold_into_items_and_bad_ones_cost_themselves():
    lines = [
        (1, {"messages": MESSAGES, "person": "ada"}),
        (2, {"messages": MESSAGES[:2]}),
        (3, {"messages": 4}),
    ]
    done = {"messages": as_text(TURNS[:2]), "reply": "x"}
    told = list(unfolded([*lines, (4, done), (5, 6)], "assistant", "messages", "reply"))
    assert [number for number, _ in told] == [1, 1, 2, 3, 4, 5]
    assert told[1][1] == {"messages": as_text(TURNS[:4]), "reply": "Five.", "person": "ada"}
    assert "no turn of the assistant" in str(told[2][1])
    assert "expected a list of messages" in str(told[3][1])
    assert told[4:] == [(4, done), (5, 6)]
    assert list(unfolded(lines, "", "messages", "reply")) == lines


def test_the_next_turn_is_asked_for_in_every_form():
    item = {"messages": as_text(TURNS[:4]), "reply": "Five."}
    lines = "Be brief.\nOne?\nTwo.\nThree?\nOr four?\n"
    assert TASK.item_pair(item, PromptForm.CHAT) == Pair(TURNS[:4], "Five.")
    assert TASK.item_pair(item, PromptForm.LAMP) == Pair(lines, "Five.")
    said = TASK.item_pair(item, PromptForm.OPPU)
    assert said == Pair(
        "system: Be brief.\nuser: One?\nassistant: Two.\nuser: Three?\nOr four?\nassistant:", " Five."
    )
    question = TASK.question(item)
    for form in PromptForm:
        assert TASK.query_pair(question, "Five.", form) == TASK.item_pair(item, form)
        assert TASK.next_turn(TURNS[:4], form) == TASK.item_pair(item, form).prompt
    own = task_by_name(f"{TEXT}[prompts.chat]\nsystem = 'You are Ada.'\n")
    assert own.next_turn(TURNS[1:2], PromptForm.CHAT) == (Turn("system", "You are Ada."), TURNS[1])
    assert own.next_turn(TURNS[:2], PromptForm.CHAT) == TURNS[:2]
    assert not own.asks(question)


def test_long_turns_are_learned_one_by_one_up_to_a_length_and_asked_whole():
    poem = "a line of words\n\n    and another\n" * 300
    long = (Turn("user", poem), Turn("assistant", "two"), Turn("user", "three"))
    assert TASK.next_turn(long, PromptForm.CHAT) == long
    pair = TASK.item_pair({"messages": as_text(long), "reply": poem}, PromptForm.CHAT)
    first, *others = pair.prompt
    assert tuple(others) == long[1:]
    for text in (first.text, pair.target):
        assert poem.startswith(text)
        assert len(text.split()) == 768


@given(text=st.text(st.characters(max_codepoint=0x2FF)), words=st.integers(1, 6))
def test_first_words(text, words):
    begun = first_words(text, words)
    assert text.startswith(begun)
    assert begun.split() == text.split()[:words]
    assert begun == text or len(text.split()) > words


def test_texts_without_blanks_have_words_too():
    assert first_words("灯塔的故事 end", 3) == "灯塔的"
    assert first_words("ab灯塔 end", 2) == "ab灯"
    assert first_words("สวัสดี ครับ", 4) == "สวัส"
    assert first_words("안녕 하세요 여러분", 2) == "안녕 하세요"
    for text in ("x" * 1_000_000, "https://a.b/" + "%20" * 100_000, "灯" * 100_000):
        begun = first_words(text)
        assert text.startswith(begun)
        assert len(begun) <= 768 * 32


def test_the_door_lets_conversations_in_and_nothing_else():
    item = admitted_item(TASK, {"messages": MESSAGES[:2], "reply": "Two."})
    assert item == {"messages": as_text(TURNS[:2]), "reply": "Two."}
    question = admitted_question(TASK, {"input": MESSAGES[:2], "gold": "Two."})
    assert question == {"input": as_text(TURNS[:2]), "gold": "Two."}
    bare = admitted_question(TASK, {"input": "One?", "gold": "Two."})
    assert bare == {"input": as_text(TURNS[1:2]), "gold": "Two."}
    assert TASK.query_pair("One?", "", PromptForm.CHAT).prompt == TURNS[1:2]
    for wrong in ("[", "[1]", " ", ""):
        with pytest.raises(InputError):
            TASK.query_fields(wrong)
    for wrong in ({"messages": "One?", "reply": "x"}, {"messages": MESSAGES}, {"reply": "x"}, 5):
        with pytest.raises(InputError):
            admitted_item(TASK, wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        'instruction = "x"',
        'cue = "x:"',
        "free-history = true",
        '[prompts.lamp]\nprompt = "x"',
        'conversation = "king"',
    ],
)
def test_a_task_of_conversations_words_nothing_itself(wrong):
    text = TEXT if not wrong.startswith("conversation") else TEXT.rpartition("conversation")[0]
    with pytest.raises(InputError, match="conversation"):
        task_by_name(text + wrong + "\n")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "assistant", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "messages", "reply"]), inner)
    ),
    max_leaves=12,
)


@given(value=JSON)
def test_any_json_is_a_conversation_or_a_typed_error(value):
    for number, unfolded_value in unfolded([(1, value)], "assistant", "messages", "reply"):
        assert number == 1
        if isinstance(unfolded_value, FedperfitError):
            assert "\n" not in str(unfolded_value)
            continue
        with suppress(FedperfitError):
            item = admitted_item(TASK, unfolded_value)
            assert TASK.item_pair(item, PromptForm.CHAT).prompt == turns_of(item["messages"])
