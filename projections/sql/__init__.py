"""SQL over history: asked by anybody of their own rows, answered by a process of its own."""
