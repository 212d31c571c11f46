"""What did gin say? Files, macros, values, changes, and the typed configurations they become."""
