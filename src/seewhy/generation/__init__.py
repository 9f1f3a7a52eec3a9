"""Pictures made so that a given network recognises them: what it takes a class, a sentence or a neuron to look like."""
