//! Commands for people: arguments, output, exit codes.
