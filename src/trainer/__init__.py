"""The training step, the loop around it, evaluation, and what builds them from a Config."""
