"""Makes the site from docs/, and runs what its pages tell a reader to type."""
