"""Prompts and targets of every task in both forms, spelled out."""

import pytest

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import (
    TASKS,
    AnswerKind,
    Pair,
    PromptForm,
    Turn,
    asked_text,
    preceded,
    task_by_name,
)

LAMP, OPPU, CHAT = PromptForm.LAMP, PromptForm.OPPU, PromptForm.CHAT

CATEGORIES = (
    "food & drink, sports, education, parents, religion, travel, business, crime, science & technology, "
    "culture & arts, entertainment, politics, women, style & beauty, healthy living"
)
TAGS = (
    "sci-fi, based on a book, comedy, action, twist ending, dystopia, dark comedy, classic, psychology, "
    "fantasy, romance, thought-provoking, social commentary, violence, true story"
)
NEWS = (
    "Which category does this article relate to among the following categories? Just answer with the "
    f"category name without further explanation. categories: [{CATEGORIES}] article: "
)
MOVIE = (
    "Which tag does this movie relate to among the following tags? Just answer with the tag name without "
    f"further explanation. tags: [{TAGS}] description: "
)
REVIEW = (
    "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, 3, 4, or 5 "
    "without further explanation. review: "
)
REVIEWED = "Generate the review text written by a reviewer who has a given an overall rating of "
POSTED = "Write the whole post of somebody who asks this question: "
PREFERRED = "Which answer to the prompt does the person prefer, a or b? "
TWEET = "Paraphrase the following tweet without any explanation before or after it: "

# task: history item, then prompt and target of its pair in each form
ITEMS = {
    "LaMP_2N": (
        {"id": "1", "text": "A body.", "title": "T", "category": "sports"},
        (NEWS + "A body.\n", "sports"),
        (NEWS + "A body. category:", " sports"),
    ),
    "LaMP_2M": (
        {"id": "1", "description": "A plot.", "tag": "sci-fi"},
        (MOVIE + "A plot.\n", "sci-fi"),
        (MOVIE + "A plot. tag:", " sci-fi"),
    ),
    "LaMP_3": (
        {"id": "1", "text": "Works.", "score": 4},
        (REVIEW + "Works.\n", "4"),
        (REVIEW + "Works. score:", " 4"),
    ),
    "LaMP_4": (
        {"id": "1", "text": "A body.", "title": "Its head"},
        ("Generate a headline for the following article: A body.\n", "Its head"),
        ("Generate a headline for the following article. article: A body. headline:", " Its head"),
    ),
    "LaMP_5": (
        {"id": "1", "abstract": "We show.", "title": "On it"},
        ("Generate a title for the following abstract of a paper: We show.\n", "On it"),
        ("Generate a title for the following abstract of a paper. abstract: We show. title:", " On it"),
    ),
    "LaMP_7": ({"id": "1", "text": "so tired"}, ("tweet:\n", "so tired"), ("tweet:", " so tired")),
    "LongLaMP_2": (
        {"title": '"On it"', "abstract": "We show."},
        ('Generate an abstract for the title "On it"\n', "We show."),
        ('Generate an abstract for the title "On it" abstract:', " We show."),
    ),
    "LongLaMP_3": (
        {"summary": "mornings", "content": "I rose."},
        ("Generate the content for a reddit post mornings\n", "I rose."),
        ("Generate the content for a reddit post mornings post:", " I rose."),
    ),
    "LongLaMP_4": (
        {"product": '"4.0" for a lamp', "review": "It glows."},
        (REVIEWED + '"4.0" for a lamp\n', "It glows."),
        (REVIEWED + '"4.0" for a lamp review:', " It glows."),
    ),
    "LaMP-QA": ({"text": "Who wrote it?"}, ("post:\n", "Who wrote it?"), ("post:", " Who wrote it?")),
    "PersonalLLM": (
        {"prompt": "Why?", "a": "So.", "b": "No.", "chosen": "b"},
        (PREFERRED + "prompt: Why? a: So. b: No.\n", "b"),
        (PREFERRED + "prompt: Why? a: So. b: No. chosen:", " b"),
    ),
}

