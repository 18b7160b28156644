"""The subcommands: each module reads options, calls the modules beside this package, and prints."""
