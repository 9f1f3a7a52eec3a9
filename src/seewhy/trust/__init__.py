"""When to trust a decision: how probable it is, which classes are possible, and whether the picture shows any."""
