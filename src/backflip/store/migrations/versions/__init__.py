"""One step for each schema, named by its number; a step once released never changes."""
