"""What all programs stand on: records, fields of a command line, models, folders, the machine."""
