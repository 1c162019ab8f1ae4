"""HTTP in, HTTP out: a dozen lines a route. What is decided is decided below, what is kept, in the store."""
