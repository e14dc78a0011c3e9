"""One module a command: each calls the parts in order and returns a report."""
