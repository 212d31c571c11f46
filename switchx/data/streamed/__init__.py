"""Batches straight from a task's sources, made by seqio and TensorFlow while the run goes on."""
