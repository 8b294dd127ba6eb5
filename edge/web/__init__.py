"""The owner's own web server: an OpenAI-compatible endpoint and one page, over the agent's owner socket."""
