"""What study.py, probe.py, tables.py and chain_experiment.py are made of."""
