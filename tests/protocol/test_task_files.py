"""A task of one's own is a TOML file: what it may leave out, and what is wrong with a bad one."""

from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedperfit.edge.chameleon.prompts import Persona, history_text, insight_prompt, output_prompt
from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.fields import TaskName
from fedperfit.protocol.system.errors import FedperfitError, InputError
from fedperfit.protocol.tasks import TASKS, AnswerKind, Pair, PromptForm, Task, Turn, task_by_name

URGENCY = """
name = "Urgency"
kind = "labels"
fields = ["mail"]
target = "urgency"
labels = ["now", "later"]
instruction = "Is this mail to be answered now or later? mail: "
"""
REPLY = """
name = "Reply"
kind = "text"
fields = ["subject", "mail"]
target = "reply"
"""
NUMBER = 'name="N"\nkind="number"\nfields=["text"]\ntarget="warmth"\nlabels=["0", "2.5", "-10"]\n'
LISTED = f'{URGENCY}[wording]\nsentence = "of {{labels}}, {{mail}} is {{urgency}}"\n'
ITEM = {
    "subject": "Lunch {x}",
    "mail": "At noon?",
    "urgency": "now",
    "reply": "Yes",
    "text": "a",
    "warmth": "0",
}


def own(text: str = URGENCY) -> Task:
    return task_by_name(text)


def test_the_least_file_has_prompts_in_every_form():
    task = own()
    assert (task.name, task.kind, task.labels) == ("Urgency", AnswerKind.LABELS, ("now", "later"))
    question = "Is this mail to be answered now or later? mail: At noon?"
    assert task.item_pair(ITEM, PromptForm.LAMP) == Pair(f"{question}\n", "now")
    assert task.item_pair(ITEM, PromptForm.OPPU) == Pair(f"{question} urgency:", " now")
    for asked in (question, "At noon?", task.question(ITEM)):
        assert task.query_pair(asked, "now", PromptForm.OPPU) == task.item_pair(ITEM, PromptForm.OPPU)


def test_in_a_chat_the_system_may_speak_first():
    task = own(f"{URGENCY}[prompts.chat]\nsystem = 'One of {{labels}}.'\nprompt = '{{mail}}'\n")
    turns = (Turn("system", "One of now, later."), Turn("user", "At noon?"))
    assert task.item_pair(ITEM, PromptForm.CHAT) == Pair(turns, "now")
    assert task.item_pair(ITEM, PromptForm.LAMP) == own().item_pair(ITEM, PromptForm.LAMP)
    assert task.asking("Well?", PromptForm.CHAT) == (Turn("user", "Well?"),)
    assert task.asking("Well?", PromptForm.OPPU) == "Well?"


def test_several_fields_stand_after_their_names_and_are_asked_about_as_json():
    task = own(REPLY)
    pair = task.item_pair(ITEM, PromptForm.OPPU)
    assert pair == Pair("subject: Lunch {x} mail: At noon? reply:", " Yes")
    assert task.query_pair(task.question(ITEM), "Yes", PromptForm.OPPU) == pair
    for asked in ("At noon?", "[1]", '{"subject": "x"}', '{"subject": "x", "mail": 1}', "[" * 10**5):
        with pytest.raises(InputError, match="Reply: a question is a JSON object with subject, mail"):
            task.query_pair(asked, "", PromptForm.LAMP)


def test_stated_templates_go_before_the_defaults():
    task = own(
        f"{REPLY}[prompts.oppu]\nprompt = '{{{{{{mail}}}}}} ->'\ntarget = '\\n{{reply}}'\n".replace("'", '"')
    )
    assert task.item_pair(ITEM, PromptForm.OPPU) == Pair("{At noon?} ->", "\nYes")
    assert task.parse(task.target("Yes", PromptForm.OPPU)) == "Yes"


@pytest.mark.parametrize("text", [URGENCY, REPLY, NUMBER, f"{REPLY}free-history = true\n", LISTED])
def test_other_methods_have_words_for_any_task(text):
    task = own(text)
    shown = str(ITEM[task.answer])
    assert shown in task.shown(task.wording.sentence, ITEM)
    assert task.wording.joint
    assert task.wording.profile
    assert shown in history_text(task, [ITEM])
    for persona in Persona:
        assert shown in insight_prompt(task, [ITEM], persona)
        asked = output_prompt(task, [ITEM], task.text(ITEM), persona, "short")
        assert task.text(ITEM) in asked
        assert all(label in asked for label in task.labels)


def test_name_file_text_and_id_are_one_task(tmp_path: Path):
    file = tmp_path / "urgency.toml"
    file.write_bytes(b"\xef\xbb\xbf" + URGENCY.replace("\n", "\r\n").encode())
    task = task_by_name(str(file))
    assert task == own() == own(f"# another comment\n{URGENCY}") == task_by_name(task.id)
    assert task_by_name(task.reference) == task
    assert task.id.startswith("Urgency-")
    other = own(URGENCY.replace("later", "never"))
    assert (other.name, other.id == task.id, other == task) == ("Urgency", False, False)


def test_a_copy_of_a_task_that_ships_is_that_task(tmp_path: Path):
    shipped = resources.files("fedperfit.configs") / "tasks" / "LaMP_3.toml"
    copy = tmp_path / "mine.toml"
    copy.write_text(shipped.read_text())
    assert task_by_name(str(copy)) is TASKS["LaMP_3"]
    assert TASKS["LaMP_3"].reference == TASKS["LaMP_3"].id == "LaMP_3"
    assert task_by_name("LaMP-3") is task_by_name("lamp_3") is TASKS["LaMP_3"]


