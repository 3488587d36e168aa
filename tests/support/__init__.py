"""What many tests share: a PostgreSQL server, and the world on loopback."""
