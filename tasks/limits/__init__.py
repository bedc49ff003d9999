"""The best possible predictor of each class that has one."""
