"""A perceiver: it classifies what it redraws from memory."""
