"""From one encoding to an explanation: where, like what, in words, each with its measure."""
