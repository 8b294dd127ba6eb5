"""Reading JSON with clear errors, and writing files that are either whole or absent."""

import gzip
import json
import os
import shutil
import tempfile
import tomllib
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from fedperfit.protocol.system.errors import InputError, MalformedFileError, MissingFileError

_GZIP = b"\x1f\x8b"
UTF_8 = "utf-8"
_PART = ".part"
"""Suffix of a file that is still being written."""
_OWNERS_OWN = 0o600
"""Permissions of a file that its owner alone may read and write."""

Parsed = TypeVar("Parsed")


def write_atomic(path: Path, data: bytes, *, mode: int = _OWNERS_OWN, modified: float | None = None) -> None:
    """Replace a file, whole or not at all; on disk when this returns.

    A kill at any moment, or a full disk, leaves the old or the new content.

    Args:
        path: File to write or replace; missing folders are made.
        data: Its new content.
        mode: Its permissions; by default it is its owner's only.
        modified: Time that it is said to be modified at, in seconds since 1970; by default now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _unfinished(path, data)
    try:
        if mode != _OWNERS_OWN:
            temporary.chmod(mode)
        if modified is not None:
            os.utime(temporary, (modified, modified))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def create_whole(path: Path, data: bytes) -> None:
    """Make a file that must not be there yet, with all of its content or not at all; its owner's only.

    Args:
        path: File to make; its folder is there.
        data: Its content.

    Raises:
        FileExistsError: It is there.
    """
    temporary = _unfinished(path, data)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _unfinished(path: Path, data: bytes) -> Path:
    """Write data, on disk when this returns, into a new file beside `path` that has yet to get its name."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:  # it names the file that nobody knows of, or none
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    return temporary


def from_home(name: str | Path) -> Path:
    """Return a path in which `~` or `~NAME` at the beginning stands for a home folder.

    Args:
        name: Path as somebody typed it.

    Raises:
        MissingFileError: There is no such home folder.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise MissingFileError(f"{name}: no such home folder") from None


def private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter, or close one that is there to everybody else.

    Args:
        path: The folder; where it is another account's, as a mounted volume can be, its mode stays.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(PermissionError):
        path.chmod(0o700)


def user_cache(name: str) -> Path:
    """Return a folder of the user's cache, which may not be there yet.

    Args:
        name: Name of what is kept there.
    """
    from platformdirs import user_cache_path

    return user_cache_path("fedperfit") / name


@contextmanager
def writing_cache(cache: Path) -> Iterator[None]:
    """Have a failure to write a cache inside the block name what helps where it is the user's; others pass.

    Args:
        cache: Folder of the cache.

    Raises:
        InputError: The folder cannot be made, or not written.
    """
    try:
        yield
    except OSError as error:
        place = Path(error.filename or cache)
        if cache not in (place, *place.parents) and place not in cache.parents:
            raise
        line = f"{place}: {error.strerror or error}"
        if cache.is_relative_to(user_cache(".")):
            line += "; the environment variable XDG_CACHE_HOME names another folder"
        raise InputError(line) from None


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to write files into, which gets its name after the block; whole or not there at all.

    Args:
        folder: New folder; those that it lies in are made.

    Raises:
        InputError: It exists, or cannot be made.
        OSError: A file of it cannot be written; the error names the folder by the name that it was to get.
    """
    if os.path.lexists(folder):
        raise InputError(f"{folder}: already exists")
    unfinished = folder.with_name(f".{folder.name}{_PART}")
    shutil.rmtree(unfinished, ignore_errors=True)  # a killed writer's
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from None
    try:
        yield unfinished
        unfinished.rename(folder)
    except OSError as error:
        if error.filename is not None and not Path(str(error.filename)).is_relative_to(unfinished):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def append_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Append to a file of lines; a kill or a full disk leaves an unfinished last one, for `mend_lines`.

    Args:
        path: The file; it is made where it is not there, in a folder that is.
        text: Whole lines.
        durable: Whether it must be on disk when this returns.

    Raises:
        OSError: It cannot be written; the error names the file, which the system's own does not.
    """
    try:
        with path.open("a", encoding=UTF_8) as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def mend_lines(path: Path) -> None:
    """Cut the unfinished last line that a killed writer left in a file of appended lines."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove the unfinished files of killed writers.

    Args:
        folder: Folder in which nobody is writing such files.
        name: Name of the file that was to be written, which may hold wildcards; by default any.
    """
    for unfinished in folder.glob(f".{name}.*{_PART}"):
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a new name survives a loss of power."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all.

    Args:
        path: File to write or replace.
        value: Anything JSON can hold.
    """
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_parsed(path: Path, parse: Callable[[bytes], Parsed]) -> Parsed:
    """Read a file of a format of our own.

    Args:
        path: The file.
        parse: Reads its bytes; raises InputError where they are malformed.

    Raises:
        InputError: Naming the file, if it is missing or malformed.
    """
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def as_utf8(data: bytes) -> bytes:
    """Return text in UTF-8 without the mark that may stand before it, whichever UTF it is in.

    A half character of UTF-16 becomes bytes that are no UTF-8, so that it costs its line alone.

    Args:
        data: Text whose first two characters are ASCII where nothing marks its encoding.

    Raises:
        MalformedFileError: It is UTF-16 or UTF-32 that is cut off within a character.
    """
    encoding = json.detect_encoding(data)
    if encoding in (UTF_8, "utf-8-sig"):
        return data.removeprefix(BOM_UTF8)
    try:
        return data.decode(encoding, "surrogatepass").encode(errors="surrogatepass")
    except UnicodeDecodeError:
        raise MalformedFileError(f"not {encoding.upper()} text") from None


