"""The subcommands. Each module parses options, calls the modules outside this package, and prints the results."""
