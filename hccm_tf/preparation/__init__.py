"""Makes DATA and MAPS: what stands before training."""
