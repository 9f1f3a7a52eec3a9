"""When not to trust a decision: how probable it is, which classes it may be, and whether the picture is of any."""
