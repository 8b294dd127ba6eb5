"""What a log says of entries in the vault that cannot be used."""

import logging

from tests.edge.edge_clients import write_client

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.engine.items import ItemCache


def test_no_log_quotes_an_entry_of_the_vault(tmp_path, base, caplog):
    agent = Agent(write_client(tmp_path / "ada", items=8), base, ItemCache(base))
    before = len(agent.history.items)
    agent.vault.learned = lambda: [{"description": "a film", "tag": "my secret word"}]
    with caplog.at_level(logging.WARNING):
        assert len(agent.read().items) == before
    assert "1 left out" in caplog.text
    assert "secret" not in caplog.text
