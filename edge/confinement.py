"""Runs the SuperNode where a person's own things are not to be seen.

In a deployment Flower runs ClientApp code that the cloud ships, with the rights of whoever runs the
SuperNode. So it runs in user, mount and PID namespaces of its own (util-linux: unshare, setpriv), without
capabilities: of the person's folder it sees what it needs and nothing else, files elsewhere that it must
not read are empty, and the agent's process is not there.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import InputError

_NAMESPACES = ("--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_POWERLESS = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
_SCRIPT = """\
set -e
folder=$1 empty=$2; shift 2
stage=$(mktemp -d)
mount -t tmpfs -o size=1m,mode=0700 none "$stage"
while [ "$1" != -- ]; do
    mkdir "$stage/$1"
    mount --bind "$folder/$1" "$stage/$1"
    shift
done
shift
while [ "$1" != -- ]; do
    mount --bind "$empty" "$1"
    shift
done
shift
mount --rbind "$stage" "$folder"
exec "$@"
"""


def confined(
    command: Sequence[str], folder: Path, *, seen: Sequence[str], hidden: Sequence[Path], empty: Path
) -> list[str]:
    """`command` where of `folder` only the subfolders `seen` are to be found.

    hidden: files elsewhere that are empty to it; empty: the file that stands in for them, made here.
    Raises InputError where the system does not allow such namespaces.
    """
    for program in ("unshare", "setpriv"):
        if shutil.which(program) is None:
            raise InputError(f"{program} (util-linux) is missing: the SuperNode cannot be confined")
    _check()
    empty.parent.mkdir(parents=True, exist_ok=True)
    empty.touch()
    return [
        *("unshare", *_NAMESPACES, "--", "sh", "-c", _SCRIPT, "confined"),
        *(str(folder.absolute()), str(empty.absolute()), *seen, "--"),
        *(*(str(path.absolute()) for path in hidden), "--"),
        *("setpriv", *_POWERLESS, "--", *command),
    ]


def _check() -> None:
    trial = ["unshare", *_NAMESPACES, "--", "sh", "-c", "mount -t tmpfs none /mnt", "trial"]
    done = subprocess.run(trial, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        reason = said[-1] if said else "no reason given"
        raise InputError(
            f"this system does not let the SuperNode be confined ({reason}), so code from the cloud could "
            "read what you can; --unconfined accepts that"
        )