# task: benchmark question, gold, then prompt of its pair in each form
QUESTIONS = {
    "LaMP_2N": (
        NEWS.replace(CATEGORIES, ", ".join(reversed(CATEGORIES.split(", ")))) + "A body.",
        "sports",
        (NEWS + "A body.\n", NEWS + "A body. category:"),
    ),
    "LaMP_2M": (MOVIE + "A plot.", "sci-fi", (MOVIE + "A plot.\n", MOVIE + "A plot. tag:")),
    "LaMP_3": (REVIEW + "Works.", "4", (REVIEW + "Works.\n", REVIEW + "Works. score:")),
    "LaMP_4": ("Generate a headline for the following article: A body.", "Its head", None),
    "LaMP_5": ("Generate a title for the following abstract of a paper: We show.", "On it", None),
    "LaMP_7": (TWEET + "so tired", "I am tired", (TWEET + "so tired\n", TWEET + "so tired tweet:")),
    "LongLaMP_2": ('Generate an abstract for the title "On it"', "We show.", None),
    "LongLaMP_3": ("Generate the content for a reddit post mornings", "I rose.", None),
    "LongLaMP_4": (REVIEWED + '"4.0" for a lamp', "It glows.", None),
    "LaMP-QA": (
        POSTED + "Who wrote it?",
        "Who?",
        (POSTED + "Who wrote it?\n", POSTED + "Who wrote it? post:"),
    ),
    "PersonalLLM": ('{"prompt": "Why?", "a": "So.", "b": "No."}', "b", None),
}
ASKING = {name: task for name, task in TASKS.items() if not task.conversation}
EVERY_TASK = pytest.mark.parametrize("name", ASKING)
OF_ONE_FIELD = pytest.mark.parametrize(
    "name", [name for name, task in ASKING.items() if len(task.fields) == 1]
)
WITH_MARKER = pytest.mark.parametrize("name", [name for name, task in ASKING.items() if task.marker])


def cue(name: str) -> str:
    """The word that ends the task's prompts in OPPU's form."""
    return ITEMS[name][2][0].rpartition(" ")[2]


def test_every_task_is_spelled_out():
    assert set(ITEMS) == set(QUESTIONS) == set(ASKING)
    assert [name for name in TASKS if name not in ASKING] == ["messages", "own_messages"]
    assert all(task.name == name for name, task in TASKS.items())


@EVERY_TASK
def test_history_item(name):
    item, lamp, oppu = ITEMS[name]
    assert TASKS[name].item_pair(item, LAMP) == Pair(*lamp)
    assert TASKS[name].item_pair(item, OPPU) == Pair(*oppu)


@EVERY_TASK
def test_question(name):
    """In one fixed order of labels whatever the question's; as its history items read, except for tweets."""
    question, gold, prompts = QUESTIONS[name]
    prompts = prompts or tuple(prompt for prompt, _ in ITEMS[name][1:])
    assert TASKS[name].query_pair(question, gold, LAMP) == Pair(prompts[0], gold)
    assert TASKS[name].query_pair(question, gold, OPPU) == Pair(prompts[1], f" {gold}")


@OF_ONE_FIELD
def test_in_a_chat_the_question_is_the_users_turn_and_the_answer_bare(name):
    item, (_, target), _ = ITEMS[name]
    task = TASKS[name]
    asked = (Turn("user", task.instruction + str(item[task.field])),)
    assert task.query_pair(QUESTIONS[name][0], target, CHAT) == Pair(asked, target)
    cued = (Turn("user", cue(name)),)
    assert task.item_pair(item, CHAT) == Pair(cued if task.free_history else asked, target)


def test_a_task_knows_its_own_questions_among_other_talk():
    for name, task in ASKING.items():
        assert [other for other, (question, *_) in QUESTIONS.items() if task.asks(question)] == [name]
        assert not any(task.asks(text) for text in ("", "A body.", f"I read this article: {NEWS}"))
    own = 'name="U"\nkind="labels"\nfields=["mail"]\ntarget="urgency"\nlabels=["now", "later"]\n'
    assert not task_by_name(own).asks("Dear Ada")
    assert task_by_name(f'{own}instruction="When? "\n').asks("When? Dear Ada")
    reply = task_by_name('name="R"\nkind="text"\nfields=["subject", "mail"]\ntarget="reply"\n')
    assert reply.asks('{"subject": "a", "mail": "b"}')
    assert not reply.asks('{"subject": "a"}')


