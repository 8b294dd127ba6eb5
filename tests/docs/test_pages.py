"""README and docs: short where they must be, links that lead somewhere, no command outside a tested block."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown.extensions.toc import slugify
from tests.docs.blocks import DOCS, PAGES, README, ROOT, blocks, gate_installs

MOST_WORDS = 900
MOST_NOT_RUN = 8
LANGUAGES = {"sh", "python", "toml", "nginx"}
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.S)
_FILE = re.compile(r"`((?:cloud|configs|edge|protocol|simulation|tests|tools)/[^`\s]*)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.M)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    """A page without its code."""
    return _CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    headings = _HEADING.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S))
    return {slugify(heading.replace("`", ""), "-") for heading in headings}


def test_the_readme_is_read_in_a_few_minutes():
    assert len(README.read_text(encoding="utf-8").split()) <= MOST_WORDS


@every_page
def test_links_lead_somewhere(page):
    for link in _LINK.findall(prose(page)):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https", link
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), link
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not parts.fragment or parts.fragment in anchors(target), f"{page.name}: {link}"


@every_page
def test_files_that_are_named_are_there(page):
    named = _FILE.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@every_page
def test_code_stands_in_fences_that_are_tested(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}: {block.text}"
        assert all(gate_installs(command) for command in block.installations() if not block.reason)
    outside = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    commands = re.findall(r"^ {4}(?:\$ )?(?:fedperfit|pip|flwr|python|pytest)\b.*", outside, re.M)
    assert commands == []


def test_few_blocks_are_not_run_and_each_says_why():
    reasons = [block.reason for page in PAGES for block in blocks(page) if block.reason]
    assert len(reasons) <= MOST_NOT_RUN
    marks = sum(page.read_text(encoding="utf-8").count("<!-- not run:") for page in PAGES)
    assert marks == len(reasons), "every mark stands right above a block"


def test_the_readme_names_every_page_of_the_site():
    linked = {(README.parent / link).name for link in _LINK.findall(prose(README))}
    unlinked = {page.name for page in DOCS.glob("*.md")} - linked
    assert unlinked == {"index.md", "commands.md", "settings.md", "api.md"}, "home and references only"
