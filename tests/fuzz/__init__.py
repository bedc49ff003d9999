"""Random and damaged input at every entrance of the project: the right answer, or one clear error. See __main__.py."""
