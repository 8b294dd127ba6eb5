"""Chat templates are filled in by a process of their own, so that one without end, or of gigabytes, ends.

A template is a program of whoever made the base model. Jinja's sandbox keeps it from files and from Python's
insides, not from loops. So each has some seconds of a processor and some memory; one that takes more ends the
process, and the next one gets another.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from fedperfit.protocol.system.errors import InputError, PromptError
from fedperfit.protocol.system.memory import limit_memory
from fedperfit.protocol.system.processes import SAFE_PATH

_SECONDS, _GIB = 3.0, 1.0
"""What one template may take."""
_MORE = 1 << 20
_TIMES = 8
"""Characters that a template may write of its own, and times that it may write what it is given."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class TemplateStopped(InputError):
    """A chat template took more time or memory than any needs, or wrote more."""


class _Program:
    """The process, started when the first template is filled in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: bytes) -> bytes:
        """Hand over a line; return the line that comes back, nothing where the process ended over it."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):
                process.stdin.write(request)
                process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                process.wait()
            return answer

    def end(self) -> None:
        """End the process, where there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # it is given what people say, of which no log may tell
                env=_environment(),
            )
        return self._process


_PROGRAM = _Program()
atexit.register(_PROGRAM.end)


def filled_in(template: str, messages: Sequence[Mapping[str, str]], values: Mapping[str, Any]) -> str:
    """Fill in a chat template, up to where the assistant begins to speak.

    Args:
        template: Text of the template.
        messages: Role and content of each message.
        values: What else the template may use, by name.

    Raises:
        TemplateStopped: It takes too much.
        PromptError: It refuses the messages, or is broken; the text is the template's own.
    """
    answer = _PROGRAM.ask(json.dumps([template, messages, values], default=str).encode() + b"\n")
    if not answer:
        raise TemplateStopped(
            f"the base model's chat template takes more than {_SECONDS:g} s or {_GIB:g} GiB"
        )
    done: dict[str, str] = json.loads(answer)
    if "long" in done:
        raise TemplateStopped(f"the base model's chat template writes {done['long']} characters")
    if "refused" in done:
        raise PromptError(done["refused"])
    return done["text"]


def _environment() -> dict[str, str]:
    """Return the variables of the process, without our own, one of which may be a passphrase."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("FEDPERFIT_")}
    return others | SAFE_PATH | _ONE_THREAD


def main() -> None:
    """Answer requests on standard input until there are no more."""
    from transformers.utils.chat_template_utils import render_jinja_template

    render: Any = render_jinja_template  # its annotation says that it returns a text
    limit_memory(_GIB)
    for line in sys.stdin.buffer:
        template, messages, values = json.loads(line)
        _end_in(_SECONDS)
        try:
            (text,), _ = render(
                conversations=[messages], chat_template=template, add_generation_prompt=True, **values
            )
            much = len(text) > _MORE + _TIMES * len(line)
            done = {"long": str(len(text))} if much else {"text": text}
        except MemoryError:
            return
        except Exception as error:  # a template raises what it likes
            done = {"refused": " ".join(str(error)[:1000].split())[:200] or type(error).__name__}
        _end_in(0)
        sys.stdout.buffer.write(json.dumps(done).encode() + b"\n")
        sys.stdout.buffer.flush()


def _end_in(seconds: float) -> None:
    """Have this process end after some more seconds of a processor, whatever it does; 0 for not at all."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    main()
