"""Generation of pictures with a high score for a class, a sentence or a neuron."""
