"""The embedded model with a chat template, as an instruct model."""

import json
from pathlib import Path

from tests.protocol.model.chat_templates import CHATML

from fedperfit.protocol.model.base_model import embedded_folder


def write_chat_model(folder: Path, template: str = CHATML) -> str:
    """A folder with the embedded model, whose tokenizer has a chat template and wants no start token."""
    folder.mkdir(parents=True)
    for file in embedded_folder().iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file)
    about = folder / "tokenizer_config.json"
    values = json.loads(about.read_text())
    about.unlink()
    about.write_text(json.dumps(values | {"add_bos_token": False}))
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)
