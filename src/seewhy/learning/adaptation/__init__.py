"""Methods that adapt an encoder to the user's classes, a folder each."""
