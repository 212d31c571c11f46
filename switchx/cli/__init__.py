"""What did the user ask for? One thin file per command; flags and gin end here."""
