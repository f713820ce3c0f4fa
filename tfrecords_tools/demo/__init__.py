"""The synthetic shop."""
