"""Generation of pictures that a network assigns to a class, a sentence or a neuron."""