def test_text_before_a_prompt_goes_into_the_turn_that_asks():
    assert preceded("a, ", "b") == "a, b"
    turns = (Turn("system", "s"), Turn("user", "b"))
    assert preceded("a, ", turns) == (turns[0], Turn("user", "a, b"))
    assert asked_text(preceded("a, ", turns)) == "a, b"


@WITH_MARKER
def test_question_for_another_task_is_one_line(name):
    for question in ("", "What is the weather like?\nAnd tomorrow?"):
        with pytest.raises(InputError, match=f"{name}: a question lacks") as caught:
            TASKS[name].query_pair(question, "", LAMP)
        assert "\n" not in str(caught.value)


@OF_ONE_FIELD
@pytest.mark.parametrize("form", list(PromptForm))
def test_a_long_field_is_learned_from_its_beginning_and_asked_whole(name, form):
    task = TASKS[name]
    words = [f"w{number}" for number in range(2_000)]
    question = QUESTIONS[name][0].partition(task.marker)[0] + task.marker + " ".join(words)
    prompt = task.query_pair(question, "gold", form).prompt
    text = asked_text(prompt)
    assert [word for word in text.split() if word in set(words)] == words[:768]
    assert text.endswith({LAMP: "w767\n", OPPU: f"w767 {cue(name)}", CHAT: "w767"}[form])
    whole = asked_text(task.asked(question, form))
    assert [word for word in whole.split() if word in set(words)] == words
    short = QUESTIONS[name][0]
    assert task.asked(short, form) == task.query_pair(short, "gold", form).prompt
    item = {**ITEMS[name][0], task.field: " ".join(words)}
    if not task.free_history:
        assert task.item_pair(item, form).prompt == prompt


@pytest.mark.parametrize("form", list(PromptForm))
def test_a_long_target_is_cut(form):
    tweet = "a word\n  and " * 700
    target = TASKS["LaMP_7"].item_pair({"text": tweet}, form).target.strip()
    assert tweet.startswith(target)
    assert len(target.split()) == 768


@EVERY_TASK
def test_missing_field_is_named(name):
    item, *_ = ITEMS[name]
    task = TASKS[name]
    for key in {task.field, task.answer}:
        for bad in ({k: v for k, v in item.items() if k != key}, {**item, key: None}, {**item, key: ["x"]}):
            with pytest.raises(InputError, match=f"{name}: a history item has no text field '{key}'"):
                task.item_pair(bad, LAMP)


def test_labels():
    assert ", ".join(TASKS["LaMP_2N"].labels) == CATEGORIES
    assert ", ".join(TASKS["LaMP_2M"].labels) == TAGS
    assert TASKS["LaMP_3"].labels == ("1", "2", "3", "4", "5")
    lamp = {name: task for name, task in TASKS.items() if name.startswith("LaMP_")}
    assert [name for name, task in lamp.items() if not task.labels] == ["LaMP_4", "LaMP_5", "LaMP_7"]
    assert {name: task.kind for name, task in lamp.items() if task.labels} == {
        "LaMP_2N": AnswerKind.LABELS,
        "LaMP_2M": AnswerKind.LABELS,
        "LaMP_3": AnswerKind.NUMBER,
    }


@EVERY_TASK
@pytest.mark.parametrize("form", list(PromptForm))
def test_a_target_parses_to_its_label(name, form):
    task = TASKS[name]
    for label in task.labels or ("Free text: of 3 kinds",):
        assert task.parse(task.target(label, form)) == label
        assert task.parse(f"\n {label}\t") == label


@pytest.mark.parametrize(
    "answer", ["", "sport", "Sports", "sports.", "sports, travel", "6", "4.0", "4 stars"]
)
@pytest.mark.parametrize("name", ["LaMP_2N", "LaMP_2M", "LaMP_3"])
def test_an_answer_that_is_no_label_parses_to_none(name, answer):
    assert TASKS[name].parse(answer) is None


def test_unknown_task_lists_the_known_ones():
    assert task_by_name("LaMP_2M") is TASKS["LaMP_2M"]
    with pytest.raises(
        InputError, match=r"unknown task 'LaMP_6': expected a .toml file or one of LaMP-QA, LaMP_2M"
    ) as caught:
        task_by_name("LaMP_6")
    assert "\n" not in str(caught.value)
