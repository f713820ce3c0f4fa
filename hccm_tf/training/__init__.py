"""A configuration becomes a trained model: loop, checkpoints, strategies."""
