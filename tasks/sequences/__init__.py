"""Tasks whose prompts are tokens."""
