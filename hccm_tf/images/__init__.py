"""Images of a catalogue, wherever it says that they are, become pixels."""
