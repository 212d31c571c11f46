"""Public training steps on TPUs, and the programs that they are made of."""
