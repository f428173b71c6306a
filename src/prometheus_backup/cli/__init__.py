"""The command line: the only part that talks to people, and the only catch of errors."""
