import errno
import gzip
import json
import os
import tempfile
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import (
    append_text,
    create_whole,
    mend_lines,
    read_json,
    read_json_lines,
    sweep,
    toml_value,
    whole_folder,
    write_atomic,
    write_json,
    write_json_lines,
    writing_cache,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_keeps_the_old_content_and_leaves_no_litter(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(("module", "step"), [(os, "fsync"), (tempfile, "mkstemp")])
def test_what_the_system_refuses_names_the_file_that_was_to_be_written(tmp_path, monkeypatch, module, step):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, step, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(tmp_path / "file", b"new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "file"))


@pytest.mark.parametrize("durable", [False, True])
def test_lines_are_appended_and_a_full_disk_names_the_file_that_they_were_for(tmp_path, durable):
    path = tmp_path / "lines"
    for line in ("ä\n", "b\n"):
        append_text(path, line, durable=durable)
    assert path.read_text(encoding="utf-8") == "ä\nb\n"
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        append_text(full, "c\n", durable=durable)
    assert caught.value.filename == str(full)


def test_interrupt_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(values=st.lists(JSON, max_size=4))
def test_json_round_trip(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("json")
    write_json(folder / "one.json", values)
    write_json_lines(folder / "many.jsonl", values)
    assert read_json(folder / "one.json") == values
    assert read_json_lines(folder / "many.jsonl") == values


def test_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text('{"a": 1}\n\n  \n2', encoding="utf-8")
    assert read_json_lines(path) == [{"a": 1}, 2]


BROKEN = {
    "cut off": b'{"a": [1, 2',
    "not UTF-8": b'{"a": "\xff"}',
    "no JSON": b"<html>",
    "too deep": b"[" * 200_000,
    "too long a number": b"1" * 5_000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("read", [read_json, read_json_lines])
def test_broken_files_are_one_line_naming_the_file(tmp_path, read, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.json") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_lines_may_begin_with_a_mark_and_be_compressed(tmp_path):
    path = tmp_path / "lines"
    for data in (b"\xef\xbb\xbf{}\n3", gzip.compress(b"{}\n3\n")):
        path.write_bytes(data)
        assert read_json_lines(path) == [{}, 3]
    path.write_bytes(gzip.compress(b"{}")[:-4])
    with pytest.raises(InputError, match="broken gzip file"):
        read_json_lines(path)


@pytest.mark.parametrize("read", [read_json, read_json_lines])
def test_missing_file_and_folder_are_told(tmp_path, read):
    with pytest.raises(InputError, match=r"gone\.json: no such file"):
        read(tmp_path / "gone.json")
    with pytest.raises(InputError, match="directory"):
        read(tmp_path)


def test_broken_line_is_named(tmp_path):
    lines, whole = tmp_path / "many.jsonl", tmp_path / "one.json"
    lines.write_text("{}\n{}\n{oops}\n", encoding="utf-8")
    whole.write_text('{\n"a": oops}', encoding="utf-8")
    with pytest.raises(InputError, match=r"many\.jsonl, line 3"):
        read_json_lines(lines)
    with pytest.raises(InputError, match=r"one\.json, line 2"):
        read_json(whole)


def test_text_stays_readable(tmp_path):
    write_json(tmp_path / "one.json", {"name": "Zoë"})
    assert "Zoë" in (tmp_path / "one.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "one.json").read_bytes()) == {"name": "Zoë"}


@given(st.binary(), st.binary())
def test_mending_keeps_whole_lines_only(tmp_path_factory, kept, torn):
    path = tmp_path_factory.mktemp("mend") / "lines"
    torn = torn.replace(b"\n", b"")
    whole = kept + b"\n" if kept else b""
    path.write_bytes(whole + torn)
    mend_lines(path)
    assert path.read_bytes() == whole
    mend_lines(path.with_name("missing"))


def test_sweeping_removes_what_killed_writers_left(tmp_path):
    write_atomic(tmp_path / "kept", b"x")
    (tmp_path / ".kept.abc.part").write_bytes(b"half")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_is_there_with_all_of_its_files_or_not_at_all(tmp_path):
    folder = tmp_path / "new" / "folder"
    (tmp_path / "new" / ".folder.part").mkdir(parents=True)  # a killed writer's
    (tmp_path / "new" / ".folder.part" / "old").touch()
    with pytest.raises(FileNotFoundError), whole_folder(folder) as place:
        (place / "one" / "more").touch()
    assert list((tmp_path / "new").iterdir()) == []
    with whole_folder(folder) as place:
        (place / "one").touch()
        assert not folder.exists()
    assert [path.name for path in folder.rglob("*")] == ["one"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]
    for taken, why in ((folder, "already exists"), (folder / "one" / "more", "Not a directory")):
        with pytest.raises(InputError, match=f"{taken}: {why}"), whole_folder(taken):
            pass
    assert [path.name for path in folder.rglob("*")] == ["one"]


def test_a_folder_that_has_no_room_is_named_as_the_user_named_it(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", fail)
    with pytest.raises(OSError, match="No space left") as caught, whole_folder(tmp_path / "folder") as place:
        write_atomic(place / "file", b"new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "folder"))
    assert names(tmp_path) == []


def test_a_file_that_is_missing_while_a_folder_is_made_is_named_itself(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError) as caught, whole_folder(tmp_path / "folder"):
        missing.read_bytes()
    assert caught.value.filename == str(missing)
    assert names(tmp_path) == []


def test_a_link_that_leads_nowhere_is_no_place_for_a_folder(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="already exists"), whole_folder(tmp_path / "link"):
        pass
    assert names(tmp_path) == ["link"]


@pytest.mark.parametrize("text", ["plain", 'it\'s a "c:\\\\"; $HOME\t[b]', "é 🌩 \x7f\x00\n", ""])
def test_a_value_as_toml_reads_back(text: str) -> None:
    value = {"a": text, "b": [text, 1], "c": True, "d": 0.5}
    lines = [f"{key} = {toml_value(one)}" for key, one in value.items()]
    assert all("\n" not in line for line in lines)
    assert tomllib.loads("\n".join(lines)) == value


def test_a_file_is_made_once_with_all_of_its_content(tmp_path, monkeypatch):
    path = tmp_path / "secret"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            create_whole(path, b"first")
    assert not list(tmp_path.iterdir())
    create_whole(path, b"first")
    with pytest.raises(FileExistsError):
        create_whole(path, b"second")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "helps"), [("home/fedperfit/lamp", True), ("run/.tables", False)])
def test_only_of_the_users_cache_another_place_is_named(tmp_path, monkeypatch, name, helps):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache = tmp_path / name
    with pytest.raises(InputError, match=f"{cache}: No space left on device") as told, writing_cache(cache):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(cache))
    assert ("XDG_CACHE_HOME" in str(told.value)) == helps
