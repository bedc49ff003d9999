"""What train.py and train_lm.py are made of."""
