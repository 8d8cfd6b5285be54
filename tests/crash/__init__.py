"""kill -9 of everything at random moments under load, and a checker that trusts none of it."""
