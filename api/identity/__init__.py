"""Identity v3: tokens, projects, users, roles and what others need to find their way."""
