"""Methods that adapt an encoder to the user's classes, one folder each."""
