"""Linear classifiers on frozen features, and their solvers."""
