"""What evaluate.py, plot.py and report.py are made of."""