def test_a_setting_keeps_the_file_itself(tmp_path: Path):
    class Some(Settings):
        task: TaskName

    file = tmp_path / "urgency.toml"
    file.write_text(URGENCY)
    kept = Some(task=str(file)).to_flat()
    file.unlink()
    assert task_by_name(Some.from_flat(kept).task) == own()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("kind", "knid"), "unknown key 'knid'; the nearest is 'kind'"),
        (('kind = "labels"\n', ""), "the key 'kind' is missing"),
        (('"labels"', '"label"'), "kind='label'.*; the nearest is labels"),
        (('["now", "later"]', "[]"), "a task of kind labels has labels"),
        (('["now", "later"]', '["now", "now"]'), "labels: one stands twice"),
        (('["now", "later"]', '["now", " "]'), "label ' ' is empty"),
        (('["now", "later"]', '["now", 3]'), "labels.1=3: "),
        (('"labels"', '"number"'), "label 'now' is no number"),
        (('"labels"', '"text"'), "a task of kind text has no labels"),
        (('kind = "labels"', 'kind = "labels"\nestimate = "median"'), "expected kind 'number' in place of"),
        (('kind = "labels"', 'kind = "labels"\nestimate = "mean"'), "estimate"),
        (('["mail"]', '["mail", "mail"]'), "fields: one is named twice"),
        (('["mail"]', '["the mail"]'), "'the mail' cannot be a field's name"),
        (('["mail"]', '["labels"]'), "'labels' cannot be a field's name: {labels} stands for"),
        (('["mail"]', '["urgency"]'), "target='urgency' is also a field"),
        (('"Urgency"', '"../x"'), "name='../x'"),
        (("mail: ", "{mial} "), "instruction: no field 'mial'"),
        (("mail: ", "{"), "instruction: broken template"),
        (("mail: ", "{labels.x}"), "instruction: only a field's name stands in braces"),
        (("mail: ", "{labels!r}"), "instruction: only a field's name"),
        (("mail: ", '"'), r"\(at line 7, column \d+\)"),
        ((URGENCY, "\n"), "the key 'name' is missing"),
        (('["now", "later"]', "9" * 5000), "a number too long or nested too deeply"),
        (('["now", "later"]', "[" * 5000), "a number too long or nested too deeply"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, change: tuple[str, str], told: str):
    file = tmp_path / "urgency.toml"
    file.write_text(URGENCY.replace(*change))
    with pytest.raises(InputError, match=told) as caught:
        task_by_name(str(file))
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ('[prompts.oppu]\nprompt = "{mial}"', "prompts.oppu.prompt: no field 'mial'; the nearest is 'mail'"),
        ('[prompts.oppu]\nprompt = "{urgency}"', "prompts.oppu.prompt: no field 'urgency'"),
        (
            f'[prompts.oppu]\nprompt = "{"{mail}" * 33}"',
            "prompts.oppu.prompt: 33 names in braces, at most 32",
        ),
        (
            '[prompts.lamp]\nprompt = "Now or later?"',
            "prompts.lamp.prompt: shows nothing of an item; expected {mail}",
        ),
        ('[prompts.chat]\nprompt = ""', "prompts.chat.prompt: shows nothing of an item"),
        (
            '[wording]\nsentence = "{labels}"',
            "wording.sentence: shows nothing of an item; expected {mail} or {urg",
        ),
        ('[wording.chameleon]\nitem = "-"', "wording.chameleon.item: shows nothing of an item"),
        (f'[wording]\nprofile = "{"{labels}" * 4000}"', "wording.profile: 4000 names in braces"),
        ('[prompts.oppu]\ntarget = "it is {urgency}"', "expected {urgency}, blanks around it"),
        (
            '[prompts.chat]\nsystem = "{mail}"',
            "prompts.chat.system: no field 'mail'; the nearest",
        ),
        ('[prompts.opu]\nprompt = "{mail}"', "unknown key 'prompts.opu'; the nearest is 'oppu'"),
        ('[wording]\nsentense = "x"', "unknown key 'wording.sentense'; the nearest is 'sentence'"),
        ('[wording]\nsentence = "{tag}"', "wording.sentence: no field 'tag'"),
        ('[wording.chameleon]\nguess = "{mail}"', "wording.chameleon.guess: no field 'mail'"),
        ('marker = "text: "', "marker='text: ': expected the end of the instruction"),
    ],
)
def test_a_bad_template_is_one_line(added: str, told: str):
    with pytest.raises(InputError, match=told) as caught:
        own(f"{URGENCY}{added}\n")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path):
    (tmp_path / "latin.toml").write_bytes(b"name = '\xff'")
    (tmp_path / "folder.toml").mkdir()
    for name, told in (("none", "no such file"), ("latin", "not UTF-8"), ("folder", "directory")):
        with pytest.raises(InputError, match=told):
            task_by_name(str(tmp_path / f"{name}.toml"))
    for name, told in (("~nobody-here/x.toml", "no such home folder"), ("\0.toml", "no name of a file")):
        with pytest.raises(InputError, match=told):
            task_by_name(name)


@given(text=st.text() | st.text("[]{}=\"'\n\\.abc1 #", max_size=80).map(lambda end: URGENCY + end))
def test_any_text_is_a_task_or_one_line(text: str):
    problem = ""
    try:
        own(f"{text}\n")
    except FedperfitError as error:
        problem = str(error)
    assert "\n" not in problem
