"""Tasks whose prompts are rows of a table."""
