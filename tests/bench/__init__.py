"""How fast, how soon, how much memory: the project's load generator and its benchmark."""
