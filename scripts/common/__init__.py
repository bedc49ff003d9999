"""Shared by all programs: records, fields of a command line, loading of models, output folders, the machine."""
