"""Classical predictors, run on every prefix of a prompt."""
