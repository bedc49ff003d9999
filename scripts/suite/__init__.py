"""The suite of real tables: which they are, classical methods beside the models, metrics and ranks."""
