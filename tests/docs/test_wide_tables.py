"""A table that is wider than a telephone shows that it goes on, in reports and on the site."""

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_ROW = f"<tr>{'<td>a cell of some width</td>' * 12}</tr>"
_PAGES = {
    "report": (
        "simulation/report/templates/style.css",
        "<section><div class='scroll'>{}</div></section>",
        "",
    ),
    "site": (
        "docs/tables.css",
        "<div class='md-typeset'><div class='md-typeset__scrollwrap'>{}</div></div>",
        # as the theme has it
        ":root { --md-default-bg-color: #fff; --md-default-fg-color: #222; } td { white-space: nowrap }"
        ".md-typeset__scrollwrap { overflow-x: auto } table { background: var(--md-default-bg-color) }",
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("name", _PAGES)
def test_a_side_on_which_a_table_goes_on_is_in_the_shade(name: str) -> None:
    style, body, theme = _PAGES[name]
    table = f"<table>{_ROW}<tr><td style='height: 6rem'></td></tr></table>"
    page_text = f"<style>{theme}{(ROOT / style).read_text()}</style>{body.format(table)}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 400, "height": 600})
        page.set_content(page_text)
        place = page.locator("div:has(> table)")

        def shaded() -> tuple[bool, bool]:
            """Whether the left end and the right one of the empty row are darker than its middle."""
            picture = Image.open(io.BytesIO(place.screenshot())).convert("L")
            width, row = picture.width, picture.height - 40
            left, middle, right = (picture.getpixel((x, row)) for x in (2, width // 2, width - 3))
            return left < middle - 20, right < middle - 20  # type: ignore[operator]

        assert shaded() == (False, True)
        place.evaluate("place => place.scrollLeft = 200")
        assert shaded() == (True, True)
        place.evaluate("place => place.scrollLeft = 10_000")
        assert shaded() == (True, False)
        page.set_viewport_size({"width": 3000, "height": 600})
        assert shaded() == (False, False)
        browser.close()


def test_the_site_takes_the_style_of_its_tables() -> None:
    assert "extra_css: [tables.css]" in (ROOT / "mkdocs.yml").read_text()
