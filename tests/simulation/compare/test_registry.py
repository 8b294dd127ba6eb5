"""Methods are found by name, and a reader adds one by a short file."""

import pytest
from tests.docs.blocks import DOCS, blocks
from tests.simulation.compare.small_comparison import ALL, run_all, started

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json_lines
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.compare import method as method_module
from fedperfit.simulation.compare.cells import MAIN, WorkUnit
from fedperfit.simulation.compare.method import Method, lineage, register_method, registry

PAGE = DOCS / "own-method.md"
METHOD = "from fedperfit.simulation.compare.method import LogUniform, Method\n\n\n"
OWN = (
    f"{METHOD}class A(Method):\n    name = title = 'a'\n    def answer(self, fitted, questions):\n"
    "        return ['x'] * len(questions)\n"
)


def test_every_method_of_the_papers_has_a_row():
    wanted = (
        "base majority-global majority-user icl-random icl-full rag-1 rag-2 rag-4 pag lora-c lora-p oppu "
        "oppu-as-released lofit style-vector loreft perfit-stage1 perfit-stage2-cp perfit-stage2-p perfit "
        "perfit-rag oppu-rag perfit-small perfit-federated perfit-preset perfit-auto perfit-chameleon "
        "chameleon chameleon-insights chameleon-personalized chameleon-neutral chameleon-group "
        "chameleon-unseen perfit-basis perfit-prior perfit-sixteen"
    ).split()
    assert set(wanted) <= set(ALL)
    titles = [method.title for method in registry().values()]
    assert len(set(titles)) == len(titles)


def test_floors_are_for_tasks_with_labels():
    found = registry()
    suiting = {name for name in ALL if not found[name].suits(TASKS["LaMP_4"])}
    assert suiting == {"majority-global", "majority-user"}
    assert all(found[name].suits(TASKS["LaMP_3"]) for name in ALL)


def test_the_documented_method_is_one_short_file_and_gives_a_row(tmp_path):
    (code,) = (block.text for block in blocks(PAGE) if block.language == "python")
    assert len(code.splitlines()) < 60
    file = tmp_path / "latest.py"
    file.write_text(code)
    (name,) = set(registry([file])) - set(ALL)
    assert f"--method-file {file.name}" in PAGE.read_text()
    state = started(tmp_path / "run", methods=["base", name], method_files=[str(file)], draws=20)
    run_all(state)
    lines = read_json_lines(state.folder / WorkUnit("LaMP_2M", name, MAIN, 0).file)
    tags = {item["tag"] for target in state.participants("LaMP_2M").targets for item in target.history.items}
    assert len(lines) == 3
    assert all(set(line["answers"]) <= tags for line in lines)


def test_lineage_is_in_the_order_of_building():
    assert lineage(registry(), "perfit-rag") == ["perfit-stage1", "perfit", "perfit-rag"]
    assert lineage(registry(), "base") == ["base"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\n", "holds no Method"),
        ("import no_such_library\n", "ModuleNotFoundError"),
        ("def (\n", "SyntaxError"),
        (f"{OWN}    name = 'base'\n", "two methods are called"),
        (f"{OWN}    builds_on = 'b'\n", "no such method"),
        (f"{OWN}    builds_on = 'a'\n", "which builds on a"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        (f"{OWN}    space = {{'a': LogUniform(0, 1)}}\n", r"LogUniform\(0, 1\): expected 0 < low <= high"),
        (f"{OWN}    space = {{'a': {{1, 2}}}}\n", r"space\['a'\]=\{1, 2\}: expected a list of choices"),
        (f"{OWN}    space = {{'a': ()}}\n", r"space\['a'\]=\(\): expected a list of choices"),
        (f"{OWN}    space = {{'a': (1, 1)}}\n", "holds a choice twice"),
        (f"{OWN}    space = {{'a': (len,)}}\n", "choices that JSON can hold"),
        (f"{OWN}    space = 3\n", "space=3: expected choices or a LogUniform by name"),
        (f"{OWN}    name = '../../a'\n", r"name='\.\./\.\./a': expected small letters"),
        (f"{OWN}    name = 5\n", "name=5: expected small letters"),
        (f"{OWN}    title = ''\n", "A: title='': expected a name for tables"),
        (f"{OWN}    family = 'x'\n", "family='x': expected one of Family's"),
        (f"{OWN}    most_users = 0\n", "most_users=0: expected a number from 1"),
        (f"{METHOD}class A(Method):\n    name = title = 'a'\n", "A: it lacks answer"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_one_line(tmp_path, text, reason):
    file = tmp_path / "wrong.py"
    file.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        registry([file])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.py"):
        registry([tmp_path / "nowhere.py"])


class _Parrot(Method):
    """Answers with the question itself."""

    name, title = "parrot", "Parrot"

    def answer(self, fitted, questions):
        return list(questions)


@pytest.fixture
def nothing_registered(monkeypatch):
    monkeypatch.setattr(method_module, "_registered", {})


@pytest.mark.usefixtures("nothing_registered")
def test_a_registered_method_is_in_the_registry_once():
    assert register_method(_Parrot) is _Parrot
    assert registry()["parrot"] is register_method(_Parrot)
    assert set(registry()) == {*ALL, "parrot"}


@pytest.mark.usefixtures("nothing_registered")
@pytest.mark.parametrize("name", ["perfit", None])
def test_a_method_with_anothers_name_or_none_cannot_be_registered(name):
    attributes = {"answer": _Parrot.answer, "title": "Other"} | ({"name": name} if name else {})
    with pytest.raises(InputError, match="two methods are called 'perfit'" if name else "not a Method"):
        register_method(type("Other", (Method,), attributes))
    assert sorted(registry()) == sorted(ALL)


class _Entry:
    """An entry point of an installed package."""

    value = "package:thing"

    def __init__(self, thing):
        self.thing = thing

    def load(self):
        if isinstance(self.thing, Exception):
            raise self.thing
        return self.thing


def test_installed_packages_bring_methods(monkeypatch):
    monkeypatch.setattr(method_module, "entry_points", lambda group: [_Entry(_Parrot)])
    assert registry()["parrot"] is _Parrot


@pytest.mark.parametrize("thing", [int, ImportError("no torch")])
def test_an_installed_package_that_brings_none_is_one_line(monkeypatch, thing):
    monkeypatch.setattr(method_module, "entry_points", lambda group: [_Entry(thing)])
    with pytest.raises(InputError, match=r"package:thing: .*(not a Method|no torch)"):
        registry()
