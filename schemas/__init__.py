"""What is said: requests, facts and resources, as plain data. Imports nothing of ours."""
