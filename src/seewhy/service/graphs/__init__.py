"""A classifier as one graph for other runtimes: decision and Grad-CAM from uint8 pictures."""
