"""Networks that decide from what they show, one folder each."""
