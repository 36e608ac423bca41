"""How much training on one row changes the loss of another: influence functions by EK-FAC."""
