"""A release put on the Hugging Face hub, or another one of its kind."""

import tempfile
from pathlib import Path

from fedperfit.protocol.portable.release_folder import save_pretrained
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.release import Release


def push_release(release: Release, name: str, base_model: str, *, private: bool = False) -> str:
    """Write a release and its model card into a repository of the hub, in one commit.

    Args:
        release: A release, as it was signed.
        name: Repository, `OWNER/NAME`; it is made where there is none.
        base_model: Name of the base model on the hub, for the card.
        private: Whether a repository that is made is a private one.

    Returns:
        Address of the repository.

    Raises:
        InputError: The hub cannot be reached, or refuses the name or the token; one line.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "release"
        save_pretrained(release, folder, base_model)
        try:
            address = hub.create_repo(name, private=private, exist_ok=True)
            hub.upload_folder(
                repo_id=address.repo_id,
                folder_path=folder,
                commit_message=f"Release {release.version} of {release.header.task.splitlines()[0]}",
            )
        except Exception as error:  # of the hub's, of the network's, or a name that it does not take
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(f"{name!r}: not put on the hub ({reason})") from None
    return str(address)
