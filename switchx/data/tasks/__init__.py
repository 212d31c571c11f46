"""What can be asked for by name: tasks and their sources, objectives and vocabularies."""
