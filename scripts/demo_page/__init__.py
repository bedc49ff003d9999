"""What demo.py serves."""
