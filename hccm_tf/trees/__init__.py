"""Boosted trees on hand-made features: the bar that networks are held to."""
