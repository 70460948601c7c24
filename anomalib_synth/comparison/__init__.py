"""Does a change help? Models trained with and without it, on the same data, steps and seeds, and what that shows."""
