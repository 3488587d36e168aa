"""The kit pack on paper: drawn here, and read back by other code before it may leave."""
