"""Models compared over seeds: arms, runs, statistics, slices, a report."""
