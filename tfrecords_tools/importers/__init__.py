"""Public data sets as the two tables that `build_examples` takes."""
