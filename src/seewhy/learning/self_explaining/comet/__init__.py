"""COMET: a selector makes a mask, and a predictor sees only the part that the mask shows."""
