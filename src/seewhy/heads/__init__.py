"""From pooled features to logits, and what of the logits is explained."""
