"""Networks that decide from what they show, a folder each."""
