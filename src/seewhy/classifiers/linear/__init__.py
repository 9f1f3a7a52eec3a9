"""A linear classifier on frozen features: its recipe and its solvers."""
