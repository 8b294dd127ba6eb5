"""A release as a folder that can be put on a hub: the signed file, and a model card."""

import re
from pathlib import Path

from fedperfit.protocol.system.errors import InputError, count_of
from fedperfit.protocol.system.files import whole_folder, write_atomic
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.release_file import read_release

_CARD = """---
library_name: fedperfit
{base}tags: [fedperfit, loreft, activation-steering]
---

# A collective shift of {base_model}

A low-rank shift h + R^T (W h + b - R h) of hidden states, trained by federated learning. It changes no weight
of the base model, and was made from updates of clients whose texts stayed with them.

| | |
|---|---|
| task | {task} |
| layers | {layers} |
| rank | {rank} |
| positions | {positions} of each prompt |
| federation | {rounds}, version {version}, privacy budget {epsilon} |
| base model | {base_model}, fingerprint `{fingerprint}` |
| valid | {issued} to {expires} |
| signed by | `{key}` |

```python
from fedperfit.protocol.portable.release_folder import from_pretrained

release = from_pretrained("this folder, or its name on the hub", key="{key}")
```
"""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
"""Form of a model's name on the hub, which refuses a card whose front matter has any other base model."""


def save_pretrained(release: Release, folder: Path, base_model: str) -> None:
    """Write a release and its model card.

    Args:
        release: A release, as it was signed.
        folder: New folder.
        base_model: Name of the base model on the hub, for the card.

    Raises:
        InputError: The folder exists, or cannot be made.
    """
    header = release.header
    card = _CARD.format(
        base=f"base_model: {base_model}\n" if _HUB_NAME.fullmatch(base_model) else "",
        base_model=" ".join(base_model.split()),
        task=header.task.splitlines()[0],
        layers=", ".join(map(str, header.shape.layers)),
        rank=header.shape.rank,
        positions=header.shape.positions,
        rounds=count_of(header.round, "round"),
        version=release.version,
        epsilon="none" if release.epsilon is None else f"{release.epsilon:g}",
        fingerprint=header.fingerprint,
        issued=release.issued,
        expires=release.expires,
        key=release.key,
    )
    with whole_folder(folder) as place:
        write_atomic(place / FILE_NAME, release.to_bytes())
        write_atomic(place / "README.md", card.encode())


def from_pretrained(name: str, key: str) -> Release:
    """Read a release from a folder, or from the hub, and verify it.

    Args:
        name: Folder, or name on the hub.
        key: Public key that must have signed it.

    Raises:
        InputError: It is not there, malformed, or not signed by the key.
    """
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, allow_patterns=[FILE_NAME]))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{name!r}: neither a folder nor on the hub ({reason})") from None
    release = read_release(folder / FILE_NAME)
    release.check_signed_from(key)
    return release
