"""Results of explanations, for cards, JSON and notebooks."""
