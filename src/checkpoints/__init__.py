"""Checkpoint files: read, written, fitted to a network, converted."""
