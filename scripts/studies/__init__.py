"""What study.py, probe.py, superposition.py, tables.py and chain_experiment.py are made of."""
