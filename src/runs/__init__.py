"""What a run leaves in its folder, and what it shows while it works."""
