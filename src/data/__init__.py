"""From files of images to the batches that a step takes, in the order imagenet.py names."""
