"""Pages for people, rendered by the server. There are none yet."""
