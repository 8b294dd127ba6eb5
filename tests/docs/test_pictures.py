"""Pictures and figures of the docs agree with the tree and with the record."""

import re

from tests.docs.blocks import README
from tools import rooms_picture
from tools.cold_start_picture import FIGURES, PICTURE

from fedperfit.protocol.system.files import read_json


def test_the_rooms_are_those_of_the_tree():
    assert rooms_picture.PICTURE.read_text() == rooms_picture.picture(), "python -m tools.rooms_picture"


def test_packages_side_by_side_do_not_import_each_other_nor_anything_above():
    above: set[str] = set()
    for floor in rooms_picture.FLOORS:
        for package in floor:
            assert not rooms_picture.imported_packages(package) & (above | set(floor))
        above |= set(floor)


def test_the_cold_start_picture_shows_every_length_on_record():
    text = PICTURE.read_text()
    for point in read_json(FIGURES)["history"]:
        assert re.search(rf">{point['size']}</text>", text)


def test_the_readmes_table_says_what_is_on_record():
    stages = read_json(FIGURES)["stages"]
    rows = {"base": "base model alone", "collective": "collective shift", "personal": "collective + personal"}
    for stage, title in rows.items():
        value, low, high = (f"{stages[stage]['accuracy'][part]:.3f}"[1:] for part in ("value", "low", "high"))
        (line,) = re.findall(rf"^\| (?:\*\*)?{re.escape(title)}(?:\*\*)? \|.*$", README.read_text(), re.M)
        assert f"{value} [{low}, {high}]" in line
