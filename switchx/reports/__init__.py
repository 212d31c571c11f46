"""What does a person look at? Tables, curves and pictures, made from run directories."""
