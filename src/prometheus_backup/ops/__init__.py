"""What the program does, one module per verb. They raise errors, emit events, return reports."""
