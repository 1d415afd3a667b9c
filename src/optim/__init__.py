"""Parts of a training step: loss, optimizer, schedule, clipping, mixed precision, averages."""
