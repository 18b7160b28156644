"""Series of rounds: the model tuned in a round generates the next round's data."""
