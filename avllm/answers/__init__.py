"""What a written answer says: which option it chooses, yes or no, which words it holds. Texts alone, no model."""
