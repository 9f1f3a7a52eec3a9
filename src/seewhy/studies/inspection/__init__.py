"""Wrong labels, copies, pictures unlike every class and faulty pictures, each with its reason."""
