"""Photos become a feature-map store."""
