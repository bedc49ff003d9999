"""What the card and the push of a model are made of."""
