"""Batches from indexed files that `switchx data prepare` wrote: any of them at once, by number."""
