"""What a first run teaches: a short verdict in words, each with its numbers."""
