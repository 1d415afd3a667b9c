"""What a machine has, and whether it can train."""
