"""Methods that adapt an encoder to classes."""