def read_json(path: Path) -> Any:
    """Read the JSON value in `path`.

    Raises:
        MissingFileError: There is no such file.
        MalformedFileError: It is not JSON; the message names the line.
        InputError: The system does not let it be read.
    """
    try:
        return json.loads(as_utf8(path.read_bytes()).decode())
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise MalformedFileError(f"{path}: not UTF-8 text") from None
    except MalformedFileError as error:
        raise MalformedFileError(f"{path}: {error}") from None
    except json.JSONDecodeError as error:
        raise MalformedFileError(f"{path}, line {error.lineno}: broken JSON ({error.msg})") from None
    except (ValueError, RecursionError):
        raise MalformedFileError(f"{path}: JSON with a number too long or nested too deeply") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def toml_values(text: str) -> dict[str, Any]:
    """Read the text of a TOML file.

    Args:
        text: TOML.

    Raises:
        MalformedFileError: It is not TOML; the message says why, without the file's name.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MalformedFileError(str(error)) from None
    except (ValueError, RecursionError):
        raise MalformedFileError("TOML with a number too long or nested too deeply") from None


def toml_value(value: Any) -> str:
    """Return a value that JSON can hold, and None nowhere, as TOML on one line."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_json_lines(path: Path) -> list[Any]:
    """Read one JSON value per line of `path`; blank lines are skipped. Raises as `read_json` does."""
    values = []
    for number, value in json_lines(path):
        if isinstance(value, InputError):
            raise MalformedFileError(f"{path}, line {number}: {value}")
        values.append(value)
    return values


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Read one JSON value per line of `path`, which may be compressed by gzip; blank lines are skipped.

    Yields:
        Number of the line, from 1, and its value: an InputError where the line is not JSON.

    Raises:
        InputError: The file is missing, or may not be read.
    """
    try:
        data = path.read_bytes()
        whole = as_utf8(gzip.decompress(data) if data[:2] == _GZIP else data)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise MalformedFileError(f"{path}: broken gzip file") from None
    except MalformedFileError as error:
        raise MalformedFileError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    for number, line in enumerate(whole.split(b"\n"), start=1):
        if line.strip():
            yield number, _line_value(line)


def finished_json_lines(path: Path) -> list[tuple[int, Any]]:
    """Read one JSON value per line of a file that somebody may be writing; an unfinished last one is not.

    Returns:
        Number of each line, from 1, and its value.

    Raises:
        InputError: The file is missing or may not be read, or a line before the last is not JSON.
    """
    lines = list(json_lines(path))
    if lines and isinstance(lines[-1][1], InputError):
        lines.pop()
    for number, value in lines:
        if isinstance(value, InputError):
            raise MalformedFileError(f"{path}, line {number}: {value}")
    return lines


def _line_value(line: bytes) -> Any:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError:
        return MalformedFileError("not UTF-8 text")
    except json.JSONDecodeError as error:
        return MalformedFileError(f"broken JSON ({error.msg})")
    except (ValueError, RecursionError):
        return MalformedFileError("JSON with a number too long or nested too deeply")


def write_json_lines(path: Path, values: list[Any]) -> None:
    """Write one compact JSON value per line, whole or not at all.

    Args:
        path: File to write or replace.
        values: Anything JSON can hold.
    """
    lines = (json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    write_atomic(path, "".join(lines).encode())
