"""Learning: the loop, and the pictures it is fed."""
