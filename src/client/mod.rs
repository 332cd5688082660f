//! What runs on a user's machine: the local Nix store, pushes, the client's own configuration.
