"""What an item costs with batche, and with what else one might use: one module for each question."""
