"""The best possible predictors, one per class of functions where it is known."""
