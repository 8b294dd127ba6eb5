"""Chat templates that anybody may have written: each ends, is bounded, and tells no more than it was told."""

import shutil
import time
from pathlib import Path

import pytest
from tests.protocol.model.chat_templates import CHATML, DATED, DEAF, STRICT, with_template
from transformers import AutoTokenizer

from fedperfit.protocol.model import base_model
from fedperfit.protocol.model.base_model import embedded_folder, load
from fedperfit.protocol.model.bounds import templates
from fedperfit.protocol.model.bounds.templates import TemplateStopped, filled_in
from fedperfit.protocol.model.chat_template import written_out
from fedperfit.protocol.system.errors import InputError, PromptError

SAID = [{"role": "user", "content": "Ada's words"}]
LOOP = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.fixture(scope="module")
def plain():
    return AutoTokenizer.from_pretrained(embedded_folder())


@pytest.mark.parametrize("template", [CHATML, STRICT, DEAF, DATED], ids=["chatml", "strict", "deaf", "dated"])
def test_the_text_is_that_of_transformers(plain, template):
    tokenizer = with_template(plain, template)
    said = [*SAID, {"role": "assistant", "content": "Ω\n\u2028</s>"}, *SAID]
    expected = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    assert filled_in(template, said, tokenizer.special_tokens_map) == expected


@pytest.mark.parametrize(
    "template",
    [
        LOOP,
        "{{ ('a' * 1500000000) | length }}",
        "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    ],
    ids=["loop", "long text", "doubled text"],
)
def test_one_without_end_ends_and_the_next_is_filled_in(plain, template):
    begun = time.monotonic()
    with pytest.raises(TemplateStopped, match="takes more than 3 s or 1 GiB"):
        written_out(with_template(plain, template), [("system", "Be brief."), ("user", "x")])
    assert time.monotonic() - begun < 60, "and not once for each order of the turns"
    assert filled_in("{{ messages[0].content }}", SAID, {}) == "Ada's words"


def test_a_model_that_has_one_is_not_loaded(tmp_path):
    folder = shutil.copytree(embedded_folder(), tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no word') }}")
    load(str(folder), device="cpu")
    (folder / "chat_template.jinja").write_text("{{ ('a' * 1500000000) | length }}")
    base_model._read_card.cache_clear()
    with pytest.raises(InputError, match="chat template takes more than"):
        load(str(folder), device="cpu")


def test_one_that_writes_far_more_than_it_is_told():
    with pytest.raises(TemplateStopped, match="writes 99999999 characters"):
        filled_in("{{ 'a' * 99999999 }}", SAID, {})
    long = [{"role": "user", "content": "a" * 2_000_000}]
    assert len(filled_in("{{ messages[0].content }}", long, {})) == 2_000_000


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
        "{% for %}",
        "{{ 1 // 0 }}",
        "{{ raise_exception('x' * 9999) }}",
    ],
)
def test_one_that_reaches_out_or_breaks_is_one_line(plain, template):
    with pytest.raises(PromptError, match="refuses the conversation: ") as caught:
        written_out(with_template(plain, template), [("user", "x")])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_one_that_reads_what_python_hides_gets_nothing():
    for template in ("{{ raise_exception.__globals__ }}", "{{ ''|attr('__class__') }}"):
        assert filled_in(template, SAID, {}) == ""


def test_it_is_not_told_the_passphrase(monkeypatch):
    monkeypatch.setenv("FEDPERFIT_PASSPHRASE", "open, sesame")
    templates._PROGRAM.end()
    filled_in("x", SAID, {})
    given = Path(f"/proc/{templates._PROGRAM._process.pid}/environ")
    if not given.exists():
        pytest.skip("no /proc")
    assert b"PATH=" in given.read_bytes()
    assert b"sesame" not in given.read_bytes()


def test_a_process_that_somebody_killed_is_replaced():
    filled_in("x", SAID, {})
    process = templates._PROGRAM._process
    process.kill()
    process.wait()
    assert filled_in("y", SAID, {}) == "y"


def test_the_process_says_nothing_where_it_breaks(capfd):
    assert templates._PROGRAM.ask(b"no JSON\n") == b""
    assert capfd.readouterr().err == ""
