"""A small convolutional network for small pictures, trained from nothing."""
