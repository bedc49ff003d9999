"""Classes of functions y = f(x)."""
