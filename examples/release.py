"""Publish a signed release, read it back and verify it: `python examples/release.py`."""

import tempfile
from pathlib import Path

from people import fan

import fedperfit


def main() -> None:
    """Print what a reader learns from a release, and how one that was changed is refused."""
    result = fedperfit.run_federation([fan("ben", "comedy", "action", "romance")], settings={"rounds": 1})
    key = fedperfit.SigningKey()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "release.safetensors")
        path.write_bytes(fedperfit.Release.first(result.shift, result.header, key).to_bytes())
        release = fedperfit.read_release(path)
        fedperfit.check_chain([release], key.public)
        print(f"release {release.version} of {release.header.task}: {release.digest}")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
        try:
            fedperfit.read_release(path).check_signed_from(key.public)
        except fedperfit.InputError as error:
            print(f"changed by one bit: {error}")


if __name__ == "__main__":
    main()
