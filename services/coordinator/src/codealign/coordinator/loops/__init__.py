"""What follows a run's version: evaluations before and after, and the training between them."""
