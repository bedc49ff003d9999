"""Programs of the project; run them from the repository's root."""
