"""Which epsilon: what a training gives away of one image, or of one person, before anything is attacked."""
