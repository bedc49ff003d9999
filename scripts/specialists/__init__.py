"""What compare_specialists.py is made of: the contests of a model of many classes with those of one class each."""
