"""Results: what is shown on a card, in JSON and in a notebook. Nothing here computes evidence."""
