"""Models compared over seeds: runs, statistics, slices, report."""
