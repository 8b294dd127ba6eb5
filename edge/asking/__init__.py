"""What an owner asks their agent: questions of the task, texts and conversations, at any stage."""
