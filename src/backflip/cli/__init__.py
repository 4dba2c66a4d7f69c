"""The command line: `main` finds the command, one file each holds what it does."""
