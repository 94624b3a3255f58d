"""How the value of an element follows from its index: distributions, buffers, filling, streams."""
