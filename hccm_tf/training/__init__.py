"""Training: callbacks, the loop, evaluation."""
