"""COMET: a selector completes a mask, a predictor sees what is left."""
