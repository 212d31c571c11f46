"""Where do files lie? Reading, listing, whole-or-not-there writes, locks, retries."""
