"""Writers of descriptions, pairs of pictures and texts, annotation."""
